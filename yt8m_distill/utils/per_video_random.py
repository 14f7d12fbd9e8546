"""Random numbers that belong to a video.

They depend only on the video's own seed, not on its batch, replica or step: one
replica draws the same numbers as several, and a resumed run the same as one that
never stopped. TensorFlow's own stateless generators take one seed for a whole
tensor.

Source: the finalizer of MurmurHash3 (Austin Appleby, public domain), applied to a
counter.

B videos.
"""

import enum

import tensorflow as tf

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B1  # 2^32 over the golden ratio: spreads the counter


class Salt(enum.IntEnum):
  """What numbers are used for: different uses draw different numbers.

  Values must not change, since they decide what a trained run has drawn.
  """

  REPRESENTATION_DROPOUT = 1
  FRAME_SELECTION = 2
  DESCRIPTOR_DROPOUT = 3


def uniform(seeds: tf.Tensor, size: int, salt: int) -> tf.Tensor:
  """Draws numbers for each video.

  Args:
    seeds: int32 [B], one per video.
    size: how many numbers to draw.
    salt: a `Salt`.

  Returns:
    float32 [B, size] in [0, 1).
  """
  base = _mix(tf.cast(seeds, tf.int64) + _GOLDEN * (salt + 1))[:, None]
  counter = _GOLDEN * tf.range(1, size + 1, dtype=tf.int64)
  bits = _mix(tf.bitwise.bitwise_xor(_mix(base + counter), base))
  return tf.cast(tf.bitwise.right_shift(bits, 8), tf.float32) * 2.0**-24


def dropout(x: tf.Tensor, seeds: tf.Tensor | None, rate: float, salt: int) -> tf.Tensor:
  """Sets a fraction of each video's values to zero and scales up the others.

  Args:
    x: float [B, R].
    seeds: int32 [B].
    rate: the fraction, at least 0 and below 1.
    salt: a `Salt`.

  Returns:
    As `x`.

  Raises:
    ValueError: `seeds` is None.
  """
  if seeds is None:
    raise ValueError(
      f"dropout is {rate}: it needs a seed for each video. Give inputs['seed'], "
      'int32 [B], or set dropout to 0.'
    )
  keep = uniform(seeds, x.shape[1], salt) >= rate
  return tf.where(keep, x / (1.0 - rate), tf.zeros([], x.dtype))


def _mix(x: tf.Tensor) -> tf.Tensor:
  """Hashes the lower 32 bits of int64 numbers to 32 bits."""
  x = tf.bitwise.bitwise_and(x, _MASK)
  for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, shift))
    x = tf.bitwise.bitwise_and(x * factor, _MASK)
  return x
