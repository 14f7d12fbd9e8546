"""The 8-bit quantization of frame features in the YouTube-8M releases.

Source: the YouTube-8M starter code. A byte q stands for q * 4 / 255 + 4 / 512 - 2.
"""

import tensorflow as tf

SCALE = 4.0 / 255.0
BIAS = 4.0 / 512.0 - 2.0  # the feature that byte 0 stands for
HIGHEST = 255 * SCALE + BIAS  # the feature that byte 255 stands for


def to_steps(features):
  """Returns features in quantization steps above BIAS, not rounded.

  Args:
    features: a float tensor or array of any shape.

  Returns:
    As `features`; 0 to 255 for features from BIAS to HIGHEST.
  """
  return (features - BIAS) / SCALE


def quantize(features: tf.Tensor) -> tf.Tensor:
  """Returns the uint8 values nearest to float features of any shape."""
  steps = tf.round(to_steps(features))
  return tf.cast(tf.clip_by_value(steps, 0.0, 255.0), tf.uint8)


def dequantize(frames: tf.Tensor) -> tf.Tensor:
  """Returns float32 features.

  Args:
    frames: uint8 values of any shape, or features, which are only cast.

  Returns:
    float32, of the same shape.
  """
  if frames.dtype.is_integer:
    return tf.cast(frames, tf.float32) * SCALE + BIAS
  return tf.cast(frames, tf.float32)
