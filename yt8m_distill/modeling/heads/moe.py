"""Mixture of logistic experts, as in the YouTube-8M starter code.

A class has M experts and a dummy expert that always predicts 0; a softmax gate
mixes them. As in the original, the experts have a bias and the gates have none,
the columns of a class are adjacent, and only the two weight matrices have L2
regularization. Context gates may scale the representation and the predictions
(arXiv 1706.06905).

B videos, R representation, V classes, M mixtures.
"""

import functools

import tensorflow as tf
import tf_keras

from yt8m_distill.modeling import gates as gates_lib
from yt8m_distill.modeling.heads import factory


@factory.register('moe')
class MoeHead(tf_keras.layers.Layer):
  """Predictions float32 [B, V] in [0, 1] from a representation [B, R]."""

  def __init__(
    self,
    num_classes: int,
    num_mixtures: int = 2,
    l2_weight_decay: float = 1e-8,
    input_gate: bool = False,
    output_gate: bool = False,
    **kwargs,
  ):
    """Initializes the head.

    Args:
      num_classes: V.
      num_mixtures: M.
      l2_weight_decay: factor of sum(w^2) / 2 of both weight matrices.
      input_gate: context gate on the representation.
      output_gate: context gate on the predictions.
      **kwargs: arguments of a Keras layer.
    """
    super().__init__(**kwargs)
    self.num_classes = num_classes
    self.num_mixtures = num_mixtures
    self._l2_weight_decay = l2_weight_decay

    def dense(name, units, use_bias):
      return tf_keras.layers.Dense(
        units,
        use_bias=use_bias,
        name=name,
        kernel_regularizer=tf_keras.regularizers.L2(l2_weight_decay / 2),
      )

    self.gates = dense('gates', num_classes * (num_mixtures + 1), False)
    self.experts = dense('experts', num_classes * num_mixtures, True)
    self.input_gate = self.output_gate = None
    if input_gate:
      self.input_gate = gates_lib.ContextGate(name='input_gate')
    if output_gate:
      self.output_gate = gates_lib.ContextGate(name='output_gate')

  def build(self, input_shape):
    """Creates the variables for a representation [B, R]."""
    for layer, shape in (
      (self.gates, input_shape),
      (self.experts, input_shape),
      (self.input_gate, input_shape),
      (self.output_gate, [None, self.num_classes]),
    ):
      if layer:
        with tf.name_scope(layer.name):
          layer.build(shape)
    super().build(input_shape)

  def call(self, representation, training=False):
    """Returns predictions, float32 [B, V]."""
    if self.input_gate:
      representation = self.input_gate(representation, training=training)
    # float32 whatever the policy: small probabilities are summed.
    gates = self._by_expert(self.gates(representation), self.num_mixtures + 1)
    experts = self._by_expert(self.experts(representation), self.num_mixtures)
    # By expert, a softmax takes half the time of tf.nn.softmax over so few values.
    highest = tf.stop_gradient(functools.reduce(tf.maximum, gates))
    weights = tf.stack([tf.exp(gate - highest) for gate in gates])
    chosen = weights[: self.num_mixtures] * tf.sigmoid(tf.stack(experts))
    # Not by add_n or +, which TensorFlow may add in another order each time.
    predictions = tf.reduce_sum(chosen, axis=0) / tf.reduce_sum(weights, axis=0)
    if self.output_gate:
      predictions = self.output_gate(predictions, training=training)
    return predictions

  def _by_expert(self, values, count):
    """Divides [B, V * count] into `count` tensors float32 [B, V]."""
    values = tf.reshape(values, [-1, self.num_classes, count])
    return tf.unstack(tf.cast(values, tf.float32), axis=2)

  def flops(self) -> int:
    """Returns the FLOPs of a video: 2 per multiply-add."""
    gates = sum(gate.flops() for gate in (self.input_gate, self.output_gate) if gate)
    return gates + 2 * sum(
      int(layer.kernel.shape.num_elements()) for layer in (self.gates, self.experts)
    )

  def get_config(self):
    """Returns the arguments of __init__."""
    return {
      **super().get_config(),
      'num_classes': self.num_classes,
      'num_mixtures': self.num_mixtures,
      'l2_weight_decay': self._l2_weight_decay,
      'input_gate': self.input_gate is not None,
      'output_gate': self.output_gate is not None,
    }
