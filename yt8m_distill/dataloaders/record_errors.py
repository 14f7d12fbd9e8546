"""Checks of features and records, with messages that name what is wrong.

B records, T frames of the longest.
"""

from collections.abc import Callable
from collections.abc import Sequence

from google.protobuf import message as protobuf
import tensorflow as tf

from yt8m_distill.configs import data

_CONFIGURED = 'task.model.features (for predict and export, --features)'
# What frames could hold, by bytes per value.
_TYPES = {1: 'uint8', 2: 'float16', 4: 'float32', 8: 'float64'}
# As Python writes bytes: printable ASCII as it is, others as \x and two digits.
_ESCAPED = [repr(bytes([byte]))[2:-1] for byte in range(256)]
_SHOWN = 10  # values of a list in a message
_SHOWN_BYTES = 100
# Whether each record is valid, bool [B], and the message about a row, in pieces.
Check = tuple[tf.Tensor, Callable[[tf.Tensor], list]]


def escape(text) -> tf.Tensor:
  """Returns the first of any bytes as they appear in messages, string []."""
  codes = tf.io.decode_raw(tf.strings.substr(text, 0, _SHOWN_BYTES), tf.uint8)
  return tf.strings.reduce_join(
    tf.gather(tf.constant(_ESCAPED), tf.cast(codes, tf.int32))
  )


def frame_bytes(feature: data.Feature) -> int:
  """Returns the size of a frame of a feature that is stored as byte strings."""
  return data.BYTES_PER_VALUE[feature.format] * feature.size


def _size_remedies(feature: data.Feature) -> dict[int, str]:
  """Returns what frames of other bytes than expected call for, by their bytes."""
  formats = {size: name for name, size in data.BYTES_PER_VALUE.items()}
  remedies = {}
  for size, dtype in _TYPES.items():
    advice = f'set its format in {_CONFIGURED} to '
    if size not in formats:
      advice = f'no format reads them, so store them as float32, and {advice}'
    remedies[size * feature.size] = (
      f'{size * feature.size} bytes could be {feature.size} {dtype} values: '
      f'{advice}{formats.get(size, "float32_bytes")}.'
    )
  return remedies


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
    kind_expected = (
      'bytes_list' if feature.format in data.BYTES_PER_VALUE else 'float_list'
    )
    values = expected[feature.name]
    for value in [values] if is_video else values.feature:
      kind = value.WhichOneof('kind')
      if kind != kind_expected:
        remedy = 'Remove the record.' if is_video else _kind_remedy(feature, value)
        raise ValueError(
          f'{name}: feature {feature.name!r} is {f"a {kind}" if kind else "empty"}, '
          f'but its format {feature.format!r} needs a {kind_expected}. {remedy}'
        )
      size = len(value.float_list.value)
      if is_video and size != feature.size:
        raise ValueError(
          f'{name}: feature {feature.name!r} has {size} values, not {feature.size}. '
          'Correct its size in task.model.features.'
        )


def _kind_remedy(feature: data.Feature, frame: tf.train.Feature) -> str:
  """Returns what to do about a frame of another kind than the format says."""
  if frame.bytes_list.value:
    return _size_remedies(feature).get(
      len(frame.bytes_list.value[0]),
      f'Set its format in {_CONFIGURED} to bytes or float32_bytes, and its size.',
    )
  if frame.float_list.value:
    return (
      f'Set its format in {_CONFIGURED} to quantized_floats, for a network trained on '
      'the releases, or to floats.'
    )
  return 'Remove the record.'


def assert_size(
  feature: data.Feature,
  name: Callable[[tf.Tensor], tf.Tensor],
  values: tf.RaggedTensor,
) -> tf.Operation:
  """Checks the sizes of float lists.

  Args:
    feature: the feature.
    name: returns the name of the record in a row, for the message.
    values: float32 [B, (T), (values)], or, of a video-level feature, [B, (values)].

  Returns:
    An operation that raises an InvalidArgumentError about the first invalid record.
  """
  is_video = feature.format == 'video'
  sizes = (values if is_video else values.values).row_lengths()
  is_valid = sizes == feature.size

  def fail():
    bad = tf.argmin(tf.cast(is_valid, tf.int32))
    record = bad if is_video else values.value_rowids()[bad]
    message = tf.strings.join(
      [
        name(record),
        f': {feature.name} has ',
        tf.strings.as_string(sizes[bad]),
        f' values{"" if is_video else " in a frame"}, not {feature.size} (0: it is '
        f'missing). Correct {_CONFIGURED}, or remove the record.',
      ]
    )
    return tf.Assert(False, [message])

  return tf.cond(tf.reduce_all(is_valid), tf.no_op, fail)


def assert_valid(
  features: Sequence[data.Feature],
  name: Callable[[tf.Tensor], tf.Tensor],
  counts: dict[str, tf.Tensor],
  values,
  lengths,
  has_labels,
  labels,
  num_classes: int,
  others: Sequence[Check] = (),
) -> tf.Operation:
  """Checks the context and the frames.

  Args:
    features: F of them.
    name: returns the name of the record in a row, for the message.
    counts: int32 [B] by key, number of values of what may have only one.
    values: per feature string [B, T] or float32 [B, (T), size], frames.
    lengths: int64 [B, F], number of frames of each feature.
    has_labels: bool [B], False if required labels are missing.
    labels: sparse int64 [B, labels].
    num_classes: labels must be less.
    others: further checks.

  Returns:
    An operation that raises an InvalidArgumentError with all problems of the first
    invalid record.
  """
  checks: list[Check] = [
    (has_labels, lambda row: ['no `labels`. Only prediction reads such records.']),
    _check_range(labels, num_classes),
    _check_lengths(features, lengths),
    *(_check_count(key, count) for key, count in counts.items()),
    *others,
  ]
  for i, (feature, value) in enumerate(zip(features, values)):
    if feature.format in data.BYTES_PER_VALUE:
      checks.append(_check_bytes(feature, value, lengths[:, i]))
    if feature.format != 'bytes':
      checks.append(_check_finite(feature, value))
  is_valid = tf.reduce_all(tf.stack([ok for ok, _ in checks]), 0)

  def fail():
    bad = tf.argmin(tf.cast(is_valid, tf.int32))
    texts = [
      tf.where(ok[bad], '', tf.strings.join([' ', *text(bad)])) for ok, text in checks
    ]
    return tf.Assert(False, [tf.strings.join([name(bad), ':', *texts])])

  return tf.cond(tf.reduce_all(is_valid), tf.no_op, fail)


def _check_range(labels, num_classes: int) -> Check:
  rows, classes = labels.indices[:, 0], labels.values
  in_range = (classes >= 0) & (classes < num_classes)
  ok = (
    tf.math.unsorted_segment_min(
      tf.cast(in_range, tf.int32), rows, labels.dense_shape[0]
    )
    > 0
  )

  def text(row):
    return [
      'labels are ',
      join(classes[(rows == row) & ~in_range]),
      f', but must be between 0 and {num_classes - 1}. Set task.model.num_classes, or '
      'remove the record.',
    ]

  return ok, text


def _check_lengths(features, lengths) -> Check:
  ok = tf.reduce_all((lengths > 0) & (lengths == lengths[:, :1]), 1)

  def text(row):
    return [
      f'{", ".join(feature.name for feature in features)} have ',
      join(lengths[row]),
      ' frames, but must have the same number, at least 1 (0 can mean that the '
      f'feature is missing). Correct {_CONFIGURED}, or remove the record.',
    ]

  return ok, text


def _check_count(key: str, count) -> Check:
  def text(row):
    number = tf.strings.as_string(count[row])
    return [f'{key} has ', number, ' values, but must have one. Remove the record.']

  return count <= 1, text


def _check_bytes(feature: data.Feature, value, length) -> Check:
  """Checks the sizes of byte strings [B, T], `length` [B] of which are frames."""
  sizes, expected = tf.strings.length(value), frame_bytes(feature)
  is_padding = ~tf.sequence_mask(length, tf.shape(value)[1])

  def text(row):
    found = tf.unique(sizes[row, : length[row]])[0]
    remedy = f'Set its size in {_CONFIGURED}, or remove the record.'
    for size, advice in _size_remedies(feature).items():
      remedy = tf.where(tf.reduce_all(found == size), advice, remedy)
    return [
      f'{feature.name} has frames of ',
      join(found),
      f' bytes, not {expected}. ',
      remedy,
    ]

  return tf.reduce_all((sizes == expected) | is_padding, 1), text


def _check_finite(feature: data.Feature, value) -> Check:
  if feature.format == 'float32_bytes':
    value = tf.io.decode_raw(value, tf.float32, fixed_length=frame_bytes(feature))
    ok = tf.reduce_all(tf.math.is_finite(value), [1, 2])  # So is padding.
  else:
    frames = tf.reduce_all(tf.math.is_finite(value.values), 1)
    ok = tf.reduce_all(value.with_values(frames), 1)
  return ok, lambda row: [f'{feature.name} holds NaN or infinity. Remove the record.']


def join(values) -> tf.Tensor:
  """Returns the first of a list of numbers as they appear in messages, string []."""
  shown = tf.strings.reduce_join(tf.strings.as_string(values[:_SHOWN]), separator=', ')
  return tf.strings.join([shown, tf.where(tf.size(values) > _SHOWN, ', ...', '')])
