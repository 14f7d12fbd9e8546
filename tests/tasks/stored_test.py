"""Stored training: the teacher's answers are in the records."""

import json

import numpy as np
import pytest
import serving_cases
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import extract_student
from yt8m_distill.checkpoints import restore
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.serving import predict
from yt8m_distill.serving import teach as teach_lib
from yt8m_distill.tasks import classification
from yt8m_distill.tasks import distillation
from yt8m_distill.tasks import stored

pytestmark = pytest.mark.end_to_end

_STORED = 'yt8m_distill_stored'
_SIZES = {'every_n': tiny.EVERY_N, 'max_frames': tiny.MAX_FRAMES}
_STEPS = 5
# A student with another width of representation than the teacher.
_NARROW = {'task__model__network__backbone__hierarchical_lstm__num_cells': 3}
# A student of rated windows.
_WINDOW = {
  'frames': {'type': 'window'},
  'backbone': {'hierarchical_lstm': {'chunks': 5}},
}
# Between the losses of serial and of stored training, and between the weights after
# _STEPS steps: the teacher saw the videos in other batches.
_LOSS, _WEIGHTS = 1e-5, 1e-6  # measured: 8e-7, 3e-8


def _teach(models, records, out, **arguments):
  """Teaches a file; returns the path of the new one."""
  arguments = {**_SIZES, 'workers': 1, **arguments}
  [path] = teach_lib.teach(models, str(records), str(out), **arguments)
  return path


@pytest.fixture(name='teachers', scope='module')
def _teachers(tmp_path_factory):
  """Two distillation runs with random weights."""
  where = tmp_path_factory.mktemp('teachers')
  scales = {'first': 0.5, 'second': 0.4}
  return [serving_cases.write_run(where / name, scale=v) for name, v in scales.items()]


@pytest.fixture(name='exact', scope='module')
def _exact(teachers, records, tmp_path_factory):
  """All that the first teacher says."""
  out = tmp_path_factory.mktemp('exact') / 'out'
  return _teach(teachers[:1], records, out, top_k=tiny.CLASSES, dtype='float32')


@pytest.fixture(name='other', scope='module')
def _other(teachers, records, tmp_path_factory):
  """What the second teacher says."""
  return _teach(teachers[1:], records, tmp_path_factory.mktemp('other') / 'out')


def _task(experiment, logging_dir=None, **task):
  params = tiny.experiment({'task': task}, experiment=experiment)
  kind = stored.StoredTask if experiment == _STORED else distillation.DistillationTask
  return kind(params.task, logging_dir and str(logging_dir)), params


def _stored(path, logging_dir=None, **task):
  data = {'input_path': str(path), 'global_batch_size': 4}
  return _task(_STORED, logging_dir, train_data=data, **task)[0]


def _train(experiment, path, start, **task):
  """Trains some steps; returns losses by step, and the student."""
  data = {'input_path': str(path), 'global_batch_size': 4, 'seed': 3}
  task, params = _task(experiment, train_data=data, init_checkpoint=start, **task)
  model = task.build_model()
  task.initialize(model)
  optimizer = task.create_optimizer(params.trainer.optimizer_config)
  losses = []
  for batch in task.build_inputs(task.task_config.train_data).take(_STEPS):
    logs = task.train_step(batch, model, optimizer)
    losses.append(
      {k: np.mean(v) for k, v in logs.items() if not k.startswith('teacher/')}
    )
  return losses, task.networks(model)[task.prefixes[-1]]


@pytest.mark.parametrize(
  'change, dropout',
  [
    ({'representation_weight': 1.0}, 0.5),  # Frames and dropout of one seed.
    ({'prediction_kind': 'mse', 'prediction_reduction': 'sum'}, 0.0),
    ({'prediction_kind': 'bce', 'label_weight': 0.5}, 0.0),
    (
      {
        'prediction_temperature': 2.0,
        'schedule': {'type': 'linear', 'start': 1.0, 'end': 0.0, 'steps': 8},
      },
      0.0,
    ),
  ],
)
def test_student_learns_as_in_serial_training(
  records, teachers, exact, change, dropout
):
  student = {'dropout': dropout}
  serial = _train(
    'yt8m_distill',
    records,
    teachers[0],
    training='serial',
    losses=change,
    model={'student': student},
  )
  stored_ = _train(
    _STORED, exact, teachers[0], losses=change, model={'network': student}
  )
  _assert_equal(serial, stored_)


def _assert_equal(serial, stored_):
  """Asserts that _train() returned the same of serial and of stored training."""
  for one, other in zip(serial[0], stored_[0], strict=True):
    one = {name.removeprefix('student/'): value for name, value in one.items()}
    assert one.keys() == other.keys()
    for name, value in one.items():
      np.testing.assert_allclose(other[name], value, rtol=_LOSS, err_msg=name)
  for one, other in zip(serial[1].get_weights(), stored_[1].get_weights(), strict=True):
    np.testing.assert_allclose(other, one, rtol=0, atol=_WEIGHTS)
  assert serial[0][0]['student/prediction_loss'] > 1e-3


def test_student_of_rated_windows_learns_as_in_serial_training(teachers, tmp_path):
  windows = tmp_path / 'windows.tfrecord'
  tiny.write_windows(windows, 9)
  values = {'top_k': tiny.CLASSES, 'dtype': 'float32', 'every_n': 1}
  taught = _teach(teachers[:1], windows, tmp_path / 'out', **values)
  rated = {'labels': 'segments', 'losses': {'weak_negatives': 0.5}}
  serial = _train(
    'yt8m_distill',
    windows,
    teachers[0],
    training='serial',
    model={'student': _WINDOW},
    **rated,
  )
  stored_ = _train(_STORED, taught, teachers[0], model={'network': _WINDOW}, **rated)
  _assert_equal(serial, stored_)
  run = tmp_path / 'run'
  _drive(
    run,
    taught,
    windows,
    task__labels='segments',
    task__model__network__frames__type='window',
    task__model__network__backbone__hierarchical_lstm__chunks=5,
    trainer__best_checkpoint_eval_metric='map_at_k',
  )
  metrics = json.loads((run / 'evaluation.json').read_text())['metrics']
  assert 'map_at_k' in metrics and 'gap' not in metrics


def test_thinned_windows_are_refused(teachers, tmp_path):
  tiny.write_windows(tmp_path / 'windows.tfrecord', 9)
  taught = _teach(teachers[:1], tmp_path / 'windows.tfrecord', tmp_path / 'out')
  task = _stored(taught, labels='segments', model={'network': _WINDOW})
  with pytest.raises(
    ValueError,
    match='thinned with every_n=5, but a network sees frames of type window.* Set '
    'input_path to the full records',
  ):
    next(iter(task.build_inputs(task.task_config.train_data)))


def test_classes_that_are_not_stored_share_the_rest():
  answers = {
    'classes': tf.constant([[2, 0], [1, 4]]),
    'probabilities': tf.constant([[0.5, 0.25], [1.0, 0.5]], tf.float16),
    'rest': tf.constant([0.3, 0.0]),
  }
  np.testing.assert_allclose(
    stored.predictions_of(answers, 5),
    [[0.25, 0.1, 0.5, 0.1, 0.1], [0.0, 1.0, 0.0, 0.0, 0.5]],
    rtol=1e-6,
  )


@pytest.fixture(name='run', scope='module')
def _run(exact, records, tmp_path_factory):
  """A run with a projection, to a wider teacher, evaluated on full records."""
  run = tmp_path_factory.mktemp('stored') / 'run'
  _drive(run, exact, records)
  return run


def _drive(run, taught, records, **values):
  tiny.drive(
    'train_and_eval',
    run,
    records,
    _STORED,
    **{
      'task__train_data__input_path': taught,
      **_NARROW,
      'task__model__projected_size': 8,
      'trainer__checkpoint_interval': 2,
      'trainer__train_steps': 4,
      'trainer__validation_interval': 4,
      **values,
    },
  )


def test_run_holds_one_network_and_the_projection(run):
  names = tiny.checkpoint_values(run / 'ckpt-4')
  assert [name for name in names if name.startswith('model/projection/kernel/')]
  assert not [name for name in names if 'teacher' in name]
  results = json.loads((run / 'evaluation.json').read_text())
  assert set(results['networks']) == {'network'}
  losses = {name for name in results['metrics'] if name.endswith('loss')}
  assert losses == {'label_loss'}


def test_projection_learns(run):
  first, last = (
    tiny.checkpoint_values(run / f'ckpt-{step}')[
      'model/projection/kernel/.ATTRIBUTES/VARIABLE_VALUE'
    ]
    for step in (1, 4)
  )
  assert first.shape == (6, 8) and (first != last).any()


def test_resumed_run_equals_one_that_never_stopped(run, exact, records, tmp_path):
  for steps in (2, 4):
    _drive(tmp_path / 'run', exact, records, trainer__train_steps=steps)
  expected = tiny.checkpoint_values(run / 'ckpt-4')
  for name, value in tiny.checkpoint_values(tmp_path / 'run/ckpt-4').items():
    np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_commands_take_the_run(run, records, tmp_path):
  network = trained_network.Network(str(run))
  predict.predict([str(run)], str(records), str(tmp_path / 'predicted'))
  extract_student.extract(str(run), str(tmp_path / 'extracted'))
  extracted = trained_network.Network(str(tmp_path / 'extracted'))
  for source in (str(run), str(tmp_path / 'extracted')):
    task = classification.ClassificationTask(
      tiny.experiment(
        {
          'task': {
            'init_checkpoint': source,
            'model': {'network': {'backbone': {'hierarchical_lstm': {'num_cells': 3}}}},
          }
        },
        experiment='yt8m_distill_finetune',
      ).task
    )
    tuned = task.build_model()
    task.initialize(tuned)
    for one, two, three in zip(
      network.network.get_weights(),
      extracted.network.get_weights(),
      tuned.get_weights(),
    ):
      np.testing.assert_array_equal(one, two)
      np.testing.assert_array_equal(one, three)
  tiny.drive('eval', tmp_path / 'extracted', records, _STORED, **_NARROW)
  before, now = (
    json.loads((folder / 'evaluation.json').read_text())['metrics']['gap']
    for folder in (run, tmp_path / 'extracted')
  )
  assert now == before


def test_another_teacher_does_not_resume_a_run(run, other, records):
  with pytest.raises(
    ValueError, match=r'out/videos.tfrecord was taught by \w+, but the run in .* learns'
  ):
    _drive(run, other, records, trainer__train_steps=5)


def test_records_of_two_teachers_are_refused(exact, other):
  task = _stored(f'{exact},{other}')
  task.build_model()
  with pytest.raises(tf.errors.InvalidArgumentError, match='taught by .* by '):
    list(task.build_inputs(task.task_config.train_data).take(4))


def test_records_without_answers_are_refused(records):
  with pytest.raises(ValueError, match='so it was not taught. Set input_path'):
    _stored(records).check_start()


def test_other_frames_are_refused(exact):
  task = _stored(
    exact,
    model={
      'network': {
        'frames': {'uniform': {'every_n': 4}},
        'backbone': {'hierarchical_lstm': {'chunks': 5}},
      }
    },
  )
  task.build_model()
  with pytest.raises(
    ValueError,
    match='thinned with every_n=5, but .* every_n=4',
  ):
    next(iter(task.build_inputs(task.task_config.train_data)))


def test_other_classes_are_refused(exact):
  with pytest.raises(ValueError, match='num_classes is 13, but .* has 12 classes'):
    _stored(exact, model={'num_classes': 13}).check_start()


def test_several_teachers_have_no_representation(teachers, records, tmp_path):
  path = _teach(teachers, records, tmp_path / 'out')
  for weight in (1.0, 0.0):
    task = _stored(path, losses={'representation_weight': weight})
    model, data = task.build_model(), task.task_config.train_data
    if weight:
      with pytest.raises(ValueError, match='weight is 1.0, but the records hold no'):
        task.build_inputs(data)
    else:
      logs = task.train_step(
        next(iter(task.build_inputs(data))), model, tiny.Recorder()
      )
      assert 'prediction_loss' in logs and 'representation_loss' not in logs


@pytest.mark.parametrize(
  'cells, size, remedy', [(3, 0, 8), (4, 5, 0)], ids=['missing', 'wrong']
)
def test_other_widths_are_refused(exact, cells, size, remedy):
  network = {'backbone': {'hierarchical_lstm': {'num_cells': cells}}}
  task = _stored(exact, model={'network': network, 'projected_size': size})
  task.build_model()
  with pytest.raises(
    ValueError,
    match=f"projected_size is {size}, but .* the teacher's 8. Set it to {remedy}",
  ):
    task.build_inputs(task.task_config.train_data)


def test_states_cannot_be_compared():
  with pytest.raises(ValueError, match='intermediate_weight is 0.1: records hold no'):
    _task(_STORED, losses={'intermediate_weight': 0.1})


def test_a_run_with_a_projection_is_not_one_without(run):
  task = _stored(
    'x', run, model={'network': {'backbone': {'hierarchical_lstm': {'num_cells': 3}}}}
  )
  with pytest.raises(ValueError, match='projected_size is 8 in its params.yaml, 0'):
    task.build_model()
  assert restore.path_of(str(run / 'ckpt-4'), 'student') == 'model/network'
