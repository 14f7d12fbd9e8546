"""Records that keep only every N-th frame of a video.

The context of such a record has two int64 values: `every_n`, which is N, and
`every_n/num_frames`, the number of frames of the full video. A network that sees every
N-th frame therefore finds the same frames as in the full record, and the same number of
them in both ways of rounding (see `configs.model.UniformFrames`). The YouTube-8M
releases have no such keys.

B records.
"""

from collections.abc import Callable

import tensorflow as tf

from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import frame_selection

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


def suffice(
  selection: model_config.FrameSelection, max_frames: int, context, stored
) -> tuple[tf.Tensor, tf.Tensor]:
  """Compares what records hold with what a selection needs; see `assert_sufficient`.

  Returns:
    bool [B], whether the selection sees only frames that such records hold, and
    bool [B], whether none of these is missing.
  """
  step = steps(context)
  length = tf.minimum(context[NUM_FRAMES], max_frames)
  fits_selection = (step == 1) | ((step > 1) & _fits(selection, max_frames, step))
  is_complete = (step == 1) | ((length > 0) & (stored >= -(-length // step)))
  return fits_selection, is_complete


def assert_sufficient(
  selection: model_config.FrameSelection,
  max_frames: int,
  name: Callable[[tf.Tensor], tf.Tensor],
  context,
  stored,
) -> tf.Operation:
  """Checks that records hold all frames that a selection may need.

  Args:
    selection: which frames of a video the network sees.
    max_frames: greatest length of a video.
    name: returns the name of the record in a row, for the message.
    context: parsed `CONTEXT`.
    stored: int64 [B], number of frames in the records.

  Returns:
    An operation that raises an InvalidArgumentError about the first record that lacks
    frames.
  """
  step = steps(context)
  fits_selection, is_complete = suffice(selection, max_frames, context, stored)

  def fail():
    bad = tf.argmin(tf.cast(fits_selection & is_complete, tf.int32))

    def number(values):
      return tf.strings.as_string(values[bad])

    thinned = tf.strings.join([name(bad), ': thinned with every_n=', number(step)])
    too_few = tf.strings.join(
      [
        thinned,
        ' to ',
        number(stored),
        ' frames of ',
        number(context[NUM_FRAMES]),
        f', too few for max_frames={max_frames}. Thin the full records with '
        f'--max_frames={max_frames}.',
      ]
    )
    misfit = tf.strings.join([thinned, f', but {_describe(selection)}.'])
    return tf.Assert(False, [tf.where(fits_selection[bad], too_few, misfit)])

  return tf.cond(tf.reduce_all(fits_selection & is_complete), tf.no_op, fail)


def _fits(selection, max_frames, step) -> tf.Tensor:
  """Whether every `step`-th frame includes all selected frames; bool [B]."""
  if selection.type != 'uniform' or not selection.uniform.every_n:
    return tf.zeros_like(step, tf.bool)
  if frame_selection.max_selected(selection, max_frames) == 1:
    return tf.ones_like(step, tf.bool)  # The first frame is always stored.
  return selection.uniform.every_n % step == 0


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
