"""Gating layers: scale each value of a vector by a learned function of the vector.

Sources: context gating of "Learnable pooling with context gating for video
classification" (arXiv 1706.06905), where batch normalization replaces the bias;
the squeeze-and-excitation gate of NeXtVLAD (arXiv 1811.05014). Deviations: the
moving averages of the batch normalization have momentum 0.99 instead of 0.999,
and its statistics are those of all replicas.

B videos, R values.
"""

import tensorflow as tf
import tf_keras

from yt8m_distill.modeling import masked_batch_norm


class _Gate(tf_keras.layers.Layer):
  """sigmoid(f(x)) * x for x float [B, R], in the type of x.

  Whatever the mixed-precision policy, the sigmoid is computed in float32 and x
  is not cast. A subclass implements f as `logits` and builds its layers.
  """

  def __init__(self, **kwargs):
    super().__init__(autocast=False, **kwargs)

  def logits(self, x, training):
    """Returns f(x), [B, R]."""
    raise NotImplementedError

  def call(self, x, training=False):
    """Returns the gated x, [B, R]."""
    gate = tf.sigmoid(tf.cast(self.logits(x, training), tf.float32))
    return x * tf.cast(gate, x.dtype)


@tf_keras.utils.register_keras_serializable(package='yt8m_distill')
class ContextGate(_Gate):
  """f(x) = BN(W x), W [R, R]."""

  def build(self, input_shape):
    """Creates the variables for x [B, R]."""
    self.dense = _dense(input_shape[-1], 'dense')
    self.norm = masked_batch_norm.MaskedBatchNormalization(name='norm')
    _build(input_shape, self.dense)
    _build(input_shape, self.norm)
    super().build(input_shape)

  def logits(self, x, training):
    """Returns BN(W x)."""
    return self.norm(self.dense(x), training=training)

  def flops(self) -> int:
    """Returns the FLOPs of a video: 2 per multiply-add."""
    return _flops(self.dense)


@tf_keras.utils.register_keras_serializable(package='yt8m_distill')
class SqueezeExcitationGate(_Gate):
  """f(x) = W2 relu(BN(W1 x)), W1 [R, R / reduction], rounded down."""

  def __init__(self, reduction: int = 8, **kwargs):
    """Initializes the gate.

    Args:
      reduction: factor by which the inner layer is narrower.
      **kwargs: arguments of a Keras layer.
    """
    super().__init__(**kwargs)
    self._reduction = reduction

  def build(self, input_shape):
    """Creates the variables for x [B, R].

    Raises:
      ValueError: the reduction is below 1 or above R.
    """
    size = input_shape[-1]
    if not 1 <= self._reduction <= size:
      raise ValueError(
        f'se_reduction is {self._reduction}: it must be between 1 and the size of the '
        f'representation, {size}.'
      )
    inner = size // self._reduction
    self.squeeze = _dense(inner, 'squeeze')
    self.norm = masked_batch_norm.MaskedBatchNormalization(name='norm')
    self.excite = _dense(size, 'excite')
    _build(input_shape, self.squeeze)
    _build([None, inner], self.norm)
    _build([None, inner], self.excite)
    super().build(input_shape)

  def logits(self, x, training):
    """Returns W2 relu(BN(W1 x))."""
    return self.excite(tf.nn.relu(self.norm(self.squeeze(x), training=training)))

  def flops(self) -> int:
    """Returns the FLOPs of a video: 2 per multiply-add."""
    return _flops(self.squeeze) + _flops(self.excite)

  def get_config(self):
    """Returns the arguments of __init__."""
    return {**super().get_config(), 'reduction': self._reduction}


def _dense(units, name):
  return tf_keras.layers.Dense(units, use_bias=False, name=name)


def _build(input_shape, layer):
  with tf.name_scope(layer.name):
    layer.build(input_shape)


def _flops(dense) -> int:
  return 2 * int(dense.kernel.shape.num_elements())
