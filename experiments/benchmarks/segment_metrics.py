"""Times exact MAP@K of windows against Python heaps.

Both sides add the same random windows batch by batch, about 250 of them rated per
class as in YouTube-8M Segments, then compute MAP@K. Generating the data is not timed.
Both use one core and are timed in CPU time, which other programs on the machine hardly
affect. The heaps get fewer classes, since a class costs them as much as any other.
From the repository's root:

  python -m experiments.benchmarks.segment_metrics --windows=1700000

With --workers=3 it measures instead what 3 workers exchange to evaluate these windows
together, if all send the first K windows of each class, and if they prune these
before. Workers are threads of this process.
"""

import heapq
import pickle
import time

from absl import app
from absl import flags
import numpy as np

from experiments.benchmarks import exchange
from experiments.benchmarks import usage
from yt8m_distill.evaluation import segment_metrics

_WINDOWS = flags.DEFINE_integer('windows', 1_700_000, 'Windows.', lower_bound=1)
_CLASSES = flags.DEFINE_integer(
  'classes', 1000, 'Classes for SegmentMetrics.', lower_bound=1
)
_PLAIN_CLASSES = flags.DEFINE_integer(
  'plain_classes', 10, 'Classes for the heaps.', lower_bound=1
)
_K = flags.DEFINE_integer(
  'k', segment_metrics.MAX_WINDOWS, 'Windows of a class that count.', lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer(
  'batch_size', 1024, 'Windows per update.', lower_bound=1
)
_WORKERS = flags.DEFINE_integer(
  'workers',
  0,
  'Workers that exchange windows; 0 for the comparison with heaps.',
  lower_bound=0,
)
_RATED = 250  # windows per class


class _HeapMetrics:
  """MAP@K from a heap of (score, order, rating) tuples for each class."""

  def __init__(self, num_classes, k):
    self._k = k
    self._heaps: list[list[tuple]] = [[] for _ in range(num_classes)]
    self._positives = np.zeros(num_classes, np.int64)
    self._windows = 0

  def update(self, scores, rated, positives):
    """Adds a batch; the arguments are those of SegmentMetrics.update()."""
    self._positives += (rated & positives).sum(axis=0)
    k = self._k
    for window in zip(scores.tolist(), rated.tolist(), positives.tolist()):
      self._windows += 1
      for heap, score, is_rated, is_positive in zip(self._heaps, *window):
        if len(heap) < k:
          heapq.heappush(heap, (score, -self._windows, is_rated, is_positive))
        elif score > heap[0][0]:
          heapq.heapreplace(heap, (score, -self._windows, is_rated, is_positive))

  def result(self):
    """Returns map_at_k."""
    precisions = []
    for heap, count in zip(self._heaps, self._positives):
      total, seen, found = 0.0, 0, 0
      for _, _, is_rated, is_positive in sorted(heap, reverse=True):
        if is_rated:
          seen += 1
          if is_positive:
            found += 1
            total += found / seen
      if count:
        precisions.append(total / count)
    return {'map_at_k': np.mean(precisions)}


def _batches(num_classes):
  """Yields scores, rated and positives of random windows."""
  rng = np.random.default_rng(1)
  for first in range(0, _WINDOWS.value, _BATCH_SIZE.value):
    shape = [min(_BATCH_SIZE.value, _WINDOWS.value - first), num_classes]
    scores = rng.random(shape, np.float32)
    rated = rng.random(shape, np.float32) < _RATED / _WINDOWS.value
    positives = rated & (rng.random(shape, np.float32) < scores)
    yield scores, rated, positives


def _measure(evaluation, num_classes):
  """Returns scores added per CPU second, result() included, and the result."""
  seconds = 0.0
  for batch in _batches(num_classes):
    start = time.process_time()
    evaluation.update(*batch)
    seconds += time.process_time() - start
  start = time.process_time()
  result = evaluation.result()
  seconds += time.process_time() - start
  return _WINDOWS.value * num_classes / seconds, result


def _merged(states):
  """Returns the result of all workers' states."""
  whole = next(states)
  for state in states:
    whole.merge(state)
  return whole.result()


def _compare_exchanges(workers, num_classes, k):
  """Prints what a worker sends and its CPU time, without and with pruning."""
  parts = [segment_metrics.SegmentMetrics(num_classes, k) for _ in range(workers)]
  for number, batch in enumerate(_batches(num_classes)):
    parts[number % workers].update(*batch)
  for part in parts:
    part.average_precisions()  # Ranks all windows.

  def work(index, gather):
    parts[index].prune(gather, index)
    return _merged(iter(gather(parts[index])))

  # One worker after another, because memory is too small for what all exchange.
  start = time.process_time()
  states = list(map(pickle.dumps, parts))
  middle = time.process_time()
  expected = _merged(map(pickle.loads, states))
  end = time.process_time()
  size, seconds = len(states[0]), (middle - start) / workers + end - middle
  del states
  start = time.process_time()
  results, sizes = exchange.run(workers, work)
  pruned_seconds = (time.process_time() - start) / workers
  assert results == [expected] * workers
  print(
    f'{_WINDOWS.value} windows, {num_classes} classes, the first {k} of each; '
    f'each of {workers} workers sends and computes:'
  )
  print(f'without pruning {size / 1e6:8,.1f} MB {seconds:8.2f} s CPU time')
  print(f'with pruning    {sizes[0] / 1e6:8,.1f} MB {pruned_seconds:8.2f} s CPU time')


def main(_):
  """Prints rates, their ratio, and memory; or what workers exchange."""
  num_classes, num_plain, k = _CLASSES.value, _PLAIN_CLASSES.value, _K.value
  if _WORKERS.value:
    _compare_exchanges(_WORKERS.value, num_classes, k)
    return
  idle = usage.peak_mib()
  rate, _ = _measure(segment_metrics.SegmentMetrics(num_classes, k), num_classes)
  peak = usage.peak_mib()
  plain_rate, plain = _measure(_HeapMetrics(num_plain, k), num_plain)
  same_rate, exact = _measure(segment_metrics.SegmentMetrics(num_plain, k), num_plain)
  np.testing.assert_allclose(exact['map_at_k'], plain['map_at_k'], rtol=1e-12)
  print(
    f'{_WINDOWS.value} windows, {num_classes} classes, the first {k} of each; '
    f'{num_plain} classes for the heaps'
  )
  print(
    f'SegmentMetrics {rate:14,.0f} windows x classes/s, '
    f'{same_rate:,.0f} with {num_plain} classes'
  )
  print(f'Python heaps   {plain_rate:14,.0f} windows x classes/s')
  print(f'ratio          {rate / plain_rate:14,.1f}')
  print(f'peak RSS       {peak:14,.0f} MiB, {idle:,.0f} of them at the start')


if __name__ == '__main__':
  app.run(main)
