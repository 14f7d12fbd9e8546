"""Networks that see other frames than every N-th, as served.

B videos, V classes.
"""

import types
from unittest import mock

import numpy as np
import pytest
import serving_cases
import tensorflow as tf
import tiny

from yt8m_distill.modeling import frame_selection
from yt8m_distill.serving import model_card
from yt8m_distill.serving import signatures

_K = 4
# What the card says that the model reads.
_READS = {
  'all': 'all.',
  'uniform': '4 at equal intervals.',
  'random': '4 at random (drawn by the id of a record; without ids, the same ones '
  'for all videos of a length).',
  'first': 'the first 4.',
  'middle': 'the middle 4.',
  'last': 'the last 4.',
  'first_middle_last': '4, a third each from start, middle and end.',
}


@pytest.fixture(name='task', scope='module', params=list(_READS))
def _task(request):
  """A task and its network."""
  kind = request.param
  params = {} if kind == 'all' else {'k': _K}
  if kind == 'uniform':
    params['every_n'] = 0
  return tiny.single_task(frames={'type': kind, kind: params})


@pytest.fixture(name='module', scope='module')
def _module(task):
  return signatures.ServingModule(task[1], task[0].task_config.model, top_k=3)


@pytest.fixture(name='videos', scope='module')
def _videos(task):
  features = task[0].task_config.model.features
  return serving_cases.videos(features, (2, 4, 5, 11, 20, 24))


def _chosen(task, frames, num_frames, seeds):
  """The frames that the network sees, cut out one video at a time."""
  model = task.task_config.model
  indices, counts = frame_selection.frame_indices(
    tf.minimum(num_frames, model.max_frames),
    model.network.frames,
    model.max_frames,
    seeds,
  )
  frames, indices = np.asarray(frames), np.asarray(indices)
  chosen = np.zeros([*indices.shape, frames.shape[-1]], np.uint8)
  for row, (places, count) in enumerate(zip(indices, counts.numpy())):
    chosen[row, :count] = frames[row, places[:count]]
  return {'frames': tf.constant(chosen), 'num_frames': counts}


def test_records_are_predicted_as_in_evaluation(task, module, videos):
  task, network = task
  arrays, records = videos
  paths = tf.fill([len(records)], 'request')
  inputs, _ = task.build_reader()(
    paths, tf.range(len(records), dtype=tf.int64), records
  )
  evaluated = task.inference_step(inputs, network)['predictions']
  with tiny.eagerly():
    served_all = module.sequence_examples(records)['predictions']
  np.testing.assert_array_equal(served_all, evaluated)
  assert len(np.unique(evaluated.numpy().round(4), axis=0)) == len(records)
  expected = network(_chosen(task, **arrays, seeds=inputs.get('seed')))
  np.testing.assert_allclose(evaluated, expected['predictions'], atol=1e-6)


def test_arrays_are_predicted_without_ids(task, module, videos):
  task, network = task
  arrays, records = videos
  with tiny.eagerly():
    results = module.frames(**arrays)['predictions']
    alone = [
      module.frames(arrays['frames'][i : i + 1], arrays['num_frames'][i : i + 1])[
        'predictions'
      ][0]
      for i in (1, 3)
    ]
    by_id = module.sequence_examples(records)['predictions']
  expected = network(_chosen(task, **arrays, seeds=(0,)))
  np.testing.assert_allclose(results, expected['predictions'], atol=1e-6)
  np.testing.assert_allclose(alone, results.numpy()[[1, 3]], atol=1e-6)
  same = np.isclose(results, by_id, atol=1e-6).all(1)
  # Of 2 and of 4 frames all are seen.
  random = task.task_config.model.network.frames.type == 'random'
  assert same[:2].all() and (not same[2:].any() if random else same.all())


def test_says_which_frames_it_reads(task, module):
  task, network = task
  model = task.task_config.model
  kind = model.network.frames.type
  with mock.patch.object(module, 'get_inference_signatures', dict):
    spec = model_card.input_spec(module)
    text = model_card.model_card(
      types.SimpleNamespace(
        model=model,
        network=network,
        params=types.SimpleNamespace(task=task.task_config),
        step=1,
        checkpoint='a',
        evaluation=None,
      ),
      module,
    )
  details = {} if kind == 'all' else {'k': _K}
  if kind == 'uniform':
    details.update(every_n=0, length='ceil')
  assert spec['frames_read'] == {
    'type': kind,
    'at_most': 20 if kind == 'all' else _K,
    **details,
  }
  assert f'Of the first 20 frames, the model reads {_READS[kind]}' in text.replace(
    '\n', ' '
  )


def test_a_window_starts_at_the_first_frame_of_a_request():
  task, network = tiny.single_task(frames={'type': 'window', 'window': {'k': _K}})
  model = task.task_config.model
  module = signatures.ServingModule(network, model, top_k=3)
  inputs, _ = tiny.batch(3)
  served = module.serve_all_frames(inputs['frames'], tf.constant([3, 5, 20]))
  expected = module.serve(inputs['frames'][:, :_K], tf.constant([3, _K, _K]))
  np.testing.assert_array_equal(served['predictions'], expected['predictions'])
  assert (
    '4 of the window that starts at `window_start` of a record, otherwise at the first'
  ) in model_card._vectors(model)
