"""A stand-in for CudnnRNNV3, which has no kernel for a CPU.

N sequences, L steps, D features, H cells.
"""

from typing import NamedTuple

import tensorflow as tf


class _Outputs(NamedTuple):
  """Of the operation, by their names."""

  output: tf.Tensor
  output_h: tf.Tensor
  output_c: tf.Tensor
  reserve_space: tf.Tensor
  host_reserved: tf.Tensor


class Fake:
  """One layer, step by step, with weights where cuDNN documents them.

  Attributes:
    calls: arguments of each call.
  """

  def __init__(self):
    self.calls = []

  def __call__(
    self,
    input,
    input_h,
    input_c,
    params,
    sequence_lengths,
    rnn_mode='lstm',
    input_mode='linear_input',
    direction='unidirectional',
    is_training=True,
    time_major=True,
  ):
    """As of tf.raw_ops.CudnnRNNV3; of its modes those that are used."""
    self.calls.append(
      dict(
        input=input,
        input_h=input_h,
        input_c=input_c,
        params=params,
        sequence_lengths=sequence_lengths,
        rnn_mode=rnn_mode,
        input_mode=input_mode,
        direction=direction,
        is_training=is_training,
        time_major=time_major,
      )
    )
    assert (rnn_mode, input_mode, direction, time_major) == (
      'lstm',
      'linear_input',
      'unidirectional',
      False,
    )
    assert input.dtype == input_h.dtype == input_c.dtype == params.dtype
    steps, features, cells = input.shape[1], input.shape[2], input_h.shape[2]
    checks = [
      tf.debugging.assert_positive(tf.shape(input)[0], 'cuDNN: no sequences'),
      tf.debugging.assert_positive(sequence_lengths, 'cuDNN: no steps'),
      tf.debugging.assert_less_equal(sequence_lengths, steps),
      tf.debugging.assert_equal(
        tf.shape(input_h), tf.stack([tf.size(sequence_lengths), 1, cells])
      ),
    ]
    with tf.control_dependencies([c for c in checks if c is not None]):
      input = tf.identity(input)
    if not is_training:
      input, params = _without_gradient(input, params)
    weights, recurrent, biases = _matrices(params, features, cells)

    h, c, outputs = input_h[:, 0], input_c[:, 0], []
    for t in range(steps):
      i, f, g, o = (
        tf.matmul(input[:, t], w, transpose_b=True)
        + tf.matmul(h, r, transpose_b=True)
        + b
        for w, r, b in zip(weights, recurrent, biases)
      )
      next_c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
      next_h = tf.sigmoid(o) * tf.tanh(next_c)
      real = (t < sequence_lengths)[:, None]
      c, h = tf.where(real, next_c, c), tf.where(real, next_h, h)
      outputs.append(tf.where(real, next_h, tf.zeros_like(h)))
    return _Outputs(
      tf.stack(outputs, 1),
      h[:, None],
      c[:, None],
      tf.zeros([0], input.dtype),
      tf.zeros([], tf.int8),
    )


def _matrices(params, features, cells):
  """Per gate: weights [H, D] and [H, H], and the sum of both biases."""
  sizes = [cells * features] * 4 + [cells * cells] * 4 + [cells] * 8
  pieces = tf.split(params, sizes)
  return (
    [tf.reshape(p, [cells, features]) for p in pieces[:4]],
    [tf.reshape(p, [cells, cells]) for p in pieces[4:8]],
    [a + b for a, b in zip(pieces[8:12], pieces[12:])],
  )


@tf.custom_gradient
def _without_gradient(*tensors):
  def gradient(*_):
    raise ValueError('CudnnRNNV3 has gradients only if is_training')

  return tensors, gradient
