"""What is wrong with a record, in one line that names its file and its number.

A graph checks batches and says little (`assert_valid`). Python looks at the records of
a batch that was refused, one at a time, and says what is wrong and what to do.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence

from google.protobuf import message as protobuf
import numpy as np
import tensorflow as tf

from yt8m_distill.configs import data

_CONFIGURED = 'task.model.features (for predict, teach and export, --features)'
# What frames could hold, by bytes per value.
_TYPES = {1: 'uint8', 2: 'float16', 4: 'float32', 8: 'float64'}
_SHOWN = 10  # items of a list in a message
_SHOWN_BYTES = 100
REMOVE = 'Remove the record.'
# Whether each record is valid, bool [B], and the fault of those that are not.
Check = tuple[tf.Tensor, str]


class RecordError(ValueError):
  """A record is malformed, or of another kind than the one that is read."""


def escape(text: bytes) -> str:
  """Returns the first of any bytes as they appear in messages."""
  return repr(text[:_SHOWN_BYTES])[2:-1]


def join(values: Iterable) -> str:
  """Returns the first of a list of values as they appear in messages."""
  values = list(values)
  shown = ', '.join(map(str, values[:_SHOWN]))
  return shown + (', ...' if len(values) > _SHOWN else '')


def _keys(features) -> str:
  """Returns the first keys of a map as they appear in messages."""
  return f'[{join(repr(key[:_SHOWN_BYTES]) for key in sorted(features))}]'


def frame_bytes(feature: data.Feature) -> int:
  """Returns the size of a frame of a feature that is stored as byte strings."""
  return data.BYTES_PER_VALUE[feature.format] * feature.size


def parse(name: str, serialized: bytes) -> tf.train.SequenceExample:
  """Parses a record.

  Args:
    name: of the record, in the message.
    serialized: its bytes.

  Raises:
    RecordError: it is not a SequenceExample or Example.
  """
  try:
    # An Example parses as a SequenceExample that has only a context.
    return tf.train.SequenceExample.FromString(serialized)
  except protobuf.DecodeError as e:
    raise RecordError(
      f'{name}: not a tf.train.SequenceExample or Example. Set input_path to '
      'YouTube-8M records, frame-level or video-level, or remove the record.'
    ) from e


def values(name: str, features, key: str, kind: str) -> Sequence:
  """Returns the values of a key of the context; none if it is missing or empty.

  Args:
    name: of the record, in the message.
    features: of the context, by key.
    key: one that the context may have.
    kind: 'bytes_list', 'int64_list' or 'float_list'.

  Raises:
    RecordError: the values are of another kind.
  """
  if key not in features:
    return ()
  stored = features[key].WhichOneof('kind')
  if stored not in (None, kind):
    raise RecordError(
      f'{name}: {key} is stored as {stored}, but must be stored as {kind}. {REMOVE}'
    )
  return getattr(features[key], kind).value


def check_format(
  features: Sequence[data.Feature], name: str, record: tf.train.SequenceExample
):
  """Raises a RecordError if a feature is missing or stored differently."""
  lists = record.feature_lists.feature_list
  context = record.context.feature
  for feature in features:
    is_video = feature.format == 'video'
    expected, others = (context, lists) if is_video else (lists, context)
    if feature.name not in expected:
      level, other = ('video', 'frame') if is_video else ('frame', 'video')
      raise RecordError(
        f'{name}: no {level}-level feature {feature.name!r}. Its {level}-level '
        f'features are {_keys(expected)}, its {other}-level ones {_keys(others)}. '
        'Correct task.model.features (video-level ones have the format video), or '
        f'input_path if it should not name {other}-level records.'
      )
    kind_expected = (
      'bytes_list' if feature.format in data.BYTES_PER_VALUE else 'float_list'
    )
    stored = expected[feature.name]
    for value in [stored] if is_video else stored.feature:
      kind = value.WhichOneof('kind')
      if kind != kind_expected:
        remedy = REMOVE if is_video else _kind_remedy(feature, value)
        raise RecordError(
          f'{name}: feature {feature.name!r} is '
          f'{f"stored as {kind}" if kind else "empty"}, but its format '
          f'{feature.format!r} needs a {kind_expected}. {remedy}'
        )
      strings = len(value.bytes_list.value)
      if kind == 'bytes_list' and strings != 1:
        raise RecordError(
          f'{name}: feature {feature.name!r} has {strings} byte strings in a frame, '
          f'but must have one. {REMOVE}'
        )
      size = len(value.float_list.value)
      if is_video and size != feature.size:
        raise RecordError(
          f'{name}: feature {feature.name!r} has {size} values, not {feature.size}. '
          'Correct its size in task.model.features.'
        )


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
  return REMOVE


def num_frames(feature: data.Feature, record: tf.train.SequenceExample) -> int:
  """Returns how many frames of a feature a record has; 1 if it is video-level."""
  if feature.format == 'video':
    return 1
  return len(record.feature_lists.feature_list[feature.name].feature)


def frame_faults(
  features: Sequence[data.Feature], record: tf.train.SequenceExample
) -> Iterable[str]:
  """Yields what is wrong with the frames of a record that check_format() accepts."""
  if features[0].format == 'video':
    frames = {f.name: [record.context.feature[f.name]] for f in features}
  else:
    lists = record.feature_lists.feature_list
    frames = {f.name: lists[f.name].feature for f in features}
  lengths = [len(stored) for stored in frames.values()]
  if not lengths[0] or len({*lengths}) > 1:
    yield (
      f'{", ".join(frames)} have {join(lengths)} frames, but must have the same '
      f'number, at least 1. Correct {_CONFIGURED}, or remove the record.'
    )
  for feature in features:
    is_bytes = feature.format in data.BYTES_PER_VALUE
    stored = [
      frame.bytes_list.value[0] if is_bytes else frame.float_list.value
      for frame in frames[feature.name]
    ]
    expected = frame_bytes(feature) if is_bytes else feature.size
    sizes = list(dict.fromkeys(map(len, stored)))
    if sizes and sizes != [expected]:
      remedy = f'Set its size in {_CONFIGURED}, or remove the record.'
      if is_bytes and len(sizes) == 1:
        remedy = _size_remedies(feature).get(sizes[0], remedy)
      yield (
        f'{feature.name} has frames of {join(sizes)} '
        f'{"bytes" if is_bytes else "values"}, not {expected}. {remedy}'
      )
    elif feature.format != 'bytes':
      numbers = np.frombuffer(b''.join(stored), '<f4') if is_bytes else stored
      if not np.isfinite(numbers).all():
        yield f'{feature.name} holds NaN or infinity. {REMOVE}'


def in_range(classes: tf.Tensor, num_classes: int) -> tf.Tensor:
  """Returns whether each class is between 0 and V - 1; bool of the same shape."""
  return (classes >= 0) & (classes < num_classes)


def label_faults(
  key: str,
  labels: Sequence[int],
  num_classes: int,
  remedy: str = 'Set task.model.num_classes, or remove the record.',
) -> Iterable[str]:
  """Yields in words which of the classes that a key holds are not `in_range`."""
  wrong = [label for label in labels if not 0 <= label < num_classes]
  if wrong:
    yield (
      f'{key} are {join(wrong)}, but must be between 0 and {num_classes - 1}. {remedy}'
    )


def assert_valid(
  checks: Sequence[Check],
  batch: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
  explain: Callable[..., str] | None,
) -> tf.Operation:
  """Checks a batch in a graph.

  Args:
    checks: of the batch.
    batch: paths string [B], positions int64 [B] and records string [B].
    explain: takes the batch as arrays, and says what is wrong with an invalid record.
      If None, the graph says which checks its first invalid record fails.

  Returns:
    An operation that raises an InvalidArgumentError about a record.
  """
  results = tf.stack([is_valid for is_valid, _ in checks])

  def fail():
    if explain:

      def message(*arrays):
        return explain(*arrays).encode('ascii', 'backslashreplace')

      return tf.Assert(False, [tf.numpy_function(message, batch, tf.string)])
    paths, indices, _ = batch
    bad = tf.argmin(tf.cast(tf.reduce_all(results, 0), tf.int32))
    faults = tf.boolean_mask([fault for _, fault in checks], ~results[:, bad])
    listed = tf.strings.reduce_join(faults, separator='; ')
    name = names(paths[bad], indices[bad])
    return tf.Assert(False, [tf.strings.join([name, listed], ': ')])

  return tf.cond(tf.reduce_all(results), tf.no_op, fail)


def name_of(path: str, index: int) -> str:
  """Names a record in messages, by its file and its position there."""
  return f'{path}, record {index}'


def names(paths, indices) -> tf.Tensor:
  """Names records as name_of(), in a graph; strings of the shape of both."""
  return tf.strings.join([paths, ', record ', tf.strings.as_string(indices)])
