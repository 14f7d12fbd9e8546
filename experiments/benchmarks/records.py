"""Writes random frame-level records in the format of YouTube-8M."""

from collections.abc import Iterator
import contextlib
import itertools
import os
import tempfile

import numpy as np
import tensorflow as tf

from yt8m_distill.configs import model
from yt8m_distill.dataloaders import record_writer

FEATURES = model.VideoModel().features
MAX_FRAMES = model.VideoModel().max_frames
CLASSES = model.VideoModel().num_classes
_DISTINCT = 64  # records; making one takes longer than reading 20


def random_record(rng: np.random.Generator, frames: int) -> bytes:
  """Returns a serialized `SequenceExample` with `frames` frames and 3 labels."""
  labels = rng.integers(CLASSES, size=3)
  features = {
    f.name: rng.integers(0, 256, [frames, f.size], np.uint8) for f in FEATURES
  }
  return record_writer.serialize(record_writer.Video('some', features, labels))


def write(folder: str, videos: int, num_shards: int):
  """Writes records of 120 to 300 frames; a few distinct ones repeat.

  Args:
    folder: an existing folder.
    videos: number of records, rounded up to a multiple of `num_shards`.
    num_shards: number of files.
  """
  rng = np.random.default_rng(0)
  distinct = itertools.cycle(
    [random_record(rng, rng.integers(120, 301)) for _ in range(_DISTINCT)]
  )
  for shard in range(num_shards):
    path = os.path.join(folder, f'train{shard:04}.tfrecord')
    with tf.io.TFRecordWriter(path) as writer:
      for _ in range(-(-videos // num_shards)):
        writer.write(next(distinct))


@contextlib.contextmanager
def folder_and_path(
  input_path: str, videos: int, num_shards: int
) -> Iterator[tuple[str, str]]:
  """Yields a temporary folder and `input_path`, or if '' random records in it."""
  with tempfile.TemporaryDirectory() as folder:
    if not input_path:
      write(folder, videos, num_shards)
      input_path = os.path.join(folder, '*.tfrecord')
    yield folder, input_path
