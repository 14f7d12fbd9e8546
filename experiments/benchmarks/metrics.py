"""Times the exact global metrics against Python heaps.

Both sides accumulate the same top-k lists batch by batch, then compute GAP and
the average precision of every class. Generating the data and the top-k lists is
not timed. Both use one core and are timed in CPU time, which other programs on
the machine hardly affect. The heaps get fewer videos, which favors them: they
stay small.

The second figure is the metrics' share of an evaluation: their time on the device
and on the host, relative to theirs plus the forward pass of a student that sees
every 10th frame, the paper's cheapest network. Reading the data is left out, which
makes the share larger. From the repository's root:

  python -m experiments.benchmarks.metrics --videos=100000
"""

import heapq
import time

from absl import app
from absl import flags
import numpy as np
import tensorflow as tf

from experiments.benchmarks import usage
from yt8m_distill.configs import experiments
from yt8m_distill.configs import settings
from yt8m_distill.evaluation import metrics
from yt8m_distill.evaluation import video_metrics
from yt8m_distill.modeling import video_classifier

_VIDEOS = flags.DEFINE_integer(
  'videos', 100000, 'Videos for GlobalMetrics.', lower_bound=1
)
_PLAIN_VIDEOS = flags.DEFINE_integer(
  'plain_videos', 20000, 'Videos for the heaps.', lower_bound=1
)
_CLASSES = flags.DEFINE_integer('classes', 3862, 'Number of classes.', lower_bound=1)
_TOP_K = flags.DEFINE_integer('top_k', 20, 'Scores per video.', lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer(
  'batch_size', 512, 'Videos per update.', lower_bound=1
)
_CELLS = flags.DEFINE_integer(
  'cells', 1024, 'Cells per LSTM layer of the student.', lower_bound=1
)


class _HeapPrecision:
  """Average precision from a heap of (score, hit) tuples."""

  def __init__(self):
    self._heap = []
    self.positives = 0

  def push(self, scores, hits):
    """Adds scores and whether each is a hit."""
    for pair in zip(scores, hits):
      heapq.heappush(self._heap, pair)

  def average_precision(self):
    """Returns the average precision; 0 without positives."""
    total, found = 0.0, 0
    pairs = sorted(self._heap, key=lambda pair: -pair[0])
    for place, (_, hit) in enumerate(pairs, 1):
      if hit:
        found += 1
        total += found / place
    return total / self.positives if self.positives else 0.0


class _HeapMetrics:
  """GAP and mAP with one heap for all pairs and one for each class."""

  def __init__(self, num_classes):
    self._all = _HeapPrecision()
    self._by_class = [_HeapPrecision() for _ in range(num_classes)]

  def update(self, hit_at_one, perr, scores, classes, hits, positives):
    """Adds a batch; the arguments are those of GlobalMetrics.update()."""
    del hit_at_one, perr
    for video in zip(scores, classes, hits):
      self._all.push(video[0], video[2])
      for score, c, hit in zip(*video):
        self._by_class[c].push([score], [hit])
    self._all.positives += positives.sum()
    for heap, count in zip(self._by_class, positives):
      heap.positives += count

  def result(self):
    """Returns gap and map."""
    precisions = [heap.average_precision() for heap in self._by_class]
    return {'gap': self._all.average_precision(), 'map': np.mean(precisions)}


def _batch(rng, batch_size):
  """Generates a batch for update(); a few classes are common, as in real data."""
  num_classes = _CLASSES.value
  shape = [batch_size, _TOP_K.value]
  scores = -np.sort(-(rng.random(shape, np.float32) ** 4), axis=-1)
  classes = (rng.random(shape) ** 3 * num_classes).astype(np.int32)
  hits = rng.random(shape) < 0.6 * scores
  missed = rng.random(batch_size // 2) ** 3 * num_classes
  labels = np.concatenate([classes[hits], missed.astype(np.int32)])
  positives = np.bincount(labels, minlength=num_classes)
  hit_at_one = hits[:, 0].astype(np.float32)
  return hit_at_one, hit_at_one, scores, classes, hits, positives


def _measure(evaluation, num_videos):
  """Returns videos per CPU second, result() included, and the result."""
  rng = np.random.default_rng(1)
  seconds = 0.0
  for first in range(0, num_videos, _BATCH_SIZE.value):
    batch = _batch(rng, min(_BATCH_SIZE.value, num_videos - first))
    start = time.process_time()
    evaluation.update(*batch)
    seconds += time.process_time() - start
  start = time.process_time()
  result = evaluation.result()
  seconds += time.process_time() - start
  return num_videos / seconds, result


def _device_seconds(rounds=3):
  """Returns the least seconds per video of the forward pass and of the metrics."""
  batch = _BATCH_SIZE.value
  model = experiments.yt8m_distill_single(
    settings.Settings(num_cells=_CELLS.value, num_classes=_CLASSES.value)
  ).task.model
  network = video_classifier.build(model, model.network, 'network')
  steps, size = 30, sum(feature.size for feature in model.features)
  videos = {
    'frames': tf.cast(
      tf.random.stateless_uniform([batch, steps, size], [0, 1], 0, 256, tf.int32),
      tf.uint8,
    ),
    'num_frames': tf.fill([batch], steps),
  }
  scores = tf.random.stateless_uniform([batch, _CLASSES.value], [0, 2])
  labels = scores < 3 / _CLASSES.value
  cases = [
    tf.function(
      lambda: network(videos, training=False)['predictions'], autograph=False
    ).get_concrete_function(),
    tf.function(
      lambda: (
        video_metrics.compute(scores, labels, _TOP_K.value),
        tf.math.count_nonzero(labels, axis=0, dtype=tf.int32),
      ),
      autograph=False,
    ).get_concrete_function(),
  ]
  seconds: list[list[float]] = [[] for _ in cases]
  for _ in range(rounds + 1):  # The first round warms up.
    for run, taken in zip(cases, seconds):
      start = time.perf_counter()
      tf.nest.map_structure(np.asarray, run())
      taken.append((time.perf_counter() - start) / batch)
  return [min(taken) for taken in seconds]


def main(_):
  """Prints rates, the share of an evaluation, and memory."""
  num_classes = _CLASSES.value
  idle = usage.peak_mib()
  rate, _ = _measure(metrics.GlobalMetrics(num_classes), _VIDEOS.value)
  peak = usage.peak_mib()
  num_plain = _PLAIN_VIDEOS.value
  plain_rate, plain = _measure(_HeapMetrics(num_classes), num_plain)
  _, exact = _measure(metrics.GlobalMetrics(num_classes), num_plain)
  for name, value in plain.items():
    np.testing.assert_allclose(exact[name], value, rtol=1e-3, err_msg=name)
  print(
    f'{_VIDEOS.value} videos, {num_classes} classes, '
    f'top {_TOP_K.value}; {num_plain} videos for the heaps'
  )
  print(f'GlobalMetrics {rate:12,.0f} videos/s')
  print(f'Python heaps  {plain_rate:12,.0f} videos/s')
  print(f'ratio         {rate / plain_rate:12,.1f}')
  forward, device = _device_seconds()
  spent = device + 1 / rate
  print(
    f'evaluation    {forward * 1e6:12,.0f} microseconds/video of forward '
    f'pass, {spent * 1e6:,.1f} of metrics, {device * 1e6:,.1f} of them on '
    f'the device: {spent / (forward + spent):.2%}'
  )
  print(f'peak RSS      {peak:12,.0f} MiB, {idle:,.0f} of them at the start')


if __name__ == '__main__':
  app.run(main)
