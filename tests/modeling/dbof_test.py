"""The deep bag of frames against a plain one, and its invariants."""

import numpy as np
from official.vision.modeling.backbones import factory
import pytest
import tensorflow as tf
import tf_keras

from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import backbones

_FRAMES, _FEATURES, _CLUSTERS, _HIDDEN = 5, 3, 7, 4
_NUM_FRAMES = np.array([0, 1, 3, 5], np.int32)
_POOLINGS = ('max', 'average')


def _specs(frames=_FRAMES):
  return {'frames': tf_keras.layers.InputSpec(shape=[None, frames, _FEATURES])}


def _backbone(frames=_FRAMES, **options):
  backbone = backbones.Dbof(
    _specs(frames), clusters=_CLUSTERS, hidden=_HIDDEN, **options
  )
  rng = np.random.default_rng(0)
  backbone.set_weights(
    [
      np.abs(rng.normal(size=w.shape))
      if 'variance' in w.name
      else rng.normal(size=w.shape)
      for w in backbone.weights
    ]
  )
  return backbone


def _inputs():
  return {
    'frames': np.random.default_rng(1)
    .normal(size=[len(_NUM_FRAMES), _FRAMES, _FEATURES])
    .astype('f'),
    'num_frames': _NUM_FRAMES,
  }


def _plain(backbone, inputs, pooling, training):
  def norm(layer, x):
    mean, variance = (
      (x.mean(0), x.var(0))
      if training
      else (layer.moving_mean.numpy(), layer.moving_variance.numpy())
    )
    return (
      layer.gamma.numpy() * (x - mean) / np.sqrt(variance + 1e-3) + layer.beta.numpy()
    )

  def relu6(x):
    return np.clip(x, 0, 6)

  videos = [
    frames[:count] for frames, count in zip(inputs['frames'], inputs['num_frames'])
  ]
  frames = norm(backbone.input_norm, np.concatenate(videos))
  clusters = relu6(
    norm(backbone.cluster_norm, frames @ backbone.clusters.kernel.numpy())
  )
  pool = np.max if pooling == 'max' else np.mean
  pooled = [
    pool(video, 0) if len(video) else np.zeros(_CLUSTERS)
    for video in np.split(clusters, np.cumsum(_NUM_FRAMES)[:-1])
  ]
  return relu6(
    norm(backbone.hidden_norm, np.stack(pooled) @ backbone.hidden.kernel.numpy())
  )


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('pooling', _POOLINGS)
def test_equals_a_plain_bag(pooling, training):
  """Statistics of training are those of real frames, of all videos."""
  backbone = _backbone(pooling=pooling)
  expected = _plain(backbone, _inputs(), pooling, training)
  representation = backbone(_inputs(), training=training)['representation']
  assert np.ptp(expected) > 1
  np.testing.assert_allclose(representation, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('pooling', _POOLINGS)
def test_padding_changes_nothing(pooling, training):
  results = []
  for padding, value in ((0, 0.0), (2, np.nan)):
    backbone = _backbone(_FRAMES + padding, pooling=pooling)
    inputs = _inputs()
    inputs['frames'] = np.pad(inputs['frames'], [[0, 0], [0, padding], [0, 0]])
    for video, count in zip(inputs['frames'], _NUM_FRAMES):
      video[count:] = value
    with tf.GradientTape() as tape:
      representation = backbone(inputs, training=training)['representation']
    results.append(
      [
        representation,
        *backbone.non_trainable_weights,
        *tape.gradient(representation, backbone.trainable_weights),
      ]
    )
  for plain, padded in zip(*results):
    np.testing.assert_allclose(padded, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('pooling', _POOLINGS)
def test_videos_do_not_matter_to_each_other_in_evaluation(pooling):
  backbone, inputs = _backbone(pooling=pooling), _inputs()
  together = backbone(inputs)['representation']
  for video in range(len(_NUM_FRAMES)):
    alone = backbone({k: v[video : video + 1] for k, v in inputs.items()})
    np.testing.assert_allclose(
      alone['representation'][0], together[video], rtol=1e-4, atol=1e-5
    )
  none = backbone({k: v[:0] for k, v in inputs.items()})
  assert none['representation'].shape == [0, _HIDDEN]


@pytest.mark.parametrize('pooling', _POOLINGS)
@pytest.mark.parametrize('policy', ['mixed_bfloat16', 'mixed_float16'])
def test_mixed_precision_is_finite(pooling, policy):
  tf_keras.mixed_precision.set_global_policy(policy)
  try:
    backbone = _backbone(pooling=pooling)
  finally:
    tf_keras.mixed_precision.set_global_policy('float32')
  expected = _backbone(pooling=pooling)(_inputs())['representation']
  representation = backbone(_inputs())['representation']
  assert representation.dtype == tf.float32
  np.testing.assert_allclose(representation, expected, rtol=0.1, atol=0.3)
  with tf.GradientTape() as tape:
    representation = backbone(_inputs(), training=True)['representation']
  gradients = tape.gradient(representation, backbone.trainable_weights)
  assert all(np.isfinite(g).all() for g in [representation, *gradients])


def test_cost_and_round_trip():
  config = model_config.Backbone(
    type='yt8m_dbof',
    yt8m_dbof=model_config.Dbof(clusters=_CLUSTERS, hidden=_HIDDEN, pooling='average'),
  )
  built = factory.build_backbone(_specs(), config, None, tf_keras.regularizers.L2(0.5))
  assert isinstance(built, backbones.Dbof)
  assert built.representation_size == _HIDDEN and len(built.losses) == 2
  # One frame after the other, then the hidden layer.
  assert built.flops() == sum(2 * _FEATURES * _CLUSTERS for _ in range(_FRAMES)) + (
    2 * _CLUSTERS * _HIDDEN
  )
  again = tf_keras.layers.deserialize(tf_keras.layers.serialize(built))
  assert again.get_config() == built.get_config()
  again.set_weights(built.get_weights())
  np.testing.assert_array_equal(
    again(_inputs())['representation'], built(_inputs())['representation']
  )
