"""Small records, and readers of them."""

import numpy as np
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.configs import model
from yt8m_distill.dataloaders import reader as reader_lib

FEATURES = {'rgb': 12, 'audio': 4}
ALL = model.FrameSelection()


def every(n, length='ceil'):
  return model.FrameSelection(
    type='uniform', uniform=model.UniformFrames(every_n=n, length=length)
  )


def reader(features=None, max_frames=300, num_classes=50, selection=ALL, **kwargs):
  features = [
    data.Feature(name=name, size=size) for name, size in (features or FEATURES).items()
  ]
  return reader_lib.FrameReader(features, max_frames, num_classes, selection, **kwargs)


def record(frames=3, labels=(1,), features=None, context=None, seed=0):
  rng = np.random.default_rng(seed)
  video = tf.train.SequenceExample()
  if labels is not None:
    video.context.feature['labels'].int64_list.value.extend(labels)
  for key, value in (context or {}).items():
    video.context.feature[key].bytes_list.value.append(value)
  for name, size in (features or FEATURES).items():
    steps = video.feature_lists.feature_list[name].feature
    for _ in range(frames):
      steps.add().bytes_list.value.append(rng.bytes(size))
  return video


def read(by, *records):
  """Reads serialized or other records as one batch, by a reader."""
  serialized = [r if isinstance(r, bytes) else r.SerializeToString() for r in records]
  inputs, labels = by(
    tf.fill([len(serialized)], '/data/train07.tfrecord'),
    tf.range(len(serialized), dtype=tf.int64),
    tf.constant(serialized),
  )
  return {key: value.numpy() for key, value in inputs.items()}, labels.numpy()
