"""What tests of simulated videos read."""

import pathlib

import pytest
import tensorflow as tf

_YT8M = pathlib.Path(__file__).resolve().parents[2] / 'shared' / 'data' / 'yt8m'


def real(pattern):
  """Glob of real records; skips the test where there are none."""
  if not sorted(_YT8M.glob(pattern)):
    pytest.skip(f'no real records {_YT8M / pattern}')
  return str(_YT8M / pattern)


def parse(path):
  """Returns (id, labels, rgb, audio) of every record of a shard."""
  feature = tf.io.FixedLenSequenceFeature([], tf.string)
  videos = []
  for serialized in tf.data.TFRecordDataset(str(path)):
    context, frames = tf.io.parse_single_sequence_example(
      serialized,
      {
        'id': tf.io.FixedLenFeature([], tf.string),
        'labels': tf.io.VarLenFeature(tf.int64),
      },
      {'rgb': feature, 'audio': feature},
    )
    videos.append(
      (
        context['id'].numpy(),
        context['labels'].values.numpy(),
        tf.io.decode_raw(frames['rgb'], tf.uint8).numpy(),
        tf.io.decode_raw(frames['audio'], tf.uint8).numpy(),
      )
    )
  return videos


def floats(quantised):
  """Dequantised, any shape."""
  return quantised * (4 / 255) + (4 / 512 - 2)
