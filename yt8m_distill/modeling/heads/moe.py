"""Mixture of logistic experts, as in the YouTube-8M starter code.

A class has M experts and a dummy one that always says 0; a softmax gate mixes
them. As in the original the gates have no bias, the experts have one, columns
of one class lie together, and L2 falls on both weight matrices alone.

B videos, R representation, V classes, M mixtures.
"""

import tensorflow as tf
import tf_keras


@tf_keras.utils.register_keras_serializable(package='yt8m_distill')
class MoeHead(tf_keras.layers.Layer):
  """Predictions float32 [B, V] in [0, 1] from a representation [B, R]."""

  def __init__(self,
               num_classes: int,
               num_mixtures: int = 2,
               l2_weight_decay: float = 1e-8,
               **kwargs):
    """Initialises the head.

    Args:
      num_classes: V.
      num_mixtures: M.
      l2_weight_decay: times sum(w^2) / 2 of both weight matrices.
      **kwargs: of a Keras layer.

    Raises:
      ValueError: a size below 1.
    """
    super().__init__(**kwargs)
    for name, value in (('num_classes', num_classes),
                        ('num_mixtures', num_mixtures)):
      if value < 1:
        raise ValueError(f'{name} is {value}: it must be at least 1.')
    self.num_classes = num_classes
    self.num_mixtures = num_mixtures
    self._l2_weight_decay = l2_weight_decay

    def dense(name, units, use_bias):
      return tf_keras.layers.Dense(
          units, use_bias=use_bias, name=name,
          kernel_regularizer=tf_keras.regularizers.L2(l2_weight_decay / 2))

    self.gates = dense('gates', num_classes * (num_mixtures + 1), False)
    self.experts = dense('experts', num_classes * num_mixtures, True)

  def build(self, input_shape):
    for layer in (self.gates, self.experts):
      with tf.name_scope(layer.name):
        layer.build(input_shape)
    super().build(input_shape)

  def call(self, representation, training=False):
    del training
    # float32 whatever the policy: sums of small probabilities follow.
    gates = tf.nn.softmax(tf.cast(tf.reshape(
        self.gates(representation),
        [-1, self.num_classes, self.num_mixtures + 1]), tf.float32))
    experts = tf.sigmoid(tf.cast(tf.reshape(
        self.experts(representation),
        [-1, self.num_classes, self.num_mixtures]), tf.float32))
    return tf.reduce_sum(gates[..., :self.num_mixtures] * experts, axis=-1)

  def flops(self) -> int:
    """FLOPs of a video: 2 per multiply-add."""
    return 2 * sum(int(layer.kernel.shape.num_elements())
                   for layer in (self.gates, self.experts))

  def get_config(self):
    return {
        **super().get_config(),
        'num_classes': self.num_classes,
        'num_mixtures': self.num_mixtures,
        'l2_weight_decay': self._l2_weight_decay,
    }
