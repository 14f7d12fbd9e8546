"""Records of rated windows: a few seconds of a video, and which classes hold there.

`split_segments` makes them of the official records of YouTube-8M Segments. They are
ordinary records (their `labels` are those of the whole video), whose context also has

- `segment_labels` (int64) and `segment_scores` (float32, 0 or 1), parallel lists: the
  classes that were rated in this window, and whether each holds;
- `window_start` (int64), the index of the window's first frame among those stored. The
  others are the window's context.

B records, V classes.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import tensorflow as tf

from yt8m_distill.dataloaders import record_errors

LABELS, SCORES, START = 'segment_labels', 'segment_scores', 'window_start'
# Types of what is parsed of the context of a record that must have it.
RATINGS = {LABELS: tf.int64, SCORES: tf.float32}
_REMEDY = 'Set input_path to records that yt8m-distill split-segments wrote'


def check_ratings(context, num_classes: int) -> list[record_errors.Check]:
  """Returns checks of the ratings; see `record_errors.assert_valid`.

  Args:
    context: parsed `RATINGS`, ragged [B, (ratings)].
    num_classes: V.
  """
  classes, scores = context[LABELS], context[SCORES]
  numbers = classes.row_lengths(), scores.row_lengths()
  in_range = record_errors.in_range(classes.values, num_classes)
  is_score = (scores.values == 0) | (scores.values == 1)

  def all_of(values: tf.RaggedTensor, valid) -> tf.Tensor:
    return tf.reduce_all(values.with_values(valid), 1)

  return [
    ((numbers[0] > 0) & (numbers[0] == numbers[1]), f'no pairs of {LABELS} and scores'),
    (all_of(classes, in_range), f'{LABELS} out of range'),
    (all_of(scores, is_score), f'{SCORES} other than 0 and 1'),
  ]


def rating_faults(values: Mapping[str, Sequence], num_classes: int) -> Iterator[str]:
  """Yields in words what `check_ratings` finds wrong with a record.

  Args:
    values: of the context, by key of `RATINGS`.
    num_classes: V.
  """
  classes, scores = values[LABELS], values[SCORES]
  if not classes or len(classes) != len(scores):
    yield (
      f'{LABELS} has {len(classes)} values and {SCORES} {len(scores)}, but a rated '
      'window has equally many of both, at least 1 (0 can mean that they are missing). '
      f'{_REMEDY}.'
    )
  yield from record_errors.label_faults(LABELS, classes, num_classes)
  wrong = [score for score in scores if score not in (0, 1)]
  if wrong:
    yield (
      f'{SCORES} are {record_errors.join(wrong)}, but each must be 0 or 1. '
      f'{record_errors.REMOVE}'
    )


def check_start(context, num_frames) -> record_errors.Check:
  """Returns a check of where windows start; see `record_errors.assert_valid`.

  Args:
    context: parsed; START int64 [B].
    num_frames: integers [B], number of frames, at most max_frames.
  """
  starts = context[START]
  return (starts >= 0) & (
    starts < tf.cast(num_frames, tf.int64)
  ), f'{START} out of range'


def start_faults(starts: Sequence[int], num_frames: int) -> Iterator[str]:
  """Yields in words what is wrong with the start of a window.

  Args:
    starts: values of START.
    num_frames: number of frames, at most max_frames.
  """
  if not starts:
    yield f'no `{START}`, which frames of type window need. {_REMEDY}.'
  elif not 0 <= starts[0] < num_frames:
    yield (
      f'{START} is {starts[0]}, but must be from 0 to {num_frames - 1}, the last frame '
      'that is read. Raise task.model.max_frames, or split again with a smaller '
      '--context.'
    )


def ratings(context, shape) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns which classes hold in each window, and which were rated; bool [B, V].

  Args:
    context: parsed `RATINGS`, checked.
    shape: [B, V].
  """
  classes, holds = context[LABELS], context[SCORES].values == 1
  rows = tf.cast(classes.value_rowids(), tf.int64)
  pairs = tf.stack([rows, classes.values], 1)
  return multi_hot(tf.boolean_mask(pairs, holds), shape), multi_hot(pairs, shape)


def multi_hot(pairs: tf.Tensor, shape) -> tf.Tensor:
  """Returns bool of a shape [B, V], True at the pairs int64 [pairs, 2]."""
  return tf.tensor_scatter_nd_update(
    tf.zeros(shape, tf.bool), pairs, tf.ones([tf.shape(pairs)[0]], tf.bool)
  )
