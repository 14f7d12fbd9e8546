"""Readers of small frame-level records, and such records."""

import records as records_lib
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.configs import model
from yt8m_distill.dataloaders import reader as reader_lib

FEATURES = {'rgb': 12, 'audio': 4}
ALL = model.FrameSelection()


def every(n, length='ceil'):
  """Selects every n-th frame."""
  return model.FrameSelection(
    type='uniform', uniform=model.UniformFrames(every_n=n, length=length)
  )


def reader(features=None, max_frames=300, num_classes=50, selection=ALL, **kwargs):
  """A FrameReader; `features` is {name: size}, **kwargs are its own."""
  features = [
    data.Feature(name=name, size=size) for name, size in (features or FEATURES).items()
  ]
  return reader_lib.FrameReader(features, max_frames, num_classes, selection, **kwargs)


def record(frames=3, labels=(1,), features=None, context=None, seed=0):
  """A frame-level record with random bytes; `features` is {name: size}."""
  return records_lib.random_frame_level(
    frames, features or FEATURES, labels, seed, **(context or {})
  )


def read(by, *records):
  """Reads records as one batch; returns inputs and labels as arrays."""
  serialized = records_lib.serialize(records)
  inputs, labels = by.read_explained(
    tf.fill([len(serialized)], '/data/train07.tfrecord'),
    tf.range(len(serialized), dtype=tf.int64),
    tf.constant(serialized),
  )
  return tf.nest.map_structure(lambda value: value.numpy(), (inputs, labels))
