"""Two replicas compute what one does, whatever share of a batch each gets.

Logical devices must be set before TensorFlow starts, so another Python runs
this file as a script and the tests compare what it wrote.
"""

import json
import pathlib
import sys

import numpy as np
from official.core import train_lib
import processes
import pytest
import tensorflow as tf
import tiny

from yt8m_distill.tasks import distillation

pytestmark = [pytest.mark.end_to_end, pytest.mark.long]

_CHECKPOINT_STEP = 3
_VIDEOS = 9
# Rows of replica 0 and 1, of one step each.
_SHARES = ((3, 2), (5, 0))


def _strategy(replicas, eager=False):
  # The default's collectives need a graph.
  return tf.distribute.MirroredStrategy(
    [f'cpu:{number}' for number in range(replicas)],
    tf.distribute.ReductionToOneDevice() if eager else None,
  )


def _distribute(strategy, batch, rows):
  """Gives replica i the next rows[i] rows."""
  starts = np.cumsum([0, *rows])
  return strategy.experimental_distribute_values_from_function(
    lambda context: tf.nest.map_structure(
      lambda values: values[
        starts[context.replica_id_in_sync_group] : starts[
          context.replica_id_in_sync_group + 1
        ]
      ],
      batch,
    )
  )


def _train(replicas, reduction):
  """Two steps; returns weights, and losses averaged over the replicas."""
  # One graph is enough: tracing it takes long.
  eager = replicas == 1 or reduction == 'mean'
  strategy = _strategy(replicas, eager)
  # An epsilon that keeps Adam from blowing up differences of rounding.
  params = tiny.experiment(
    {
      'task': {
        'losses': {
          'prediction_reduction': reduction,
          'intermediate_weight': 0.1,
          'schedule': {'type': 'cosine', 'start': 2.0, 'end': 0.5, 'steps': 3},
        },
        # What is drawn at random belongs to a video.
        'model': {
          'teacher': {'dropout': 0.3},
          'student': {'dropout': 0.3, 'frames': {'type': 'random', 'random': {'k': 4}}},
        },
      },
      'trainer': {
        'optimizer_config': {
          'optimizer': {'adam': {'epsilon': 1e-2}},
          'learning_rate': {'exponential': {'initial_learning_rate': 0.1}},
        }
      },
    }
  )
  with strategy.scope():
    task = distillation.DistillationTask(params.task)
    model = task.create_model()
    tiny.scatter_weights(model)
    optimizer = task.create_optimizer(params.trainer.optimizer_config, params.runtime)

  def step(inputs):
    return strategy.run(task.train_step, args=(inputs, model, optimizer))

  if not eager:
    step = tf.function(step, reduce_retracing=True)
  losses = []
  for number, shares in enumerate(_SHARES):
    rows = shares if replicas == 2 else [sum(shares)]
    inputs, labels = tiny.batch(sum(shares), number)
    inputs['seed'] = tf.range(sum(shares)) + 100 * number
    logs = step(_distribute(strategy, (inputs, labels), rows))
    losses.append(np.mean(strategy.experimental_local_results(logs['loss'])))
  return {
    'losses': losses,
    **{f'weight {number}': value for number, value in enumerate(model.get_weights())},
  }


def _save(folder, params):
  model = distillation.DistillationTask(params.task).create_model()
  tiny.scatter_weights(model)
  tf.train.CheckpointManager(
    tf.train.Checkpoint(
      model=model, global_step=tf.Variable(_CHECKPOINT_STEP, dtype=tf.int64)
    ),
    str(folder),
    1,
  ).save(_CHECKPOINT_STEP)


def _evaluate(replicas, folder, records):
  """Evaluates through the real trainer; batches of 4 over 9 videos."""
  params = tiny.experiment(
    tiny.AVERAGES,
    {'task': {'validation_data': {'input_path': str(records), 'global_batch_size': 4}}},
  )
  _save(folder, params)
  strategy = _strategy(replicas)
  with strategy.scope():
    task = distillation.DistillationTask(params.task, logging_dir=str(folder))
  rows = []
  collect = task.aggregate_logs

  def spy(state=None, step_outputs=None):
    rows.append([int(v.shape[0]) for v in step_outputs['student/scores']])
    return collect(state, step_outputs)

  task.aggregate_logs = spy
  train_lib.run_experiment(strategy, task, 'eval', params, str(folder))
  return rows


def _main(folder):
  """What the other Python does."""
  tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices('CPU')[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
  )
  folder = pathlib.Path(folder)
  for reduction in ('mean', 'sum'):
    for replicas in (1, 2):
      np.savez(folder / f'{reduction}{replicas}.npz', **_train(replicas, reduction))
  records = folder / 'validate.tfrecord'
  tiny.write_records(records, _VIDEOS)
  rows = {}
  for replicas in (1, 2):
    tf.config.run_functions_eagerly(replicas == 1)
    rows[replicas] = _evaluate(replicas, folder / f'eval{replicas}', records)
  (folder / 'rows.json').write_text(json.dumps(rows))


@pytest.fixture(name='folder', scope='module')
def _folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('replicas')
  processes.forked(__file__, folder)
  return folder


@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_uneven_shares_train_as_one_replica_does(folder, reduction):
  one, two = (np.load(folder / f'{reduction}{n}.npz') for n in (1, 2))
  assert one['losses'][0] != one['losses'][1]
  for name in one.files:
    np.testing.assert_allclose(two[name], one[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_reductions_differ(folder):
  mean, total = (np.load(folder / f'{name}1.npz') for name in ('mean', 'sum'))
  assert mean['losses'][0] < total['losses'][0]


def test_evaluation_with_a_replica_without_rows_is_exact(folder):
  rows = json.loads((folder / 'rows.json').read_text())
  assert rows == {'1': [[4], [4], [1]], '2': [[2, 2], [2, 2], [1, 0]]}
  one, two = (
    json.loads((folder / f'eval{n}/evaluation.json').read_text())['metrics']
    for n in (1, 2)
  )
  assert one.keys() == two.keys() and 0.0 < one['student/gap'] < 1.0
  for name, value in one.items():
    if name.endswith('loss'):  # Matrix products round by their shape.
      np.testing.assert_allclose(two[name], value, rtol=1e-6, err_msg=name)
    else:
      assert two[name] == value, name


if __name__ == '__main__':
  _main(sys.argv[1])
