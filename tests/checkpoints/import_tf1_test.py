"""Checkpoints of the original code become runs that compute the same.

Tolerance of predictions and representations after import: 2e-6 of the largest
value.
"""

import csv
import shutil

import golden_cases
import numpy as np
from official.core import task_factory
import paths
import processes
import pytest
import records as records_lib
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import import_tf1
from yt8m_distill.checkpoints import run_dir
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.serving import export
from yt8m_distill.serving import predict

pytestmark = pytest.mark.golden

_CHECKPOINTS = paths.GOLDEN / 'tf1_checkpoint'
_KINDS = ('teacher_student', 'student')
_SETTINGS = dict(
  every_n=10,
  student_chunks=3,
  teacher_chunks=4,
  max_frames=60,
  features=['rgb:12', 'audio:4'],
)
_GATES = 'model_student/classifier/gates/weights'


@pytest.fixture(name='case', scope='module')
def _case():
  return golden_cases.Case('paper_every10')


@pytest.fixture(name='imported', scope='module')
def _imported(tmp_path_factory):
  """The folders of both kinds, imported by prefix and by folder."""
  folder = tmp_path_factory.mktemp('imported')
  sources = (_CHECKPOINTS / 'teacher_student/model.ckpt-6', _CHECKPOINTS / 'student')
  for kind, source in zip(_KINDS, sources):
    import_tf1.convert(str(source), str(folder / kind), **_SETTINGS)
  return folder


def _raw(kind):
  """All values of an original checkpoint."""
  reader = tf.train.load_checkpoint(str(_CHECKPOINTS / kind))
  return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def _convert(source, out, **settings):
  import_tf1.convert(str(source), str(out), **{**_SETTINGS, **settings})


@pytest.mark.parametrize(
  'kind, name, inputs',
  [
    ('teacher_student', 'teacher', 'inputs'),
    ('teacher_student', 'student', 'student_inputs'),
    ('student', 'student', 'student_inputs'),
  ],
)
def test_imported_network_computes_the_same(case, imported, kind, name, inputs):
  network = trained_network.Network(str(imported / kind), name).network
  outputs = network(getattr(case, inputs)())
  for ours, theirs in (('predictions', 'predictions'), ('representation', 'state')):
    assert golden_cases.error(outputs[ours], case[f'after3/{name}_{theirs}']) < 2e-6


def test_imported_pair_computes_the_same_from_all_frames(case, imported):
  params = run_dir.read_params(str(imported / 'teacher_student/params.yaml'))
  task = task_factory.get_task(
    params.task, logging_dir=str(imported / 'teacher_student')
  )
  outputs = task.build_model()(case.inputs())
  for who in ('teacher', 'student'):
    assert (
      golden_cases.error(outputs[who]['predictions'], case[f'after3/{who}_predictions'])
      < 2e-6
    )


@pytest.mark.parametrize(
  'kind, gin_file, experiment',
  [
    ('teacher_student', 'original.gin', 'yt8m_distill'),
    ('student', 'original_finetune.gin', 'yt8m_distill_finetune'),
  ],
)
def test_configuration_is_that_of_the_gin_file(
  case, imported, kind, gin_file, experiment
):
  expected = case.experiment(gin_file, experiment, ['yt8m_distill.batch_size = 256'])
  actual = run_dir.read_params(str(imported / kind / 'params.yaml'))
  assert actual.as_dict() == expected.as_dict()


@pytest.mark.parametrize('kind, step', [('teacher_student', 3), ('student', 6)])
def test_step_of_a_pair_is_half_the_global_step(imported, kind, step):
  assert _raw(kind)['global_step'] == 6
  assert trained_network.Network(str(imported / kind)).step == step
  assert run_dir.checkpoint(str(imported / kind)).endswith(f'/ckpt-{step}')


@pytest.mark.parametrize(
  'kind, experiment, metric',
  [
    ('teacher_student', 'yt8m_distill', 'teacher/gap'),
    ('student', 'yt8m_distill_finetune', 'gap'),
  ],
)
def test_driver_evaluates_and_will_not_train_it(
  imported, tmp_path, kind, experiment, metric
):
  run = shutil.copytree(imported / kind, tmp_path / 'run')
  records = tmp_path / 'validate.tfrecord'
  _write(
    records, np.random.default_rng(0).integers(256, size=[3, 25, 16], dtype=np.uint8)
  )
  arguments = [
    f'--config_file={run}/params.yaml',
    tiny.override(
      task__validation_data__input_path=records,
      task__validation_data__global_batch_size=2,
      task__train_data__input_path=records,
      task__train_data__global_batch_size=2,
    ),
  ]
  with tiny.eagerly():

    def drive(mode):
      return tiny.run_driver(mode, run, *arguments, experiment=experiment, sized=False)

    drive('eval')
    results = run_dir.read_evaluation(str(run))
    assert results['step'] == (3 if kind == 'teacher_student' else 6)
    assert results['videos'] == 3 and 0 <= results['metrics'][metric] <= 1
    with pytest.raises(ValueError, match='Set task.init_checkpoint to it'):
      drive('train')


def _write(path, videos):
  """Videos uint8 [frames, 16], rgb 12 and audio 4."""
  records_lib.write(
    path,
    [
      records_lib.frame_level(
        {'rgb': frames[:, :12], 'audio': frames[:, 12:]}, [label], id=b'v'
      )
      for label, frames in enumerate(videos)
    ],
  )


def test_exported_it_predicts_the_same(case, imported, tmp_path):
  inputs = case.inputs()
  expected = case['after3/student_predictions']
  out = tmp_path / 'export'
  export.export(str(imported / 'student'), str(out))
  served = tf.saved_model.load(str(out)).signatures['frames'](**inputs)
  assert golden_cases.error(served['predictions'], expected) < 2e-6

  records = tmp_path / 'some.tfrecord'
  _write(
    records,
    [
      frames[:count]
      for frames, count in zip(inputs['frames'].numpy(), inputs['num_frames'])
    ],
  )
  predict.predict([str(out)], str(records), str(tmp_path / 'predicted'))
  with open(tmp_path / 'predicted' / 'some.csv', encoding='utf-8') as file:
    rows = list(csv.reader(file))[1:]
  assert len(rows) == len(expected)
  for (_, pairs), row in zip(rows, expected):
    values = pairs.split()
    np.testing.assert_allclose(
      np.float64(values[1::2]), row[np.int32(values[::2])], atol=2e-6
    )


@pytest.mark.parametrize('kind', _KINDS)
def test_fine_tuning_starts_from_it(case, imported, kind):
  params = case.experiment('original_finetune.gin', 'yt8m_distill_finetune')
  params.task.init_checkpoint = str(imported / kind)
  task = task_factory.get_task(params.task)
  model = task.build_model()
  task.initialize(model)
  for variable, value in case.network_variables(model, 'step3/w/model_student/'):
    np.testing.assert_array_equal(variable, value, variable.name)


def test_one_layer_and_other_mixtures_are_inferred(tmp_path):
  rng = np.random.default_rng(0)
  cells, features, classes, mixtures = 3, 7, 5, 4
  shapes = {
    'classifier/gates/weights': [2 * cells, classes * (mixtures + 1)],
    'classifier/experts/weights': [2 * cells, classes * mixtures],
    'classifier/experts/biases': [classes * mixtures],
  }
  for level, size in (('L1', features), ('L2', 2 * cells)):
    cell = f'RNN_{level}/rnn/multi_rnn_cell/cell_0/basic_lstm_cell'
    shapes[f'{cell}/kernel'] = [size + cells, 4 * cells]
    shapes[f'{cell}/bias'] = [4 * cells]
  values = {
    f'model_student/{name}': rng.normal(size=shape).astype(np.float32)
    for name, shape in shapes.items()
  }
  source = golden_cases.save_tf1(tmp_path, {**values, 'global_step': np.int32(9)})
  _convert(source, tmp_path / 'out', features=['audio:7'])
  network = trained_network.Network(str(tmp_path / 'out'))
  lstm = network.model.network.backbone.hierarchical_lstm
  assert (lstm.num_cells, lstm.num_layers) == (cells, 1)
  assert network.model.num_classes == classes
  assert network.model.network.head.moe.num_mixtures == mixtures
  np.testing.assert_array_equal(network.network.head.gates.kernel, values[_GATES])


def _without(name):
  values = _raw('student')
  del values[name]
  return values


_BIAS = 'model/classifier/experts/biases'


@pytest.mark.parametrize(
  'values, message',
  [
    (lambda: _without(_GATES), f'{_GATES}: absent'),
    (
      lambda: _without('model_student/classifier/experts/biases'),
      'experts/biases: absent in the checkpoint, [22] in the original',
    ),
    (lambda: _without('global_step'), 'global_step: absent'),
    (
      lambda: {**_raw('student'), 'model_student/attention': np.zeros(3)},
      'model_student/attention: [3] in the checkpoint, absent in the original',
    ),
    (
      lambda: {**_raw('student'), _BIAS: np.zeros(22, np.float32)},
      'model/RNN_L1/rnn/multi_rnn_cell/cell_0/basic_lstm_cell/bias: absent',
    ),
    (
      lambda: {**_raw('teacher_student'), _BIAS: np.zeros(33, np.float32)},
      f'{_BIAS}: [33] in the checkpoint, [22] in the original',
    ),
  ],
)
def test_other_code_is_named(tmp_path, values, message):
  source = golden_cases.save_tf1(tmp_path, values())
  with pytest.raises(ValueError) as error:
    _convert(source, tmp_path / 'out')
  assert f'{source} is not a checkpoint of the authors' in str(error.value)
  assert message in str(error.value)
  assert not (tmp_path / 'out').exists()


def test_run_of_this_package_needs_no_import(imported, tmp_path):
  with pytest.raises(ValueError, match='needs no import'):
    _convert(imported / 'student', tmp_path / 'out')


@pytest.mark.parametrize(
  'settings, message',
  [
    (
      dict(features=['rgb:12']),
      '--features=rgb:12 are 12 values per frame, but .*ckpt-6 has 16',
    ),
    (dict(features=['rgb']), "--features has the item 'rgb'"),
    (dict(student_chunks=4), 'chunks is 4: .* the 6 frames'),
    (dict(teacher_chunks=7), 'chunks is 7: .* the 60 frames'),
    (dict(every_n=61), 'every_n is 61'),
  ],
)
def test_settings_that_do_not_fit_are_named(tmp_path, settings, message):
  with pytest.raises(ValueError, match=message):
    _convert(_CHECKPOINTS / 'teacher_student', tmp_path / 'out', **settings)
  assert not list(tmp_path.iterdir())


def test_student_alone_needs_no_teacher_chunks(tmp_path):
  _convert(_CHECKPOINTS / 'student', tmp_path / 'out', teacher_chunks=7)


def test_missing_or_unreadable_checkpoint_is_an_error(tmp_path):
  for path, what in (
    (tmp_path / 'model.ckpt', 'not the prefix of'),
    (tmp_path, 'a folder without'),
  ):
    with pytest.raises(
      ValueError, match=f"^{path} is {what} a checkpoint. Name .* authors' TensorFlow 1"
    ):
      _convert(path, tmp_path / 'out')
  (tmp_path / 'torn.index').write_bytes(b'no table')
  with pytest.raises(ValueError, match='torn cannot be read'):
    _convert(tmp_path / 'torn', tmp_path / 'out')


def test_folder_that_holds_something_is_left_alone(tmp_path):
  (tmp_path / 'mine').write_text('mine')
  with pytest.raises(ValueError, match=f'{tmp_path} is not empty'):
    _convert(_CHECKPOINTS / 'student', tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['mine']


@pytest.mark.end_to_end
def test_command_has_the_original_defaults(tmp_path):
  module = ['-m', 'yt8m_distill.checkpoints.import_tf1']
  source = _CHECKPOINTS / 'student'
  done = processes.forked(*module, source, tmp_path / 'out', '--features=rgb:16')
  assert 'student, ' in done.stdout and 'at step 6' in done.stdout
  model = run_dir.read_params(str(tmp_path / 'out/params.yaml')).task.model
  assert model.max_frames == 300
  assert model.network.frames.uniform.every_n == 10
  assert model.network.backbone.hierarchical_lstm.chunks == 5
