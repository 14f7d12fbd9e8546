"""Bytes and the features they stand for."""

import numpy as np
import tensorflow as tf

from yt8m_distill.utils import quantization

_BYTES = np.arange(256, dtype=np.uint8)


def test_by_hand():
  values = quantization.dequantize(tf.constant([0, 255], tf.uint8))
  np.testing.assert_allclose(values, [-1.9921875, 2.0078125], rtol=1e-6)
  np.testing.assert_allclose(
    values, [quantization.BIAS, quantization.HIGHEST], rtol=1e-6
  )


def test_every_byte_survives():
  again = quantization.quantize(quantization.dequantize(tf.constant(_BYTES)))
  assert again.dtype == tf.uint8
  np.testing.assert_array_equal(again, _BYTES)


def test_the_nearest_byte_is_chosen_and_others_are_clipped():
  features = quantization.dequantize(tf.constant(_BYTES))
  for shift in (-0.49, 0.49):
    moved = features + shift * quantization.SCALE
    np.testing.assert_array_equal(quantization.quantize(moved), _BYTES)
  ends = quantization.quantize(tf.constant([-9.0, 9.0]))
  np.testing.assert_array_equal(ends, [0, 255])


def test_arrays_have_steps_too():
  steps = quantization.to_steps(np.array([quantization.BIAS, quantization.HIGHEST]))
  np.testing.assert_allclose(steps, [0, 255], rtol=1e-12)


def test_features_are_only_cast():
  features = tf.constant([0.5, -3.0], tf.float16)
  cast = quantization.dequantize(features)
  assert cast.dtype == tf.float32
  np.testing.assert_array_equal(cast, features)
