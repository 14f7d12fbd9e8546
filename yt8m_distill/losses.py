"""Losses of "Efficient Video Classification Using Fewer Frames" (CVPR 2019).

Pure functions of tensors, one value per video, in float32 whatever they are
given. Value and gradient are finite for any prediction in [0, 1], also where
all predictions of a video are 0.

B videos, R representation, V classes.
"""

import tensorflow as tf

PREDICTION_LOSSES = ('kl', 'mse', 'bce')
# Below it a probability counts as this, so that logarithms and quotients of
# predictions that underflow stay finite; the original has no such bound.
_TINY = 1e-12


def cross_entropy(labels: tf.Tensor, predictions: tf.Tensor,
                  epsilon: float = 1e-5) -> tf.Tensor:
  """L_CE, binary cross-entropy summed over the classes.

  With the original code's `epsilon` inside both logarithms.

  Args:
    labels: [B, V], bool or probabilities.
    predictions: [B, V] probabilities.
    epsilon: added to each argument of a logarithm.

  Returns:
    float32 [B].
  """
  labels = tf.cast(labels, tf.float32)
  predictions = tf.clip_by_value(tf.cast(predictions, tf.float32), 0.0, 1.0)
  return -tf.reduce_sum(
      labels * tf.math.log(predictions + epsilon) +
      (1.0 - labels) * tf.math.log(1.0 - predictions + epsilon), axis=-1)


def representation_loss(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
  """L_REP, squared distance of the representations.

  Args:
    teacher: [B, R].
    student: [B, R].

  Returns:
    float32 [B], summed over R as in the original code.
  """
  return tf.reduce_sum(tf.math.squared_difference(
      tf.cast(teacher, tf.float32), tf.cast(student, tf.float32)), axis=-1)


def prediction_loss(teacher: tf.Tensor, student: tf.Tensor, kind: str = 'kl',
                    epsilon: float = 1e-5) -> tf.Tensor:
  """L_PRED, distance of the student's predictions from the teacher's.

  Args:
    teacher: [B, V] probabilities.
    student: [B, V] probabilities.
    kind: 'kl', divergence of the predictions, each video's normalised to sum 1
      over the classes (the original code); 'mse', squared distance; 'bce',
      cross_entropy() with the teacher's predictions as labels.
    epsilon: of 'bce'.

  Returns:
    float32 [B].

  Raises:
    ValueError: unknown `kind`.
  """
  teacher = tf.cast(teacher, tf.float32)
  student = tf.cast(student, tf.float32)
  if kind == 'kl':
    teacher, student = _normalize(teacher), _normalize(student)
    return tf.reduce_sum(
        teacher * (tf.math.log(teacher + _TINY) - tf.math.log(student + _TINY)),
        axis=-1)
  if kind == 'mse':
    return tf.reduce_sum(tf.math.squared_difference(teacher, student), axis=-1)
  if kind == 'bce':
    return cross_entropy(teacher, student, epsilon)
  raise ValueError(f'prediction_kind is {kind!r}: choose one of '
                   f'{", ".join(PREDICTION_LOSSES)}.')


def _normalize(predictions: tf.Tensor) -> tf.Tensor:
  total = tf.reduce_sum(predictions, axis=-1, keepdims=True)
  return predictions / tf.maximum(total, _TINY)
