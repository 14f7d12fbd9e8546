"""Logistic regression per class, as in the YouTube-8M starter code.

L2 falls on the weights alone. A gate may weigh the representation: context
gating (arXiv 1706.06905), or NeXtVLAD's squeeze and excitation (1811.05014).

B videos, R representation, V classes.
"""

import tensorflow as tf
import tf_keras

from yt8m_distill.modeling import gates

_INPUT_GATES = ('none', 'context', 'se')


@tf_keras.utils.register_keras_serializable(package='yt8m_distill')
class LogisticHead(tf_keras.layers.Layer):
  """Predictions float32 [B, V] in [0, 1] from a representation [B, R]."""

  def __init__(
    self,
    num_classes: int,
    l2_weight_decay: float = 1e-8,
    input_gate: str = 'none',
    se_reduction: int = 8,
    **kwargs,
  ):
    """Initialises the head.

    Args:
      num_classes: V.
      l2_weight_decay: times sum(w^2) / 2 of the weights.
      input_gate: on the representation: none, context or se.
      se_reduction: how much narrower the inner layer of se is.
      **kwargs: of a Keras layer.

    Raises:
      ValueError: num_classes is below 1, or no such gate.
    """
    super().__init__(**kwargs)
    if num_classes < 1:
      raise ValueError(f'num_classes is {num_classes}: it must be at least 1.')
    if input_gate not in _INPUT_GATES:
      raise ValueError(
        f'input_gate is {input_gate!r}: choose one of {", ".join(_INPUT_GATES)}.'
      )
    self._config = {
      'num_classes': num_classes,
      'l2_weight_decay': l2_weight_decay,
      'input_gate': input_gate,
      'se_reduction': se_reduction,
    }
    self.input_gate = None
    if input_gate == 'context':
      self.input_gate = gates.ContextGate(name='input_gate')
    elif input_gate == 'se':
      self.input_gate = gates.SqueezeExcitationGate(se_reduction, name='input_gate')
    self.classes = tf_keras.layers.Dense(
      num_classes,
      name='classes',
      kernel_regularizer=tf_keras.regularizers.L2(l2_weight_decay / 2),
    )

  def build(self, input_shape):
    for layer in filter(None, (self.input_gate, self.classes)):
      with tf.name_scope(layer.name):
        layer.build(input_shape)
    super().build(input_shape)

  def call(self, representation, training=False):
    if self.input_gate:
      representation = self.input_gate(representation, training=training)
    logits = self.classes(representation)
    return tf.sigmoid(tf.cast(logits, tf.float32))  # whatever the policy

  def flops(self) -> int:
    """FLOPs of a video: 2 per multiply-add."""
    gate = self.input_gate.flops() if self.input_gate else 0
    return gate + 2 * int(self.classes.kernel.shape.num_elements())

  def get_config(self):
    return {**super().get_config(), **self._config}
