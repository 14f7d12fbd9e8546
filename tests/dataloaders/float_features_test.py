"""Features that are stored as floats."""

import numpy as np
import pytest
import reading
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.dataloaders import reader as reader_lib

_FLOATS = {'RGB/feature/floats': 12, 'AUDIO/feature/floats': 4}


def _float_reader(form, **kwargs):
  features = [
    data.Feature(name=name, size=size, format=form) for name, size in _FLOATS.items()
  ]
  return reader_lib.FrameReader(
    features, 9, 50, **{'selection': reading.ALL, 'with_labels': False, **kwargs}
  )


def _float_record(values, sizes=None, context=None):
  """`values`: float32 [frames, 16]."""
  record = tf.train.SequenceExample()
  for key, value in (context or {}).items():
    record.context.feature[key].bytes_list.value.append(value)
  start = 0
  for name, size in (sizes or _FLOATS).items():
    steps = record.feature_lists.feature_list[name].feature
    for frame in values:
      steps.add().float_list.value.extend(frame[start : start + size])
    start += size
  return record


def test_float_features_are_kept_as_they_are():
  rng = np.random.default_rng(0)
  videos = [rng.normal(0, 3, [n, 16]).astype(np.float32) for n in (4, 12, 1)]
  records = [_float_record(v) for v in videos]
  inputs, _ = reading.read(_float_reader('floats'), *records)
  assert inputs['frames'].dtype == np.float32
  assert inputs['num_frames'].tolist() == [4, 9, 1]
  for row, video in zip(inputs['frames'], videos):
    count = min(9, len(video))
    np.testing.assert_array_equal(row[:count], video[:count])
    assert not row[count:].any()
  chosen, _ = reading.read(
    _float_reader('floats', selection=reading.every(4)), *records
  )
  assert chosen['num_frames'].tolist() == [1, 3, 1]
  np.testing.assert_array_equal(chosen['frames'][1], videos[1][[0, 4, 8]])
  assert not chosen['frames'][0, 1:].any()


def test_floats_are_quantised_as_the_releases_are():
  """Bytes come back from their own dequantised values; the rest is clipped."""
  rng = np.random.default_rng(0)
  stored = rng.integers(0, 256, [5, 16])
  values = (stored * (4 / 255) + (4 / 512 - 2)).astype(np.float32)
  values[0, :2] = 3.7, -9.0
  stored[0, :2] = 255, 0
  inputs, _ = reading.read(_float_reader('quantized_floats'), _float_record(values))
  assert inputs['frames'].dtype == np.uint8
  np.testing.assert_array_equal(inputs['frames'][0, :5], stored)


def test_stored_bytes_and_quantised_floats_join():
  features = [
    data.Feature(name='rgb', size=12),
    data.Feature(name='AUDIO/feature/floats', size=4, format='quantized_floats'),
  ]
  record = reading.record(3, features={'rgb': 12})
  record.MergeFrom(
    _float_record(np.zeros([3, 4], np.float32), {'AUDIO/feature/floats': 4})
  )
  inputs, _ = reading.read(reader_lib.FrameReader(features, 9, 50, reading.ALL), record)
  rgb = [
    frame.bytes_list.value[0]
    for frame in record.feature_lists.feature_list['rgb'].feature
  ]
  assert inputs['frames'][0, :3, :12].tobytes() == b''.join(rgb)
  assert (inputs['frames'][0, :3, 12:] == 127).all()


def test_path_of_mediapipe_is_an_id():
  values = np.zeros([2, 16], np.float32)
  reader = _float_reader('floats', with_ids=True)
  inputs, _ = reading.read(
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
    (np.zeros([2, 14]), '(?s)record 0.*as task.model.features,.*values'),
  ],
)
def test_bad_floats_are_named(values, words):
  with pytest.raises(
    tf.errors.InvalidArgumentError, match=words.replace(': AUDIO', '.*AUDIO')
  ):
    reading.read(_float_reader('floats'), _float_record(values.astype(np.float32)))


def test_bytes_where_floats_are_expected_are_explained():
  record = reading.record(2, features=_FLOATS)
  with pytest.raises(
    ValueError,
    match='is a bytes_list, but its format '
    "'floats' is a float_list. Set its format .* to bytes",
  ):
    _float_reader('floats').check_format('a', 0, record.SerializeToString())
