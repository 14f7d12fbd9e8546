"""Random numbers that belong to a video.

What is drawn for a video follows from its own seed alone, whatever batch,
replica or step it is in: one replica draws as several do, and a resumed run as
one that never stopped. TensorFlow's own stateless generators take one seed for
a whole tensor.

Source: the finaliser of MurmurHash3 (Austin Appleby, public domain), over a
counter.

B videos.
"""

import tensorflow as tf

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B1  # 2^32 over the golden ratio: spreads the counter


def uniform(seeds: tf.Tensor, size: int, salt: int) -> tf.Tensor:
  """Draws numbers for each video.

  Args:
    seeds: int32 [B], one of each video.
    size: how many numbers.
    salt: tells what they are for, so that two uses differ.

  Returns:
    float32 [B, size] in [0, 1).
  """
  base = _mix(tf.cast(seeds, tf.int64) + _GOLDEN * (salt + 1))[:, None]
  counter = _GOLDEN * tf.range(1, size + 1, dtype=tf.int64)
  bits = _mix(tf.bitwise.bitwise_xor(_mix(base + counter), base))
  return tf.cast(tf.bitwise.right_shift(bits, 8), tf.float32) * 2.0**-24


def dropout(x: tf.Tensor, seeds: tf.Tensor | None, rate: float, salt: int) -> tf.Tensor:
  """Zeroes a share of each video's values and scales up the others.

  Args:
    x: float [B, R].
    seeds: int32 [B].
    rate: the share, at least 0 and below 1.
    salt: see uniform().

  Returns:
    As `x`.

  Raises:
    ValueError: there are no seeds.
  """
  if seeds is None:
    raise ValueError(
      f'dropout is {rate}, but no video has a seed: give '
      "inputs['seed'], int32 [B], or set dropout to 0."
    )
  keep = uniform(seeds, x.shape[1], salt) >= rate
  return tf.where(keep, x / (1.0 - rate), tf.zeros([], x.dtype))


def _mix(x: tf.Tensor) -> tf.Tensor:
  """Hashes int64 numbers, of which the lower 32 bits count, to 32 bits."""
  x = tf.bitwise.bitwise_and(x, _MASK)
  for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
    x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, shift))
    x = tf.bitwise.bitwise_and(x * factor, _MASK)
  return x
