"""A backbone and a head.

B videos, T frames, D features, R representation, V classes.
"""

import tensorflow as tf
import tf_keras

from yt8m_distill.modeling.backbones import base
from yt8m_distill.modeling.heads import factory


@base.register('conv')
class Conv(base.Backbone):
  """A convolution over the frames and the maximum of each filter, float32 [B, R]."""

  def __init__(self, input_specs, filters, kernel_size, **kwargs):
    super().__init__(
      input_specs, options={'filters': filters, 'kernel_size': kernel_size}, **kwargs
    )
    self.filters = tf_keras.layers.Conv1D(
      filters, kernel_size, padding='same', activation='relu', name='filters'
    )
    self.filters.build([None, self.num_frames, self.num_features])
    self.built = True

  def call(self, inputs, training=False):
    real = tf.sequence_mask(inputs['num_frames'], self.num_frames)[..., None]
    responses = tf.where(real, self.filters(inputs['frames']), 0.0)
    return {'representation': tf.reduce_max(responses, axis=1)}

  @property
  def representation_size(self):
    return self.filters.filters

  def flops(self, num_frames=None):
    return (
      2
      * (num_frames or self.num_frames)
      * int(self.filters.kernel.shape.num_elements())
    )


@factory.register('cosine')
class Cosine(tf_keras.layers.Layer):
  """The cosine of a representation and a prototype of each class."""

  def __init__(self, num_classes, scale, **kwargs):
    super().__init__(**kwargs)
    self._config = {'num_classes': num_classes, 'scale': scale}

  def build(self, input_shape):
    shape = [input_shape[-1], self._config['num_classes']]
    self.prototypes = self.add_weight('prototypes', shape)
    super().build(input_shape)

  def call(self, representation, training=False):
    cosine = tf.linalg.matmul(
      tf.nn.l2_normalize(tf.cast(representation, tf.float32), axis=-1),
      tf.nn.l2_normalize(tf.cast(self.prototypes, tf.float32), axis=0),
    )
    return tf.sigmoid(self._config['scale'] * cosine)

  def flops(self):
    return 2 * int(self.prototypes.shape.num_elements())

  def get_config(self):
    return {**super().get_config(), **self._config}
