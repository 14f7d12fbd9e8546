"""N + N steps equal 2N, bit for bit; tests/faults kills runs between.

Compared are all weights, the optimizer's slots and the step. They can be equal
only if the data came in the same order: 12 records in batches of 5, so that
epochs end within batches, and both halves cross such an end. The student's
frames and what dropout hides are drawn again in each epoch.
"""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tiny

from yt8m_distill.modeling import distiller

pytestmark = pytest.mark.end_to_end

_STEPS = 4  # N


def _flags(records, steps, num_examples=0):
  return [
    f'--config_file={records}/averages.yaml',
    tiny.override(
      task__train_data__input_path=f"'{records}/train?.tfrecord'",
      task__train_data__global_batch_size=5,
      task__train_data__shuffle_buffer_size=4,
      task__train_data__num_examples=num_examples,
      task__init_checkpoint=records / 'first',
      task__model__student__frames__type='random',
      task__model__student__frames__random__k=4,
      task__model__student__dropout=0.5,
      trainer__train_steps=steps,
      trainer__steps_per_loop=2,
      trainer__checkpoint_interval=_STEPS,
    ),
  ]


def _train(run, records, steps, **options):
  """Trains to `steps`; returns all values of the last checkpoint."""
  tiny.run_driver('train', run, *_flags(records, steps, **options))
  return tiny.checkpoint_values(run / f'ckpt-{steps}')


@pytest.fixture(name='records', scope='module')
def _records(tmp_path_factory):
  """A folder with records, and the weights that all runs start from."""
  folder = tmp_path_factory.mktemp('records')
  tiny.write_records(folder / 'train0.tfrecord', 7)
  tiny.write_records(folder / 'train1.tfrecord', 5, seed=1)
  (folder / 'averages.yaml').write_text(json.dumps(tiny.AVERAGES))
  model = distiller.build(tiny.experiment(tiny.AVERAGES).task.model)
  tf.train.Checkpoint(model=model).write(str(folder / 'first'))
  return folder


@pytest.fixture(name='halves', scope='module')
def _halves(tmp_path_factory, records):
  """The end of 2N steps, and the folder of a run that stopped at N."""
  folder = tmp_path_factory.mktemp('halves')
  with tiny.eagerly():
    whole = _train(folder / 'whole', records, 2 * _STEPS)
    _train(folder / 'half', records, _STEPS)
  return whole, folder / 'half'


@pytest.fixture(name='resume')
def _resume(halves, records, tmp_path):
  """Goes on with a copy of the run that stopped at N."""
  shutil.copytree(halves[1], tmp_path / 'run')

  def resume(steps=2 * _STEPS, num_examples=0):
    with tiny.eagerly():
      return _train(tmp_path / 'run', records, steps, num_examples=num_examples)

  return resume


def _assert_equal(actual, expected):
  assert actual.keys() == expected.keys()
  slots = [name for name in expected if 'OPTIMIZER_SLOT' in name]
  assert slots and expected['global_step/.ATTRIBUTES/VARIABLE_VALUE'] == 8
  for name, value in expected.items():
    np.testing.assert_array_equal(actual[name], value, err_msg=name)


@pytest.mark.parametrize('num_examples', [0, 12])
def test_resumed_run_equals_one_that_never_stopped(halves, resume, num_examples):
  _assert_equal(resume(num_examples=num_examples), halves[0])


def test_other_data_order_gives_other_weights(halves, resume):
  """Otherwise the comparison above would not see the order."""
  # Of epochs that are said to be longer, the second is entered too early.
  other = resume(num_examples=13)
  assert any(
    not np.array_equal(other[name], value) for name, value in halves[0].items()
  )


def test_finished_run_trains_no_further(halves, resume):
  before = tiny.checkpoint_values(halves[1] / f'ckpt-{_STEPS}')
  after = resume(steps=_STEPS)
  for name, value in before.items():
    np.testing.assert_array_equal(after[name], value)
