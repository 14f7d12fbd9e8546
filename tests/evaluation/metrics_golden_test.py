"""The exact metrics against values of the original's own evaluator."""

from absl.testing import parameterized
import metric_cases
import numpy as np
import paths
import pytest
import tensorflow as tf

from yt8m_distill.evaluation import video_metrics

pytestmark = pytest.mark.golden


def _ordered_precision_sum(scores, hits, hits_first):
  """The sum of precisions with the hits first, or last, among equal scores."""
  order = np.lexsort((~hits if hits_first else hits, -scores))
  hits = hits[order]
  return (np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].sum()


def _tie_bounds(predictions, labels, top_k, hits_first):
  """Best (hits_first) or worst values that re-ordering equal scores gives.

  Also among equal scores at the cut of a video's list, hits come before others,
  or after them. For the AP of one class only this class moves: it is listed if
  that helps (it is a hit), or if that harms.
  """
  labels = labels > 0
  preferred = labels if hits_first else ~labels
  counts = labels.sum(axis=0)
  order = np.lexsort((~preferred, -predictions), axis=-1)
  scores = np.take_along_axis(predictions, order, axis=1)
  hits = np.take_along_axis(labels, order, axis=1)
  gap = _ordered_precision_sum(
    scores[:, :top_k].ravel(), hits[:, :top_k].ravel(), hits_first
  )

  num_labels = labels.sum(axis=1, keepdims=True)
  counted = hits & (scores > 0) & (np.arange(labels.shape[1]) < num_labels)
  perr = (counted.sum(axis=1) / np.maximum(num_labels[:, 0], 1)).mean()

  aps = np.zeros(labels.shape[1])
  for c in np.flatnonzero(counts):
    score = predictions[:, c : c + 1]
    above = (predictions > score).sum(axis=1)
    tied = (predictions == score).sum(axis=1) - 1
    listed = above + np.where(preferred[:, c], 0, tied) < top_k
    aps[c] = (
      _ordered_precision_sum(predictions[listed, c], labels[listed, c], hits_first)
      / counts[c]
    )
  gap /= counts.sum()
  return {'gap': gap, 'perr': perr, 'aps': aps, 'map': aps.mean()}


class GoldenTest(tf.test.TestCase, parameterized.TestCase):
  """Against the original: float64 sums in Python 2.7, float32 in Python 3."""

  def _case(self, name, top_k, batched):
    with np.load(paths.GOLDEN / 'metrics_golden.npz') as data:
      golden = dict(data)
    predictions = golden[f'in/{name}/predictions']
    labels = golden[f'in/{name}/labels']
    sizes = golden['in/batch_sizes'] if batched else None
    evaluation = metric_cases.evaluate(predictions, labels, top_k, sizes)
    ours = dict(evaluation.result(), aps=evaluation.average_precisions())
    return golden, predictions, labels, ours

  @parameterized.product(top_k=[20, 5], batched=[True, False])
  def test_distinct_scores(self, top_k, batched):
    golden, _, _, ours = self._case('distinct', top_k, batched)
    for python, tolerance in (('py27', 1e-12), ('py3', 5e-6)):
      want = f'{python}/distinct/top{top_k}/'
      for name in ('gap', 'map', 'aps'):
        self.assertAllClose(ours[name], golden[want + name], rtol=0, atol=tolerance)
      for name in ('hit_at_one', 'perr'):  # float32 per video on both sides.
        self.assertAllClose(ours[name], golden[want + 'avg_' + name], rtol=0, atol=1e-7)

  def test_distinct_scores_whole_and_per_batch(self):
    golden, predictions, labels, ours = self._case('distinct', 20, False)
    want = 'py27/distinct/'
    for name in ('hit_at_one', 'perr', 'gap'):
      self.assertAllClose(ours[name], golden[f'{want}whole_{name}'], rtol=0, atol=1e-7)
    ends = np.cumsum(golden['in/batch_sizes'])[:-1]
    batches = zip(np.split(predictions, ends), np.split(labels, ends))
    for i, (scores, truth) in enumerate(batches):
      values = video_metrics.compute(scores, truth, 20)
      gap = video_metrics.batch_gap(values['scores'], values['hits'], truth.sum())
      self.assertAllClose(gap, golden[want + 'batch_gap'][i], rtol=0, atol=1e-6)
      for name in ('hit_at_one', 'perr'):
        mean = np.mean(values[name], dtype=np.float64)
        batch_want = golden[f'{want}top20/batch_{name}'][i]
        self.assertAllClose(mean, batch_want, rtol=0, atol=1e-7)

  @parameterized.product(top_k=[20, 5], batched=[True, False])
  def test_ties_lie_in_the_range_of_re_orderings(self, top_k, batched):
    golden, predictions, labels, ours = self._case('ties', top_k, batched)
    low = _tie_bounds(predictions, labels, top_k, hits_first=False)
    high = _tie_bounds(predictions, labels, top_k, hits_first=True)
    self.assertGreater(high['gap'] - low['gap'], 0.01)  # There are ties.
    for name in low:
      self.assertAllGreaterEqual(ours[name] - low[name], -1e-6)
      self.assertAllGreaterEqual(high[name] - ours[name], -1e-6)
    for python in ('py27', 'py3'):
      want = f'{python}/ties/top{top_k}/'
      # The range holds the original's values too, and ours is near those that
      # it too takes over shuffled ties.
      for name, key in (('gap', 'gap'), ('aps', 'aps'), ('perr', 'avg_perr')):
        self.assertAllGreaterEqual(golden[want + key] - low[name], -1e-6)
        self.assertAllGreaterEqual(high[name] - golden[want + key], -1e-6)
      for name, key, tolerance in (
        ('gap', 'gap', 2e-3),
        ('map', 'map', 5e-3),
        ('hit_at_one', 'avg_hit_at_one', 1e-7),
      ):
        self.assertAllClose(ours[name], golden[want + key], rtol=0, atol=tolerance)


if __name__ == '__main__':
  tf.test.main()
