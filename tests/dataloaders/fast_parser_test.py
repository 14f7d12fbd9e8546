"""Tests of the fast parser on regular records and on all others."""

import frame_readers
import pytest
import tensorflow as tf

from yt8m_distill.dataloaders import fast_parser
from yt8m_distill.dataloaders import reader as reader_lib


def _field(tag, content):
  return fast_parser._header(tag, len(content)) + content


def _lists(record, swap=False, entry=b''):
  """Serializes feature lists in a given order, with `entry` added to each."""
  names = sorted(record.feature_lists.feature_list, reverse=swap)
  entries = []
  for name in names:
    frames = record.feature_lists.feature_list[name].SerializeToString()
    entries.append(
      _field(0x0A, _field(0x0A, name.encode()) + _field(0x12, frames) + entry)
    )
  return _field(0x12, b''.join(entries))


def _serialize(record, how):
  context = _field(0x0A, record.context.SerializeToString())
  lists, unknown = _lists(record), _field(0x7A, b'unknown')
  swapped = _lists(record, True)
  if how == 'frames of other lengths':  # The total is the same.
    rgb = record.feature_lists.feature_list['rgb'].feature
    for i, size in enumerate((13, 11)):
      rgb[i].bytes_list.value[0] = bytes(size)
    return context + _lists(record)
  return {
    'as written': context + lists,
    'map reversed': context + swapped,
    'context after': lists + context,
    'context twice': context + context + lists,
    'no context': lists,
    'unknown field before': unknown + context + lists,
    'unknown field between': context + unknown + lists,
    'unknown field after': context + lists + unknown,
    'unknown field in the map': context + _lists(record, entry=unknown),
    'one list after the other': context
    + b''.join(
      _lists(frame_readers.record(4, features={name: size}))
      for name, size in frame_readers.FEATURES.items()
    ),
    'truncated': (context + lists)[:-1],
    'garbage': bytes(range(255, 0, -1)),
    'garbage in the context': _field(0x0A, b'\xff' * 9) + lists,
    'length without end': b'\x0a\xff\xff\xff\xff\xff' + lists,
    'length beyond the end': b'\x0a\xff\x7f' + lists,
    'nothing': b'',
    'no frames': context,
    'empty frames': frame_readers.record(
      4, features={'rgb': 0, 'audio': 0}
    ).SerializeToString(),
    'more frames than it handles': frame_readers.record(600).SerializeToString(),
  }[how]


_REGULAR = ('as written', 'map reversed', 'garbage in the context')


@pytest.mark.parametrize(
  'how',
  [
    *_REGULAR,
    'context after',
    'context twice',
    'no context',
    'unknown field before',
    'unknown field between',
    'unknown field after',
    'unknown field in the map',
    'one list after the other',
    'frames of other lengths',
    'truncated',
    'garbage',
    'length without end',
    'length beyond the end',
    'nothing',
    'no frames',
    'empty frames',
    'more frames than it handles',
  ],
)
@pytest.mark.parametrize('every_n', [1, 2])
def test_any_record_is_read_as_by_tensorflow(monkeypatch, how, every_n):
  records = [
    frame_readers.record(7),
    _serialize(frame_readers.record(4, context={'id': b'a'}), how),
  ]

  selection = frame_readers.every(every_n) if every_n > 1 else frame_readers.ALL

  def outcome():
    reader = frame_readers.reader(
      selection=selection, max_frames=9, with_ids=True, with_labels=False
    )
    try:
      inputs, labels = frame_readers.read(reader, *records)
    except tf.errors.InvalidArgumentError as e:
      message = str(e)
      return message[message.index('/data/') :].splitlines()[0]
    return [*(inputs[key].tolist() for key in sorted(inputs)), labels.tolist()]

  parser = fast_parser.FastParser(list(frame_readers.FEATURES.items()))
  serialized = tf.constant([records[0].SerializeToString(), records[1]])
  found = parser.find(serialized)
  regular, _ = parser.cut(serialized, found, 1)
  assert bool(found.is_regular & regular) == (how in _REGULAR)
  got = outcome()
  monkeypatch.setattr(
    reader_lib.FrameReader, '_read_fast', reader_lib.FrameReader._read_any
  )
  assert got == outcome()


def test_records_of_the_releases_are_regular():
  features = {'rgb': 1024, 'audio': 128}
  # The id makes the length of the context a varint of two bytes.
  record = frame_readers.record(300, features=features, context={'id': b'i' * 200})
  parser = fast_parser.FastParser(list(features.items()))
  serialized = tf.constant([record.SerializeToString()])
  found = parser.find(serialized)
  regular, frames = parser.cut(serialized, found, 301)
  assert found.is_regular and regular and found.num_frames.numpy() == [300]
  context = tf.train.SequenceExample.FromString(found.contexts[0].numpy())
  assert context == tf.train.SequenceExample(context=record.context)
  for values, name in zip(frames, features):
    steps = record.feature_lists.feature_list[name].feature
    assert values[0, :300].numpy().tobytes() == b''.join(
      step.bytes_list.value[0] for step in steps
    )
    assert not values[0, 300:].numpy().any()
  indices = tf.constant([[299, 0, 7, 300]])
  regular, some = parser.cut_some(serialized, found, indices, tf.constant([3]))
  assert regular and some[0, 3].numpy() == b''
  joined = tf.concat(frames, 2)[0].numpy()
  assert [s.numpy() for s in some[0, :3]] == [joined[i].tobytes() for i in (299, 0, 7)]
  regular, _ = parser.cut_some(serialized, found, indices, tf.constant([4]))
  assert not regular  # There is no frame 300.
