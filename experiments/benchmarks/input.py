"""How fast videos come in, in videos per second.

Without --input_path it writes random YouTube-8M-like records of 120 to 300
frames to a temporary folder, which stay in the page cache. All cases run in
turns, so that noise hits them alike; a ratio is the median over the rounds.
Ratios to the raw read want idle cores: decoding takes several times the work.
Thinned records, for the student alone, are written to the temporary folder.

  . experiments/environment.sh
  "$python" -m experiments.benchmarks.input
"""

import os
import statistics

from absl import app
from absl import flags
import tensorflow as tf

from experiments.benchmarks import records
from yt8m_distill.configs import data
from yt8m_distill.dataloaders import shards
from yt8m_distill.dataloaders import thin

_INPUT_PATH = flags.DEFINE_string(
  'input_path', '', 'Frame-level records to read; random ones by default.'
)
_VIDEOS = flags.DEFINE_integer(
  'videos', 8000, 'Videos per case and round.', lower_bound=1
)
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Rounds.', lower_bound=1)

_BATCH = 64


def _params(path) -> data.VideoData:
  # A short shuffle buffer: filling it is no part of the steady rate.
  return records.training_set(_BATCH, input_path=path, shuffle_buffer_size=_BATCH)


def _raw(path: str) -> tf.data.Dataset:
  cycle = _params(path).cycle_length
  return (
    tf.data.Dataset.from_tensor_slices(shards.find(path))
    .repeat()
    .interleave(tf.data.TFRecordDataset, cycle_length=cycle, num_parallel_calls=cycle)
  )


def _parse(serialized):
  context, lists = tf.io.parse_single_sequence_example(
    serialized,
    {'labels': tf.io.VarLenFeature(tf.int64)},
    {
      feature.name: tf.io.FixedLenSequenceFeature([], tf.string)
      for feature in records.FEATURES
    },
  )
  labels = tf.reduce_any(
    tf.one_hot(context['labels'].values, records.CLASSES, True, False, dtype=tf.bool), 0
  )
  return [lists[feature.name] for feature in records.FEATURES], labels


def _parse_only(serialized):
  strings, labels = _parse(serialized)
  return [tf.size(s) for s in strings], labels


def _float_example(serialized):
  """One video at a time, dequantised and padded, as the original does it."""
  strings, labels = _parse(serialized)
  frames = tf.concat(
    [
      tf.reshape(tf.io.decode_raw(s, tf.uint8), [-1, feature.size])
      for s, feature in zip(strings, records.FEATURES)
    ],
    1,
  )
  frames = frames[: records.MAX_FRAMES]
  frames = tf.cast(frames, tf.float32) * (4 / 255) + (4 / 512 - 2)
  count = tf.shape(frames)[0]
  frames = tf.pad(frames, [[0, records.MAX_FRAMES - count], [0, 0]])
  size = sum(feature.size for feature in records.FEATURES)
  return tf.ensure_shape(frames, [records.MAX_FRAMES, size]), count, labels


def _mapped(path: str, parse) -> tf.data.Dataset:
  return _raw(path).map(parse, num_parallel_calls=tf.data.AUTOTUNE)


def _pipeline(path, network: str) -> tf.data.Dataset:
  return records.batches(_params(path), network)


def main(_):
  with records.folder_and_path(_INPUT_PATH.value, 600, 8) as (folder, path):
    full = shards.find(path)
    thinned = thin.thin(
      path, os.path.join(folder, 'thinned'), records.EVERY_N, records.MAX_FRAMES
    )
    share = sum(shards.sizes(thinned)) / sum(shards.sizes(full))

    def plain(dataset):
      return dataset.batch(_BATCH).prefetch(tf.data.AUTOTUNE)

    cases = {
      'raw read, side by side': plain(_raw(path)),
      'raw read, file by file': plain(tf.data.TFRecordDataset(full).repeat()),
      'parse only': plain(_mapped(path, _parse_only)),
      'teacher, uint8': _pipeline(path, 'teacher'),
      'teacher, float32 per example': plain(_mapped(path, _float_example)),
      'student, every 10th frame': _pipeline(path, 'student'),
      'student, thinned records': _pipeline(thinned, 'student'),
    }
    rates = {name: [] for name in cases}
    for _ in range(_ROUNDS.value):
      for name, batches in cases.items():
        rates[name].append(records.measure(batches, _BATCH, _VIDEOS.value).rate)

  print(f'{"case":<30} {"median":>8} {"least":>8} {"most":>8}  videos/s')
  for name, values in rates.items():
    print(
      f'{name:<30} {statistics.median(values):>8.0f} {min(values):>8.0f} '
      f'{max(values):>8.0f}'
    )
  raw, sequential, parse, teacher, floats, student, thin_student = rates.values()
  for name, above, below, wanted in (
    ('teacher / raw, side by side', teacher, raw, 0.6),
    ('teacher / raw, file by file', teacher, sequential, 0.6),
    ('teacher / float32', teacher, floats, 1.3),
    ('student / parse only', student, parse, 0.85),
  ):
    ratio = statistics.median(a / b for a, b in zip(above, below))
    print(f'{name:<30} {ratio:>8.2f}  (wanted: {wanted})')
  ratio = statistics.median(a / b for a, b in zip(thin_student, student))
  print(
    f'{"student, thinned / full":<30} {ratio:>8.2f}  (from {share:.3f} of the bytes)'
  )


if __name__ == '__main__':
  app.run(main)
