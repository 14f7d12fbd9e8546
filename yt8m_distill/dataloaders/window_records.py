"""Records of rated windows: a few seconds of a video, and which classes hold there.

`split_segments` makes them of the official records of YouTube-8M Segments. They are
ordinary records (their `labels` are those of the whole video), whose context also has

- `segment_labels` (int64) and `segment_scores` (float32, 0 or 1), parallel lists: the
  classes that were rated in this window, and whether each holds;
- `window_start` (int64), the index of the window's first frame among those stored. The
  others are the window's context.

B records, V classes.
"""

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
  in_range = (classes.values >= 0) & (classes.values < num_classes)
  is_score = (scores.values == 0) | (scores.values == 1)

  def all_of(values: tf.RaggedTensor, valid) -> tf.Tensor:
    return tf.reduce_all(values.with_values(valid), 1)

  def lengths(row):
    one, other = (tf.strings.as_string(number[row]) for number in numbers)
    return [
      f'{LABELS} has ',
      one,
      f' values and {SCORES} ',
      other,
      ', but a rated window has equally many of both, at least 1 (0 can mean that '
      f'they are missing). {_REMEDY}.',
    ]

  return [
    ((numbers[0] > 0) & (numbers[0] == numbers[1]), lengths),
    (
      all_of(classes, in_range),
      lambda row: [
        f'{LABELS} are ',
        record_errors.join(classes[row]),
        f', but must be between 0 and {num_classes - 1}. Set task.model.num_classes, '
        'or remove the record.',
      ],
    ),
    (
      all_of(scores, is_score),
      lambda row: [
        f'{SCORES} are ',
        record_errors.join(scores[row]),
        ', but each must be 0 or 1. Remove the record.',
      ],
    ),
  ]


def check_start(starts, counts, num_frames) -> record_errors.Check:
  """Returns a check of where windows start; see `record_errors.assert_valid`.

  Args:
    starts: int64 [B], parsed START.
    counts: int32 [B], how many values it has in each record.
    num_frames: integers [B], number of frames, at most max_frames.
  """
  num_frames = tf.cast(num_frames, tf.int64)
  is_missing = counts == 0

  def text(row):
    wrong = tf.strings.join(
      [
        f'{START} is ',
        tf.strings.as_string(starts[row]),
        ', but must be from 0 to ',
        tf.strings.as_string(num_frames[row] - 1),
        ', the last frame that is read. Raise task.model.max_frames, or split again '
        'with a smaller --context.',
      ]
    )
    missing = f'no `{START}`, which frames of type window need. {_REMEDY}.'
    return [tf.where(is_missing[row], missing, wrong)]

  return ~is_missing & (starts >= 0) & (starts < num_frames), text


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
