"""Records that keep only every N-th frame of a video.

The context of such a record has two int64 values: `every_n`, which is N, and
`every_n/num_frames`, the number of frames of the full video. A network that sees every
N-th frame therefore finds the same frames as in the full record, and the same number of
them in both ways of rounding (see `configs.model.UniformFrames`). The YouTube-8M
releases have no such keys.

B records.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import tensorflow as tf

from yt8m_distill.configs import model as model_config
from yt8m_distill.dataloaders import record_errors

EVERY_N, NUM_FRAMES = 'every_n', 'every_n/num_frames'
# Types of what is parsed of the context; values are 0 in a full record.
CONTEXT = {EVERY_N: tf.int64, NUM_FRAMES: tf.int64}


def steps(context) -> tf.Tensor:
  """Returns the distance of stored frames in the video, int64 [B]; 1 if full."""
  every_n = context[EVERY_N]
  return tf.where(every_n == 0, tf.ones_like(every_n), every_n)


def num_frames(context, stored: tf.Tensor) -> tf.Tensor:
  """Returns the number of frames of the full videos, int64 [B].

  Args:
    context: parsed `CONTEXT`.
    stored: int64 [B], number of frames in the records.
  """
  return tf.where(steps(context) > 1, context[NUM_FRAMES], stored)


def checks(
  selection: model_config.FrameSelection, max_frames: int, context, stored
) -> list[record_errors.Check]:
  """Returns checks that records hold all frames that a selection may need.

  Args:
    selection: which frames of a video the network sees.
    max_frames: greatest length of a video.
    context: parsed `CONTEXT`.
    stored: int64 [B], number of frames in the records.
  """
  step = steps(context)
  fits = tf.zeros_like(step, tf.bool)
  if _fits_any(selection, max_frames):
    fits = tf.ones_like(step, tf.bool)
  elif selection.type == 'uniform' and selection.uniform.every_n:
    fits = selection.uniform.every_n % tf.maximum(step, 1) == 0
  length = tf.minimum(context[NUM_FRAMES], max_frames)
  is_complete = (length > 0) & (stored >= -(-length // tf.maximum(step, 1)))
  return [
    ((step == 1) | ((step > 1) & fits), 'thinned for other frames'),
    ((step == 1) | is_complete, 'thinned to too few frames'),
  ]


def length(values: Mapping[str, Sequence[int]], stored: int) -> int:
  """Returns the number of frames of a full video.

  Args:
    values: of the context, by key of `CONTEXT`.
    stored: number of frames in the record.
  """
  return sum(values[NUM_FRAMES][:1]) if _step(values) > 1 else stored


def faults(
  selection: model_config.FrameSelection,
  max_frames: int,
  values: Mapping[str, Sequence[int]],
  stored: int,
) -> Iterator[str]:
  """Yields in words what `checks` finds wrong with a record; see there and length()."""
  step, total = _step(values), sum(values[NUM_FRAMES][:1])
  if step == 1:
    return
  every_n = selection.uniform.every_n if selection.type == 'uniform' else 0
  if step < 1 or not (
    _fits_any(selection, max_frames) or (every_n and every_n % step == 0)
  ):
    yield f'thinned with every_n={step}, but {_describe(selection)}.'
  elif total < 1 or stored < -(-min(total, max_frames) // step):
    yield (
      f'thinned with every_n={step} to {stored} frames of {total}, too few for '
      f'max_frames={max_frames}. Thin the full records with --max_frames={max_frames}.'
    )


def _step(values: Mapping[str, Sequence[int]]) -> int:
  return sum(values[EVERY_N][:1]) or 1


def _fits_any(selection, max_frames: int) -> bool:
  """Whether a selection sees the first frame only, which is always stored."""
  return (
    selection.type == 'uniform'
    and selection.uniform.every_n > 0
    and selection.max_selected(max_frames) == 1
  )


def _describe(selection) -> str:
  """Says which frames the network needs, and the remedy."""
  remedy = 'Set input_path to the full records'
  if selection.type == 'uniform' and selection.uniform.every_n:
    every_n = selection.uniform.every_n
    return (
      f'the network sees every_n={every_n}. {remedy}, or to records thinned with '
      f'--every_n={every_n}'
    )
  k = f' with k={selection.get().k}' if hasattr(selection.get(), 'k') else ''
  return f'a network sees frames of type {selection.type}{k}. {remedy}'
