"""Mutates valid records, and checks how they are read.

A mutated record is read alone and after a valid one. It is either still valid, and then
it is read as a plain parser reads it, or it is refused with one line that names its
file and its number. The plain parser uses protobuf and numpy, one record at a time. Run
it from the repository's root:

  PYTHONPATH=. python tests/fuzz_records.py --count=10000

Of records that are damaged, so that protobuf would not have written them, TensorFlow's
parser checks less than protobuf does. It may read them, if the damage is in what nobody
asks for.
"""

import collections
from collections.abc import Sequence
import itertools
import struct
import sys

from absl import app
from absl import flags
import frame_readers
from google.protobuf import message as protobuf
import numpy as np
import records as records_lib
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.configs import model
from yt8m_distill.dataloaders import reader as reader_lib
from yt8m_distill.dataloaders import thin
from yt8m_distill.modeling import frame_selection
from yt8m_distill.utils import cli
from yt8m_distill.utils import quantization

_PATH = '/data/train07.tfrecord'
_SIZES = {'rgb': 6, 'audio': 2}
_MAX_FRAMES, _CLASSES, _MAX_LENGTH = 12, 20, 15
_IDS = ('id', 'video_id', 'clip/data_path')
_COUNTS = ('every_n', 'every_n/num_frames')
_FORMATS = ('bytes', 'floats', 'quantized_floats', 'float32_bytes')
_WINDOW = 'window_start'


def _selection(kind, **fields):
  """Returns a selection of frames."""
  return model.FrameSelection.from_args(**{'type': kind, kind: fields})


_SELECTIONS = {
  'all': frame_readers.ALL,
  'every 2nd': frame_readers.every(2),
  'every 2nd, original': frame_readers.every(2, 'original'),
  'k': _selection('uniform', every_n=0, k=4),
  **{
    kind: _selection(kind, k=4)
    for kind in ('random', 'first', 'middle', 'last', 'first_middle_last', 'window')
  },
  'nested': _selection('nested', counts=[2, 5]),
}
# Format, the frames that the network sees, and whether records are thinned.
CASES = {
  **{
    f'{form}, {name}': (form, selection, False)
    for form in _FORMATS
    for name, selection in _SELECTIONS.items()
  },
  **{f'{form}, thinned': (form, frame_readers.every(4), True) for form in _FORMATS},
  'video': ('video', frame_readers.ALL, False),
}


class Case:
  """A reader, valid records for it, and the plain parser."""

  def __init__(self, name: str):
    self.format, self.selection, self.is_thinned = CASES[name]
    self._is_window = self.selection.type == 'window'
    self._max_frames = 1 if self.format == 'video' else _MAX_FRAMES
    features = [
      data.Feature(name=key, size=size, format=self.format)
      for key, size in _SIZES.items()
    ]
    # With and without the fast parser, where there is one.
    self.readers = []
    for fast in (True, False):
      reader = reader_lib.FrameReader(
        features,
        self._max_frames,
        _CLASSES,
        self.selection,
        with_ids=True,
      )
      if not fast and not reader._fast_parser:
        break
      if not fast:
        reader._fast_parser = None
      # In a graph, as in input pipelines: errors read differently there.
      self.readers.append(
        tf.function(
          reader.read_explained,
          autograph=False,
          input_signature=[
            tf.TensorSpec([None], tf.string),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([None], tf.string),
          ],
        )
      )

  def valid(self, rng: np.random.Generator):
    """Returns a valid SequenceExample."""
    length = int(rng.integers(1, _MAX_LENGTH))
    context = {'id': rng.bytes(rng.integers(1, 12))}
    if self._is_window:
      context[_WINDOW] = [int(rng.integers(min(length, _MAX_FRAMES)))]
    labels = rng.choice(_CLASSES, rng.integers(1, 4), replace=False)
    values = {
      key: rng.normal(0, 1, [length, size]).astype(np.float32)
      for key, size in _SIZES.items()
    }
    if self.format == 'video':
      example = records_lib.video_level(
        labels, **context, **{key: value[0] for key, value in values.items()}
      )
      return tf.train.SequenceExample.FromString(example.SerializeToString())
    if self.format == 'bytes':
      values = {
        key: rng.integers(0, 256, value.shape, np.uint8)
        for key, value in values.items()
      }
    if self.format == 'float32_bytes':
      values = {
        key: [frame.astype('<f4').tobytes() for frame in value]
        for key, value in values.items()
      }
    record = records_lib.frame_level(values, labels, **context)
    if not self.is_thinned:
      return record
    serialized = thin.thin_record(
      record.SerializeToString(), self.selection.uniform.every_n, _MAX_FRAMES, 'x'
    )
    return tf.train.SequenceExample.FromString(serialized)

  def parse(self, serialized: bytes, index: int):
    """Parses a record plainly; raises a ValueError if it is invalid.

    Returns:
      The example; and whether all frames are valid, or only those that are chosen.
    """
    record = tf.train.SequenceExample.FromString(serialized)
    context, lists = record.context.feature, record.feature_lists.feature_list
    ids = [b''.join(_values(context, key, 'bytes_list', 1)) for key in _IDS]
    _check('labels' in context)
    labels = _values(context, 'labels', 'int64_list')
    _check(all(0 <= label < _CLASSES for label in labels))
    step, total = (sum(_values(context, key, 'int64_list', 1)) for key in _COUNTS)
    columns = [
      [context[key] if key in context else tf.train.Feature()]
      if self.format == 'video'
      else (lists[key].feature if key in lists else [])
      for key in _SIZES
    ]
    frames = [
      [self._frame(frame, size) for frame in column]
      for column, size in zip(columns, _SIZES.values())
    ]
    stored = len(frames[0])
    _check(stored and len(frames[1]) == stored)
    step = step or 1
    if step == 1:
      total = stored
    else:
      every_n = self.selection.uniform.every_n * (self.selection.type == 'uniform')
      _check(step > 1 and every_n > 1 and every_n % step == 0)
      _check(total > 0 and stored >= -(-min(total, self._max_frames) // step))
    total, start = min(total, self._max_frames), 0
    if self._is_window:
      _check(_WINDOW in context)
      [start] = _values(context, _WINDOW, 'int64_list', 1) or [-1]
      _check(0 <= start < total)
    video_id = next(filter(None, ids), b'train07.tfrecord:%d' % index)
    chosen, count = frame_selection.frame_indices(
      tf.constant([total]),
      self.selection,
      self._max_frames,
      reader_lib.seeds_of([video_id]),
      tf.constant([start]),
    )
    count = int(count[0])
    dtype = np.uint8 if self.format in ('bytes', 'quantized_floats') else np.float32
    padded = np.zeros([chosen.shape[1], sum(_SIZES.values())], dtype)
    for row, place in enumerate(chosen[0, :count].numpy() // step):
      parts = [column[place] for column in frames]
      _check(all(part is not None for part in parts))
      padded[row] = np.concatenate(parts)
    hot = np.zeros(_CLASSES, bool)
    hot[labels] = True
    inputs = {'frames': padded, 'num_frames': count, 'id': video_id, 'labels': hot}
    if self._is_window:
      inputs[_WINDOW] = start
    return inputs, not any(frame is None for column in frames for frame in column)

  def _frame(self, feature, size):
    """Returns the stored values of a frame, [size]; None if they are invalid."""
    try:
      return self._valid_frame(feature, size)
    except ValueError:
      return None

  def _valid_frame(self, feature, size):
    if self.format in ('bytes', 'float32_bytes'):
      _check(feature.WhichOneof('kind') == 'bytes_list')
      _check(len(feature.bytes_list.value) == 1)
      [stored] = feature.bytes_list.value
      dtype = np.dtype('u1' if self.format == 'bytes' else '<f4')
      _check(len(stored) == size * dtype.itemsize)
      values = np.frombuffer(stored, dtype)
    else:
      _check(feature.WhichOneof('kind') == 'float_list')
      values = np.array(feature.float_list.value, np.float32)
      _check(len(values) == size)
    _check(np.isfinite(values).all())
    if self.format == 'quantized_floats':
      return quantization.quantize(values).numpy()
    return values


def _check(is_valid):
  if not is_valid:
    raise ValueError


def _values(features, key, kind, most=None):
  """Returns the values of a key, which may be missing or empty."""
  if key not in features:
    return []
  _check(features[key].WhichOneof('kind') in (kind, None))
  values = list(getattr(features[key], kind).value)
  _check(most is None or len(values) <= most)
  return values


# Mutations of the bytes.


def _flip(rng, text, first=None):
  """Changes 1 to 3 bytes, all among the first ones if told."""
  text = bytearray(text)
  for _ in range(rng.integers(1, 4)):
    text[rng.integers(min(len(text), first or len(text)))] = rng.integers(256)
  return bytes(text)


def _splice(rng, text):
  """Removes, repeats or inserts some bytes."""
  at, size = rng.integers(len(text)), rng.integers(1, 20)
  middle = [b'', text[at : at + size] * 2, rng.bytes(size) + text[at : at + size]]
  return text[:at] + middle[rng.integers(3)] + text[at + size :]


_BYTES = {
  'flip': _flip,
  'flip in the context': lambda rng, text: _flip(rng, text, 40),
  'splice': _splice,
  'truncate': lambda rng, text: text[: rng.integers(len(text))],
  'append': lambda rng, text: text + rng.bytes(rng.integers(1, 20)),
  'twice': lambda rng, text: text * 2,
  'random': lambda rng, text: rng.bytes(rng.integers(300)),
}


# Mutations of the fields; each changes a SequenceExample in place.


def _random_feature(rng, counts=(0, 1, 2, 3, 6)):
  """Returns a Feature of any kind; sometimes none."""
  count = int(rng.choice(counts))
  kind = rng.integers(4)
  if kind == 0:
    sizes = rng.choice([0, 2, 5, 6, 8, 12, 24, 48], count)
    return tf.train.Feature(bytes_list={'value': [rng.bytes(size) for size in sizes]})
  if kind == 1:
    choices = [-(2**63), -1, 0, 1, 2, 4, 19, 20, 2**31, 2**32, 2**40, 2**63 - 1]
    values = [choices[i] for i in rng.integers(len(choices), size=count)]
    return tf.train.Feature(int64_list={'value': values})
  if kind == 2:
    values = rng.choice(
      [0.5, -3.0, np.nan, np.inf, 1e30], count, p=[0.6, 0.1] + [0.1] * 3
    )
    return tf.train.Feature(float_list={'value': values})
  return tf.train.Feature()


def _set_key(rng, record):
  key = rng.choice([*_IDS, 'labels', *_COUNTS, _WINDOW, *_SIZES, 'other'])
  record.context.feature[key].CopyFrom(_random_feature(rng))


def _set_value(rng, record):
  """Replaces all values of a key by values of the right type."""
  key = rng.choice([*_IDS, 'labels', *_COUNTS, _WINDOW])
  while (value := _random_feature(rng)).WhichOneof('kind') != (
    'bytes_list' if key in _IDS else 'int64_list'
  ):
    pass
  record.context.feature[key].CopyFrom(value)


def _remove_key(rng, record):
  record.context.feature.pop(rng.choice([*_IDS, *_COUNTS, _WINDOW, 'labels']), None)


def _many_labels(rng, record):
  labels = rng.integers(-1, _CLASSES + 1, 20_000)
  record.context.feature['labels'].int64_list.value[:] = labels


def _long_id(rng, record):
  record.context.feature['id'].bytes_list.value[:] = [rng.bytes(100_000)]
  record.context.feature['labels'].int64_list.value.append(99)


def _some_list(rng, record):
  """Returns the frames of a feature, or a single-element list of a video's."""
  lists = record.feature_lists.feature_list
  name = rng.choice(list(_SIZES))
  return lists[name].feature if lists else [record.context.feature[name]]


def _change_frame(rng, record):
  frames = _some_list(rng, record)
  if len(frames):
    frames[rng.integers(len(frames))].CopyFrom(_random_feature(rng))


def _resize_frames(rng, record):
  """Gives all frames of a feature another size, as from another type."""
  factor = rng.choice([0.5, 2, 4, 8])
  for frame in _some_list(rng, record):
    if frame.bytes_list.value:
      frame.bytes_list.value[0] = rng.bytes(
        int(len(frame.bytes_list.value[0]) * factor)
      )
    elif frame.float_list.value:
      frame.float_list.value.extend(list(frame.float_list.value))


def _drop_frames(rng, record):
  frames = _some_list(rng, record)
  del frames[rng.integers(len(frames) + 1) :]


def _many_frames(rng, record):
  lists = record.feature_lists.feature_list
  for name in _SIZES if lists else ():
    frames = [
      tf.train.Feature.FromString(f.SerializeToString()) for f in lists[name].feature
    ]
    for _ in range(600 // max(1, len(frames))):
      lists[name].feature.extend(frames)


def _remove_list(rng, record):
  record.feature_lists.feature_list.pop(rng.choice(list(_SIZES)), None)


def _move_list(rng, record):
  """Moves a feature from the lists to the context, or vice versa."""
  name = rng.choice(list(_SIZES))
  lists, context = record.feature_lists.feature_list, record.context.feature
  if name in lists and lists[name].feature:
    context[name].CopyFrom(lists[name].feature[0])
    del lists[name]
  elif name in context:
    lists[name].feature.append(context[name])
    del context[name]


def _extra_list(rng, record):
  frames = [_random_feature(rng) for _ in range(3)]
  name = rng.choice(['other', 'labels', 'id', 'mean_rgb'])
  record.feature_lists.feature_list[name].feature.extend(frames)


def _infinite(rng, record):
  """Sets a value of a frame to NaN or infinity, where a frame can hold it."""
  frames = _some_list(rng, record)
  value = rng.choice([np.nan, np.inf, -np.inf])
  for frame in frames[-1:]:
    if frame.float_list.value:
      frame.float_list.value[-1] = value
    elif frame.bytes_list.value:
      stored = frame.bytes_list.value[0]
      frame.bytes_list.value[0] = stored[:-4] + struct.pack('<f', value)


def _empty(rng, record):
  rng.choice([record, record.context, record.feature_lists]).Clear()


_FIELDS = (
  _set_key,
  _set_value,
  _remove_key,
  _many_labels,
  _long_id,
  _change_frame,
  _resize_frames,
  _drop_frames,
  _many_frames,
  _remove_list,
  _move_list,
  _extra_list,
  _infinite,
  _empty,
)


def mutate(case: Case, rng: np.random.Generator) -> tuple[str, bytes]:
  """Returns what was done to a valid record, and the result."""
  record = case.valid(rng)
  if rng.random() < 0.4:
    name = rng.choice(list(_BYTES))
    return name, _BYTES[name](rng, record.SerializeToString())
  changes = rng.choice(_FIELDS, rng.integers(1, 3), replace=False)
  for change in changes:
    change(rng, record)
  return ' and '.join(c.__name__[1:] for c in changes), record.SerializeToString()


_DAMAGED = 'read though damaged'  # see above
OUTCOMES = ('read', 'refused', _DAMAGED)


def _is_sound(serialized: bytes) -> bool:
  """Whether a record is what protobuf would write, up to the order of the fields."""
  try:
    record = tf.train.SequenceExample.FromString(serialized)
  except protobuf.DecodeError:
    return False
  record.DiscardUnknownFields()
  return record.ByteSize() == len(serialized)


def outcome(case: Case, reader, serialized: bytes, before: Sequence[bytes]) -> str:
  """Reads a record after some valid ones.

  Returns:
    One of OUTCOMES.

  Raises:
    AssertionError: says how the record is read wrongly, or what its message lacks.
  """
  is_sound, index = _is_sound(serialized), len(before)
  try:
    expected, is_whole = case.parse(serialized, index)
  except (ValueError, protobuf.DecodeError):
    expected, is_whole = None, False
  try:
    inputs, labels = reader(
      [_PATH] * (index + 1), list(range(index + 1)), [*before, serialized]
    )
  except tf.errors.InvalidArgumentError as error:
    message = cli.message(error)
    assert not (is_sound and is_whole), f'a valid record was refused: {message}'
    assert message.startswith(f'{_PATH}, record {index}'), f'no name: {message}'
    assert len(message.splitlines()) == 1 and message.isprintable(), (
      f'not a line: {message!r}'
    )
    assert len(message) < 1500, f'{len(message)} characters: {message[:1500]}'
    return 'refused'
  assert not is_sound or expected is not None, 'an invalid record was read'
  if expected is None:
    return _DAMAGED
  got = {key: value[index].numpy() for key, value in inputs.items()}
  got['labels'] = labels[index].numpy()
  for key, value in expected.items():
    np.testing.assert_array_equal(got[key], value, key)
  return 'read'


def run(name: str, count: int, seed: int):
  """Yields (mutation, outcome, serialized) of each record, reader and batch.

  An outcome is one of OUTCOMES, or says what is wrong.
  """
  case = Case(name)
  rng = np.random.default_rng(seed)
  for _ in range(count):
    mutation, serialized = mutate(case, rng)
    valid = case.valid(rng).SerializeToString()
    for reader, before in itertools.product(case.readers, ([], [valid])):
      try:
        result = outcome(case, reader, serialized, before)
      except Exception as error:
        result = f'{type(error).__name__}: {error}'
      yield mutation, result, serialized


def main(_):
  """Prints counts, and all outcomes that are wrong."""
  is_right, count = True, -(-flags.FLAGS.count // len(CASES))
  for name in CASES:
    counts = collections.Counter()
    for mutation, result, serialized in run(name, count, flags.FLAGS.seed):
      is_good = result in OUTCOMES
      counts[result if is_good else 'wrong'] += 1
      if not is_good:
        is_right = False
        print(f'{name}, {mutation}: {result}\n  {serialized[:200]!r}')
    print(f'{name}: {dict(counts)}', flush=True)
  sys.exit(not is_right)


if __name__ == '__main__':
  # Not on import, because other commands define flags of the same names.
  flags.DEFINE_integer('count', 10_000, 'Mutated records, over all cases.')
  flags.DEFINE_integer('seed', 0, 'Seed of the mutations.')
  app.run(main)
