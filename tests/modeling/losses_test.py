"""Losses: plain formulas, invariants, and finite everywhere.

B videos, V classes.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill.configs import distillation
from yt8m_distill.modeling import losses

_KINDS = distillation.PREDICTION_LOSSES


def _predictions(seed, shape=(3, 7)):
  return np.random.default_rng(seed).uniform(0.02, 0.98, shape)


def _cross_entropy(labels, predictions, epsilon):
  return -np.sum(
    labels * np.log(predictions + epsilon)
    + (1 - labels) * np.log(1 - predictions + epsilon),
    axis=1,
  )


def _kl(teacher, student):
  teacher = teacher / teacher.sum(axis=1, keepdims=True)
  student = student / student.sum(axis=1, keepdims=True)
  return np.sum(teacher * np.log(teacher / student), axis=1)


def _gradients(function, *inputs):
  inputs = [tf.constant(x) if not tf.is_tensor(x) else x for x in inputs]
  with tf.GradientTape() as tape:
    tape.watch(inputs)
    value = function(*inputs)
  return value, tape.gradient(value, inputs)


@pytest.mark.parametrize('epsilon', [1e-5, 0.01])
def test_cross_entropy(epsilon):
  labels = np.random.default_rng(0).random((3, 7)) < 0.4
  predictions = _predictions(1)
  actual = losses.cross_entropy(labels, predictions, epsilon)
  assert actual.dtype == tf.float32
  np.testing.assert_allclose(
    actual, _cross_entropy(labels, predictions, epsilon), rtol=2e-6
  )


def test_cross_entropy_by_hand():
  """-log of the probability of what came true, the epsilon inside."""
  actual = losses.cross_entropy(
    tf.constant([[True, False], [True, True]]), tf.constant([[0.5, 0.25], [0.0, 1.0]])
  )
  np.testing.assert_allclose(
    actual, [np.log(2) - np.log(0.75), -np.log(1e-5)], rtol=1e-4
  )


def test_cross_entropy_is_the_starter_codes_by_default():
  labels, predictions = np.eye(3, dtype=bool), np.zeros((3, 3), np.float32)
  np.testing.assert_allclose(
    losses.cross_entropy(labels, predictions),
    _cross_entropy(labels, predictions, 1e-5),
    rtol=1e-5,
  )


def test_representation_loss():
  rng = np.random.default_rng(2)
  teacher, student = rng.normal(size=(2, 3, 8))
  actual = losses.representation_loss(teacher, student)
  assert actual.dtype == tf.float32
  np.testing.assert_allclose(
    actual, np.sum((teacher - student) ** 2, axis=1), rtol=2e-6
  )


def test_intermediate_loss():
  """Of real frames alone, whatever the others hold."""
  rng = np.random.default_rng(9)
  teacher, student = rng.normal(size=(2, 4, 3, 8)).astype(np.float32)
  num_frames = np.array([3, 1, 0, 2])
  expected = [
    np.sum((t[:n] - s[:n]) ** 2) for t, s, n in zip(teacher, student, num_frames)
  ]
  student[np.arange(3) >= num_frames[:, None]] = 1e15
  value, (_, gradient) = _gradients(
    lambda t, s: losses.intermediate_loss(t, s, num_frames), teacher, student
  )
  assert value.dtype == tf.float32
  np.testing.assert_allclose(value, expected, rtol=2e-6)
  real = np.arange(3) < num_frames[:, None]
  np.testing.assert_allclose(
    gradient, np.where(real[..., None], 2 * (student - teacher), 0), rtol=1e-6
  )
  assert losses.intermediate_loss(teacher[:0], student[:0], num_frames[:0]).shape == [0]


@pytest.mark.parametrize(
  'kind, formula',
  [
    ('kl', _kl),
    ('mse', lambda t, s: np.sum((t - s) ** 2, axis=1)),
    ('bce', lambda t, s: _cross_entropy(t, s, 1e-3)),
  ],
)
def test_prediction_loss(kind, formula):
  teacher, student = _predictions(3), _predictions(4)
  actual = losses.prediction_loss(teacher, student, kind, epsilon=1e-3)
  assert actual.dtype == tf.float32
  np.testing.assert_allclose(actual, formula(teacher, student), rtol=5e-5)


@pytest.mark.parametrize('temperature', [0.25, 2, 20.0])
def test_kl_with_temperature(temperature):
  """T^2 times the divergence of predictions raised to 1/T."""
  teacher, student = _predictions(3), _predictions(4)
  actual = losses.prediction_loss(teacher, student, temperature=temperature)
  assert actual.dtype == tf.float32
  np.testing.assert_allclose(
    actual,
    temperature**2 * _kl(teacher ** (1 / temperature), student ** (1 / temperature)),
    rtol=1e-3,
  )


def test_temperature_of_1_changes_nothing():
  rows = np.array(list(_EXTREMES.values()), np.float32)
  without, with_it = (
    _gradients(
      lambda t, s, more=more: losses.prediction_loss(t, s, **more), rows, rows[::-1]
    )
    for more in ({}, {'temperature': 1.0})
  )
  np.testing.assert_array_equal(without[0], with_it[0])
  for gradient, other in zip(without[1], with_it[1], strict=True):
    np.testing.assert_array_equal(gradient, other)
  # Another path, and the same in the limit.
  near = losses.prediction_loss(_predictions(3), _predictions(4), temperature=1.0001)
  np.testing.assert_allclose(
    near, losses.prediction_loss(_predictions(3), _predictions(4)), rtol=1e-3
  )


def test_kl_is_the_default_and_normalized():
  """Only the proportions of a video's predictions count."""
  teacher, student = _predictions(5), _predictions(6)
  expected = losses.prediction_loss(teacher, student)
  np.testing.assert_array_equal(
    expected, losses.prediction_loss(teacher, student, 'kl')
  )
  scale = np.array([[0.01], [0.5], [1.0]])
  np.testing.assert_allclose(
    losses.prediction_loss(teacher * scale, student * scale[::-1]), expected, rtol=1e-4
  )


@pytest.mark.parametrize('kind', ['kl', 'mse'])
def test_distances_vanish_only_between_equals(kind):
  teacher = _predictions(7)
  np.testing.assert_array_equal(
    losses.prediction_loss(teacher, teacher, kind), np.zeros(3)
  )
  for seed in range(20):
    assert np.all(losses.prediction_loss(teacher, _predictions(8 + seed), kind) > 0)
  np.testing.assert_array_equal(
    losses.representation_loss(teacher, teacher), np.zeros(3)
  )


def test_cross_entropy_is_least_at_the_labels():
  labels = np.array([[0.0, 1.0, 0.3]])
  least = losses.prediction_loss(labels, labels, 'bce')
  for shift in (0.05, -0.05):
    student = np.clip(labels + shift, 0, 1)
    assert losses.prediction_loss(labels, student, 'bce')[0] > least[0]


_EXTREMES = {
  'zero': [0.0, 0.0, 0.0, 0.0],
  'one': [1.0, 1.0, 1.0, 1.0],
  'one_hot': [0.0, 1.0, 0.0, 0.0],
  'other_one_hot': [0.0, 0.0, 0.0, 1.0],
  'denormal': [1e-42, 3e-41, 2e-40, 1e-45],
  'below_tiny': [1e-20, 1e-15, 1e-30, 1e-13],
  'unequal': [1.0, 1e-38, 1e-7, 1e-20],
  'unequal_back': [1e-38, 1.0, 1e-20, 1e-7],
  'usual': [0.3, 0.01, 0.9, 0.002],
}


@pytest.mark.parametrize(
  'kind, temperature',
  [
    *((kind, 1.0) for kind in _KINDS),
    *(('kl', t) for t in (1e-6, 0.01, 0.3, 0.999, 1.5, 10.0, 100.0)),
  ],
)
def test_prediction_loss_is_finite(kind, temperature):
  """Value and both gradients, of every pair of extremes."""
  rows = np.array(list(_EXTREMES.values()), np.float32)
  teacher = np.repeat(rows, len(rows), axis=0)
  student = np.tile(rows, [len(rows), 1])
  value, gradients = _gradients(
    lambda t, s: losses.prediction_loss(t, s, kind, temperature=temperature),
    teacher,
    student,
  )
  for array in (value, *gradients):
    bad = ~np.isfinite(array.numpy().reshape([len(teacher), -1])).all(axis=1)
    assert not bad.any(), (teacher[bad], student[bad])


def test_cross_entropy_is_finite():
  rows = np.array(list(_EXTREMES.values()), np.float32)
  for labels in (np.zeros(rows.shape, bool), np.ones(rows.shape, bool)):
    value, gradients = _gradients(functools.partial(losses.cross_entropy, labels), rows)
    assert np.isfinite(value).all() and np.isfinite(gradients[0]).all()


def test_cross_entropy_forgives_rounding_outside_of_the_unit_interval():
  value = losses.cross_entropy([[0.0, 1.0]], [[1.0 + 1e-4, -1e-4]])
  np.testing.assert_allclose(value, [-2 * np.log(1e-5)], rtol=1e-4)


@pytest.mark.parametrize('dtype', [tf.float16, tf.bfloat16])
@pytest.mark.parametrize('kind', _KINDS)
def test_half_precision_inputs_are_computed_in_float32(kind, dtype):
  rows = np.array(list(_EXTREMES.values()), np.float32)
  teacher = tf.cast(rows, dtype)
  student = tf.cast(rows[::-1], dtype)

  def loss(t, s):
    return losses.prediction_loss(t, s, kind)

  value, gradients = _gradients(loss, teacher, student)
  assert value.dtype == tf.float32
  np.testing.assert_array_equal(
    value, loss(tf.cast(teacher, tf.float32), tf.cast(student, tf.float32))
  )
  assert np.isfinite(value).all()
  # Beyond the largest number of float16 a gradient may be infinite.
  usual = tf.constant([_EXTREMES['usual']], dtype)
  for gradient in _gradients(loss, usual, usual * 0.5)[1]:
    assert gradient.dtype == dtype
    assert np.isfinite(tf.cast(gradient, tf.float32)).all()
  if dtype == tf.bfloat16:
    for gradient in gradients:
      assert np.isfinite(tf.cast(gradient, tf.float32)).all()
  representation = losses.representation_loss(teacher, student)
  assert representation.dtype == tf.float32


def test_kl_gradient_leads_to_the_teacher():
  teacher = np.array([[0.6, 0.3, 0.1]], np.float32)
  student = np.array([[0.2, 0.4, 0.4]], np.float32)
  value, (_, gradient) = _gradients(losses.prediction_loss, teacher, student)
  # The student's first class is too small: descent must raise it.
  assert np.all(np.sign(gradient) == [[-1, 1, 1]])
  closer = losses.prediction_loss(teacher, student - 0.05 * gradient)
  assert closer[0] < value[0]
  # d KL / ds_j = 1 / sum(s) - t_j / (sum(t) s_j).
  np.testing.assert_allclose(
    gradient, 1 / student.sum() - teacher / teacher.sum() / student, rtol=1e-4
  )


@pytest.mark.parametrize('kind', _KINDS)
def test_no_videos(kind):
  none = np.zeros((0, 5), np.float32)
  value, gradients = _gradients(
    lambda t, s: losses.prediction_loss(t, s, kind), none, none
  )
  assert value.shape == [0] and gradients[1].shape == [0, 5]
  assert losses.cross_entropy(none, none).shape == [0]
  assert losses.representation_loss(none, none).shape == [0]


def test_videos_do_not_meet():
  teacher, student = _predictions(30), _predictions(31)
  for kind in _KINDS:
    whole = losses.prediction_loss(teacher, student, kind)
    alone = losses.prediction_loss(teacher[1:2], student[1:2], kind)
    np.testing.assert_allclose(whole[1:2], alone, rtol=1e-6)


def test_unknown_kind():
  with pytest.raises(ValueError, match="prediction_kind is 'l1'.*kl, mse, bce"):
    losses.prediction_loss(np.ones((1, 2)), np.ones((1, 2)), 'l1')
