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


def normalize(frames: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
  """Dequantises frames and scales each to L2 norm 1 over all its features.

  As the original does, padding is zero after dequantising, and stays zero.

  Args:
    frames: uint8 or float [..., D].
    real: bool [...], False for padding.

  Returns:
    float32 [..., D].
  """
  real = real[..., None]
  if not frames.dtype.is_integer:
    # Times 0 what a padded frame holds might still be NaN.
    frames = tf.where(real, frames, tf.zeros([], frames.dtype))
  frames = dequantize(frames)
  norm = tf.reduce_sum(tf.square(frames), axis=-1, keepdims=True)
  return frames * tf.where(real, tf.math.rsqrt(tf.maximum(norm, 1e-12)), 0.0)


def preprocess(frames: tf.Tensor, num_frames: tf.Tensor) -> tf.Tensor:
  """Normalises padded videos.

  Args:
    frames: uint8 or float [B, T, D].
    num_frames: int32 [B], how many of the T are real.

  Returns:
    float32 [B, T, D], zero behind each video's frames.
  """
  return normalize(frames, tf.sequence_mask(num_frames, frames.shape[1]))
