"""Losses of labels: plain formulas, and finite everywhere.

B videos, V classes.
"""

import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill.configs import classification
from yt8m_distill.modeling import losses

_WEIGHTS = np.array([0.0, 0.5, 1.0, 2.0, 30.0], np.float32)


def _example(seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.random((4, 5)) < 0.4
  labels[0] = False
  return labels, rng.uniform(0.02, 0.98, (4, 5)).astype(np.float32)


def _softmax(labels, predictions, epsilon):
  """Cross-entropy of two distributions, video by video."""
  values = []
  for positive, row in zip(labels, predictions + epsilon):
    shares = positive / max(positive.sum(), 1)
    values.append(-np.sum(shares * np.log(row / row.sum())))
  return values


def _hinge(labels, predictions, epsilon):
  del epsilon
  return np.sum(np.where(labels, 2 - 2 * predictions, 2 * predictions), axis=1)


def _weighted(labels, predictions, epsilon):
  return -np.sum(
    np.where(
      labels,
      _WEIGHTS * np.log(predictions + epsilon),
      np.log(1 - predictions + epsilon),
    ),
    axis=1,
  )


_FORMULAS = {
  'cross_entropy': lambda labels, predictions, epsilon: (
    -np.sum(np.log(np.where(labels, predictions, 1 - predictions) + epsilon), axis=1)
  ),
  'softmax': _softmax,
  'hinge': _hinge,
  'weighted_cross_entropy': _weighted,
}


def test_every_kind_has_its_formula():
  assert set(_FORMULAS) == set(classification.LABEL_LOSSES)


@pytest.mark.parametrize('kind', classification.LABEL_LOSSES)
@pytest.mark.parametrize('epsilon', [1e-5, 0.1])
def test_formula(kind, epsilon):
  labels, predictions = _example()
  actual = losses.label_loss(labels, predictions, kind, epsilon, _WEIGHTS)
  assert actual.dtype == tf.float32
  np.testing.assert_allclose(
    actual, _FORMULAS[kind](labels, predictions, epsilon), rtol=1e-5
  )


# By kind, the loss of one class of one video: label, prediction, and in softmax the sum
# of the weighted predictions and the number of labels.
_TERMS = {
  'cross_entropy': lambda v, y, p, total, n: -np.log((p if y else 1 - p) + 1e-5),
  'softmax': lambda v, y, p, total, n: y / max(n, 1) * -np.log((p + 1e-5) / total),
  'hinge': lambda v, y, p, total, n: 2 - 2 * p if y else 2 * p,
  'weighted_cross_entropy': lambda v, y, p, total, n: (
    -_WEIGHTS[v] * np.log(p + 1e-5) if y else -np.log(1 - p + 1e-5)
  ),
}


@pytest.mark.parametrize('kind', classification.LABEL_LOSSES)
def test_weighted_pairs_by_a_plain_loop(kind):
  labels, predictions = _example()
  rng = np.random.default_rng(1)
  weights = rng.choice([0.0, 0.5, 1.0], labels.shape).astype(np.float32)
  labels &= weights == 1
  predictions = tf.Variable(predictions)
  with tf.GradientTape() as tape:
    actual = losses.label_loss(
      labels, predictions, kind, class_weights=_WEIGHTS, weights=weights
    )
  gradient = tape.gradient(actual, predictions).numpy()
  for row, values in enumerate(predictions.numpy().astype(float)):
    total = sum(w * (p + 1e-5) for w, p in zip(weights[row], values))
    expected = 0.0
    for v, p in enumerate(values):
      if weights[row, v]:
        expected += weights[row, v] * _TERMS[kind](
          v, labels[row, v], p, total, labels[row].sum()
        )
    np.testing.assert_allclose(actual[row], expected, rtol=1e-5, atol=1e-6)
  assert not gradient[weights == 0].any() and gradient[weights == 1].any()


@pytest.mark.parametrize('kind', classification.LABEL_LOSSES)
def test_pairs_of_weight_1_are_the_loss_without_weights(kind):
  labels, predictions = _example()
  np.testing.assert_array_equal(
    losses.label_loss(
      labels, predictions, kind, class_weights=_WEIGHTS, weights=np.ones([4, 5], 'f4')
    ),
    losses.label_loss(labels, predictions, kind, class_weights=_WEIGHTS),
  )


@pytest.mark.parametrize('weights', [1.0, np.ones(5, np.float32)])
def test_weights_of_1_are_the_cross_entropy(weights):
  labels, predictions = _example()
  np.testing.assert_array_equal(
    losses.label_loss(
      labels, predictions, 'weighted_cross_entropy', class_weights=weights
    ),
    losses.label_loss(labels, predictions),
  )


def test_hinge_is_0_where_all_is_sure_and_right():
  labels, _ = _example()
  np.testing.assert_array_equal(
    losses.hinge(labels, labels.astype(np.float32)), np.zeros(4)
  )
  np.testing.assert_array_equal(
    losses.hinge(labels, 1 - labels.astype(np.float32)), np.full(4, 10.0)
  )


def test_softmax_counts_proportions_alone_and_no_video_without_labels():
  labels, predictions = _example()
  actual = losses.softmax_cross_entropy(labels, predictions, 0.0)
  np.testing.assert_array_equal(actual > 0.0, labels.any(axis=1))
  assert not labels.any(axis=1).all()
  np.testing.assert_allclose(
    losses.softmax_cross_entropy(labels, 0.1 * predictions, 0.0), actual, rtol=1e-5
  )


@pytest.mark.parametrize('kind', classification.LABEL_LOSSES)
@pytest.mark.parametrize('dtype', [tf.float32, tf.bfloat16])
def test_value_and_gradient_are_finite(kind, dtype):
  rows = tf.constant(
    [
      [0.0] * 5,
      [1.0] * 5,
      [0.0, 1.0, 0.0, 1.0, 0.5],
      [1e-42, 1e-38, 1e-20, 1e-7, 1.0],
      [1e-30] * 5,
    ],
    dtype,
  )
  for labels in (tf.zeros([5, 5], tf.bool), tf.ones([5, 5], tf.bool), tf.eye(5) > 0.0):
    with tf.GradientTape() as tape:
      tape.watch(rows)
      value = losses.label_loss(labels, rows, kind, class_weights=_WEIGHTS)
    assert value.dtype == tf.float32
    assert np.isfinite(value).all()
    assert np.isfinite(tf.cast(tape.gradient(value, rows), tf.float32)).all()
  assert losses.label_loss(labels[:0], rows[:0], kind).shape == [0]


@pytest.mark.parametrize('kind', classification.LABEL_LOSSES)
def test_descent_leads_to_the_labels(kind):
  labels, predictions = _example(1)
  predictions = tf.constant(predictions[1:])
  labels = labels[1:]
  with tf.GradientTape() as tape:
    tape.watch(predictions)
    value = losses.label_loss(labels, predictions, kind)
  step = -0.01 * tf.sign(tape.gradient(value, predictions))
  np.testing.assert_array_equal(step > 0.0, labels)
  assert np.all(losses.label_loss(labels, predictions + step, kind) < value)


def test_unknown_kind():
  with pytest.raises(
    ValueError,
    match="label_kind is 'l1': choose one of "
    'cross_entropy, softmax, hinge, weighted_cross_entropy',
  ):
    losses.label_loss(*_example(), 'l1')
