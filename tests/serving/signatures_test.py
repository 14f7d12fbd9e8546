"""What a server gets for good and for bad requests.

B videos, T frames, D features, V classes, K best classes.
"""

import numpy as np
import pytest
import records
import serving_cases
import tensorflow as tf
import tiny

from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import video_classifier
from yt8m_distill.serving import signatures
from yt8m_distill.utils import quantization

_TOP_K = 5
_NAMES = [f'class {i}' for i in range(tiny.CLASSES)]


@pytest.fixture(name='module', scope='module')
def _module():
  model = model_config.single_network(tiny.experiment().task.model, 'student')
  network = video_classifier.build(model, model.network, 'network')
  tiny.scatter_weights(network)
  return signatures.ServingModule(network, model, _TOP_K, _NAMES)


@pytest.fixture(name='videos', scope='module')
def _videos(module):
  return serving_cases.videos(module.params.features)


def _dequantized(videos):
  return {**videos, 'frames': quantization.dequantize(videos['frames'])}


@pytest.mark.end_to_end
def test_all_signatures_say_the_same(module, videos):
  arrays, records = videos
  results = [
    module.frames(**arrays),
    module.sequence_examples(records),
    module.features(**_dequantized(arrays)),
    module.records(
      tf.fill([len(records)], 'a.tfrecord'),
      tf.range(len(records), dtype=tf.int64),
      records,
    ),
  ]
  assert results[1].pop('id').numpy()[0] == b'request:0'
  assert results[3].pop('id').numpy()[1] == b'a.tfrecord:1'
  for other in results[1:]:
    assert other.keys() == results[0].keys()
    for key, value in results[0].items():
      if value.dtype.is_floating:
        np.testing.assert_allclose(other[key], value, atol=1e-6)
      else:
        np.testing.assert_array_equal(other[key], value)


def test_best_classes_are_sorted_and_named(module, videos):
  results = {k: v.numpy() for k, v in module.frames(**videos[0]).items()}
  expected = np.argsort(-results['predictions'], axis=1)[:, :_TOP_K]
  np.testing.assert_array_equal(results['class_indices'], expected)
  np.testing.assert_array_equal(
    results['probabilities'],
    np.take_along_axis(results['predictions'], expected, axis=1),
  )
  assert results['class_names'][0].tolist() == [_NAMES[i].encode() for i in expected[0]]


def test_results_depend_on_neither_neighbours_nor_padding(module, videos):
  arrays, records = videos
  together = module.frames(**arrays)
  for row, length in enumerate(serving_cases.LENGTHS):
    alone = module.frames(
      arrays['frames'][row : row + 1, :length], arrays['num_frames'][row : row + 1]
    )
    record = module.sequence_examples(records[row : row + 1])
    for results in (alone, record):
      np.testing.assert_allclose(
        results['predictions'][0], together['predictions'][row], atol=1e-6
      )


def test_padding_may_hold_anything(module, videos):
  clean = _dequantized(videos[0])
  padding = ~tf.sequence_mask(clean['num_frames'])[..., None]
  dirty = {**clean, 'frames': tf.where(padding, np.nan, clean['frames'])}
  np.testing.assert_array_equal(
    module.features(**dirty)['predictions'], module.features(**clean)['predictions']
  )


def test_without_names():
  model = model_config.single_network(tiny.experiment().task.model, 'student')
  network = video_classifier.build(model, model.network, 'network')
  module = signatures.ServingModule(network, model, 1)
  outputs = module.frames.get_concrete_function().structured_outputs
  assert 'class_names' not in outputs
  assert outputs['class_indices'].shape.as_list() == [None, 1]


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'top_k': 0}, 'top_k is 0: it must be 1 or more'),
    ({'top_k': 1, 'names': ['one']}, 'vocabulary has 1 names for 12 classes'),
  ],
)
def test_arguments_that_do_not_fit(module, arguments, message):
  with pytest.raises(ValueError, match=message):
    signatures.ServingModule(module.model, module.params, **arguments)


def _bytes(*shape):
  return tf.zeros(shape, tf.uint8)


@pytest.mark.parametrize(
  'frames, num_frames, message',
  [
    (_bytes(0, 3, 12), [], 'holds no videos'),
    (_bytes(2, 3, 4), [1, 1], '8 of rgb and then 4 of audio'),
    (_bytes(2, 3, 12), [1], 'num_frames has.*send one for each'),
    (_bytes(2, 3, 12), [1, 0], r'\[1 0\].*from 1 to that'),
    (_bytes(2, 3, 12), [4, 1], r'\[4 1\].*padded to\] \[3\]'),
    (_bytes(1, 0, 12), [1], r'padded to\] \[0\]'),
    (tf.fill([1, 3, 12], np.nan), [3], 'NaN or infinity'),
    (tf.fill([1, 3, 12], np.inf), [3], 'NaN or infinity'),
  ],
)
def test_bad_frames(module, frames, num_frames, message):
  run = module.frames if frames.dtype == tf.uint8 else module.features
  with pytest.raises(tf.errors.InvalidArgumentError, match=message):
    run(frames, tf.constant(num_frames, tf.int32))


def _floats():
  return records.frame_level({'rgb': [[1.0]]}).SerializeToString()


@pytest.mark.parametrize(
  'bad, message',
  [
    (b'garbage', 'request, record 1'),
    (b'', 'request, record 1: no frames'),
    (_floats(), 'record 1'),
  ],
)
def test_bad_records(module, videos, bad, message):
  with pytest.raises(tf.errors.InvalidArgumentError, match=message):
    module.sequence_examples(tf.stack([videos[1][0], bad]))


def test_no_records(module):
  with pytest.raises(tf.errors.InvalidArgumentError, match='holds no videos'):
    module.sequence_examples(tf.constant([], tf.string))
