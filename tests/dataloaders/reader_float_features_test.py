"""Tests of features that are stored as floats."""

import frame_readers
import numpy as np
import pytest
import records
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.dataloaders import reader as reader_lib
from yt8m_distill.dataloaders import record_writer

_FLOATS = {'RGB/feature/floats': 12, 'AUDIO/feature/floats': 4}


def _float_reader(form, **kwargs):
  features = [
    data.Feature(name=name, size=size, format=form) for name, size in _FLOATS.items()
  ]
  return reader_lib.FrameReader(
    features, 9, 50, **{'selection': frame_readers.ALL, 'with_labels': False, **kwargs}
  )


def _float_record(values, sizes=None, context=None):
  """`values`: float32 [frames, 16]."""
  sizes = sizes or _FLOATS
  ends = np.cumsum(list(sizes.values()))
  features = {
    name: values[:, end - size : end] for (name, size), end in zip(sizes.items(), ends)
  }
  return records.frame_level(features, **(context or {}))


def test_float_features_are_unchanged():
  rng = np.random.default_rng(0)
  videos = [rng.normal(0, 3, [n, 16]).astype(np.float32) for n in (4, 12, 1)]
  records = [_float_record(v) for v in videos]
  inputs, _ = frame_readers.read(_float_reader('floats'), *records)
  assert inputs['frames'].dtype == np.float32
  assert inputs['num_frames'].tolist() == [4, 9, 1]
  for row, video in zip(inputs['frames'], videos):
    count = min(9, len(video))
    np.testing.assert_array_equal(row[:count], video[:count])
    assert not row[count:].any()
  chosen, _ = frame_readers.read(
    _float_reader('floats', selection=frame_readers.every(4)), *records
  )
  assert chosen['num_frames'].tolist() == [1, 3, 1]
  np.testing.assert_array_equal(chosen['frames'][1], videos[1][[0, 4, 8]])
  assert not chosen['frames'][0, 1:].any()


def test_floats_are_quantized_like_the_releases():
  """Dequantized bytes are restored; values out of range are clipped."""
  rng = np.random.default_rng(0)
  stored = rng.integers(0, 256, [5, 16])
  values = (stored * (4 / 255) + (4 / 512 - 2)).astype(np.float32)
  values[0, :2] = 3.7, -9.0
  stored[0, :2] = 255, 0
  inputs, _ = frame_readers.read(
    _float_reader('quantized_floats'), _float_record(values)
  )
  assert inputs['frames'].dtype == np.uint8
  np.testing.assert_array_equal(inputs['frames'][0, :5], stored)


def test_bytes_and_quantized_floats_can_be_joined():
  features = [
    data.Feature(name='rgb', size=12),
    data.Feature(name='AUDIO/feature/floats', size=4, format='quantized_floats'),
  ]
  record = frame_readers.record(3, features={'rgb': 12})
  record.MergeFrom(
    _float_record(np.zeros([3, 4], np.float32), {'AUDIO/feature/floats': 4})
  )
  inputs, _ = frame_readers.read(
    reader_lib.FrameReader(features, 9, 50, frame_readers.ALL), record
  )
  rgb = [
    frame.bytes_list.value[0]
    for frame in record.feature_lists.feature_list['rgb'].feature
  ]
  assert inputs['frames'][0, :3, :12].tobytes() == b''.join(rgb)
  assert (inputs['frames'][0, :3, 12:] == 127).all()


def test_data_path_of_mediapipe_is_an_id():
  values = np.zeros([2, 16], np.float32)
  reader = _float_reader('floats', with_ids=True)
  inputs, _ = frame_readers.read(
    reader,
    _float_record(values, context={'clip/data_path': b'/my/dog.mp4'}),
    _float_record(values),
  )
  assert inputs['id'].tolist() == [b'/my/dog.mp4', b'train07.tfrecord:1']


@pytest.mark.parametrize(
  'values,words',
  [
    (
      np.full([2, 16], np.nan),
      'RGB/feature/floats holds NaN or infinity: AUDIO/feature/floats holds NaN',
    ),
    (
      np.zeros([2, 14]),
      'record 0 .*AUDIO/feature/floats has frames of 2 values, not 4',
    ),
  ],
)
def test_bad_floats_are_named(values, words):
  with pytest.raises(
    tf.errors.InvalidArgumentError, match=words.replace(': AUDIO', '.*AUDIO')
  ):
    frame_readers.read(
      _float_reader('floats'), _float_record(values.astype(np.float32))
    )


def test_bytes_where_floats_are_expected_are_explained():
  record = frame_readers.record(2, features=_FLOATS)
  with pytest.raises(
    ValueError,
    match='is stored as bytes_list, but its format '
    "'floats' needs a float_list. 12 bytes could be 12 uint8 values: set its format "
    'in .* to bytes',
  ):
    _float_reader('floats').check('a', 0, record.SerializeToString())


def _as_bytes(record):
  """The same record with little-endian float32 bytes."""
  copy = tf.train.SequenceExample.FromString(record.SerializeToString())
  for values in copy.feature_lists.feature_list.values():
    for frame in values.feature:
      frame.CopyFrom(
        record_writer.feature(np.array(frame.float_list.value, '<f4').tobytes())
      )
  return copy


@pytest.mark.parametrize('selection', [frame_readers.ALL, frame_readers.every(4)])
def test_float32_bytes_are_read_as_floats(selection):
  rng = np.random.default_rng(0)
  lists = [
    _float_record(rng.normal(0, 1e9, [n, 16]).astype(np.float32)) for n in (4, 12, 1)
  ]
  expected, _ = frame_readers.read(_float_reader('floats', selection=selection), *lists)
  strings = list(map(_as_bytes, lists))
  reader = _float_reader('float32_bytes', selection=selection)
  assert reader._fast_parser
  inputs, _ = frame_readers.read(reader, *strings)
  assert inputs['frames'].dtype == np.float32
  for key, value in expected.items():
    np.testing.assert_array_equal(inputs[key], value)
  reader._fast_parser = None
  inputs, _ = frame_readers.read(reader, *strings)
  np.testing.assert_array_equal(inputs['frames'], expected['frames'])


def test_float32_bytes_and_floats_can_be_joined():
  values = np.arange(32, dtype=np.float32).reshape(2, 16)
  record = _as_bytes(_float_record(values[:, :12], {'rgb': 12}))
  record.MergeFrom(_float_record(values[:, 12:], {'audio': 4}))
  features = [
    data.Feature(name='rgb', size=12, format='float32_bytes'),
    data.Feature(name='audio', size=4, format='floats'),
  ]
  reader = reader_lib.FrameReader(features, 9, 50, frame_readers.ALL, with_labels=False)
  inputs, _ = frame_readers.read(reader, record)
  np.testing.assert_array_equal(inputs['frames'][0, :2], values)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('selection', [frame_readers.ALL, frame_readers.every(4)])
def test_float32_bytes_must_be_finite(value, selection):
  values = np.zeros([3, 16], np.float32)
  values[1, 3] = value  # Not a frame that is selected.
  with pytest.raises(
    tf.errors.InvalidArgumentError,
    match=r'record 0 \(id .*\): RGB/feature/floats holds NaN or infinity. Remove',
  ):
    frame_readers.read(
      _float_reader('float32_bytes', selection=selection),
      _as_bytes(_float_record(values)),
    )


@pytest.mark.parametrize(
  'form, size, advice',
  [
    ('bytes', 48, '48 bytes could be 12 float32 values: set its .* to float32_bytes'),
    ('bytes', 24, '24 bytes could be 12 float16 values: .* store them as float32'),
    ('bytes', 96, '96 bytes could be 12 float64 values: .* store them as float32'),
    ('bytes', 13, 'Set its size in task.model.features'),
    ('float32_bytes', 12, '12 bytes could be 12 uint8 values: set its .* to bytes'),
    ('float32_bytes', 24, '24 bytes could be 12 float16 values: .* store them as flo'),
    ('float32_bytes', 47, 'Set its size in task.model.features'),
  ],
)
def test_what_frames_of_another_size_could_be(form, size, advice):
  record = frame_readers.record(2, features={**_FLOATS, 'RGB/feature/floats': size})
  expected = {'bytes': 12, 'float32_bytes': 48}[form]
  with pytest.raises(
    tf.errors.InvalidArgumentError,
    match=f'RGB/feature/floats has frames of {size} bytes, not {expected}. {advice}',
  ):
    frame_readers.read(_float_reader(form), record)


@pytest.mark.parametrize('frames', [[12, 11], [11, 12], [11, 13], [12, 0], [24, 12]])
def test_float_lists_of_another_size_are_named(frames):
  record = _float_record(np.zeros([2, 16], np.float32))
  rgb = record.feature_lists.feature_list['RGB/feature/floats'].feature
  for frame, size in zip(rgb, frames):
    frame.CopyFrom(record_writer.feature(np.zeros(size, np.float32)))
  bad = next(size for size in frames if size != 12)
  good = _float_record(np.zeros([3, 16], np.float32))
  with pytest.raises(
    tf.errors.InvalidArgumentError,
    match=rf'record 1 .*: RGB/feature/floats has frames of .*{bad}.* values, not 12',
  ):
    frame_readers.read(_float_reader('floats'), good, record, good)
