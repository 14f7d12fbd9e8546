"""The mixture of experts against plain loops over classes and mixtures."""

import layers
import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill.modeling.heads import moe

_VIDEOS, _SIZE, _CLASSES = 4, 6, 5


def _head(scale=1.0, **options):
  head = moe.MoeHead(_CLASSES, **options)
  head.build([None, _SIZE])
  rng = np.random.default_rng(0)
  head.set_weights([scale * rng.normal(size=w.shape) for w in head.weights])
  for gate in filter(None, (head.input_gate, head.output_gate)):
    gate.norm.moving_variance.assign(np.square(gate.norm.moving_variance))
  return head


def _representation():
  return np.random.default_rng(1).normal(size=(_VIDEOS, _SIZE)).astype('f')


def _plain(head, representation):
  """Columns of a class lie together; the last gate is the dummy's."""
  gates, experts, bias = (
    v.numpy().astype(np.float64)
    for v in (head.gates.kernel, head.experts.kernel, head.experts.bias)
  )
  mixtures = head.num_mixtures
  predictions = np.zeros([len(representation), _CLASSES])
  for b, video in enumerate(representation):
    for v in range(_CLASSES):
      gate = np.exp(
        [video @ gates[:, v * (mixtures + 1) + m] for m in range(mixtures + 1)]
      )
      gate /= gate.sum()
      for m in range(mixtures):
        column = v * mixtures + m
        logit = video @ experts[:, column] + bias[column]
        predictions[b, v] += gate[m] / (1 + np.exp(-logit))
  return predictions


@pytest.mark.parametrize('num_mixtures', [1, 2, 4])
def test_equals_plain_loops(num_mixtures):
  head = _head(num_mixtures=num_mixtures)
  predictions = head(_representation())
  assert predictions.shape == [_VIDEOS, _CLASSES]
  assert predictions.dtype == tf.float32
  np.testing.assert_allclose(
    predictions, _plain(head, _representation()), rtol=2e-6, atol=1e-7
  )


def test_the_dummy_keeps_predictions_below_the_gates():
  """With all logits 0 two of three experts say a half."""
  head = _head(scale=0.0)
  np.testing.assert_allclose(
    head(_representation()), np.full([_VIDEOS, _CLASSES], 1 / 3), rtol=1e-6
  )


def test_variables():
  head = _head(num_mixtures=3)
  assert head.gates.bias is None
  variables = (head.gates.kernel, head.experts.kernel, head.experts.bias)
  assert [v.shape.as_list() for v in variables] == [
    [_SIZE, 4 * _CLASSES],
    [_SIZE, 3 * _CLASSES],
    [3 * _CLASSES],
  ]
  assert (
    {v.ref() for v in variables}
    == {v.ref() for v in head.trainable_weights}
    == {v.ref() for v in head.weights}
  )
  assert head.flops() == 2 * _SIZE * 7 * _CLASSES


def test_regularization():
  """Of both kernels, not of the bias."""
  head = _head(l2_weight_decay=0.3)
  expected = (
    0.3
    / 2
    * sum(np.sum(layer.kernel.numpy() ** 2) for layer in (head.gates, head.experts))
  )
  assert len(head.losses) == 2
  np.testing.assert_allclose(tf.add_n(head.losses), expected, rtol=1e-6)


@pytest.mark.parametrize('scale', [1e4, -1e4, 1e30])
def test_extreme_logits(scale):
  head = _head()
  x = tf.constant(scale * _representation())
  with tf.GradientTape() as tape:
    tape.watch(x)
    predictions = head(x)
  assert np.all((predictions >= 0) & (predictions <= 1 + 1e-6))
  gradients = tape.gradient(predictions, [x, *head.trainable_weights])
  assert all(np.isfinite(g).all() for g in gradients)


def test_gates_weigh_what_goes_in_and_what_comes_out():
  head = _head(input_gate=True, output_gate=True)
  plain = moe.MoeHead(_CLASSES)
  plain.build([None, _SIZE])
  plain.set_weights([v.numpy() for v in (*head.gates.weights, *head.experts.weights)])
  x = _representation()
  expected = head.output_gate(plain(head.input_gate(x)))
  np.testing.assert_allclose(head(x), expected, rtol=1e-6)
  assert np.abs(head(x) - plain(x)).min() > 1e-4
  assert head.flops() == plain.flops() + 2 * (_SIZE**2 + _CLASSES**2)
  assert len(head.losses) == 2  # gates are not regularised


@pytest.mark.parametrize('policy', ['float32', 'mixed_bfloat16'])
@pytest.mark.parametrize('gate', ['input_gate', 'output_gate'])
def test_a_gate_learns_and_predictions_stay_probabilities(gate, policy):
  head = _head(scale=100.0, dtype=policy, **{gate: True})
  with tf.GradientTape() as tape:
    predictions = head(_representation(), training=True)
  assert predictions.dtype == tf.float32
  assert np.all((predictions >= 0) & (predictions <= 1 + 1e-6))
  gradients = tape.gradient(predictions, getattr(head, gate).trainable_weights)
  assert len(gradients) == 3 and all(np.any(g) for g in gradients)


@pytest.mark.parametrize('options', [{}, {'input_gate': True, 'output_gate': True}])
def test_no_videos(options):
  assert _head(**options)(tf.zeros([0, _SIZE])).shape == [0, _CLASSES]


@pytest.mark.parametrize('gates', [{}, {'input_gate': True}, {'output_gate': True}])
def test_round_trip(gates):
  head = _head(num_mixtures=3, l2_weight_decay=0.25, name='head', **gates)
  layers.assert_round_trip(head, _representation())


def test_the_order_of_additions_is_fixed():
  head = _head()
  predict = tf.function(head.call, autograph=False)
  videos = tf.constant(_representation(), tf.float32)
  first = predict(videos)
  for _ in range(50):
    np.testing.assert_array_equal(predict(videos), first)
