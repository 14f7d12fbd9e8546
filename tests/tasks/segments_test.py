"""Training on ratings of windows: the loss of rated pairs, evaluation, whole runs.

Logical devices must be set before TensorFlow starts, so another Python runs this file
as a script for the tests of two replicas.
"""

import itertools
import json
import pathlib
import re
import sys

import numpy as np
import pandas as pd
import processes
import pytest
import records as records_lib
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import extract_student
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.configs import classification as classification_config
from yt8m_distill.configs import data
from yt8m_distill.dataloaders import split_segments
from yt8m_distill.evaluation import report
from yt8m_distill.modeling import losses
from yt8m_distill.tasks import classification
from yt8m_distill.tasks import distillation
from yt8m_distill.trainer import progress
from yt8m_distill.utils import cli

pytestmark = pytest.mark.end_to_end

_SEGMENTS = 'yt8m_distill_segments'
_WINDOW = {'type': 'window', 'window': {'k': 4}}
# Without recurrence, a step takes a tenth of the time.
_AVERAGE = {'backbone': {'type': 'yt8m_average'}, 'head': {'type': 'logistic'}}
_AVERAGE_FLAGS = {
  'task__model__network__backbone__type': 'yt8m_average',
  'task__model__network__head__type': 'logistic',
}
_STUDENT = {'task': {'model': {'student': {'frames': _WINDOW}}}}


def _experiment(*overrides, experiment=_SEGMENTS):
  return tiny.experiment(
    {'task': {'labels': 'segments'}}, *overrides, experiment=experiment
  )


def _model(task, seed=0):
  model = task.create_model()
  tiny.scatter_weights(model, seed)
  return model


def _batch(task, path, rows=20):
  """The first rows of a file, as the task reads them."""
  params = data.VideoData(
    input_path=str(path), global_batch_size=rows, drop_remainder=False
  )
  return next(iter(task.build_inputs(params)))


@pytest.fixture(name='windows', scope='module')
def _windows(tmp_path_factory):
  """A file of 9 rated windows."""
  path = tmp_path_factory.mktemp('windows') / 'windows.tfrecord'
  tiny.write_windows(path, 9)
  return path


def _plain(predictions, labels, weights, kind):
  """The sum of a loss over the pairs, one after another, by the sum of weights."""
  total = 0.0
  for p, y, w in zip(predictions, labels, weights):
    for v in np.flatnonzero(w):
      if kind == 'hinge':
        total += w[v] * max(0.0, 1 - (2 * y[v] - 1) * (2 * p[v] - 1))
      elif kind == 'softmax':
        share = y[v] / max(1, y.sum())
        total -= w[v] * share * np.log((p[v] + 1e-5) / np.sum(w * (p + 1e-5)))
      else:
        total -= w[v] * np.log((p[v] if y[v] else 1 - p[v]) + 1e-5)
  return total / np.sum(weights)


@pytest.mark.parametrize('weak', [0.0, 0.25])
@pytest.mark.parametrize('kind', classification_config.LABEL_LOSSES)
def test_loss_of_rated_pairs_by_a_plain_loop(tmp_path, kind, weak):
  labels, rated, video_labels = tiny.write_windows(tmp_path / 'x.tfrecord', 9)
  values = {
    'label_kind': kind,
    'weak_negatives': weak,
    'regularization_penalty': 0.0,
  }
  if kind == 'weighted_cross_entropy':
    values['class_weights'] = str(tmp_path / 'weights.csv')
    rows = [f'{v},1' for v in range(tiny.CLASSES)]
    (tmp_path / 'weights.csv').write_text('\n'.join(['Index,Weight', *rows]))
  params = _experiment({'task': {'losses': values, 'model': {'network': _AVERAGE}}})
  task = classification.ClassificationTask(params.task)
  model = _model(task)
  inputs, positives = _batch(task, tmp_path / 'x.tfrecord')
  np.testing.assert_array_equal(positives, labels)
  np.testing.assert_array_equal(inputs['rated'], rated)
  weights = rated + weak * ~(rated | video_labels)
  predictions = model(inputs)['predictions'].numpy().astype(float)
  recorder = tiny.Recorder()
  logs = task.train_step((inputs, positives), model, recorder)
  expected = _plain(predictions, labels, weights, kind)
  np.testing.assert_allclose(logs['loss'], expected, rtol=1e-5)
  np.testing.assert_allclose(np.mean(logs['label_loss']), expected, rtol=1e-5)
  # The gradient is that of the plain sum.
  with tf.GradientTape() as tape:
    terms = losses.label_loss(
      labels, model(inputs)['predictions'], kind, weights=tf.cast(weights, tf.float32)
    )
    loss = tf.reduce_sum(terms) / np.sum(weights)
  for variable, gradient in zip(
    model.trainable_variables, tape.gradient(loss, model.trainable_variables)
  ):
    np.testing.assert_allclose(
      recorder.gradients[variable.ref()], gradient, rtol=1e-4, atol=1e-7
    )


def test_pairs_that_were_not_rated_have_no_influence(windows):
  task = classification.ClassificationTask(_experiment().task)
  inputs, positives = _batch(task, windows)
  kernel = tf.Variable(tf.random.stateless_uniform(positives.shape, [1, 2]))
  with tf.GradientTape() as tape:
    outputs = {'predictions': kernel}
    terms = task.loss_terms(positives, outputs, **task.pair_weights(inputs))
  gradient = tape.gradient(terms['label_loss'], kernel).numpy()
  np.testing.assert_array_equal(gradient != 0, inputs['rated'])


def test_distillation_losses_are_those_of_videos(windows):
  """Only the label losses know of ratings."""
  by_labels = {}
  for labels in ('segments', 'video'):
    params = _experiment(
      {'task': {'labels': labels}},
      _STUDENT,
      tiny.AVERAGES,
      experiment='yt8m_distill',
    )
    task = distillation.DistillationTask(params.task)
    model = _model(task)
    by_labels[labels] = task.train_step(_batch(task, windows), model, tiny.Recorder())
  rated, video = by_labels['segments'], by_labels['video']
  for name in ('representation', 'prediction'):
    np.testing.assert_array_equal(
      rated[f'student/{name}_loss'], video[f'student/{name}_loss']
    )
  for name in ('teacher', 'student'):
    key = f'{name}/label_loss'
    assert np.mean(rated[key]) != np.mean(video[key])
    assert f'{name}/gap' in video and f'{name}/gap' not in rated
  assert {metric.name for metric in task.build_metrics()} <= video.keys()


def test_student_sees_the_window_alone(windows):
  """Other frames change the teacher's predictions, and not the student's."""
  params = _experiment(_STUDENT, tiny.AVERAGES, experiment='yt8m_distill')
  task = distillation.DistillationTask(params.task)
  model = _model(task)
  inputs, _ = _batch(task, windows)
  places = np.arange(tiny.MAX_FRAMES)
  starts = inputs['window_start'].numpy()[:, np.newaxis]
  outside = (places < starts) | (places >= starts + 5)
  outside &= places < inputs['num_frames'].numpy()[:, np.newaxis]
  assert outside.any(1).sum() > 3
  frames = inputs['frames'].numpy()
  frames[outside] ^= 0xFF
  before, after = model(inputs), model({**inputs, 'frames': frames})
  np.testing.assert_array_equal(
    before['student']['predictions'], after['student']['predictions']
  )
  changed = before['teacher']['predictions'] != after['teacher']['predictions']
  np.testing.assert_array_equal(changed.numpy().any(1), outside.any(1))


@pytest.mark.parametrize(
  ('part', 'field', 'value', 'unset'),
  [('losses', 'weak_negatives', 0.5, 0), ('evaluation', 'classes', 'ids.csv', '')],
)
def test_what_needs_segments(part, field, value, unset):
  params = tiny.experiment({'task': {part: {field: value}}})
  with pytest.raises(ValueError) as error:
    params.validate()
  assert str(error.value) == (
    f"task.{part}.{field} is {value!r}, but task.labels is 'video': it applies to "
    f'ratings only. Set it to {unset!r}, or labels to segments.'
  )


def test_window_must_fit_the_frames():
  params = _experiment(
    {
      'task': {
        'model': {
          'max_frames': 4,
          'network': {
            'frames': {'type': 'window'},
            'backbone': {'type': 'yt8m_average'},
          },
        }
      }
    }
  )
  with pytest.raises(ValueError, match='frames.type is .window.: a window has 5 fram'):
    params.validate()


def _official(folder):
  """Official records of three videos, split with context; returns the pattern."""
  rng = np.random.default_rng(0)

  def video(number):
    starts = np.repeat([0, 5, 12], 2)
    return records_lib.random_frame_level(
      14,
      {'rgb': 8, 'audio': 4},
      [number, 7],
      rng,
      id=b'v%d' % number,
      segment_start_times=starts,
      segment_end_times=starts + 5,
      segment_labels=[1, 2] * 3,
      segment_scores=rng.integers(0, 2, 6).astype(np.float32),
    )

  (folder / 'official').mkdir()
  path = records_lib.write_shards(folder / 'official', [2, 1], video)
  split_segments.split(path, str(folder / 'windows'), context=2, workers=1)
  return f'{folder}/windows/*.tfrecord'


@pytest.mark.parametrize('network', ['student', 'teacher'])
def test_fine_tunes_a_network_of_a_distillation_run(distilled, tmp_path, network):
  run = tmp_path / 'run'
  values = {
    'student': {
      'task__model__network__frames__type': 'window',
      'task__model__network__frames__window__k': 4,
    },
    'teacher': {
      'task__model__network__frames__type': 'all',
      'task__model__network__backbone__hierarchical_lstm__chunks': 5,
    },
  }[network]
  windows = _official(tmp_path)
  for steps in (1, 3):
    tiny.drive(
      'train' if steps == 1 else 'train_and_eval',
      run,
      f"'{windows}'",
      _SEGMENTS,
      task__init_checkpoint=distilled,
      task__init_network=network,
      trainer__train_steps=steps,
      trainer__optimizer_config__learning_rate__exponential__initial_learning_rate=(
        1e-30 if steps == 1 else 0.01  # 1e-30 changes no weight
      ),
      **values,
    )
    weights = trained_network.Network(str(run)).network.get_weights()
    before = trained_network.Network(str(distilled), network).network.get_weights()
    equal = all(np.array_equal(*pair) for pair in zip(weights, before, strict=True))
    assert equal == (steps == 1)
  evaluation = json.loads((run / 'evaluation.json').read_text())
  assert evaluation['videos'] == 9 and evaluation['step'] == 3
  assert set(evaluation['metrics']) == {'map_at_k', 'label_loss'}
  table = report.table([str(run)])
  assert '9 windows of ' in table and '| GFLOPs per window | ' in table
  assert '| run ' in table and '| MAP@K ' in table
  assert 'GAP' not in table and 'class frequency' not in table
  best = json.loads((run / 'best_ckpt' / 'info.json').read_text())
  assert best['map_at_k'] == evaluation['metrics']['map_at_k']


def test_evaluation_of_the_start_is_a_run_to_report(distilled, windows, tmp_path):
  run = tmp_path / 'before'
  for k in (4, 2):  # The second replaces the first.
    tiny.drive(
      'eval',
      run,
      windows,
      task__labels='segments',
      task__init_checkpoint=distilled,
      task__model__student__frames__type='window',
      task__model__student__frames__window__k=k,
      trainer__best_checkpoint_eval_metric='student/map_at_k',
    )
    assert json.loads((run / 'evaluation.json').read_text())['step'] == 0
    table = report.table([str(run)])
    assert re.search(r'\| teacher +\| 20 +\|', table)
    assert re.search(rf'\| student +\| {k} \({5 * k}%\) +\|', table)
    assert not list(run.glob('ckpt*'))


def test_distills_in_time_from_a_distillation_run(distilled, tmp_path):
  run = tmp_path / 'run'
  windows = f"'{_official(tmp_path)}'"
  tiny.drive(
    'train_and_eval',
    run,
    windows,
    task__labels='segments',
    task__student_experiment=_SEGMENTS,
    task__init_checkpoint=distilled,
    task__model__student__frames__type='window',
    task__model__student__frames__window__k=4,
    trainer__best_checkpoint_eval_metric='student/map_at_k',
  )
  metrics = json.loads((run / 'evaluation.json').read_text())['metrics']
  assert set(metrics) == {
    'teacher/map_at_k',
    'teacher/label_loss',
    'student/map_at_k',
    'student/label_loss',
    'student/representation_loss',
    'student/prediction_loss',
  }
  student = tmp_path / 'student'
  extract_student.extract(str(run), str(student))
  tiny.run_driver(
    'eval',
    student,
    f'--config_file={student}/params.yaml',
    experiment=_SEGMENTS,
    sized=False,
  )
  alone = json.loads((student / 'evaluation.json').read_text())['metrics']
  for name in ('label_loss', 'map_at_k'):
    np.testing.assert_allclose(alone[name], metrics[f'student/{name}'], 1e-5)


def test_only_frames_may_differ_from_the_networks_of_the_start(distilled):
  chunks = {'backbone': {'hierarchical_lstm': {'chunks': 4}}}
  for values, word in (
    ({'frames': _WINDOW}, ''),
    ({'frames': _WINDOW, **chunks}, ''),
    (chunks, 'chunks is 2 in its params.yaml, 4 in this'),
    ({'head': {'moe': {'num_mixtures': 3}}}, 'num_mixtures is 2'),
  ):
    params = _experiment(
      {'task': {'model': {'student': values}, 'init_checkpoint': str(distilled)}},
      experiment='yt8m_distill',
    )
    task = distillation.DistillationTask(params.task)
    model = task.build_model()
    if word:
      with pytest.raises(ValueError, match=word):
        task.initialize(model)
    else:
      task.initialize(model)
      expected = trained_network.Network(str(distilled)).network.get_weights()
      for value, other in zip(model.student.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(value, other)


@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_a_run_of_segments_reads_no_ordinary_records(
  records, distilled, tmp_path, mode
):
  run = tmp_path / 'run' if mode == 'train' else _saved(tmp_path / 'run')
  with pytest.raises((ValueError, tf.errors.InvalidArgumentError)) as error:
    tiny.drive(mode, run, records, _SEGMENTS, task__init_checkpoint=distilled)
  message = cli.message(error.value)
  assert re.match(
    rf'{records}, record \d \(id v00\d\): segment_labels has 0 values .* '
    'Set input_path to records that yt8m-distill split-segments wrote',
    message,
  )
  assert '\n' not in message


def _train_on_videos(folder, records):
  """Trains and evaluates one network on labels of videos; returns its run."""
  run = folder / 'run'
  tiny.drive(
    'train_and_eval', run, f"'{records}'", 'yt8m_distill_single', **_AVERAGE_FLAGS
  )
  return run


@pytest.fixture(name='trained', scope='module')
def _trained(tmp_path_factory):
  """A run on official records, the folder official/ beside it, without recurrence."""
  folder = tmp_path_factory.mktemp('trained')
  _official(folder)
  return _train_on_videos(folder, folder / 'official' / '*.tfrecord')


def test_a_run_of_videos_reads_official_records_as_any_others(trained, tmp_path):
  def strip(_, video):
    for key in [k for k in video.context.feature if k.startswith('segment_')]:
      del video.context.feature[key]

  for path in (trained.parent / 'official').iterdir():
    records_lib.edit(path, tmp_path / path.name, strip)
  _assert_equal_runs(trained, _train_on_videos(tmp_path, tmp_path / '*.tfrecord'))


def _assert_equal_runs(run, expected, step=3):
  """Compares weights, the optimizer's state and the evaluation; bit for bit."""
  values, wanted = (
    tiny.checkpoint_values(folder / f'ckpt-{step}') for folder in (run, expected)
  )
  assert values.keys() == wanted.keys()
  for name, value in wanted.items():
    np.testing.assert_array_equal(values[name], value, err_msg=name)
  found, wanted = (
    json.loads((folder / 'evaluation.json').read_text()) for folder in (run, expected)
  )
  assert wanted['step'] == step
  assert {**found, 'input_path': ''} == {**wanted, 'input_path': ''}
  table, wanted = ((folder / 'per_class.csv').read_text() for folder in (run, expected))
  assert table == wanted


def _saved(folder):
  """A run of one network with random weights that was not evaluated."""
  model = _model(classification.ClassificationTask(_experiment().task))
  tf.train.CheckpointManager(
    tf.train.Checkpoint(model=model, global_step=tf.Variable(3, dtype=tf.int64)),
    str(folder),
    1,
  ).save(3)
  return folder


def test_evaluation_is_exact_for_any_batches(windows, tmp_path):
  run = _saved(tmp_path / 'run')
  task = classification.ClassificationTask(_experiment().task)
  model = _model(task)
  inputs, labels = _batch(task, windows)
  expected = _plain(
    model(inputs)['predictions'].numpy(),
    labels.numpy(),
    inputs['rated'].numpy().astype(float),
    'cross_entropy',
  )
  (tmp_path / 'classes.csv').write_text('Index\n7\n2\n3\n')
  for size, classes in ((2, ''), (9, ''), (2, tmp_path / 'classes.csv')):
    tiny.drive(
      'eval',
      run,
      windows,
      _SEGMENTS,
      task__validation_data__global_batch_size=size,
      task__evaluation__max_windows=3,
      task__evaluation__classes=f"'{classes}'",
    )
    scored = [7, 2, 3] if classes else list(range(tiny.CLASSES))
    precisions = np.full(tiny.CLASSES, np.nan)
    precisions[scored] = [
      _average_precision(
        model(inputs)['predictions'].numpy()[:, c],
        inputs['rated'].numpy()[:, c],
        labels.numpy()[:, c],
      )
      for c in scored
    ]
    evaluation = json.loads((run / 'evaluation.json').read_text())
    np.testing.assert_allclose(evaluation['metrics']['label_loss'], expected, 1e-5)
    np.testing.assert_allclose(
      evaluation['metrics']['map_at_k'], np.nanmean(precisions), 1e-5
    )
    assert evaluation['num_classes'] == len(scored)
    assert (
      evaluation['classes_with_positives'] == labels.numpy()[:, scored].any(0).sum()
    )
    table = pd.read_csv(run / 'per_class.csv')
    assert list(table) == ['index', 'positives', 'average_precision']
    np.testing.assert_array_equal(table['positives'], labels.numpy().sum(0))
    np.testing.assert_allclose(table['average_precision'], precisions, 1e-5)


def _average_precision(scores, rated, holds, k=3):
  """Of one class, from the definition of MAP@K; NaN without a rated positive."""
  first = np.argsort(-scores, kind='stable')[:k]
  hits = [holds[window] for window in first if rated[window]]
  found = [np.mean(hits[: place + 1]) for place, hit in enumerate(hits) if hit]
  positives = np.count_nonzero(holds & rated)
  return sum(found) / positives if positives else np.nan


class _KilledError(BaseException):
  """Ends a run as suddenly as a kill: no handler of errors sees it."""


def test_killed_run_equals_one_that_never_stopped(
  windows, trained, tmp_path, monkeypatch
):
  def train(run):
    tiny.drive(
      'train_and_eval',
      run,
      windows,
      _SEGMENTS,
      task__init_checkpoint=trained,
      task__losses__weak_negatives=0.1,
      task__evaluation__max_windows=5,
      task__model__network__frames__type='window',
      task__model__network__frames__window__k=4,
      trainer__train_steps=4,
      trainer__validation_interval=2,
      trainer__checkpoint_interval=2,
      **_AVERAGE_FLAGS,
    )

  steps = itertools.count(1)

  def kill(*_):
    if next(steps) == 3:
      raise _KilledError

  with monkeypatch.context() as patch, pytest.raises(_KilledError):
    patch.setattr(progress.Progress, '__call__', kill)
    train(tmp_path / 'killed')
  # So step 2, which was evaluated, is trained again.
  assert tf.train.latest_checkpoint(str(tmp_path / 'killed')).endswith('ckpt-1')
  for name in ('killed', 'whole'):
    train(tmp_path / name)
  _assert_equal_runs(tmp_path / 'killed', tmp_path / 'whole', 4)


# Rows of replica 0 and 1.
_SHARES = (3, 2), (5, 0)


def _train(replicas, windows):
  """Two steps; returns losses averaged over the replicas, and weights."""
  strategy = tf.distribute.MirroredStrategy(
    [f'cpu:{number}' for number in range(replicas)],
    tf.distribute.ReductionToOneDevice(),
  )
  params = _experiment(
    _STUDENT,
    tiny.AVERAGES,
    {
      'task': {'losses': {'weak_negatives': 0.1}},
      'trainer': {'optimizer_config': {'optimizer': {'adam': {'epsilon': 1e-2}}}},
    },
    experiment='yt8m_distill',
  )
  with strategy.scope():
    task = distillation.DistillationTask(params.task)
    model = _model(task)
    optimizer = task.create_optimizer(params.trainer.optimizer_config, params.runtime)
  losses_seen = []
  for number, shares in enumerate(_SHARES):
    rows = shares if replicas == 2 else [sum(shares)]
    starts = np.cumsum([0, *rows])
    batch = _batch(task, windows[number], sum(shares))

    def part(context, batch=batch, starts=starts):
      i = context.replica_id_in_sync_group
      return tf.nest.map_structure(lambda v: v[starts[i] : starts[i + 1]], batch)

    inputs = strategy.experimental_distribute_values_from_function(part)
    logs = strategy.run(task.train_step, args=(inputs, model, optimizer))
    losses_seen.append(np.mean(strategy.experimental_local_results(logs['loss'])))
  return {'losses': losses_seen, **dict(enumerate(model.get_weights()))}


def test_two_replicas_train_as_one_does(tmp_path):
  processes.forked(__file__, tmp_path)
  one, two = (np.load(tmp_path / f'{n}.npz') for n in (1, 2))
  assert one['losses'][0] != one['losses'][1]
  for name in one.files:
    np.testing.assert_allclose(two[name], one[name], rtol=1e-5, atol=1e-6, err_msg=name)


def _main(folder):
  """What the other Python does."""
  tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices('CPU')[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
  )
  tf.config.run_functions_eagerly(True)
  windows = [folder / f'{number}.tfrecord' for number in range(2)]
  for number, path in enumerate(windows):
    tiny.write_windows(path, 5, seed=number)
  for replicas in (1, 2):
    values = _train(replicas, windows)
    np.savez(folder / f'{replicas}.npz', **{str(k): v for k, v in values.items()})


if __name__ == '__main__':
  _main(pathlib.Path(sys.argv[1]))
