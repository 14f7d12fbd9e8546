"""Writes frame-level records, of features of your own or of simulated videos.

  record_writer.write(
    'train0000.tfrecord',
    [record_writer.Video('kitten', {'clip': np.zeros([60, 512], np.float32)}, [3])],
  )

T frames, D values of a feature per frame.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from yt8m_distill.utils import files


class Video(NamedTuple):
  """A video, as a record stores it.

  Attributes:
    id: its name, which is not empty; predictions and messages repeat it.
    features: [T, D] by name; T is the same for all. uint8 values are stored in the
      format 'bytes' of `task.model.features`, floats in the format 'floats'.
    labels: its classes, from 0; None if they are unknown, for prediction only.
  """

  id: str | bytes
  features: Mapping[str, np.ndarray]
  labels: Sequence[int] | np.ndarray | None = None


def serialize(video: Video, **context) -> bytes:
  """Returns a serialized `tf.train.SequenceExample`, the same in every process.

  Args:
    video: the video.
    **context: further values of the record's context, see `feature`.

  Raises:
    ValueError: the reader would refuse the record, whatever the configuration.
  """
  name = f'video {video.id!r}'
  if not isinstance(video.id, (str, bytes)) or not video.id:
    raise ValueError(f'{name}: its id must be a text that is not empty.')
  frames = {key: _frames(f'{name}: {key}', v) for key, v in video.features.items()}
  lengths = {key: len(values) for key, values in frames.items()}
  if not frames:
    raise ValueError(f'{name}: it has no features. Give at least one.')
  if len(set(lengths.values())) > 1:
    raise ValueError(
      f'{name}: its features have {lengths} frames, but must have the same number. Cut '
      'the longer ones.'
    )
  example = tf.train.SequenceExample()
  values = {'id': video.id, **context}
  if video.labels is not None:
    values['labels'] = _labels(name, video.labels)
  for key, value in values.items():
    example.context.feature[key].CopyFrom(feature(value))
  for key, rows in frames.items():
    example.feature_lists.feature_list[key].feature.extend(
      feature(row.tobytes() if row.dtype == np.uint8 else row) for row in rows
    )
  # Otherwise the order of the keys would differ between processes.
  return example.SerializeToString(deterministic=True)


def write(path: str, videos: Iterable[Video]):
  """Writes a TFRecord file, which appears whole.

  Args:
    path: the file, which is overwritten. Training shuffles and divides files, so write
      several, of 1,000 videos for example.
    videos: its videos.

  Raises:
    ValueError: there are none, or a video is invalid, see `serialize`.
  """
  count = 0
  with files.whole_file(path) as partial:
    with tf.io.TFRecordWriter(partial) as writer:
      for video in videos:
        writer.write(serialize(video))
        count += 1
    if not count:
      raise ValueError(f'{path} would have no videos: give at least 1.')


def feature(value: Any) -> tf.train.Feature:
  """Returns a text as a byte string, and one or more numbers as a list."""
  if isinstance(value, (bytes, str)):
    text = value.encode() if isinstance(value, str) else value
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
  values = np.ravel(value)
  if np.issubdtype(values.dtype, np.integer):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values.tolist()))
  return tf.train.Feature(float_list=tf.train.FloatList(value=values.tolist()))


def _frames(name: str, values) -> np.ndarray:
  """Returns uint8 or float32 [T, D]; raises a ValueError."""
  values = np.asarray(values)
  if values.ndim != 2 or not values.size:
    raise ValueError(
      f'{name} has the shape {list(values.shape)}: it must be [frames, values], at '
      'least 1 of each.'
    )
  if values.dtype == np.uint8:
    return values
  if not np.issubdtype(values.dtype, np.floating):
    raise ValueError(
      f'{name} has the dtype {values.dtype}: it must be uint8 or floating point. Cast '
      'the array.'
    )
  with np.errstate(over='ignore'):  # Reported below.
    values = values.astype(np.float32)
  if not np.isfinite(values).all():
    frame = int(np.argwhere(~np.isfinite(values))[0, 0])
    raise ValueError(
      f'{name} has NaN or infinity in frame {frame}: it must be finite as float32. '
      'Leave the frame out of all features.'
    )
  return values


def _labels(name: str, labels) -> np.ndarray:
  """Returns int64 [labels]; raises a ValueError."""
  values = np.asarray(labels, np.int64 if not np.size(labels) else None)
  if (
    values.ndim != 1
    or not np.issubdtype(values.dtype, np.integer)
    or (values < 0).any()
  ):
    raise ValueError(
      f'{name}: its labels are {labels!r}: they must be a list of classes, each '
      'a whole number from 0. Use the Index of the vocabulary.'
    )
  return values
