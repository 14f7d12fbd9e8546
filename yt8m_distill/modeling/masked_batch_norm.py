"""Batch normalisation that counts what is real.

Ioffe and Szegedy, arXiv 1502.03167. The layer of tf_keras takes a mask as well,
but divides by the number of what is real, and turns NaN for good where that is
0, as in a batch of no videos.

K values of a position.
"""

import tensorflow as tf
import tf_keras


@tf_keras.utils.register_keras_serializable(package='yt8m_distill')
class MaskedBatchNormalization(tf_keras.layers.BatchNormalization):
  """Normalises the K values of float [..., K] by those of real positions.

  In training by mean and variance of the batch, over all replicas; else, and
  where the layer is frozen, by their moving averages. A batch in which nothing
  is real leaves those as they are. All of it is float32, whatever the policy.
  """

  def __init__(self, **kwargs):
    """Initialises the layer.

    Args:
      **kwargs: of tf_keras' BatchNormalization.
    """
    super().__init__(**{'dtype': 'float32', **kwargs})

  def call(self, inputs, real=None, training=False):
    """Normalises values, those that are not real by what the real ones tell.

    Args:
      inputs: [..., K].
      real: bool [...]; None for all.
      training: see above.

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
    """Mean and variance of real positions; the moving averages follow."""
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
