"""Reads video-level YouTube-8M records, for which frames are simulated."""

from collections.abc import Iterator
from collections.abc import Sequence
import sys
from typing import NamedTuple

from google.protobuf import message as protobuf
import numpy as np
import tensorflow as tf

from yt8m_distill.dataloaders import remote
from yt8m_distill.dataloaders import shards
from yt8m_distill.simulation import classes as classes_lib
from yt8m_distill.utils import progress_bar
from yt8m_distill.utils import quantization


class Record(NamedTuple):
  """A video without frames; `mean` is float32 [dims], rgb followed by audio."""

  video_id: bytes
  labels: np.ndarray
  mean: np.ndarray


def _mean(feature: tf.train.Feature, size: int, name: str) -> np.ndarray:
  """Returns a mean feature, float32 [size]; raises a ValueError if it is invalid."""
  values = np.array(feature.float_list.value, np.float32)
  if values.shape != (size,):
    raise ValueError(
      f'{name} has {len(values)} floats: it must have {size}. Set video_level to '
      'video-level records of YouTube-8M.'
    )
  low, high = quantization.BIAS, quantization.HIGHEST
  # This is False for NaN, too.
  if not np.all((values > low - 1e-3) & (values < high + 1e-3)):
    raise ValueError(
      f'{name} has invalid values: they must be means of dequantized frames, between '
      f'{low:.3f} and {high:.3f}. Set video_level to other records.'
    )
  return np.clip(values, low, high)


def parse(
  serialized: bytes, num_classes: int, rgb_size: int, audio_size: int, path: str
) -> Record:
  """Parses one video-level record of the 2017 or 2018 release.

  Args:
    serialized: a `tf.train.Example`.
    num_classes: labels must be less.
    rgb_size: length of `mean_rgb`.
    audio_size: length of `mean_audio`.
    path: the record's file, for error messages.

  Returns:
    The record.

  Raises:
    ValueError: a feature is missing or has an invalid size or value.
  """
  try:
    features = tf.train.Example.FromString(serialized).features.feature
  except protobuf.DecodeError as error:
    raise ValueError(
      f'A record of {path} is not a tf.train.Example. Set video_level to video-level '
      'records of YouTube-8M.'
    ) from error
  id_key = 'id' if 'id' in features else 'video_id'
  video_id = b''.join(features[id_key].bytes_list.value[:1])
  if not video_id:
    raise ValueError(
      f'A record of {path} has neither id nor video_id. Set video_level to video-level '
      'records of YouTube-8M.'
    )
  name = f'record {video_id!r} of {path}'
  labels = np.unique(np.array(features['labels'].int64_list.value, np.int64))
  if not labels.size:
    raise ValueError(
      f'labels of {name} are missing. Use the train or validate partition.'
    )
  if labels[0] < 0 or labels[-1] >= num_classes:
    raise ValueError(
      f'labels of {name} are {labels.tolist()}: they must be between 0 and '
      f'{num_classes - 1}. Set num_classes to the number of the release.'
    )
  mean = [
    _mean(features[key], size, f'{key} of {name}')
    for key, size in (('mean_rgb', rgb_size), ('mean_audio', audio_size))
  ]
  return Record(video_id, labels, np.concatenate(mean))


def _serialized(path: str, first: int, count: int) -> Iterator[bytes]:
  """Yields up to `count` records of a file, beginning with number `first`."""
  [size] = shards.sizes([path])
  if not size:  # Valid, as long as other files hold records.
    return
  dataset = (
    shards.read(
      tf.constant(path),
      tf.constant(size, tf.int64),
      retry=remote.needs_tensorflow_io(path),
    )
    .skip(first)
    .take(count)
  )
  try:
    for _, _, serialized in dataset.as_numpy_iterator():
      yield serialized
  except tf.errors.InvalidArgumentError as error:
    raise ValueError(
      f'{path} is corrupt or not a TFRecord file. Download it again, or exclude it '
      'from video_level.'
    ) from error


def read_world(
  files: Sequence[str], limit: int, num_classes: int, rgb_size: int, audio_size: int
) -> tuple[classes_lib.World, tuple[tuple[str, int], ...]]:
  """Reads records once, for the mean of each label and the records per file.

  Args:
    files: video-level TFRecord files, at least one.
    limit: greatest number of records to read; 0 for all.
    num_classes: labels must be less.
    rgb_size: length of `mean_rgb`.
    audio_size: length of `mean_audio`.

  Returns:
    The world, whose prototypes point from the mean of all records to the mean of each
    label's records, and (file, number of records) of each file that was read.

  Raises:
    ValueError: a record is invalid, or there is none.
  """
  sums = np.zeros((num_classes, rgb_size + audio_size))
  counts = np.zeros((num_classes, 1))
  total = np.zeros(rgb_size + audio_size)
  used = []
  left = limit or sys.maxsize
  with progress_bar.start('Label means', None, ' records') as bar:
    for path in files:
      number = 0
      for serialized in _serialized(path, 0, left):
        record = parse(serialized, num_classes, rgb_size, audio_size, path)
        sums[record.labels] += record.mean
        counts[record.labels] += 1
        total += record.mean
        number += 1
        bar.update()
      used.append((path, number))
      left -= number
      if not left:
        break
  number = sum(number for _, number in used)
  if not number:
    raise ValueError(
      f'video_level names {len(files)} files, such as {files[0]}, without any record. '
      'Download them again.'
    )
  directions = np.where(counts > 0, sums / np.maximum(counts, 1) - total / number, 0)
  prototypes = classes_lib.to_unit(directions, rgb_size)
  world = classes_lib.World(prototypes, np.flatnonzero(counts), None, rgb_size)
  return world, tuple(used)


def read_records(
  world: classes_lib.World, files: Sequence[tuple[str, int]], first: int
) -> Iterator[Record]:
  """Yields the records of all files, beginning with number `first`.

  Args:
    world: as `read_world` returns it.
    files: as `read_world` returns it.
    first: number of records to skip.

  Yields:
    Records, in the order of the files.
  """
  classes, dims = world.prototypes.shape
  audio_size = dims - world.rgb_size
  for path, number in files:
    if first < number:
      for serialized in _serialized(path, first, number - first):
        yield parse(serialized, classes, world.rgb_size, audio_size, path)
    first = max(0, first - number)
