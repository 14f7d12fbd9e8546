"""Records that keep every N-th frame of a video alone, and say so.

Such a record has in its context `every_n`, int64 N, and `every_n/num_frames`,
int64, how many frames the video has. So a network that looks at every N-th
frame finds the same frames in it as in the full record, and counts them alike,
whichever way it counts (see `configs.model.UniformFrames`). The official
records know no such keys.

B records.
"""

import tensorflow as tf

from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import frame_selection

EVERY_N, NUM_FRAMES = KEYS = ('every_n', 'every_n/num_frames')


def context_features() -> dict[str, tf.io.FixedLenFeature]:
  """What to parse; 0 in a full record."""
  return {key: tf.io.FixedLenFeature([], tf.int64, 0) for key in KEYS}


def steps(context) -> tf.Tensor:
  """How far apart stored frames are in the video; int64 [B], 1 if full."""
  return tf.maximum(context[EVERY_N], 1)


def num_frames(context, stored: tf.Tensor) -> tf.Tensor:
  """Frames of the videos; int64 [B].

  Args:
    context: parsed.
    stored: int64 [B], frames in the records.
  """
  return tf.where(steps(context) > 1, context[NUM_FRAMES], stored)


def assert_fits(
  selection: model_config.FrameSelection, max_frames: int, where, context, stored
) -> tf.Operation:
  """Raises an InvalidArgumentError where a frame may be wanted that is gone.

  Args:
    selection: which frames of a video are wanted.
    max_frames: of a video, at most.
    where: string [B], what to call the records.
    context: parsed.
    stored: int64 [B], frames in the records.

  Returns:
    An operation to wait for.
  """
  step = steps(context)
  length = tf.minimum(context[NUM_FRAMES], max_frames)
  served = (step == 1) | _serves(selection, max_frames, step)
  whole = (step == 1) | ((length > 0) & (stored >= -(-length // step)))

  def fail():
    bad = tf.argmin(tf.cast(served & whole, tf.int32))

    def number(values):
      return tf.strings.as_string(values[bad])

    held = tf.strings.join([where[bad], ': thinned with every_n=', number(step)])
    return tf.Assert(
      False,
      [
        tf.where(
          served[bad],
          tf.strings.join(
            [
              held,
              ' to ',
              number(stored),
              ' frames of ',
              number(context[NUM_FRAMES]),
              ', too few for max_frames='
              f'{max_frames}. Thin the full records with --max_frames='
              f'{max_frames}.',
            ]
          ),
          tf.strings.join([held, f', but {_wanted(selection)}.']),
        )
      ],
    )

  return tf.cond(tf.reduce_all(served & whole), tf.no_op, fail)


def _serves(selection, max_frames, step) -> tf.Tensor:
  """Whether every N-th frame has all that are wanted; bool [B]."""
  if selection.type != 'uniform' or not selection.uniform.every_n:
    return tf.zeros_like(step, tf.bool)
  if frame_selection.max_selected(selection, max_frames) == 1:
    return tf.ones_like(step, tf.bool)  # The first frame is always there.
  return selection.uniform.every_n % step == 0


def _wanted(selection) -> str:
  full = 'Set input_path to the full records'
  if selection.type == 'uniform' and selection.uniform.every_n:
    every_n = selection.uniform.every_n
    return (
      f'the network sees every_n={every_n}. {full}, or to some thinned '
      f'with --every_n={every_n}'
    )
  k = '' if selection.type == 'all' else f' with k={selection.get().k}'
  return f'a network sees frames of type {selection.type}{k}. {full}'
