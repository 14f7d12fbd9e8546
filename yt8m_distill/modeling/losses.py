"""Losses of "Efficient Video Classification Using Fewer Frames" (CVPR 2019).

Pure functions of tensors that return one value per video, in float32 whatever the
inputs' type. Value and gradient are finite for any predictions in [0, 1], even if
all predictions of a video are 0, and for states whose squares fit float32.

B videos, R representation, V classes, K frames of the student.
"""

import tensorflow as tf

from yt8m_distill.configs import classification
from yt8m_distill.configs import distillation

# Lower bound of probabilities in logarithms and quotients, which keeps them finite
# if predictions underflow; the original has no such bound.
_TINY = 1e-12


def label_loss(
  labels: tf.Tensor,
  predictions: tf.Tensor,
  kind: str = 'cross_entropy',
  epsilon: float = 1e-5,
  class_weights: tf.Tensor = 1.0,
  weights: tf.Tensor | None = None,
) -> tf.Tensor:
  """L_CE, or another distance of predictions from labels.

  Args:
    labels: [B, V], bool or probabilities.
    predictions: [B, V] probabilities.
    kind: one of `configs.classification.LABEL_LOSSES`.
    epsilon: added to predictions in logarithms; 'hinge' has none.
    class_weights: [V], for 'weighted_cross_entropy'.
    weights: float32 [B, V], factor of each class of each video, at least 0; a class
      of weight 0 has no influence. None stands for 1.

  Returns:
    float32 [B].

  Raises:
    ValueError: unknown `kind`.
  """
  if kind == 'cross_entropy':
    return cross_entropy(labels, predictions, epsilon, weights=weights)
  if kind == 'weighted_cross_entropy':
    return cross_entropy(labels, predictions, epsilon, class_weights, weights)
  if kind == 'softmax':
    return softmax_cross_entropy(labels, predictions, epsilon, weights)
  if kind == 'hinge':
    return hinge(labels, predictions, weights)
  kinds = ', '.join(classification.LABEL_LOSSES)
  raise ValueError(f'label_kind is {kind!r}: choose one of {kinds}.')


def cross_entropy(
  labels: tf.Tensor,
  predictions: tf.Tensor,
  epsilon: float = 1e-5,
  class_weights: tf.Tensor = 1.0,
  weights: tf.Tensor | None = None,
) -> tf.Tensor:
  """L_CE, binary cross-entropy summed over the classes.

  As in the original code, `epsilon` is added inside both logarithms.

  Args:
    labels: [B, V], bool or probabilities.
    predictions: [B, V] probabilities.
    epsilon: added to each argument of a logarithm.
    class_weights: [V], factors of the positive terms.
    weights: see label_loss().

  Returns:
    float32 [B].
  """
  labels = tf.cast(labels, tf.float32)
  predictions = tf.clip_by_value(tf.cast(predictions, tf.float32), 0.0, 1.0)
  return -_sum(
    class_weights * labels * tf.math.log(predictions + epsilon)
    + (1.0 - labels) * tf.math.log(1.0 - predictions + epsilon),
    weights,
  )


def softmax_cross_entropy(
  labels: tf.Tensor,
  predictions: tf.Tensor,
  epsilon: float = 1e-5,
  weights: tf.Tensor | None = None,
) -> tf.Tensor:
  """Cross-entropy of one distribution over the classes.

  As in the starter code's SoftmaxLoss, all labels of a video have the same
  probability. Deviation: the starter code uses predictions as logits, although
  they are probabilities; here they are normalized to sum 1. A video without
  labels has loss 0.

  Args:
    labels: [B, V], bool or probabilities.
    predictions: [B, V] probabilities.
    epsilon: added to each prediction before the normalization.
    weights: see label_loss(). The distribution is over the weighted predictions.

  Returns:
    float32 [B].
  """
  predictions = tf.cast(predictions, tf.float32) + epsilon
  total = _sum(predictions, weights)[..., tf.newaxis]
  return -_sum(
    _normalize(tf.cast(labels, tf.float32))
    * (tf.math.log(predictions) - tf.math.log(total)),
    weights,
  )


def hinge(
  labels: tf.Tensor, predictions: tf.Tensor, weights: tf.Tensor | None = None
) -> tf.Tensor:
  """Hinge loss with margin 1 of the scores 2p - 1, summed over the classes.

  It is 0 if every prediction is correct with certainty. Deviation: the starter
  code's HingeLoss uses the prediction p itself as score, so that each negative
  costs at least 1; gradients here are twice as large.

  Args:
    labels: [B, V], bool.
    predictions: [B, V] probabilities.
    weights: see label_loss().

  Returns:
    float32 [B].
  """
  signs = 2.0 * tf.cast(labels, tf.float32) - 1.0
  scores = 2.0 * tf.cast(predictions, tf.float32) - 1.0
  return _sum(tf.nn.relu(1.0 - signs * scores), weights)


def representation_loss(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
  """L_REP, the squared distance of the representations.

  Args:
    teacher: [..., R].
    student: [..., R].

  Returns:
    float32 [...], summed over R as in the original code.
  """
  return tf.reduce_sum(
    tf.math.squared_difference(
      tf.cast(teacher, tf.float32), tf.cast(student, tf.float32)
    ),
    axis=-1,
  )


def intermediate_loss(
  teacher: tf.Tensor, student: tf.Tensor, num_frames: tf.Tensor
) -> tf.Tensor:
  """L_INT, the squared distance of the states at the same frames.

  The paper's "intermediate matching", for which it gives no formula and its code
  has no implementation.

  Args:
    teacher: [B, K, R].
    student: [B, K, R].
    num_frames: int [B], how many of the K are real.

  Returns:
    float32 [B], summed over the real frames and over R.
  """
  distances = representation_loss(teacher, student)
  real = tf.sequence_mask(num_frames, distances.shape[1])
  return tf.reduce_sum(tf.where(real, distances, 0.0), axis=1)


def prediction_loss(
  teacher: tf.Tensor,
  student: tf.Tensor,
  kind: str = 'kl',
  epsilon: float = 1e-5,
  temperature: float = 1.0,
) -> tf.Tensor:
  """L_PRED, the distance of the student's predictions from the teacher's.

  Args:
    teacher: [B, V] probabilities.
    student: [B, V] probabilities.
    kind: one of `configs.distillation.PREDICTION_LOSSES`. 'kl': divergence of the
      predictions, each video's normalized to sum 1 over the classes (as in the original
      code). 'mse': squared distance. 'bce': cross_entropy() with the teacher's
      predictions as labels.
    epsilon: for 'bce'.
    temperature: T, for 'kl': predictions are raised to 1/T before they are
      normalized, and the divergence is multiplied by T^2 (arXiv 1503.02531).

  Returns:
    float32 [B].

  Raises:
    ValueError: unknown `kind`.
  """
  teacher = tf.cast(teacher, tf.float32)
  student = tf.cast(student, tf.float32)
  if kind == 'mse':
    return tf.reduce_sum(tf.math.squared_difference(teacher, student), axis=-1)
  if kind == 'bce':
    return cross_entropy(teacher, student, epsilon)
  if kind != 'kl':
    kinds = ', '.join(distillation.PREDICTION_LOSSES)
    raise ValueError(f'prediction_kind is {kind!r}: choose one of {kinds}.')
  teacher = _normalize(_soften(teacher, temperature))
  student = _normalize(_soften(student, temperature))
  return temperature**2 * tf.reduce_sum(
    teacher * (tf.math.log(teacher + _TINY) - tf.math.log(student + _TINY)), axis=-1
  )


def _sum(values: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
  """Sums [B, V] over the classes, with weights or without."""
  return tf.reduce_sum(values if weights is None else weights * values, axis=-1)


def _soften(predictions: tf.Tensor, temperature: float) -> tf.Tensor:
  """Raises predictions to 1 / temperature, relative to each video's largest."""
  if temperature == 1.0:
    return predictions
  # A plain power has no finite gradient at 0 and may underflow for all classes.
  logs = tf.math.log(tf.maximum(predictions, _TINY))
  largest = tf.reduce_max(logs, axis=-1, keepdims=True)
  return tf.exp((logs - tf.stop_gradient(largest)) / temperature)


def _normalize(predictions: tf.Tensor) -> tf.Tensor:
  total = tf.reduce_sum(predictions, axis=-1, keepdims=True)
  return predictions / tf.maximum(total, _TINY)
