"""Which frames of a video a network sees.

B videos, K chosen frames at most.
"""

from typing import Tuple

import tensorflow as tf

UNIFORM_LENGTHS = ('ceil', 'original')


def max_selected(selection, max_frames: int) -> int:
  """Returns K, how many frames `selection` keeps of `max_frames`.

  Raises:
    ValueError: `selection` (a `configs.model.FrameSelection`) is not valid.
  """
  if selection.type == 'all':
    return max_frames
  if selection.type != 'uniform':
    raise ValueError(
        f'frames.type is {selection.type!r}: choose all or uniform.')
  uniform = selection.uniform
  if not 1 <= uniform.every_n <= max_frames:
    raise ValueError(f'every_n is {uniform.every_n}: it must lie between 1 and '
                     f'max_frames ({max_frames}).')
  if uniform.length not in UNIFORM_LENGTHS:
    raise ValueError(f'frames.uniform.length is {uniform.length!r}: choose '
                     f'one of {", ".join(UNIFORM_LENGTHS)}.')
  return -(-max_frames // uniform.every_n)


def frame_indices(num_frames: tf.Tensor, selection,
                  max_frames: int) -> Tuple[tf.Tensor, tf.Tensor]:
  """Chooses frames by a video's true length.

  Args:
    num_frames: int32 of any shape [...], frames of each video, at most
      `max_frames`.
    selection: a `configs.model.FrameSelection`.
    max_frames: frames of a padded video.

  Returns:
    indices: int32 [..., K], ascending; K is `max_selected(...)`. Those beyond
      the count point at padding.
    count: int32 [...], how many of the K are real.
  """
  keep = max_selected(selection, max_frames)
  step = selection.uniform.every_n if selection.type == 'uniform' else 1
  indices = tf.broadcast_to(
      tf.range(keep) * step, tf.concat([tf.shape(num_frames), [keep]], 0))
  if selection.type == 'uniform' and selection.uniform.length == 'original':
    # The original's float arithmetic: one less than floor(n / N) for a few n.
    count = tf.cast(
        tf.cast(num_frames, tf.float64) / max_frames * (max_frames / step),
        tf.int32)
  else:
    count = -(-num_frames // step)
  return indices, count
