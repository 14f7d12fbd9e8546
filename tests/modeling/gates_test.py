"""Gates against their formulas in plain numpy."""

import layers
import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill.modeling import gates

_VIDEOS, _SIZE = 5, 6


def _gate(kind, **options):
  gate = (
    gates.ContextGate(**options)
    if kind == 'context'
    else gates.SqueezeExcitationGate(reduction=2, **options)
  )
  gate.build([None, _SIZE])
  rng = np.random.default_rng(0)
  gate.set_weights([rng.normal(size=w.shape) for w in gate.weights])
  gate.norm.moving_variance.assign(np.square(gate.norm.moving_variance))
  return gate


def _x(scale=1.0):
  return (scale * np.random.default_rng(1).normal(size=[_VIDEOS, _SIZE])).astype('f')


def _plain(gate, x, training):
  def norm(x):
    norm = gate.norm
    mean, variance = (
      (x.mean(0), x.var(0))
      if training
      else (norm.moving_mean.numpy(), norm.moving_variance.numpy())
    )
    return (
      norm.gamma.numpy() * (x - mean) / np.sqrt(variance + 1e-3) + norm.beta.numpy()
    )

  if isinstance(gate, gates.ContextGate):
    logits = norm(x @ gate.dense.kernel.numpy())
  else:
    logits = np.maximum(norm(x @ gate.squeeze.kernel.numpy()), 0) @ (
      gate.excite.kernel.numpy()
    )
  return x / (1 + np.exp(-logits))


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('kind', ['context', 'se'])
def test_equals_its_formula(kind, training):
  gate = _gate(kind)
  expected = _plain(gate, _x(), training)
  np.testing.assert_allclose(
    gate(_x(), training=training), expected, rtol=1e-4, atol=1e-6
  )


def test_sizes():
  context, squeeze = _gate('context'), _gate('se')

  def count(gate):
    return sum(np.size(w) for w in gate.trainable_weights)

  assert count(context) == _SIZE**2 + 2 * _SIZE
  assert count(squeeze) == 2 * _SIZE * 3 + 2 * 3
  assert context.flops() == 2 * _SIZE**2
  assert squeeze.flops() == 2 * 2 * _SIZE * 3


@pytest.mark.parametrize('kind', ['context', 'se'])
def test_videos_do_not_matter_to_each_other_in_evaluation(kind):
  gate = _gate(kind)
  together = gate(_x())
  for video in range(_VIDEOS):
    np.testing.assert_allclose(
      gate(_x()[video : video + 1])[0], together[video], rtol=1e-5, atol=1e-7
    )
  assert gate(tf.zeros([0, _SIZE])).shape == [0, _SIZE]


@pytest.mark.parametrize('kind', ['context', 'se'])
def test_under_bfloat16_what_is_weighed_is_not_rounded(kind):
  gate = _gate(kind, dtype='mixed_bfloat16')
  gated = gate(_x())
  assert gated.dtype == tf.float32
  np.testing.assert_allclose(gated, _gate(kind)(_x()), rtol=0.1, atol=0.02)
  # Of rounded values the ratio would be off by up to 2^-9.
  gate.norm.gamma.assign(tf.zeros_like(gate.norm.gamma))
  gate.norm.beta.assign(tf.zeros_like(gate.norm.beta))
  np.testing.assert_array_equal(gate(_x()), 0.5 * _x())


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('kind', ['context', 'se'])
def test_extreme_values(kind, training):
  gate = _gate(kind)
  x = tf.constant(_x(1e6))
  with tf.GradientTape() as tape:
    tape.watch(x)
    gated = gate(x, training=training)
  gradients = tape.gradient(gated, [x, *gate.trainable_weights])
  assert all(np.isfinite(t).all() for t in (gated, *gradients))


@pytest.mark.parametrize('kind', ['context', 'se'])
def test_round_trip(kind):
  gate = _gate(kind)
  layers.assert_round_trip(gate, _x())


@pytest.mark.parametrize('reduction', [0, -1, _SIZE + 1])
def test_reduction_errors(reduction):
  gate = gates.SqueezeExcitationGate(reduction)
  with pytest.raises(
    ValueError, match=f'se_reduction is {reduction}.*between 1 and.*6'
  ):
    gate.build([None, _SIZE])
