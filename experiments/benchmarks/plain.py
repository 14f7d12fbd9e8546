"""The networks as a plain graph, for comparison.

As in the original code, one time loop runs over all chunks at once, masks the
steps after the end of a video, and uses automatic differentiation; the gates of the
head are one softmax.
"""

import tensorflow as tf

from yt8m_distill.modeling import distiller
from yt8m_distill.modeling import frame_normalization


class PlainDistiller(distiller.Distiller):
  """A Distiller whose networks are computed by a plain graph."""

  def call(self, inputs, training=False, answers=False):
    """Returns the outputs of both networks, as a Distiller does."""
    return {
      name: plain_network(network, self._select(inputs, self._frames[name]))
      for name, network in (('teacher', self.teacher), ('student', self.student))
    }


def plain_network(network, inputs):
  """Returns what a VideoClassifier returns, with one masked time loop per stack."""
  backbone = network.backbone
  frames = frame_normalization.normalize_videos(inputs['frames'], inputs['num_frames'])
  batch, (steps, features) = tf.shape(frames)[0], frames.shape[1:]
  chunks = backbone.get_config()['chunks']
  length = steps // chunks
  num_frames = inputs['num_frames']
  lengths = tf.clip_by_value(num_frames[:, None] - length * tf.range(chunks), 0, length)
  states = _plain_stack(
    backbone.lower,
    tf.reshape(frames, [batch * chunks, length, features]),
    tf.reshape(lengths, [-1]),
  )
  states = tf.reshape(states, [batch, chunks, backbone.lower.state_size])
  representation = _plain_stack(backbone.upper, states, -(-num_frames // length))
  return {
    'representation': representation,
    'states': states,
    'predictions': _plain_head(network.head, representation),
  }


def _plain_stack(stack, x, lengths):
  """Returns the final states of all sequences, with all layers in one loop."""
  steps, dtype = x.shape[1], stack.compute_dtype
  inputs = tf.TensorArray(tf.float32, steps).unstack(tf.transpose(x, [1, 0, 2]))
  kernels = [tf.cast(kernel, dtype) for kernel in stack.kernels]

  def step(t, state):
    real = (t < lengths)[:, None]
    output, after = inputs.read(t), []
    for kernel, bias, c, h in zip(kernels, stack.biases, state[::2], state[1::2]):
      product = tf.cast(tf.concat([output, h], 1), dtype) @ kernel
      i, f, g, o = tf.split(tf.cast(product, tf.float32) + bias, 4, 1)
      next_c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
      output = tf.sigmoid(o) * tf.tanh(next_c)
      after += [tf.where(real, next_c, c), tf.where(real, output, h)]
    return t + 1, after

  zeros = [
    tf.zeros([tf.shape(x)[0], stack.num_cells]) for _ in range(2 * stack.num_layers)
  ]
  _, state = tf.while_loop(
    lambda t, _: t < steps, step, (0, zeros), maximum_iterations=steps
  )
  return tf.concat(state, 1)


def _plain_head(head, representation):
  """Returns the predictions of a MoeHead without gates of input and output."""
  gates, experts = (
    tf.cast(
      tf.reshape(layer(representation), [-1, head.num_classes, count]), tf.float32
    )
    for layer, count in (
      (head.gates, head.num_mixtures + 1),
      (head.experts, head.num_mixtures),
    )
  )
  weights = tf.nn.softmax(gates)[..., : head.num_mixtures]
  return tf.reduce_sum(weights * tf.sigmoid(experts), axis=2)
