"""From stored frame features to what the networks read.

B videos, T frames, D features of a frame.
"""

import tensorflow as tf

# Features were quantised to 8 bits over [-2, 2] (YouTube-8M starter code).
SCALE = 4.0 / 255.0
BIAS = 4.0 / 512.0 - 2.0


def dequantize(frames: tf.Tensor) -> tf.Tensor:
  """Returns float32 features of uint8 ones, of any shape; floats pass."""
  if frames.dtype.is_integer:
    return tf.cast(frames, tf.float32) * SCALE + BIAS
  return tf.cast(frames, tf.float32)


def preprocess(frames: tf.Tensor, num_frames: tf.Tensor) -> tf.Tensor:
  """Dequantises frames and scales each to L2 norm 1 over all its features.

  As the original does, padding is zero after dequantising, and stays zero.

  Args:
    frames: uint8 or float [B, T, D].
    num_frames: int32 [B], how many of the T are real.

  Returns:
    float32 [B, T, D].
  """
  frames = dequantize(frames)
  real = tf.sequence_mask(num_frames, frames.shape[1])[..., None]
  norm = tf.reduce_sum(tf.square(frames), axis=-1, keepdims=True)
  # Padding may hold anything; multiplied by 0 even infinity would spread.
  scale = tf.where(real, tf.math.rsqrt(tf.maximum(norm, 1e-12)), 0.0)
  return tf.math.multiply_no_nan(frames, scale)
