"""Builds records of videos, and writes and reads them as TFRecord files.

`frame_level` and `video_level` make a record of given values, `random_frame_level`
one of random bytes. Where a function takes records, each is a message or its
serialized bytes. A test that needs a malformed record changes a well-formed one.
"""

import numpy as np
import tensorflow as tf

from yt8m_distill.dataloaders import record_writer


def frame_level(features, labels=None, **context):
  """Returns a tf.train.SequenceExample.

  Args:
    features: {name: frames}. A frame of integers or bytes becomes a byte string,
      a frame of floats a float list.
    labels: classes; None leaves the key out.
    **context: further values by key, see `record_writer.feature`.
  """
  record = tf.train.SequenceExample()
  _fill(record.context, labels, context)
  for name, frames in features.items():
    record.feature_lists.feature_list[name].feature.extend(map(_frame, frames))
  return record


def video_level(labels=None, **values):
  """Returns a tf.train.Example.

  Args:
    labels: classes; None leaves the key out.
    **values: by key, see `record_writer.feature`: an id, and floats [D] of each
      feature.
  """
  record = tf.train.Example()
  _fill(record.features, labels, values)
  return record


def random_frame_level(frames, sizes, labels=None, seed=0, **context):
  """Returns a tf.train.SequenceExample of random bytes.

  Args:
    frames: how many there are.
    sizes: {name of a feature: bytes of a frame}.
    labels: see frame_level().
    seed: an integer, or a numpy Generator to draw from.
    **context: see frame_level().
  """
  rng = np.random.default_rng(seed)
  features = {
    name: [rng.bytes(size) for _ in range(frames)] for name, size in sizes.items()
  }
  return frame_level(features, labels, **context)


def _fill(features, labels, values):
  """Sets values of a tf.train.Features, and its `labels` unless None."""
  for key, value in values.items():
    features.feature[key].CopyFrom(record_writer.feature(value))
  if labels is not None:
    features.feature['labels'].int64_list.value.extend(labels)


def _frame(values):
  if np.issubdtype(np.asarray(values).dtype, np.floating):
    return record_writer.feature(values)
  return record_writer.feature(bytes(values))


def serialize(records):
  """Returns the bytes of each record."""
  return [r if isinstance(r, bytes) else r.SerializeToString() for r in records]


def write(path, records, compression=''):
  """Writes a TFRecord file of records; returns its path as a string."""
  with tf.io.TFRecordWriter(str(path), compression) as writer:
    for record in serialize(records):
      writer.write(record)
  return str(path)


def write_shards(folder, counts, make):
  """Writes 0.tfrecord, 1.tfrecord, ...; returns a pattern of them all.

  Args:
    folder: to write into.
    counts: records of each shard.
    make: makes a record of its number, which counts through all shards.
  """
  ends = np.cumsum(counts)
  for shard, (end, count) in enumerate(zip(ends, counts)):
    write(folder / f'{shard}.tfrecord', map(make, range(end - count, end)))
  return str(folder / '*.tfrecord')


def read(path):
  """Returns the bytes of each record of a TFRecord file."""
  return list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())


def edit(source, target, change):
  """Copies a file of frame-level records, each changed.

  Args:
    source: path of the records.
    target: path of the copy.
    change: called with the number and the SequenceExample of each record, which
      it changes in place.
  """
  copies = [tf.train.SequenceExample.FromString(record) for record in read(source)]
  for number, record in enumerate(copies):
    change(number, record)
  write(target, copies)


def parse(path):
  """Returns (id, labels, rgb, audio) of each frame-level record of a file.

  The features are uint8 [frames, size].
  """
  videos = []
  for serialized in read(path):
    record = tf.train.SequenceExample.FromString(serialized)
    context = record.context.feature
    features = [
      np.array(
        [
          np.frombuffer(frame.bytes_list.value[0], np.uint8)
          for frame in record.feature_lists.feature_list[name].feature
        ]
      )
      for name in ('rgb', 'audio')
    ]
    labels = np.array(context['labels'].int64_list.value)
    videos.append((context['id'].bytes_list.value[0], labels, *features))
  return videos


def dequantize(values):
  """Returns the floats that bytes stand for, as the original code computes them."""
  return values * (4 / 255) + (4 / 512 - 2)
