"""Which frames of a video a network sees.

B videos, T frames of a padded video, K chosen frames at most.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from yt8m_distill.configs import model as model_config
from yt8m_distill.utils import per_video_random


def frame_indices(
  num_frames: tf.Tensor,
  selection: model_config.FrameSelection,
  max_frames: int,
  seeds: tf.Tensor | None = None,
  window_starts: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Chooses frames based on a video's true length.

  Args:
    num_frames: int32 of any shape [...], frames of each video, at most
      `max_frames`; [B] if frames are drawn at random.
    selection: which frames to choose.
    max_frames: T.
    seeds: int32 [B], or [1] for all videos, seeds of randomly drawn frames. For
      a given seed, a smaller k draws a subset of a larger k.
    window_starts: int32 [...], the first frame of each window, below `num_frames`;
      for frames of a window.

  Returns:
    indices: int32 [..., K], below T; K is `selection.max_selected(max_frames)`. They
      ascend, except for nested frames, where those of a smaller number come first.
      Those after the first `count` point at padding; of a window, at any frame.
    count: int32 [...], how many of the K are real.

  Raises:
    ValueError: frames are drawn at random, but there are no seeds; or they are those of
      a window, but there are no window_starts.
  """
  keep = selection.max_selected(max_frames)
  order, length = tf.range(keep), num_frames[..., None]
  count = tf.minimum(num_frames, keep)
  spare = tf.maximum(length - keep, 0)
  kind, uniform = selection.type, selection.uniform
  if kind == 'random':
    indices = _draw(length, keep, max_frames, seeds)
  elif kind == 'uniform' and uniform.every_n:
    indices = order * uniform.every_n + tf.zeros_like(length)
    count = _count_every_nth(num_frames, uniform, max_frames)
  elif kind == 'uniform':
    indices = _spread(order, length, keep)
  elif kind == 'nested':
    order = tf.gather(_nested_orders(selection.nested.counts), count)
    indices = _spread(order, length, keep)
  elif kind == 'window':
    if window_starts is None:
      raise ValueError(
        "frames.type is 'window': it needs the start of each window. Give "
        "inputs['window_start'], int32 [B]."
      )
    left = tf.minimum(num_frames - window_starts, model_config.WINDOW)
    count = tf.minimum(left, keep)
    indices = window_starts[..., None] + _spread(order, left[..., None], keep)
    indices = tf.minimum(indices, max_frames - 1)
  elif kind == 'first_middle_last':
    indices = order + _shift_thirds(spare, keep)
  else:
    shifts = {'middle': spare // 2, 'last': spare}
    indices = order + shifts.get(kind, tf.zeros_like(spare))
  return indices, count


def _spread(order: tf.Tensor, length: tf.Tensor, keep: int) -> tf.Tensor:
  """Spreads `order`, 0 to keep - 1, over the length: [..., K]."""
  return order * tf.maximum(length, keep) // keep


def _nested_orders(counts: Sequence[int]) -> np.ndarray:
  """Returns the order in which a video's K evenly spread places are seen.

  The first places are spread evenly themselves, and so are, among those that are left,
  the places that each further number adds. Those added at once are in temporal order.

  Args:
    counts: ascending numbers of frames; the last is K.

  Returns:
    int32 [K + 1, K]: row n is for a video of n frames, which come before padding; the
    last row is for all longer ones.
  """
  left, before = list(range(counts[-1])), 0
  order: list[int] = []
  for count in counts:
    added = count - before
    chosen = [left[(2 * i + 1) * len(left) // (2 * added)] for i in range(added)]
    left = [place for place in left if place not in chosen]
    order, before = order + chosen, count
  return np.array(
    [sorted(order, key=lambda place: place >= n) for n in range(len(order) + 1)],
    np.int32,
  )


def _count_every_nth(num_frames, uniform, max_frames: int) -> tf.Tensor:
  if uniform.length == 'ceil':
    return -(-num_frames // uniform.every_n)
  # The original's floating point: one less than floor(n / N) for a few n. A
  # table, since LiteRT has no float64.
  counts = np.arange(max_frames + 1) / max_frames * (max_frames // uniform.every_n)
  return tf.gather(counts.astype(np.int32), tf.minimum(num_frames, max_frames))


def _shift_thirds(spare: tf.Tensor, keep: int) -> tf.Tensor:
  """Returns the offsets that make frames 0, 1, ... first, middle and last: [..., K]."""
  first, middle, last = (keep + 2) // 3, (keep + 1) // 3, keep // 3
  # (n - middle) // 2 is where a middle starts, if the first ends before.
  centered = tf.maximum(spare + last - first, 0) // 2
  shifts = tf.concat([tf.zeros_like(spare), centered, spare], -1)
  return tf.gather(shifts, [0] * first + [1] * middle + [2] * last, axis=-1)


def _draw(length, keep: int, max_frames: int, seeds) -> tf.Tensor:
  """Draws `keep` of `length` [B, 1] frames; all and padding if there are fewer."""
  if seeds is None:
    raise ValueError(
      "frames.type is 'random': it needs a seed for each video. Give "
      "inputs['seed'], int32 [B]."
    )
  # The frames with the smallest numbers; padding has larger ones.
  numbers = tf.where(
    tf.range(max_frames) < length,
    per_video_random.uniform(seeds, max_frames, per_video_random.Salt.FRAME_SELECTION),
    1.0,
  )
  return tf.sort(tf.math.top_k(-numbers, keep)[1])
