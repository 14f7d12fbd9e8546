"""Tiled LSTM layers against a plain loop over sequences and steps.

N sequences, L steps, D features, H cells.
"""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from yt8m_distill.modeling import lstm
from yt8m_distill.modeling import lstm_stack

_FEATURES, _CELLS = 3, 2
_TILES = [1, 2, 3, 100, None]


def _plain(x, lengths, kernels, biases):
  """Final states, one sequence, step and layer at a time."""
  finals = []
  for n, length in enumerate(lengths):
    sequence, final = [x[n, t][None] for t in range(length)], []
    for kernel, bias in zip(kernels, biases):
      c = h = tf.zeros([1, kernel.shape[1] // 4])
      outputs = []
      for step in sequence:
        i, f, g, o = tf.split(tf.concat([step, h], 1) @ kernel + bias, 4, 1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        h = tf.sigmoid(o) * tf.tanh(c)
        outputs.append(h)
      sequence = outputs
      final += [c, h]
    finals.append(tf.concat(final, 1))
  return tf.concat(finals, 0)


class _Case:
  """Inputs, weights, and what a plain loop makes of them."""

  def __init__(self, lengths, steps, layers):
    rng = np.random.default_rng(len(lengths))
    normal = lambda *shape: tf.constant(rng.normal(size=shape), tf.float32)
    self.lengths = lengths
    self.layers = layers
    self.x = normal(len(lengths), steps, _FEATURES)
    self.kernels, self.biases, features = [], [], _FEATURES
    for _ in range(layers):
      self.kernels.append(normal(features + _CELLS, 4 * _CELLS))
      self.biases.append(normal(4 * _CELLS))
      features = _CELLS
    # A weighted sum, so that no two entries of the result may swap.
    self.weights = normal(len(lengths), 2 * layers * _CELLS)
    if lengths:
      self.expected = self.gradients(_plain, self.x, lengths)

  def gradients(self, function, x, lengths):
    """Value and gradients of x, kernels and biases."""
    sources = [x, *self.kernels, *self.biases]
    with tf.GradientTape() as tape:
      tape.watch(sources)
      value = function(x, lengths, self.kernels, self.biases)
      loss = tf.reduce_sum(self.weights * value)
    return [value, *tape.gradient(
        loss, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)]

  def run(self, mode='eager', x=None, **options):
    """The same by the function under test."""
    run = lambda x, lengths: self.gradients(
        lambda *a: lstm.final_states(*a, **options), x, lengths)
    x = self.x if x is None else x
    if mode != 'eager':
      run = tf.function(
          run, autograph=False, jit_compile=mode == 'xla', input_signature=[
              tf.TensorSpec([None, *x.shape[1:]], x.dtype),
              tf.TensorSpec([None], tf.int32)])
    if mode == 'static':
      run = tf.function(lambda x, lengths: self.gradients(
          lambda *a: lstm.final_states(*a, **options), x, lengths),
                        autograph=False)
    return run(x, tf.constant(self.lengths, tf.int32))

  def check(self, actual, tolerance=2e-6):
    assert len(actual) == len(self.expected)
    for ours, theirs in zip(actual, self.expected):
      assert ours.shape == theirs.shape
      np.testing.assert_allclose(
          ours, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max())


@pytest.fixture(scope='module')
def case():
  # 0, 1, L - 1 and L steps; two of the seven have none.
  return _Case([5, 0, 1, 4, 3, 0, 5], steps=5, layers=2)


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('tile', _TILES)
@pytest.mark.parametrize('mode', ['eager', 'graph'])
def test_equals_plain_loop(case, mode, tile, training):
  case.check(case.run(mode, tile=tile, training=training))
