"""The benchmark of serving scores what it serves."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from experiments.benchmarks import serve


def test_full_rank_changes_nothing_and_a_lower_one_is_the_closest():
  dense = tf_keras.layers.Dense(12, bias_initializer='ones')
  inputs = tf.random.stateless_normal([5, 6], [1, 2])
  expected = dense(inputs)
  kernel = dense.kernel.numpy()
  left, values, right = np.linalg.svd(kernel)
  vectors = np.linalg.eigh(kernel @ kernel.T)[1]
  np.testing.assert_allclose(
    serve._LowRank(dense, vectors, 6)(inputs), expected, atol=1e-5
  )
  np.testing.assert_allclose(
    serve._LowRank(dense, vectors, 2)(inputs),
    inputs.numpy() @ (left[:, :2] * values[:2]) @ right[:2] + 1,
    atol=1e-5,
  )


@pytest.mark.parametrize('best, gap', [(0, 1.0), (1, 0.5)])
def test_gap(best, gap):
  predictions = np.array([[0.1, 0.2]], np.float32)
  predictions[0, best] = 0.9
  assert serve._gap(predictions, np.array([[True, False]])) == pytest.approx(gap)
