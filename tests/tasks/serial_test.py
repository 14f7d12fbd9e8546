"""Serial training: the teacher comes from a run of its own and stays frozen."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import extract_student
from yt8m_distill.checkpoints import restore
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.tasks import classification
from yt8m_distill.tasks import distillation

pytestmark = pytest.mark.end_to_end

_SINGLE = 'yt8m_distill_single'
# The teacher of tiny.sizes() as a network of its own.
_SKYLINE = {
  'task__model__network__frames__type': 'all',
  'task__model__network__backbone__hierarchical_lstm__chunks': 5,
}


def _serial(teacher, **values):
  return {
    'task__training': 'serial',
    'task__teacher_checkpoint': teacher,
    'trainer__checkpoint_interval': 2,
    'trainer__train_steps': 4,
    **values,
  }


def _task(teacher='', training='serial', **task):
  return distillation.DistillationTask(
    tiny.experiment(
      {'task': {'training': training, 'teacher_checkpoint': str(teacher), **task}}
    ).task
  )


@pytest.fixture(name='skyline', scope='module')
def _skyline(records, tmp_path_factory):
  """A run of the teacher alone."""
  run = tmp_path_factory.mktemp('skyline') / 'run'
  tiny.drive('train_and_eval', run, records, _SINGLE, **_SKYLINE)
  return run


@pytest.fixture(name='run', scope='module')
def _run(records, skyline, tmp_path_factory):
  """A serial run of 4 steps, evaluated."""
  run = tmp_path_factory.mktemp('serial') / 'run'
  tiny.drive(
    'train_and_eval', run, records, **_serial(skyline, trainer__validation_interval=4)
  )
  return run


def _weights(run, name='student'):
  return trained_network.Network(str(run), name).network.get_weights()


def _assert_equal(actual, expected):
  for value, other in zip(actual, expected, strict=True):
    np.testing.assert_array_equal(value, other)


def test_teacher_stays_and_student_learns(run, skyline):
  _assert_equal(_weights(run, 'teacher'), _weights(skyline))
  for first, last in zip(_weights(run / 'ckpt-1'), _weights(run), strict=True):
    assert not np.array_equal(first, last)


def test_optimizer_holds_the_student_alone(run):
  names = tiny.checkpoint_values(run / 'ckpt-4')
  slots = [name for name in names if 'OPTIMIZER_SLOT' in name]
  assert slots and not [name for name in slots if 'teacher' in name]
  assert [name for name in names if name.startswith('model/teacher/')]


def test_teacher_is_evaluated_as_it_was_alone(run, skyline):
  before, now = (
    json.loads((folder / 'evaluation.json').read_text())['metrics']
    for folder in (skyline, run)
  )
  for name, value in before.items():
    np.testing.assert_allclose(now[f'teacher/{name}'], value, rtol=1e-6)


def test_resumed_run_needs_no_teacher_and_equals_one_that_never_stopped(
  run, records, skyline, tmp_path
):
  teacher = tmp_path / 'teacher'
  shutil.copytree(skyline, teacher)
  half = tmp_path / 'half'
  tiny.drive('train', half, records, **_serial(teacher, trainer__train_steps=2))
  shutil.rmtree(teacher)
  tiny.drive('train', half, records, **_serial(teacher))
  expected = tiny.checkpoint_values(run / 'ckpt-4')
  actual = tiny.checkpoint_values(half / 'ckpt-4')
  assert actual.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(actual[name], value, err_msg=name)


def test_serial_run_does_not_go_on_in_parallel(run, records):
  with pytest.raises(
    ValueError, match="'parallel', but the run in .*started with 'serial'"
  ):
    tiny.drive('train', run, records, trainer__train_steps=5)


def test_a_teacher_that_stays_draws_no_dropout(skyline):
  model = {'teacher': {'dropout': 0.5}}
  assert not _task(skyline, model=model).build_reader().with_seeds
  assert _task(training='parallel', model=model).build_reader().with_seeds


def test_student_taken_out_is_evaluated_the_same(run, records, tmp_path):
  extract_student.extract(str(run), str(tmp_path / 'out'))
  shutil.copy(tmp_path / 'out/evaluation.json', tmp_path / 'before.json')
  tiny.drive('eval', tmp_path / 'out', records, 'yt8m_distill_finetune')
  before, now = (
    json.loads((tmp_path / name).read_text())['metrics']
    for name in ('before.json', 'out/evaluation.json')
  )
  assert 0.0 < now['gap'] == before['gap']


def test_fine_tuning_starts_from_the_student(run):
  task = classification.ClassificationTask(
    tiny.experiment(
      {'task': {'init_checkpoint': str(run)}}, experiment='yt8m_distill_finetune'
    ).task
  )
  network = task.build_model()
  task.initialize(network)
  _assert_equal(network.get_weights(), _weights(run))


@pytest.mark.parametrize('source', ['.', 'best_ckpt', 'ckpt-3'])
def test_teacher_comes_from_a_run_of_one_network(skyline, source):
  task = _task(skyline / source)
  model = task.build_model()
  task.initialize(model)
  _assert_equal(model.teacher.get_weights(), _weights(skyline))


@pytest.mark.parametrize('training', ['serial', 'parallel'])
def test_teacher_comes_from_a_distillation_run(run, training):
  task = _task(run / 'best_ckpt', training)
  model = task.build_model()
  before = model.student.get_weights()
  task.initialize(model)
  _assert_equal(model.teacher.get_weights(), _weights(run, 'teacher'))
  _assert_equal(model.student.get_weights(), before)
  assert bool(model.teacher.trainable_variables) == (training == 'parallel')


def test_student_learns_as_beside_a_teacher_that_learns():
  """Teacher and student never meet in the loss but through constants."""
  seen = {}
  for training in ('serial', 'parallel'):
    task = _task(training=training)
    model, recorder = task.build_model(), tiny.Recorder()
    logs = task.train_step(tiny.batch(5), model, recorder)
    seen[training] = (
      logs,
      [recorder.gradients.get(v.ref()) for v in model.student.variables],
      len(recorder.gradients),
    )
  serial, parallel = seen['serial'], seen['parallel']
  _assert_equal(serial[1], parallel[1])
  assert 2 * serial[2] == parallel[2]
  # What the teacher adds is in the loss of the second alone.
  np.testing.assert_allclose(
    parallel[0]['loss'] - serial[0]['loss'],
    np.mean(parallel[0]['teacher/label_loss'])
    + parallel[0]['teacher/regularization_loss'],
    rtol=1e-5,
  )


def test_nothing_of_the_frozen_teacher_is_recorded(monkeypatch):
  watched = []

  class Tape(tf.GradientTape):
    def __exit__(self, *args):
      super().__exit__(*args)
      watched.extend(self.watched_variables())

  monkeypatch.setattr(tf, 'GradientTape', Tape)
  task = _task()
  model = task.build_model()
  task.train_step(tiny.batch(2), model, tiny.Recorder())
  assert {v.ref() for v in watched} == {
    v.ref() for v in model.student.trainable_variables
  }


def test_frozen_teacher_runs_as_in_evaluation():
  task = _task(model={'teacher': {'dropout': 0.5}})
  model = task.build_model()
  inputs, _ = tiny.batch(3)
  np.testing.assert_array_equal(
    model(inputs, training=True)['teacher']['predictions'],
    model(inputs)['teacher']['predictions'],
  )


def _start(task):
  """As the trainer does, which has not read any record by then."""
  task.build_inputs(task.task_config.train_data)


def test_serial_may_start_from_both_networks_of_a_run(run, records):
  task = _task(
    init_checkpoint=str(run),
    train_data={'input_path': str(records), 'global_batch_size': 4},
  )
  _start(task)
  model = task.build_model()
  task.initialize(model)
  for name in ('teacher', 'student'):
    _assert_equal(getattr(model, name).get_weights(), _weights(run, name))


def test_serial_without_a_teacher_is_an_error():
  with pytest.raises(ValueError, match="teacher_checkpoint is '': serial"):
    _start(_task())


def test_unknown_training_is_an_error():
  with pytest.raises(
    ValueError, match="training is 'both': choose one of parallel, serial"
  ):
    _task(training='both')


def test_teacher_that_is_not_there_is_an_error(tmp_path):
  with pytest.raises(ValueError, match=f'There is no checkpoint {tmp_path}/no'):
    _start(_task(tmp_path / 'no'))


@pytest.mark.parametrize(
  'model, message',
  [
    (
      {'teacher': {'backbone': {'hierarchical_lstm': {'chunks': 4}}}},
      r'task.model.teacher.backbone.hierarchical_lstm.chunks is 5 in its '
      'params.yaml, 4 in this configuration',
    ),
    ({'num_classes': 13}, 'task.model.num_classes is 12 in its params.yaml, 13'),
    (
      {'features': [{'name': 'rgb', 'size': 12}]},
      r'features is \[8, 4\] in '
      r'its params.yaml, \[12\]',
    ),
  ],
)
def test_other_teacher_names_both(skyline, model, message):
  with pytest.raises(ValueError, match=message) as error:
    _start(_task(skyline, model=model))
  assert f'Checkpoint {skyline}/ckpt-3 has a different architecture' in str(error.value)


def test_other_variables_name_both(skyline, tmp_path):
  """Where no params.yaml tells."""
  for path in skyline.glob('ckpt-3.*'):
    shutil.copy(path, tmp_path)
  task = _task(tmp_path / 'ckpt-3', model={'num_classes': 13})
  with pytest.raises(
    ValueError, match=r'\[24\] in the checkpoint, \[26\] in the model'
  ):
    task.initialize(task.build_model())


def test_teacher_that_saw_other_frames_is_logged(skyline, caplog):
  frames = {'type': 'uniform', 'uniform': {'every_n': 2}}
  model = tiny.experiment(
    {'task': {'model': {'teacher': {'frames': frames}}}}
  ).task.model
  with caplog.at_level('WARNING', 'absl'):
    restore.find_teacher(model, str(skyline))
  assert 'teacher.frames.type is all in its params.yaml, uniform' in caplog.text
