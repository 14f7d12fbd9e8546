"""L2 normalization of padded frames, before any backbone.

B videos, T frames, D features of a frame.
"""

import tensorflow as tf

from yt8m_distill.utils import quantization


def normalize(frames: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
  """Dequantizes frames and scales each to L2 norm 1 over all its features.

  As in the original, padding is zero after dequantization, and stays zero.

  Args:
    frames: uint8 or float [..., D].
    real: bool [...], False for padding.

  Returns:
    float32 [..., D].
  """
  real = real[..., None]
  if not frames.dtype.is_integer:
    # Multiplying by 0 is not enough: padding might hold NaN.
    frames = tf.where(real, frames, tf.zeros([], frames.dtype))
  frames = quantization.dequantize(frames)
  norm = tf.reduce_sum(tf.square(frames), axis=-1, keepdims=True)
  return frames * tf.where(real, tf.math.rsqrt(tf.maximum(norm, 1e-12)), 0.0)


def normalize_videos(frames: tf.Tensor, num_frames: tf.Tensor) -> tf.Tensor:
  """Normalizes the frames of padded videos.

  Args:
    frames: uint8 or float [B, T, D].
    num_frames: int32 [B], how many of the T frames are real.

  Returns:
    float32 [B, T, D], zero after each video's last frame.
  """
  return normalize(frames, tf.sequence_mask(num_frames, frames.shape[1]))
