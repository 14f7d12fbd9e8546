"""Logistic regression per class, as in the YouTube-8M starter code.

Only the weights have L2 regularization, not the bias. A gate may scale the
representation: context gating (arXiv 1706.06905), or NeXtVLAD's squeeze and
excitation (1811.05014).

B videos, R representation, V classes.
"""

from collections.abc import Callable
import functools

import tensorflow as tf
import tf_keras

from yt8m_distill.modeling import gates
from yt8m_distill.modeling.heads import factory


@factory.register('logistic')
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
    """Initializes the head.

    Args:
      num_classes: V.
      l2_weight_decay: factor of sum(w^2) / 2 of the weights.
      input_gate: gate on the representation: none, context or se.
      se_reduction: factor by which the inner layer of se is narrower.
      **kwargs: arguments of a Keras layer.
    """
    super().__init__(**kwargs)
    self._config = {
      'num_classes': num_classes,
      'l2_weight_decay': l2_weight_decay,
      'input_gate': input_gate,
      'se_reduction': se_reduction,
    }
    gate_types: dict[str, Callable[..., tf_keras.layers.Layer | None]] = {
      'none': lambda name: None,
      'context': gates.ContextGate,
      'se': functools.partial(gates.SqueezeExcitationGate, se_reduction),
    }
    self.input_gate = gate_types[input_gate](name='input_gate')
    self.classes = tf_keras.layers.Dense(
      num_classes,
      name='classes',
      kernel_regularizer=tf_keras.regularizers.L2(l2_weight_decay / 2),
    )

  def build(self, input_shape):
    """Creates the variables for a representation [B, R]."""
    for layer in filter(None, (self.input_gate, self.classes)):
      with tf.name_scope(layer.name):
        layer.build(input_shape)
    super().build(input_shape)

  def call(self, representation, training=False):
    """Returns predictions, float32 [B, V]."""
    if self.input_gate:
      representation = self.input_gate(representation, training=training)
    logits = self.classes(representation)
    return tf.sigmoid(
      tf.cast(logits, tf.float32)
    )  # whatever the mixed-precision policy

  def flops(self) -> int:
    """Returns the FLOPs of a video: 2 per multiply-add."""
    gate = self.input_gate.flops() if self.input_gate else 0
    return gate + 2 * int(self.classes.kernel.shape.num_elements())

  def get_config(self):
    """Returns the arguments of __init__."""
    return {**super().get_config(), **self._config}
