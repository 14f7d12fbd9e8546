"""The mean over the frames."""

import numpy as np
from official.vision.modeling.backbones import factory
import tensorflow as tf
import tf_keras

from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import backbones

_FRAMES, _FEATURES = 6, 3
_NUM_FRAMES = np.array([0, 1, 4, 6], np.int32)


def _backbone(frames=_FRAMES):
  return backbones.Average(
    {'frames': tf_keras.layers.InputSpec(shape=[None, frames, _FEATURES])}
  )


def _inputs():
  frames = (
    np.random.default_rng(0)
    .normal(size=[len(_NUM_FRAMES), _FRAMES, _FEATURES])
    .astype('f')
  )
  return {'frames': frames, 'num_frames': _NUM_FRAMES}


def test_equals_the_mean_of_each_video():
  inputs = _inputs()
  representation = _backbone()(inputs)['representation']
  assert representation.dtype == tf.float32
  expected = [
    frames[:count].mean(0) if count else np.zeros(_FEATURES)
    for frames, count in zip(inputs['frames'], _NUM_FRAMES)
  ]
  np.testing.assert_allclose(representation, expected, rtol=1e-5)


def test_padding_changes_nothing():
  inputs = _inputs()
  expected = _backbone()(inputs)['representation']
  for video, count in zip(inputs['frames'], _NUM_FRAMES):
    video[count:] = np.nan
  np.testing.assert_array_equal(_backbone()(inputs)['representation'], expected)
  longer = np.pad(inputs['frames'], [[0, 0], [0, 2], [0, 0]])
  np.testing.assert_array_equal(
    _backbone(_FRAMES + 2)({**inputs, 'frames': longer})['representation'], expected
  )


def test_one_frame_passes():
  frames = _inputs()['frames'][:, :1]
  representation = _backbone(1)({'frames': frames, 'num_frames': np.ones(4, np.int32)})[
    'representation'
  ]
  np.testing.assert_array_equal(representation, frames[:, 0])


def test_no_videos():
  assert _backbone()(
    {'frames': tf.zeros([0, _FRAMES, _FEATURES]), 'num_frames': tf.zeros([0], tf.int32)}
  )['representation'].shape == [0, _FEATURES]


def test_bfloat16_does_not_round():
  expected = _backbone()(_inputs())['representation']
  tf_keras.mixed_precision.set_global_policy('mixed_bfloat16')
  try:
    backbone = _backbone()
  finally:
    tf_keras.mixed_precision.set_global_policy('float32')
  np.testing.assert_array_equal(backbone(_inputs())['representation'], expected)


def test_cost_and_round_trip():
  built = factory.build_backbone(
    {'frames': tf_keras.layers.InputSpec(shape=[None, _FRAMES, _FEATURES])},
    model_config.Backbone(type='yt8m_average'),
    None,
  )
  assert isinstance(built, backbones.Average)
  assert built.flops() == 2 * _FRAMES * _FEATURES
  assert built.representation_size == _FEATURES and not built.weights
  again = tf_keras.layers.deserialize(tf_keras.layers.serialize(built))
  assert again.get_config() == built.get_config()
  np.testing.assert_array_equal(
    again(_inputs())['representation'], built(_inputs())['representation']
  )
