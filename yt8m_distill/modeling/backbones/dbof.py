"""Deep bag of frames, DbofModel of the YouTube-8M starter code.

Source: "YouTube-8M: a large-scale video classification benchmark" (arXiv
1609.08675). Each frame activates clusters, whose activations are pooled over the
frames and read by a hidden layer. As in the code, frames, clusters and hidden
units are batch-normalized, clusters and hidden units end in relu6, and neither
layer has a bias. Deviations: all frames given to the network are used, not 30
random ones; padding is left out of the pooling and of all statistics; moving
averages have tf_keras' momentum 0.99 (there 0.999).

B videos, T frames, D features, K clusters, R representation.
"""

import tensorflow as tf
import tf_keras

from yt8m_distill.modeling import masked_batch_norm
from yt8m_distill.modeling.backbones import average
from yt8m_distill.modeling.backbones import base


def _max(clusters, num_frames):
  real = tf.sequence_mask(num_frames, clusters.shape[1])
  return tf.reduce_max(tf.where(real[..., None], clusters, 0.0), axis=1)


# From clusters [B, T, K], none below 0, and num_frames [B] to [B, K].
_POOLINGS = {'max': _max, 'average': average.mean}


@base.register('yt8m_dbof')
class Dbof(base.Backbone):
  """Bag of {'frames': float [B, T, D], 'num_frames': int32 [B]}.

  Returns {'representation': float32 [B, R]}; a video without frames counts as
  one that activates no cluster.
  """

  def __init__(
    self,
    input_specs,
    clusters: int = 8192,
    hidden: int = 1024,
    pooling: str = 'max',
    **kwargs,
  ):
    """Initializes and builds the backbone.

    Args:
      input_specs: see Backbone.
      clusters: K.
      hidden: R.
      pooling: how clusters are pooled over the frames: max or average.
      **kwargs: arguments of a Backbone.
    """
    super().__init__(
      input_specs,
      options={'clusters': clusters, 'hidden': hidden, 'pooling': pooling},
      autocast=False,
      **kwargs,
    )
    self._pool = _POOLINGS[pooling]

    def dense(name, units):
      return tf_keras.layers.Dense(
        units, use_bias=False, name=name, kernel_regularizer=self.regularizer
      )

    self.input_norm = masked_batch_norm.MaskedBatchNormalization(name='input_norm')
    self.clusters = dense('clusters', clusters)
    self.cluster_norm = masked_batch_norm.MaskedBatchNormalization(name='cluster_norm')
    self.hidden = dense('hidden', hidden)
    self.hidden_norm = masked_batch_norm.MaskedBatchNormalization(name='hidden_norm')
    frames, features = self.num_frames, self.num_features
    for layer, shape in (
      (self.input_norm, [None, frames, features]),
      (self.clusters, [None, frames, features]),
      (self.cluster_norm, [None, frames, clusters]),
      (self.hidden, [None, clusters]),
      (self.hidden_norm, [None, hidden]),
    ):
      with tf.name_scope(layer.name):
        layer.build(shape)
    self.built = True

  def call(self, inputs, training=False):
    """Returns the representation; see the class."""
    frames, num_frames = inputs['frames'], inputs['num_frames']
    real = tf.sequence_mask(num_frames, frames.shape[1])
    # Multiplying by 0 is not enough: padding might hold NaN.
    frames = tf.where(real[..., None], frames, tf.zeros([], frames.dtype))
    frames = self.input_norm(frames, real, training=training)
    clusters = tf.nn.relu6(
      self.cluster_norm(self.clusters(frames), real, training=training)
    )
    hidden = self.hidden_norm(
      self.hidden(self._pool(clusters, num_frames)), training=training
    )
    return {'representation': tf.nn.relu6(hidden)}

  @property
  def representation_size(self) -> int:
    """R."""
    return self.hidden.units

  def flops(self, num_frames: int | None = None) -> int:
    """Returns the FLOPs of a video of `num_frames` frames (T): 2 per multiply-add."""
    return 2 * (
      (num_frames or self.num_frames) * int(self.clusters.kernel.shape.num_elements())
      + int(self.hidden.kernel.shape.num_elements())
    )
