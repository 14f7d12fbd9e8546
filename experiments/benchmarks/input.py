"""How fast videos come in, in videos per second.

Without --input_path it writes random YouTube-8M-like records of 120 to 300
frames to a temporary folder, which stay in the page cache. All cases run in
turns, so that noise hits them alike; a ratio is the median over the rounds.

  python experiments/benchmarks/input.py --rounds=7
"""

import os
import statistics
import tempfile
import time

from absl import app
from absl import flags
import numpy as np
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.configs import model
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import reader as reader_lib
from yt8m_distill.dataloaders import shards

_INPUT_PATH = flags.DEFINE_string(
    'input_path', '', 'Frame-level records to read; random ones by default.')
_VIDEOS = flags.DEFINE_integer(
    'videos', 1200, 'Videos per case and round.', lower_bound=1)
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Rounds.', lower_bound=1)

_BATCH = 64
_SHARDS = 8
_CLASSES = 3862
_FEATURES = model.VideoModel().features


class _FloatReader(reader_lib.FrameReader):
  """Dequantises in the pipeline, as the original code does."""

  def __call__(self, paths, indices, serialized):
    inputs, labels = super().__call__(paths, indices, serialized)
    inputs['frames'] = _dequantise(**inputs)
    return inputs, labels


def _dequantise(frames, num_frames):
  frames = tf.cast(frames, tf.float32) * (4 / 255) + (4 / 512 - 2)
  mask = tf.sequence_mask(num_frames, frames.shape[1], tf.float32)
  return frames * mask[:, :, tf.newaxis]


def _write(folder: str, videos: int = 600):
  rng = np.random.default_rng(0)
  for shard in range(_SHARDS):
    path = os.path.join(folder, f'train{shard:04}.tfrecord')
    with tf.io.TFRecordWriter(path) as writer:
      for _ in range(videos // _SHARDS):
        frames = rng.integers(120, 301)
        record = tf.train.SequenceExample()
        labels = record.context.feature['labels'].int64_list.value
        labels.extend(rng.integers(_CLASSES, size=3))
        for feature in _FEATURES:
          added = record.feature_lists.feature_list[feature.name].feature
          for _ in range(frames):
            added.add().bytes_list.value.append(rng.bytes(feature.size))
        writer.write(record.SerializeToString())


def _params(path: str) -> data.VideoData:
  # A short shuffle buffer: filling it is no part of the steady rate.
  return data.VideoData(input_path=path, is_training=True,
                        global_batch_size=_BATCH, shuffle_buffer_size=_BATCH)


def _raw(path: str) -> tf.data.Dataset:
  cycle = _params(path).cycle_length
  return tf.data.Dataset.from_tensor_slices(shards.find(path)).repeat(
  ).interleave(tf.data.TFRecordDataset, cycle_length=cycle,
               num_parallel_calls=cycle)


def _parse_only(path: str) -> tf.data.Dataset:
  def parse(serialized):
    context, lists = tf.io.parse_single_sequence_example(
        serialized, {'labels': tf.io.VarLenFeature(tf.int64)},
        {feature.name: tf.io.FixedLenSequenceFeature([], tf.string)
         for feature in _FEATURES})
    labels = tf.reduce_any(tf.one_hot(
        context['labels'].values, _CLASSES, True, False, dtype=tf.bool), 0)
    return labels, [tf.size(frames) for frames in lists.values()]

  return _raw(path).map(parse, num_parallel_calls=tf.data.AUTOTUNE)


def _pipeline(path: str, every_n: int = 1,
              reader=reader_lib.FrameReader) -> tf.data.Dataset:
  frames = model.FrameSelection(
      type='uniform', uniform=model.UniformFrames(every_n=every_n))
  return pipeline.build(_params(path),
                        reader(_FEATURES, 300, _CLASSES, frames))


def _rate(batches: tf.data.Dataset, warm_up: int = 4) -> float:
  iterator = iter(batches)
  for _ in range(warm_up):
    next(iterator)
  steps = -(-_VIDEOS.value // _BATCH)
  start = time.perf_counter()
  for _ in range(steps):
    next(iterator)
  return steps * _BATCH / (time.perf_counter() - start)


def main(_):
  with tempfile.TemporaryDirectory() as folder:
    path = _INPUT_PATH.value
    if not path:
      _write(folder)
      path = os.path.join(folder, '*.tfrecord')
    prefetch = tf.data.AUTOTUNE
    cases = {
        'raw read': _raw(path).batch(_BATCH).prefetch(prefetch),
        'parse only': _parse_only(path).batch(_BATCH).prefetch(prefetch),
        'teacher, uint8': _pipeline(path),
        'teacher, float32 per example': _pipeline(path, reader=_FloatReader),
        'student, every 10th frame': _pipeline(path, every_n=10),
    }
    rates = {name: [] for name in cases}
    for _ in range(_ROUNDS.value):
      for name, batches in cases.items():
        rates[name].append(_rate(batches))

  print(f'{"case":<30} {"median":>8} {"least":>8} {"most":>8}  videos/s')
  for name, values in rates.items():
    print(f'{name:<30} {statistics.median(values):>8.0f} {min(values):>8.0f} '
          f'{max(values):>8.0f}')
  raw, parse, teacher, floats, student = rates.values()
  for name, above, below, wanted in (
      ('teacher / raw read', teacher, raw, 0.6),
      ('teacher / float32', teacher, floats, 1.3),
      ('student / parse only', student, parse, 0.85)):
    ratio = statistics.median(a / b for a, b in zip(above, below))
    print(f'{name:<30} {ratio:>8.2f}  (wanted: {wanted})')


if __name__ == '__main__':
  app.run(main)
