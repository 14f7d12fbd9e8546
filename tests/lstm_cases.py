"""Sequences for stacked LSTM layers, and a plain loop over them.

N sequences, L steps, D features, H cells, P moments.
"""

import functools

import numpy as np
import tensorflow as tf

FEATURES, CELLS = 3, 2


def _all_moments(lengths, steps):
  """Every pair of sequence and step, in no order, and two of them again."""
  pairs = np.array(
    [(n, t) for n in range(len(lengths)) for t in range(steps)], np.int32
  ).reshape([-1, 2])
  pairs = np.random.default_rng(3).permutation(pairs)
  return np.concatenate([pairs, pairs[:2]])


def plain(x, lengths, kernels, biases):
  """Final states, one sequence, step and layer at a time."""
  finals = []
  for n, length in enumerate(lengths):
    sequence, final = [x[n, t][None] for t in range(length)], []
    for kernel, bias in zip(kernels, biases):
      c = h = tf.zeros([1, kernel.shape[1] // 4], kernel.dtype)
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


def plain_moments(x, lengths, kernels, biases, moments):
  """Final states, and those of sequences that end at each of the moments."""
  ends = [t + 1 if t < lengths[n] else 0 for n, t in moments]
  return (
    plain(x, lengths, kernels, biases),
    plain(tf.gather(x, moments[:, 0]), ends, kernels, biases),
  )


class Case:
  """Inputs, weights, and what a plain loop makes of them in float64."""

  def __init__(self, lengths, steps, layers):
    rng = np.random.default_rng(len(lengths))

    def normal(*shape):
      return tf.constant(rng.normal(size=shape), tf.float32)

    self.lengths = lengths
    self.layers = layers
    self.x = normal(len(lengths), steps, FEATURES)
    self.kernels, self.biases, features = [], [], FEATURES
    for _ in range(layers):
      # Small: of a gate near 1 float32 does not know how near.
      self.kernels.append(0.5 * normal(features + CELLS, 4 * CELLS))
      self.biases.append(normal(4 * CELLS))
      features = CELLS
    # A weighted sum, so that no two entries of the result may swap.
    self.weights = normal(len(lengths), 2 * layers * CELLS)
    self.moments = _all_moments(lengths, steps)
    self.moment_weights = normal(len(self.moments), self.weights.shape[1])
    if lengths:
      self.expected, self.expected_moments = (
        [
          tf.cast(value, tf.float32)
          for value in self.gradients(
            function, tf.cast(self.x, tf.float64), lengths, tf.float64
          )
        ]
        for function in (plain, functools.partial(plain_moments, moments=self.moments))
      )

  def gradients(self, function, x, lengths, dtype=tf.float32):
    """Value, or values, and gradients of x, kernels and biases."""
    kernels, biases, weights = tf.nest.map_structure(
      lambda value: tf.cast(value, dtype),
      (self.kernels, self.biases, (self.weights, self.moment_weights)),
    )
    sources = [x, *kernels, *biases]
    with tf.GradientTape() as tape:
      tape.watch(sources)
      values = function(x, lengths, kernels, biases)
      values = values if isinstance(values, tuple) else [values]
      loss = tf.add_n([tf.reduce_sum(w * v) for w, v in zip(weights, values)])
    return [
      *values,
      *tape.gradient(loss, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO),
    ]

  def check(self, actual, tolerance=2e-6):
    """With the states at all moments where there is one more value."""
    expected = self.expected
    if len(actual) > len(expected):
      expected = self.expected_moments
    for ours, theirs in zip(actual, expected, strict=True):
      assert ours.shape == theirs.shape
      np.testing.assert_allclose(
        ours, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max()
      )

  def continue_after(self, steps, function):
    """Checks that the steps after some, from the states there, lead to the same end.

    Args:
      steps: how many come before.
      function: final_states() with `initial`.
    """
    lengths = tf.constant(self.lengths, tf.int32)
    weights = self.kernels, self.biases
    first = function(self.x[:, :steps], tf.minimum(lengths, steps), *weights)
    rows = tf.where(lengths > steps)[:, 0]
    assert 0 < len(rows) < len(self.lengths)
    x, left, initial = (tf.gather(v, rows) for v in (self.x, lengths - steps, first))
    found = function(x[:, steps:], left, *weights, initial=initial)
    wanted = tf.gather(self.expected[0], rows)
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6)
    # Without the states before, the end is another one.
    assert np.abs(function(x[:, steps:], left, *weights) - wanted).max() > 0.01
