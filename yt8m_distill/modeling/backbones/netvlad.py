"""NetVLAD of "Learnable pooling with context gating" (Miech et al.).

arXiv 1706.06905, and the settings of its released code. Frames are
batch-normalized and softly assigned to clusters. Each cluster sums its residuals
and scales the sum to norm 1; then the whole descriptor is scaled to norm 1. A
linear layer without activation follows. Context gates belong to the head.

Deviations: padding is left out of descriptors and statistics; moving averages
have tf_keras' momentum 0.99 (there 0.999); frames are not sampled here.

B videos, T frames, D features of a frame, K clusters, R representation.
"""

import tensorflow as tf
import tf_keras

from yt8m_distill.modeling import masked_batch_norm
from yt8m_distill.modeling.backbones import base
from yt8m_distill.modeling.backbones import vlad


@tf_keras.utils.register_keras_serializable(package='yt8m_distill')
class NetVladPool(tf_keras.layers.Layer):
  """From frames [B, T, D] and real, bool [B, T], to descriptors [B, K * D]."""

  def __init__(self, clusters: int, **kwargs):
    """Initializes the layer.

    Args:
      clusters: K.
      **kwargs: arguments of a Keras layer.
    """
    super().__init__(**kwargs)
    self._clusters = clusters
    self.norm = masked_batch_norm.MaskedBatchNormalization(name='norm')

  def build(self, input_shape):
    """Creates the variables for frames [B, T, D]."""
    features = input_shape[-1]
    self.output_size = self._clusters * features
    self.assign = tf_keras.layers.Dense(
      self._clusters,
      use_bias=False,
      name='assign',
      kernel_initializer=vlad.normal(1 / features),
    )
    for layer, size in ((self.assign, features), (self.norm, self._clusters)):
      with tf.name_scope(layer.name):
        layer.build([None, None, size])
    self.centres = self.add_weight(
      name='centres',
      shape=[self._clusters, features],
      initializer=vlad.normal(1 / features),
      experimental_autocast=False,
    )
    super().build(input_shape)

  def call(self, frames, real, training=False):
    """Returns descriptors, float32 [B, K * D]; `real` is False for padding."""
    logits = self.norm(self.assign(frames), real, training=training)
    assignment = tf.nn.softmax(logits) * tf.cast(real, tf.float32)[..., None]
    descriptor = vlad.aggregate(assignment, frames, self.centres)
    return tf.nn.l2_normalize(tf.reshape(descriptor, [-1, self.output_size]), axis=-1)

  def flops(self, frames: int) -> int:
    """Returns the FLOPs of assigning and summing `frames` frames."""
    return 2 * 2 * frames * self.output_size

  def get_config(self):
    """Returns the arguments of __init__."""
    return {**super().get_config(), 'clusters': self._clusters}


@base.register('netvlad')
class NetVlad(vlad.VladBackbone):
  """NetVLAD over {'frames': [B, T, D], 'num_frames': int32 [B]}.

  Frames are normalized, and zero after a video's last frame.

  Returns {'representation': float32 [B, R]}.
  """

  def __init__(
    self,
    input_specs,
    clusters: int = 256,
    hidden: int = 1024,
    **kwargs,
  ):
    """Initializes and builds the backbone.

    Args:
      input_specs: see Backbone.
      clusters: K of the first feature; each further feature has half as many.
      hidden: R.
      **kwargs: arguments of a Backbone.

    Raises:
      ValueError: there are several features, but fewer than 2 clusters.
    """
    super().__init__(
      input_specs,
      clusters,
      hidden,
      lambda share, name: NetVladPool(clusters // share, name=name),
      use_bias=True,
      **kwargs,
    )
    self.norm = masked_batch_norm.MaskedBatchNormalization(name='norm')
    with tf.name_scope('norm'):
      self.norm.build(input_specs['frames'].shape)
    self.built = True

  def call(self, inputs, training=False):
    """Returns the representation; see the class."""
    frames = inputs['frames']
    real = tf.sequence_mask(inputs['num_frames'], frames.shape[1])
    frames = self.norm(frames, real, training=training)
    descriptor = self.describe(frames, real, training)
    return {'representation': tf.cast(self.projection(descriptor), tf.float32)}
