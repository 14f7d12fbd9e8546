"""Tests of video-level records, valid and invalid."""

import numpy as np
import paths
import pytest
import records as records_lib
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.configs import model
from yt8m_distill.dataloaders import reader as reader_lib

_FEATURES = {'mean_rgb': 5, 'mean_audio': 2}
_REAL = {'mean_rgb': 1024, 'mean_audio': 128}


def _reader(features=None, num_classes=9, max_frames=1, form='video', **kwargs):
  features = [
    data.Feature(name=name, size=size, format=form)
    for name, size in (features or _FEATURES).items()
  ]
  return reader_lib.FrameReader(
    features, max_frames, num_classes, model.FrameSelection(), **kwargs
  )


def _record(labels=(1,), seed=0, **features):
  values = {
    name: np.random.default_rng(seed).normal(size=size)
    for name, size in _FEATURES.items()
  }
  values = {**values, **features}
  return records_lib.video_level(
    labels,
    id=b'v%d' % seed,
    **{name: value for name, value in values.items() if value is not None},
  )


def _read(reader, *records):
  serialized = records_lib.serialize(records)
  inputs, labels = reader.read_explained(
    tf.fill([len(serialized)], 'train7.tfrecord'),
    tf.range(len(serialized), dtype=tf.int64),
    tf.constant(serialized),
  )
  return {key: value.numpy() for key, value in inputs.items()}, labels.numpy()


def test_a_video_is_one_frame_of_its_features():
  records = [_record((1, 8), 0), _record((3,), 1)]
  inputs, labels = _read(_reader(with_ids=True), *records)
  expected = [
    [
      np.concatenate(
        [record.features.feature[name].float_list.value for name in _FEATURES]
      )
    ]
    for record in records
  ]
  assert inputs['frames'].dtype == np.float32
  np.testing.assert_array_equal(inputs['frames'], np.float32(expected))
  assert inputs['num_frames'].tolist() == [1, 1]
  assert inputs['id'].tolist() == [b'v0', b'v1']
  assert [np.flatnonzero(row).tolist() for row in labels] == [[1, 8], [3]]


@pytest.mark.parametrize(
  'path,classes,labels',
  [
    (paths.VIDEO_LEVEL[0], 3862, True),
    (paths.REAL / 'validatea0_first32.tfrecord', 4716, True),
    (paths.REAL / 'testa0_first32.tfrecord', 4716, False),
  ],
)
def test_real_records(path, classes, labels):
  records = records_lib.read(path)[:3]
  reader = _reader(_REAL, classes, with_ids=True, with_labels=labels)
  reader.check(str(path), 0, records[0])
  inputs, hot = _read(reader, *records)
  assert inputs['frames'].shape == (3, 1, 1152)
  assert all(inputs['id']) and b'train7' not in b''.join(inputs['id'])
  assert (hot.sum(1) > 0).all() == labels
  example = tf.train.Example.FromString(records[2]).features.feature
  np.testing.assert_array_equal(
    inputs['frames'][2, 0],
    np.concatenate([example[name].float_list.value for name in _REAL]).astype('f'),
  )


@pytest.mark.parametrize(
  'record,message',
  [
    (_record(mean_audio=None), ": no video-level feature 'mean_audio'"),
    (_record(mean_rgb=[1.0]), "'mean_rgb' has 1 values, not 5"),
    (_record(mean_rgb=[1.0] * 6), "'mean_rgb' has 6 values, not 5"),
    (
      _record(mean_rgb=[1.0, np.nan, 0, 0, 0]),
      r'\(id v0\): mean_rgb holds NaN or infinity. Remove the record',
    ),
    (_record(None), r'\(id v0\): .*labels'),
    (_record((9,)), r'\(id v0\): labels are 9, but must be between 0 and 8'),
  ],
)
def test_invalid_records_are_named(record, message):
  with pytest.raises(
    tf.errors.InvalidArgumentError, match='(?s)train7.tfrecord, record 1.*' + message
  ):
    _read(_reader(), _record(), record)


def test_labels_are_not_needed_to_predict():
  _, labels = _read(_reader(with_labels=False), _record(None))
  assert labels.shape == (1, 9) and not labels.any()


def test_another_format_is_explained():
  frames = records_lib.frame_level({'rgb': [b'abc']})
  stored = _record(mean_rgb=b'abc')
  empty = _record()
  empty.features.feature['mean_rgb'].Clear()
  for record, message in (
    (
      frames,
      r"no video-level feature 'mean_rgb'. Its video-level features are \[\], its "
      r"frame-level ones \['rgb'\].*should not name frame-level records",
    ),
    (_record(mean_audio=None), r"'mean_audio'. Its .* are \['id', 'labels', 'mean_"),
    (_record(mean_rgb=[1.0] * 6), "'mean_rgb' has 6 values, not 5. Correct its "),
    (
      stored,
      "'mean_rgb' is stored as bytes_list, but its format 'video' needs a "
      'float_list. Remove the record.$',
    ),
    (empty, "'mean_rgb' is empty, but its .*. Remove the record.$"),
  ):
    with pytest.raises(ValueError, match=f'x, record 4: .*{message}'):
      _reader().check('x', 4, record.SerializeToString())
  with pytest.raises(
    ValueError,
    match="no frame-level feature 'mean_rgb'.*"
    'format video.*should not name video-level records',
  ):
    _reader(form='floats').check('x', 4, _record().SerializeToString())
