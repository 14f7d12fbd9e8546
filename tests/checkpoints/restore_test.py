"""Checkpoints: restored whole, or refused with both sides named."""

import numpy as np
from official.core import train_lib
from official.core import train_utils
import pytest
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import restore
from yt8m_distill.checkpoints import run_dir
from yt8m_distill.tasks import distillation

# Networks whose representations are never compared.
_FREE_WIDTHS = {'task': {'losses': {'representation_weight': 0.0}}}


def _student(**backbone):
  return {'task': {'model': {'student': {'backbone': {'hierarchical_lstm': backbone}}}}}


def _task(*overrides, logging_dir=None):
  return distillation.DistillationTask(
    tiny.experiment(*overrides).task, logging_dir=logging_dir
  )


def _save(folder, step=7):
  """Writes a checkpoint as the trainer does; returns its model."""
  task = _task()
  model = task.create_model()
  tiny.scatter_weights(model)
  optimizer = task.create_optimizer(tiny.experiment().trainer.optimizer_config)
  optimizer.iterations.assign(step)
  checkpoint = tf.train.Checkpoint(
    model=model, global_step=tf.Variable(step, dtype=tf.int64), optimizer=optimizer
  )
  tf.train.CheckpointManager(checkpoint, str(folder), 5).save(step)
  return model


@pytest.fixture(name='run', scope='module')
def _run(tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  return str(folder), _save(folder)


def _assert_same_weights(model, expected):
  for actual, value in zip(model.get_weights(), expected.get_weights(), strict=True):
    np.testing.assert_array_equal(actual, value)


def test_every_variable_is_restored(run):
  folder, saved = run
  model = _task().create_model()
  restore.restore_model(model, run_dir.checkpoint(folder))
  _assert_same_weights(model, saved)


def test_other_cells_name_both_shapes(run):
  folder, _ = run
  model = _task(_student(num_cells=6), _FREE_WIDTHS).create_model()
  before = model.get_weights()
  with pytest.raises(ValueError) as error:
    restore.restore_model(model, run_dir.checkpoint(folder))
  message = str(error.value)
  assert f'Checkpoint {folder}/ckpt-7 has a different architecture' in message
  # Kernel of the lower stack: features + cells by 4 gates.
  assert '[16, 16] in the checkpoint, [18, 24] in the model' in message
  assert 'model/student/' in message and 'model/teacher/' not in message
  assert 'params.yaml' in message
  for actual, value in zip(model.get_weights(), before, strict=True):
    np.testing.assert_array_equal(actual, value)


def test_other_classes_name_both_shapes(run):
  model = _task({'task': {'model': {'num_classes': 13}}}).create_model()
  with pytest.raises(
    ValueError, match=r'\[24\] in the checkpoint, \[26\] in the model'
  ):
    restore.restore_model(model, run_dir.checkpoint(run[0]))


def test_other_layers_name_what_is_absent(run):
  model = _task(_student(num_layers=2), _FREE_WIDTHS).create_model()
  with pytest.raises(ValueError, match=r'absent in the checkpoint, \['):
    restore.restore_model(model, run_dir.checkpoint(run[0]))


def test_other_chunks_have_the_same_variables(run):
  folder, saved = run
  model = _task(_student(chunks=4)).create_model()
  restore.restore_model(model, run_dir.checkpoint(folder))
  _assert_same_weights(model, saved)


def test_checkpoint_of_something_else_is_an_error(tmp_path):
  other = tf.train.Checkpoint(net=tf.Variable([1.0, 2.0])).save(str(tmp_path / 'ckpt'))
  with pytest.raises(ValueError, match='absent in the checkpoint'):
    restore.restore_model(_task().create_model(), other)


def test_how_networks_run_may_change(tmp_path):
  model = tiny.experiment().task.model
  train_utils.serialize_config(tiny.experiment(), str(tmp_path))
  checkpoint = str(tmp_path / 'ckpt-7')
  restore.check_config(
    model.replace(
      **_student(use_cudnn=False, recompute=True, static_shapes=True)['task']['model']
    ),
    checkpoint,
  )
  with pytest.raises(ValueError, match='hierarchical_lstm.chunks is'):
    restore.check_config(
      model.replace(**_student(chunks=1)['task']['model']), checkpoint
    )


def test_missing_checkpoint_is_an_error(tmp_path):
  path = str(tmp_path / 'ckpt-9')
  with pytest.raises(ValueError, match=f'There is no checkpoint {path}'):
    restore.restore_model(_task().create_model(), path)


@pytest.mark.end_to_end
def test_resume_with_another_architecture_fails_before_training(tmp_path):
  folder = tmp_path / 'run'
  records = tmp_path / 'train.tfrecord'
  tiny.write_records(records, 6)
  _save(folder)
  train_utils.serialize_config(tiny.experiment(), str(folder))
  before = (folder / 'params.yaml').read_text()
  with pytest.raises(
    ValueError, match='num_cells is 4 in its params.yaml, 6 in this configuration'
  ):
    tiny.run_driver(
      'train',
      folder,
      tiny.override(
        task__train_data__input_path=records,
        trainer__train_steps=9,
        task__train_data__global_batch_size=2,
        task__model__student__backbone__hierarchical_lstm__num_cells=6,
      ),
    )
  assert run_dir.checkpoint(str(folder)).endswith('ckpt-7')
  # The message points at this file: it must still be the old run's.
  assert (folder / 'params.yaml').read_text() == before


@pytest.mark.parametrize('form', ['folder', 'prefix'])
def test_init_checkpoint_starts_a_run(run, form):
  folder, saved = run
  path = folder if form == 'folder' else f'{folder}/ckpt-7'
  task = _task({'task': {'init_checkpoint': path}})
  model = task.build_model()
  task.initialize(model)
  _assert_same_weights(model, saved)


def test_init_checkpoint_folder_without_checkpoint_is_an_error(tmp_path):
  task = _task({'task': {'init_checkpoint': str(tmp_path)}})
  with pytest.raises(ValueError, match=f'{tmp_path} is a folder without a checkpoint'):
    task.initialize(task.build_model())


def _evaluate(folder, *overrides):
  """Evaluates by the Garden's own function, as its driver does."""
  records = folder / 'validate.tfrecord'
  tiny.write_records(records, 3)
  params = tiny.experiment(
    {'task': {'validation_data': {'input_path': str(records), 'global_batch_size': 2}}},
    *overrides,
  )
  strategy = tf.distribute.OneDeviceStrategy('cpu:0')
  with strategy.scope():
    task = distillation.DistillationTask(params.task, logging_dir=str(folder))
  tf.config.run_functions_eagerly(True)
  try:
    train_lib.run_experiment(strategy, task, 'eval', params, str(folder))
  finally:
    tf.config.run_functions_eagerly(False)


@pytest.mark.end_to_end
def test_evaluation_without_a_checkpoint_is_an_error(tmp_path):
  with pytest.raises(ValueError, match=f'no checkpoint in {tmp_path}'):
    _evaluate(tmp_path)
  assert not (tmp_path / 'evaluation.json').exists()


@pytest.mark.end_to_end
def test_evaluation_from_init_checkpoint_needs_no_run(run, tmp_path):
  _evaluate(tmp_path, {'task': {'init_checkpoint': run[0]}})
  assert (tmp_path / 'evaluation.json').exists()
