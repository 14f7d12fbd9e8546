"""What NetVLAD and NeXtVLAD share.

Vectors of locally aggregated descriptors (VLAD): vectors are softly assigned to
clusters, and each cluster sums their residuals against its center.

B videos, T frames, D features, N vectors of a video, K clusters, P values of
all descriptors, R representation.
"""

import tensorflow as tf
import tf_keras

from yt8m_distill.configs import fits
from yt8m_distill.modeling.backbones import base


def aggregate(assignment: tf.Tensor, x: tf.Tensor, centres: tf.Tensor) -> tf.Tensor:
  """Sums residuals against the centers and scales each cluster's to L2 norm 1.

  Args:
    assignment: float32 [B, N, K], weight of each vector in each cluster.
    x: float [B, N, D] vectors.
    centres: float32 [K, D].

  Returns:
    float32 [B, K, D]; zero for a cluster without vectors.
  """
  # sum(a * (x - c)) = sum(a * x) - c * sum(a) avoids residuals [B, N, K, D].
  total = tf.matmul(tf.cast(assignment, x.dtype), x, transpose_a=True)
  weight = tf.reduce_sum(assignment, axis=1)
  residuals = tf.cast(total, tf.float32) - weight[..., None] * centres
  return tf.nn.l2_normalize(residuals, axis=-1)


def normal(variance: float) -> tf_keras.initializers.Initializer:
  """Returns the initializer that the code of both papers uses."""
  return tf_keras.initializers.RandomNormal(stddev=variance**0.5)


class VladBackbone(base.Backbone):
  """One descriptor per feature, and a linear layer over all of them.

  Attributes:
    pools: per feature, the layer that computes its descriptor.
    projection: the linear layer, from [B, P] to [B, R].
  """

  def __init__(
    self,
    input_specs,
    clusters: int,
    hidden: int,
    make_pool,
    use_bias: bool,
    options=None,
    **kwargs,
  ):
    """Initializes and builds the backbone.

    Args:
      input_specs: see Backbone.
      clusters: of the first feature; each further feature has half as many.
      hidden: R.
      make_pool: from a divisor of the number of clusters (1 for the first
        feature, 2 for the others) and a name to the layer of a feature, which
        has `output_size` and `flops(frames)`.
      use_bias: whether the projection has a bias.
      options: further arguments of the subclass, by their names.
      **kwargs: arguments of a Backbone.

    Raises:
      ValueError: there are several features, but fewer than 2 clusters.
    """
    super().__init__(
      input_specs,
      options={'clusters': clusters, 'hidden': hidden, **(options or {})},
      **kwargs,
    )
    fits.check_shares(clusters, len(self.feature_sizes), 'clusters')
    self.pools = []
    for k, size in enumerate(self.feature_sizes):
      pool = make_pool(2 if k else 1, f'pool_{k}')
      with tf.name_scope(pool.name):
        pool.build([None, self.num_frames, size])
      self.pools.append(pool)
    self.projection = tf_keras.layers.Dense(
      hidden,
      use_bias=use_bias,
      kernel_initializer=normal(1 / clusters),
      kernel_regularizer=self.regularizer,
      name='projection',
    )
    with tf.name_scope('projection'):
      self.projection.build([None, sum(pool.output_size for pool in self.pools)])

  def describe(self, frames, real, training):
    """Returns all descriptors, float32 [B, P].

    Args:
      frames: float [B, T, D].
      real: bool [B, T], False for padding.
      training: whether to use and update statistics of the batch.
    """
    return tf.concat(
      [
        pool(feature, real, training=training)
        for pool, feature in zip(
          self.pools, tf.split(frames, self.feature_sizes, axis=-1)
        )
      ],
      axis=-1,
    )

  @property
  def representation_size(self) -> int:
    """R."""
    return self.projection.units

  def flops(self, num_frames: int | None = None) -> int:
    """Returns the FLOPs of a video of `num_frames` frames (T): 2 per multiply-add."""
    frames = num_frames or self.num_frames
    return sum(pool.flops(frames) for pool in self.pools) + 2 * int(
      self.projection.kernel.shape.num_elements()
    )
