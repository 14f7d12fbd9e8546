"""Batch normalization whose statistics leave out padding.

Ioffe and Szegedy, arXiv 1502.03167. tf_keras' own layer also takes a mask, but
divides by the number of valid positions: in a batch without any, as one of no
videos, its moving averages become NaN for good.

K values of a position.
"""

import tensorflow as tf
import tf_keras


@tf_keras.utils.register_keras_serializable(package='yt8m_distill')
class MaskedBatchNormalization(tf_keras.layers.BatchNormalization):
  """Normalizes the K values of float [..., K] using statistics of valid positions.

  In training, the statistics are mean and variance of the batch, over all
  replicas; otherwise, and if the layer is frozen, their moving averages. A batch
  without valid positions leaves the moving averages unchanged. Everything is
  computed in float32, whatever the mixed-precision policy.
  """

  def __init__(self, **kwargs):
    """Initializes the layer.

    Args:
      **kwargs: arguments of tf_keras' BatchNormalization.
    """
    super().__init__(**{'dtype': 'float32', **kwargs})

  def call(self, inputs, real=None, training=False):
    """Normalizes all positions using statistics of the valid ones.

    Args:
      inputs: float [..., K].
      real: bool [...], which positions are valid; None for all.
      training: see the class.

    Returns:
      float32 [..., K].
    """
    if real is None:
      real = tf.ones(tf.shape(inputs)[:-1], tf.bool)
    mean, variance = self.moving_mean, self.moving_variance
    if training and self.trainable:
      mean, variance = self._moments(inputs, real)
    return tf.nn.batch_normalization(
      inputs, mean, variance, self.beta, self.gamma, self.epsilon
    )

  def _moments(self, inputs, real):
    """Returns mean and variance of valid positions; updates the moving averages."""
    all_reduce = tf.distribute.get_replica_context().all_reduce
    weights = tf.cast(real, tf.float32)[..., None]
    axes = list(range(inputs.shape.rank - 1))
    count, total = all_reduce(
      tf.distribute.ReduceOp.SUM,
      [tf.reduce_sum(weights), tf.reduce_sum(weights * inputs, axes)],
    )
    mean = tf.math.divide_no_nan(total, count)
    variance = tf.math.divide_no_nan(
      all_reduce(
        tf.distribute.ReduceOp.SUM,
        tf.reduce_sum(weights * tf.math.squared_difference(inputs, mean), axes),
      ),
      count,
    )
    rate = tf.where(count > 0.0, 1.0 - self.momentum, 0.0)
    for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
      average.assign_sub(rate * (average - value))
    return mean, variance
