"""The logistic head against its formula, and the choice of heads."""

import layers
import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import gates
from yt8m_distill.modeling import heads
from yt8m_distill.modeling.heads import factory

_VIDEOS, _SIZE, _CLASSES = 4, 6, 5
_GATES = ('none', 'context', 'se')


def _head(**options):
  head = heads.LogisticHead(_CLASSES, se_reduction=2, **options)
  head.build([None, _SIZE])
  rng = np.random.default_rng(0)
  head.classes.set_weights([rng.normal(size=w.shape) for w in head.classes.weights])
  return head


def _representation():
  return np.random.default_rng(1).normal(size=(_VIDEOS, _SIZE)).astype('f')


@pytest.mark.parametrize('gate', _GATES)
def test_equals_its_formula(gate):
  head = _head(input_gate=gate)
  x = _representation()
  if gate != 'none':
    x = head.input_gate(x).numpy()
  kernel, bias = (w.numpy() for w in head.classes.weights)
  np.testing.assert_allclose(
    head(_representation()), 1 / (1 + np.exp(-(x @ kernel + bias))), rtol=1e-5
  )


@pytest.mark.parametrize('gate,flops', zip(_GATES, (0, 6 * 6, 2 * 6 * 3)))
def test_cost(gate, flops):
  assert _head(input_gate=gate).flops() == 2 * (_SIZE * _CLASSES + flops)


def test_regularization():
  """Of the weights, not of the bias and the gate."""
  head = _head(l2_weight_decay=0.3, input_gate='context')
  assert len(head.losses) == 1
  np.testing.assert_allclose(
    head.losses[0], 0.15 * np.sum(head.classes.kernel.numpy() ** 2), rtol=1e-6
  )


@pytest.mark.parametrize('gate', _GATES)
def test_bfloat16_and_extreme_logits(gate):
  head = _head(input_gate=gate, dtype='mixed_bfloat16')
  with tf.GradientTape() as tape:
    predictions = head(1e4 * _representation(), training=True)
  assert predictions.dtype == tf.float32
  assert np.all((predictions >= 0) & (predictions <= 1))
  gradients = tape.gradient(predictions, head.trainable_weights)
  assert all(np.isfinite(g).all() for g in gradients)


def test_no_videos():
  for gate in _GATES:
    assert _head(input_gate=gate)(tf.zeros([0, _SIZE])).shape == [0, _CLASSES]


@pytest.mark.parametrize('gate', _GATES)
def test_round_trip(gate):
  head = _head(input_gate=gate, l2_weight_decay=0.25, name='head')
  layers.assert_round_trip(head, _representation())


def test_a_configuration_is_built_as_it_says():
  moe = factory.build(
    model_config.Head(
      moe=model_config.Moe(num_mixtures=3, l2_weight_decay=0.5, output_gate=True)
    ),
    _CLASSES,
  )
  assert isinstance(moe, heads.MoeHead)
  assert moe.num_mixtures == 3 and not moe.input_gate and moe.output_gate
  assert moe.get_config()['l2_weight_decay'] == 0.5
  logistic = factory.build(
    model_config.Head(
      type='logistic',
      logistic=model_config.Logistic(
        l2_weight_decay=0.25, input_gate='se', se_reduction=3
      ),
    ),
    _CLASSES,
  )
  assert isinstance(logistic, heads.LogisticHead)
  assert isinstance(logistic.input_gate, gates.SqueezeExcitationGate)
  assert logistic.get_config()['se_reduction'] == 3
