"""What NetVLAD and NeXtVLAD share.

Vectors of locally aggregated descriptors (VLAD): vectors are softly assigned to
clusters, and for each cluster the residuals against its centre are summed.

B videos, T frames, D features, N vectors of a video, K clusters, P values of
all descriptors, R representation.
"""

import tensorflow as tf
import tf_keras

from yt8m_distill.modeling import backbone


def aggregate(assignment: tf.Tensor, x: tf.Tensor, centres: tf.Tensor) -> tf.Tensor:
  """Sums residuals against the centres, each cluster's scaled to L2 norm 1.

  Args:
    assignment: float32 [B, N, K], how far a vector belongs to a cluster.
    x: float [B, N, D] vectors.
    centres: float32 [K, D].

  Returns:
    float32 [B, K, D]; zero for a cluster to which nothing belongs.
  """
  # The sum of a * (x - c) is that of a * x less c times that of a: residuals
  # [B, N, K, D] never exist.
  total = tf.matmul(tf.cast(assignment, x.dtype), x, transpose_a=True)
  weight = tf.reduce_sum(assignment, axis=1)
  residuals = tf.cast(total, tf.float32) - weight[..., None] * centres
  return tf.nn.l2_normalize(residuals, axis=-1)


def normal(variance: float) -> tf_keras.initializers.Initializer:
  """The initialiser of both papers' code."""
  return tf_keras.initializers.RandomNormal(stddev=variance**0.5)


def check_shares(name: str, value: int, features: int):
  """Raises a ValueError where further features would get none of a quantity."""
  if features > 1 and value < 2:
    raise ValueError(
      f'{name} is {value}: it must be at least 2, since features after the first have '
      'half as many.'
    )


class VladBackbone(backbone.Backbone):
  """A descriptor of each feature, and a linear layer over all of them.

  Attributes:
    pools: per feature, the layer that makes its descriptor.
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
    """Initialises and builds the backbone.

    Args:
      input_specs: {'frames': InputSpec of [None, T, D], 'features': of the
        features that make up a frame; without it, they are one}.
      clusters: of the first feature; every further one has half as many.
      hidden: R.
      make_pool: makes the layer of a feature from its share of clusters, 1 or
        2 for a half, and its name. It has `output_size` and `flops(frames)`.
      use_bias: of the projection.
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
    check_shares('clusters', clusters, len(self._feature_sizes))
    self.pools = []
    for k, size in enumerate(self._feature_sizes):
      pool = make_pool(2 if k else 1, f'pool_{k}')
      with tf.name_scope(pool.name):
        pool.build([None, self._num_frames, size])
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
    """Returns float32 [B, P] for frames [B, T, D] and real, bool [B, T]."""
    return tf.concat(
      [
        pool(feature, real, training=training)
        for pool, feature in zip(
          self.pools, tf.split(frames, self._feature_sizes, axis=-1)
        )
      ],
      axis=-1,
    )

  @property
  def representation_size(self) -> int:
    """R."""
    return self.projection.units

  def flops(self) -> int:
    """FLOPs of a video of full length: 2 per multiply-add."""
    return sum(pool.flops(self._num_frames) for pool in self.pools) + 2 * int(
      self.projection.kernel.shape.num_elements()
    )
