"""Checks of features and records, with messages that name what is wrong.

B records, T frames of the longest.
"""

from collections.abc import Sequence

from google.protobuf import message as protobuf
import tensorflow as tf

from yt8m_distill.configs import data

# By how the frames of a feature are stored.
_REMEDIES = {
  'bytes_list': 'Set its format in task.model.features to bytes.',
  'float_list': 'Set its format in task.model.features to quantized_floats, for a '
  'network trained on the releases, or to floats.',
}


def check_format(
  features: Sequence[data.Feature], path: str, index: int, serialized: bytes
):
  """Explains records of a different format.

  The graph could say less, because its parser knows only the keys that it asks for.

  Args:
    features: expected.
    path: file of the record.
    index: its position in the file.
    serialized: the record.

  Raises:
    ValueError: the record is not a SequenceExample or Example, or a feature is missing,
      stored differently, or, for a video-level feature, of another size.
  """
  name = f'{path}, record {index}'
  try:
    # An Example parses as a SequenceExample that has only a context.
    record = tf.train.SequenceExample.FromString(serialized)
  except protobuf.DecodeError as e:
    raise ValueError(
      f'{name}: not a tf.train.SequenceExample or Example. Set input_path to '
      'YouTube-8M records, frame-level or video-level.'
    ) from e
  lists = record.feature_lists.feature_list
  context = record.context.feature
  for feature in features:
    is_video = feature.format == 'video'
    expected, others = (context, lists) if is_video else (lists, context)
    if feature.name not in expected:
      level, other = ('video', 'frame') if is_video else ('frame', 'video')
      raise ValueError(
        f'{name}: no {level}-level feature {feature.name!r}. Its {level}-level '
        f'features are {sorted(expected)}, its {other}-level ones {sorted(others)}. '
        'Correct task.model.features (video-level ones have the format video), or '
        f'input_path if it should not name {other}-level records.'
      )
    kind_expected = 'bytes_list' if feature.format == 'bytes' else 'float_list'
    values = expected[feature.name]
    for value in [values] if is_video else values.feature:
      kind = value.WhichOneof('kind')
      if kind != kind_expected:
        remedies = {} if is_video else _REMEDIES
        raise ValueError(
          f'{name}: feature {feature.name!r} is {f"a {kind}" if kind else "empty"}, '
          f'but its format {feature.format!r} needs a {kind_expected}. '
          + remedies.get(kind, 'Leave the record out.')
        )
      size = len(value.float_list.value)
      if is_video and size != feature.size:
        raise ValueError(
          f'{name}: feature {feature.name!r} has {size} values, not {feature.size}. '
          'Correct its size in task.model.features.'
        )


def assert_size(feature: data.Feature, names, sizes) -> tf.Operation:
  """Checks the size of a video-level feature.

  Args:
    feature: the feature.
    names: string [B], names of the records for the message.
    sizes: int [B], number of values in each; 0 if the feature is missing.

  Returns:
    An operation that raises an InvalidArgumentError about the first invalid record.
  """
  is_valid = sizes == feature.size

  def fail():
    bad = tf.argmin(tf.cast(is_valid, tf.int32))
    message = tf.strings.join(
      [
        names[bad],
        f': {feature.name} has ',
        tf.strings.as_string(sizes[bad]),
        f' values, not {feature.size} (0: it is missing). Correct task.model.features '
        '(for predict and export, --features), or leave the record out.',
      ]
    )
    return tf.Assert(False, [message])

  return tf.cond(tf.reduce_all(is_valid), tf.no_op, fail)


def assert_valid(
  features: Sequence[data.Feature],
  names,
  values,
  lengths,
  has_labels,
  labels,
  num_classes: int,
) -> tf.Operation:
  """Checks labels and frames.

  Args:
    features: F of them.
    names: string [B], names of the records for the message.
    values: per feature string [B, T] or float32 [B, T, size], frames.
    lengths: int64 [B, F], number of frames of each feature.
    has_labels: bool [B], False if required labels are missing.
    labels: sparse int64 [B, labels].
    num_classes: labels must be less.

  Returns:
    An operation that raises an InvalidArgumentError with all problems of the first
    invalid record.
  """
  rows, classes = labels.indices[:, 0], labels.values
  in_range = (
    tf.math.unsorted_segment_min(
      tf.cast((classes >= 0) & (classes < num_classes), tf.int32), rows, tf.size(names)
    )
    > 0
  )
  equal_lengths = tf.reduce_all((lengths > 0) & (lengths == lengths[:, :1]), 1)
  valid_frames = []
  for i, (feature, value) in enumerate(zip(features, values)):
    is_valid = (
      tf.strings.length(value) == feature.size
      if feature.format == 'bytes'
      else tf.reduce_all(tf.math.is_finite(value), 2)
    )
    is_padding = ~tf.sequence_mask(lengths[:, i], tf.shape(value)[1])
    valid_frames.append(tf.reduce_all(is_valid | is_padding, 1))
  is_valid = tf.reduce_all(
    tf.stack([has_labels, in_range, equal_lengths, *valid_frames]), 0
  )

  def fail():
    bad = tf.argmin(tf.cast(is_valid, tf.int32))
    problems = [
      (has_labels, ['no `labels`. Only prediction reads such records.']),
      (
        in_range,
        [
          'labels are ',
          _join(classes[rows == bad]),
          f', but must be between 0 and {num_classes - 1}. Set task.model.num_classes.',
        ],
      ),
      (
        equal_lengths,
        [
          f'{", ".join(feature.name for feature in features)} have ',
          _join(lengths[bad]),
          ' frames, but must have the same number, at least 1 (0 can mean that the '
          'feature is missing). Correct task.model.features (for predict and export, '
          '--features), or leave the record out.',
        ],
      ),
    ]
    for i, (feature, value) in enumerate(zip(features, values)):
      text = [f'{feature.name} holds NaN or infinity. Leave the record out.']
      if feature.format == 'bytes':
        sizes = tf.strings.length(value[bad, : lengths[bad, i]])
        text = [
          f'{feature.name} has frames of ',
          _join(tf.unique(sizes)[0]),
          f' bytes, not {feature.size}. Set its size in task.model.features.',
        ]
      problems.append((valid_frames[i], text))
    texts = [
      tf.where(ok[bad], '', tf.strings.join([' ', *text])) for ok, text in problems
    ]
    return tf.Assert(False, [tf.strings.join([names[bad], ':', *texts])])

  return tf.cond(tf.reduce_all(is_valid), tf.no_op, fail)


def _join(values) -> tf.Tensor:
  return tf.strings.reduce_join(tf.strings.as_string(values), separator=', ')
