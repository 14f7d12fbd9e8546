"""Records of the writer: read back, the bytes of a plain builder, what is refused."""

import frame_readers
import numpy as np
import pytest
import records
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.dataloaders import reader as reader_lib
from yt8m_distill.dataloaders import record_writer

_SIZES = {'clip': 5, 'sound': 3}


def _video(dtype, num_frames=4, **values):
  rng = np.random.default_rng(num_frames)
  features = {
    name: (100 * rng.random([num_frames, size])).astype(dtype)
    for name, size in _SIZES.items()
  }
  return record_writer.Video('väter', features, [7, 2])._replace(**values)


@pytest.mark.parametrize(
  'dtype, form',
  [
    (np.uint8, 'bytes'),
    (np.float16, 'floats'),
    ('>f4', 'floats'),
    (np.float64, 'floats'),
  ],
)
def test_the_reader_reads_what_was_written(tmp_path, dtype, form):
  videos = [_video(dtype, 4), _video(dtype, 1, id=b'b', labels=[])]
  path = str(tmp_path / 'a.tfrecord')
  record_writer.write(path, iter(videos))
  reader = reader_lib.FrameReader(
    [data.Feature(name=n, size=s, format=form) for n, s in _SIZES.items()],
    6,
    8,
    frame_readers.ALL,
    with_ids=True,
  )
  inputs, labels = frame_readers.read(reader, *records.read(path))
  assert inputs['num_frames'].tolist() == [4, 1]
  assert inputs['id'].tolist() == ['väter'.encode(), b'b']
  assert [np.flatnonzero(row).tolist() for row in labels] == [[2, 7], []]
  for frames, video in zip(inputs['frames'], videos):
    expected = np.concatenate(list(video.features.values()), axis=1)
    np.testing.assert_array_equal(
      frames[: len(expected)], expected.astype(inputs['frames'].dtype)
    )


def test_bytes_are_those_of_a_plain_builder():
  video = _video(np.uint8)
  expected = records.frame_level(video.features, [7, 2], id='väter', score=[0.5])
  assert record_writer.serialize(video, score=[0.5]) == expected.SerializeToString(
    deterministic=True
  )
  unlabeled = record_writer.serialize(video._replace(labels=None))
  assert 'labels' not in tf.train.SequenceExample.FromString(unlabeled).context.feature


_NAN = np.ones([4, 3])
_NAN[2, 1] = np.nan


@pytest.mark.parametrize(
  'values, message',
  [
    ({'id': ''}, "video '': its id must be a text"),
    ({'id': 7}, 'video 7: its id must be a text'),
    ({'features': {}}, "video 'väter': it has no features"),
    (
      {'features': {'a': np.ones([4, 1]), 'b': np.ones([3, 1])}},
      r"its features have \{'a': 4, 'b': 3\} frames, .*Cut",
    ),
    ({'features': {'clip': np.ones(5)}}, r'clip has the shape \[5\]: .*\[frames, '),
    ({'features': {'clip': np.ones([0, 5])}}, r'clip has the shape \[0, 5\]'),
    ({'features': {'clip': np.ones([2, 5], int)}}, 'clip has the dtype int64: .*Cast'),
    ({'features': {'clip': _NAN}}, 'clip has NaN or infinity in frame 2'),
    ({'features': {'clip': [[1e39]]}}, 'clip has NaN or infinity in frame 0'),
    ({'labels': 3}, 'its labels are 3: .*Index of the vocabulary'),
    ({'labels': [2, -1]}, r'its labels are \[2, -1\]'),
    ({'labels': [1.5]}, r'its labels are \[1.5\]'),
    ({'labels': [True, False]}, r'its labels are \[True, False\]'),
  ],
)
def test_what_the_reader_would_refuse_is_not_written(tmp_path, values, message):
  path = tmp_path / 'a.tfrecord'
  with pytest.raises(ValueError, match=message) as error:
    record_writer.write(str(path), [_video(float), _video(float, **values)])
  assert '\n' not in str(error.value)
  assert not list(tmp_path.iterdir())


def test_a_file_without_videos_is_not_written(tmp_path):
  with pytest.raises(ValueError, match='a.tfrecord would have no videos'):
    record_writer.write(str(tmp_path / 'a.tfrecord'), [])
  assert not list(tmp_path.iterdir())
