"""Reads video-level YouTube-8M records, to simulate frames of them."""

from collections.abc import Iterator
from collections.abc import Sequence
import sys
from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tqdm

from yt8m_distill.dataloaders import remote
from yt8m_distill.dataloaders import shards
from yt8m_distill.simulation import classes as classes_lib
from yt8m_distill.utils import quantization


class Record(NamedTuple):
  """One video before it has frames; `mean` is [dims], rgb then audio."""

  video_id: bytes
  labels: np.ndarray
  mean: np.ndarray


def _floats(feature: tf.train.Feature, size: int, what: str) -> np.ndarray:
  """Returns a record's mean feature, or says what is wrong with it."""
  values = np.array(feature.float_list.value, np.float32)
  if values.shape != (size,):
    raise ValueError(
      f'{what} has {len(values)} floats instead of {size}: give the '
      'video-level records of YouTube-8M.'
    )
  low, high = quantization.BIAS, quantization.HIGHEST
  # Also false where a value is not a number.
  if not np.all((values > low - 1e-3) & (values < high + 1e-3)):
    raise ValueError(
      f'{what} has values outside the range of the quantiser, {low:.3f} to '
      f'{high:.3f}: give means of dequantised frames.'
    )
  return np.clip(values, low, high)


def parse(
  serialized: bytes, num_classes: int, rgb_size: int, audio_size: int, path: str
) -> Record:
  """Parses one video-level record of the 2017 or 2018 release.

  Args:
    serialized: a `tf.train.Example`.
    num_classes: labels lie below it.
    rgb_size: length of `mean_rgb`.
    audio_size: length of `mean_audio`.
    path: the record's file, for messages.

  Returns:
    The record.

  Raises:
    ValueError: a key is missing or has a wrong size or value.
  """
  features = tf.train.Example.FromString(serialized).features.feature
  id_key = 'id' if 'id' in features else 'video_id'
  video_id = b''.join(features[id_key].bytes_list.value[:1])
  if not video_id:
    raise ValueError(
      f'A record of {path} has neither id nor video_id: give '
      'the video-level records of YouTube-8M.'
    )
  what = f'record {video_id!r} of {path}'
  labels = np.unique(np.array(features['labels'].int64_list.value, np.int64))
  if not labels.size:
    raise ValueError(
      f'labels of {what} are missing: take the train or validate partition.'
    )
  if labels[0] < 0 or labels[-1] >= num_classes:
    raise ValueError(
      f'labels of {what} are {labels.tolist()}, not all in 0 to '
      f'{num_classes - 1}: set num_classes to that of the release.'
    )
  mean = [
    _floats(features[key], size, f'{key} of {what}')
    for key, size in (('mean_rgb', rgb_size), ('mean_audio', audio_size))
  ]
  return Record(video_id, labels, np.concatenate(mean))


def _serialized(path: str, first: int, count: int) -> Iterator[bytes]:
  """Yields `count` records of a file from number `first` on, or to its end."""
  [size] = shards.sizes([path])
  if not size:  # No record, which is for all files together to say.
    return
  dataset = (
    shards.read(
      tf.constant(path), tf.constant(size, tf.int64), retry=remote.among([path])
    )
    .skip(first)
    .take(count)
  )
  try:
    for _, _, serialized in dataset.as_numpy_iterator():
      yield serialized
  except tf.errors.InvalidArgumentError as error:
    raise ValueError(
      f'{path} is damaged or not a TFRecord file: download it '
      'again or narrow video_level.'
    ) from error


def read_world(
  files: Sequence[str], limit: int, num_classes: int, rgb_size: int, audio_size: int
) -> tuple[classes_lib.World, tuple[tuple[str, int], ...]]:
  """Reads records once, for the labels' means and the records per file.

  Args:
    files: video-level TFRecord files, at least one.
    limit: records to read at most; 0 for all.
    num_classes: labels lie below it.
    rgb_size: length of `mean_rgb`.
    audio_size: length of `mean_audio`.

  Returns:
    The world, whose prototypes point from the mean of all records to those of
    the labels, and the files read with the number of records of each.

  Raises:
    ValueError: a record is unusable, or there is none.
  """
  sums = np.zeros((num_classes, rgb_size + audio_size))
  counts = np.zeros((num_classes, 1))
  total = np.zeros(rgb_size + audio_size)
  used = []
  left = limit or sys.maxsize
  with tqdm.tqdm(unit='record', desc='label means') as bar:
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
      f'video_level: no record in {files[0]} and '
      f'{len(files) - 1} more files: download them again.'
    )
  directions = np.where(counts > 0, sums / np.maximum(counts, 1) - total / number, 0)
  prototypes = classes_lib.to_unit(directions, rgb_size)
  world = classes_lib.World(prototypes, np.flatnonzero(counts), None, rgb_size)
  return world, tuple(used)


def read_records(
  world: classes_lib.World, files: Sequence[tuple[str, int]], first: int
) -> Iterator[Record]:
  """Yields records from number `first` on.

  Args:
    world: as `read_world` returns it.
    files: as `read_world` returns it.
    first: records to skip.

  Yields:
    The records of all files in turn.
  """
  classes, dims = world.prototypes.shape
  audio_size = dims - world.rgb_size
  for path, number in files:
    if first < number:
      for serialized in _serialized(path, first, number - first):
        yield parse(serialized, classes, world.rgb_size, audio_size, path)
    first = max(0, first - number)
