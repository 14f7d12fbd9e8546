"""Exact global metrics against plain statements, and what they refuse."""

import itertools
import math

from absl.testing import parameterized
import metric_cases
import numpy as np
import tensorflow as tf

from yt8m_distill.evaluation import metrics


def _update_pairs(evaluation, scores, hits, classes=None, positives=None):
  """Adds one video whose top k are the given pairs, of class 0 if not said."""
  scores = np.asarray([scores], np.float32)
  hits = np.asarray([hits], bool)
  classes = np.asarray([classes or [0] * scores.size])
  if positives is None:
    num_classes = len(evaluation.positives)
    positives = np.bincount(classes[hits], minlength=num_classes)
  evaluation.update([0.0], [0.0], scores, classes, hits, positives)


# Plain statements of the definitions, sharing no code with the module.


def _top_list(scores, top_k):
  return sorted(range(len(scores)), key=lambda c: (-scores[c], c))[:top_k]


def _plain_precision_sum(pairs):
  """The sum of expected precisions at the hits of (score, hit) pairs."""
  total, seen, found = 0.0, 0, 0
  pairs = sorted(pairs, key=lambda pair: -pair[0])
  for _, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
    group = [hit for _, hit in group]
    m, g = len(group), sum(group)
    for j in range(1, m + 1):
      others = (j - 1) * (g - 1) / (m - 1) if m > 1 else 0
      total += g / m * (found + 1 + others) / (seen + j)
    seen, found = seen + m, found + g
  return total


def _plain_metrics(predictions, labels, top_k):
  """All results of GlobalMetrics, and the average precisions."""
  num_videos, num_classes = predictions.shape
  hit_at_one, perr, pairs = 0, 0.0, []
  for scores, truth in zip(predictions.tolist(), labels.tolist()):
    hit_at_one += truth[_top_list(scores, 1)[0]]
    n = sum(truth)
    counted = [truth[c] and scores[c] > 0 for c in _top_list(scores, n)]
    perr += sum(counted) / max(n, 1)
    pairs += [(c, scores[c], truth[c]) for c in _top_list(scores, top_k)]
  aps = []
  for c in range(num_classes):
    count = labels[:, c].sum()
    total = _plain_precision_sum([p[1:] for p in pairs if p[0] == c])
    aps.append(total / count if count else 0.0)
  gap = _plain_precision_sum([p[1:] for p in pairs]) / labels.sum()
  result = {
    'gap': gap,
    'map': np.mean(aps),
    'hit_at_one': hit_at_one / num_videos,
    'perr': perr / num_videos,
  }
  return result, aps


class TieTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(
    ([0.5] * 6, [1, 0, 0, 1, 1, 0]),
    ([0.5] * 5, [0, 0, 0, 0, 1]),
    ([0.5] * 4, [1, 1, 1, 1]),
    ([0.9, 0.7, 0.7, 0.7, 0.4, 0.4, 0.1], [0, 1, 0, 1, 1, 0, 1]),
    ([0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 1, 1, 0]),
    ([0.2, 0.2, -0.1, -0.1, -0.1], [1, 0, 0, 1, 0]),
    ([0.0, -0.0, 0.0], [0, 1, 0]),
  )
  def test_equals_the_mean_over_all_orders(self, scores, hits):
    values = []
    for order in itertools.permutations(range(len(scores))):
      # Stable: the permutation decides between equal scores.
      order = sorted(order, key=lambda i: -scores[i])
      places = [place for place, i in enumerate(order, 1) if hits[i]]
      values.extend(found / place for found, place in enumerate(places, 1))
    want = math.fsum(values) / len(values)  # Every order has sum(hits) values.
    evaluation = metrics.GlobalMetrics(1)
    _update_pairs(evaluation, scores, hits)
    result = evaluation.result()
    self.assertAlmostEqual(result['gap'], want, delta=1e-14)
    self.assertAlmostEqual(result['map'], want, delta=1e-14)


class GlobalMetricsTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.product(levels=[None, 4], top_k=[1, 5, 12])
  def test_equals_the_plain_statement(self, levels, top_k):
    predictions, labels = metric_cases.random_case(top_k, levels=levels)
    want, want_aps = _plain_metrics(predictions, labels, top_k)
    evaluation = metric_cases.evaluate(predictions, labels, top_k)
    self.assertAllClose(evaluation.average_precisions(), want_aps, rtol=0, atol=1e-13)
    result = evaluation.result()
    self.assertEqual(set(result), set(want))
    for name in result:
      self.assertIsInstance(result[name], float)
      delta = 1e-7 if name == 'perr' else 1e-13  # PERR is float32 per video.
      self.assertAlmostEqual(result[name], want[name], delta=delta, msg=name)
    self.assertAllEqual(evaluation.positives, labels.sum(axis=0))
    self.assertEqual(evaluation.positives.dtype, np.int64)
    self.assertEqual(evaluation.num_videos, len(labels))

  @parameterized.parameters(None, 3)
  def test_order_and_batches_do_not_matter(self, levels):
    predictions, labels = metric_cases.random_case(1, levels=levels)
    want = metric_cases.evaluate(predictions, labels, 5).result()
    for sizes in ([60], [1] * 60, [7, 0, 50, 3, 0]):
      order = np.random.default_rng(len(sizes)).permutation(60)
      evaluation = metric_cases.evaluate(predictions[order], labels[order], 5, sizes)
      self.assertEqual(evaluation.result(), want)

  def test_a_result_does_not_end_the_accumulation(self):
    predictions, labels = metric_cases.random_case(2)
    evaluation = metric_cases.evaluate(predictions[:30], labels[:30], 5)
    self.assertEqual(evaluation.result(), evaluation.result())
    metric_cases.add(evaluation, predictions[30:], labels[30:], 5)
    whole = metric_cases.evaluate(predictions, labels, 5)
    self.assertEqual(evaluation.result(), whole.result())

  def test_merged_shares_are_the_whole(self):
    predictions, labels = metric_cases.random_case(2)
    whole, empty, *others = (
      metric_cases.evaluate(predictions[rows], labels[rows], 5)
      for rows in (slice(60), slice(0), slice(7), slice(7, 60))
    )
    for other in others:
      empty.merge(other)
    self.assertEqual(empty.result(), whole.result())
    self.assertAllEqual(empty.positives, whole.positives)

  def test_keeps_no_reference_to_what_it_was_given(self):
    evaluation = metrics.GlobalMetrics(2)
    scores = np.float32([[0.9, 0.1]])
    hits = np.array([[True, False]])
    evaluation.update([1.0], [1.0], scores, [[0, 1]], hits, [1, 0])
    scores[:], hits[:] = [[0.1, 0.9]], [[False, True]]
    evaluation.positives[:] = 9
    self.assertEqual(
      evaluation.result(), {'hit_at_one': 1.0, 'perr': 1.0, 'gap': 1.0, 'map': 0.5}
    )

  def test_positives_outside_the_top_k_count(self):
    evaluation = metrics.GlobalMetrics(2)
    _update_pairs(evaluation, [0.9, 0.8], [True, False], [0, 1], positives=[2, 2])
    self.assertAllEqual(evaluation.average_precisions(), [0.5, 0])
    self.assertEqual(evaluation.result()['gap'], 0.25)

  def test_videos_without_labels_are_false_positives(self):
    predictions = np.float32([[0.8, 0.1, 0.2], [0.9, 0.3, 0.4]])
    labels = np.array([[1, 0, 0], [0, 0, 0]])
    result = metric_cases.evaluate(predictions, labels, 1).result()
    # The wrong guess at .9 stands before the hit at .8.
    self.assertEqual(
      result, {'hit_at_one': 0.5, 'perr': 0.5, 'gap': 0.5, 'map': 0.5 / 3}
    )

  def test_classes_without_positives(self):
    predictions, labels = np.float32([[0.9, 0.8, 0.1]]), np.array([[1, 0, 0]])
    counted = metric_cases.evaluate(predictions, labels)
    self.assertEqual(counted.result()['map'], 1 / 3)
    left_out = metric_cases.evaluate(predictions, labels, empty_classes='skip')
    self.assertEqual(left_out.result()['map'], 1.0)
    self.assertAllEqual(left_out.average_precisions(), [1, 0, 0])

  @parameterized.parameters('zero', 'skip')
  def test_no_positives_at_all(self, empty_classes):
    predictions = metric_cases.random_case(3)[0]
    labels = np.zeros_like(predictions, bool)
    evaluation = metric_cases.evaluate(predictions, labels, empty_classes=empty_classes)
    self.assertEqual(
      evaluation.result(), {'hit_at_one': 0.0, 'perr': 0.0, 'gap': 0.0, 'map': 0.0}
    )
    self.assertAllEqual(evaluation.average_precisions(), np.zeros(12))

  def test_negative_scores_rank_below_zero(self):
    scores = [-3e38, -2.0, -1e-40, 0.0, 1e-40, 1.0, 3e38]
    for place, i in enumerate(reversed(range(7)), 1):
      evaluation = metrics.GlobalMetrics(1)
      _update_pairs(evaluation, scores, np.arange(7) == i)
      self.assertAlmostEqual(evaluation.result()['gap'], 1 / place)

  def test_many_classes(self):
    evaluation = metrics.GlobalMetrics(70000)  # Not to be kept in 16 bits.
    classes = [69999, 3, 65536 + 3, 69999, 3]
    _update_pairs(evaluation, [0.9, 0.8, 0.7, 0.6, 0.5], [0, 1, 1, 1, 0], classes)
    precisions = evaluation.average_precisions()
    self.assertAllEqual(np.flatnonzero(precisions), [3, 65536 + 3, 69999])
    self.assertAllEqual(precisions[[3, 65536 + 3, 69999]], [1, 1, 0.5])

  def test_nothing_evaluated(self):
    evaluation = metrics.GlobalMetrics(3)
    with self.assertRaisesRegex(ValueError, 'No videos were evaluated: check'):
      evaluation.result()
    self.assertAllEqual(evaluation.average_precisions(), np.zeros(3))
    metric_cases.add(
      evaluation, np.zeros([0, 3], np.float32), np.zeros([0, 3], bool), 2
    )
    with self.assertRaisesRegex(ValueError, 'No videos were evaluated'):
      evaluation.result()

  @parameterized.parameters(np.nan, np.inf, -np.inf)
  def test_scores_that_are_not_finite(self, value):
    evaluation = metrics.GlobalMetrics(4)
    predictions = np.float32([[0.1, 0.2, 0.3, 0.4], [value] * 4])
    with self.assertRaisesRegex(ValueError, 'scores must be finite'):
      metric_cases.add(evaluation, predictions, predictions == np.float32(0.4), 2)
    self.assertEqual(evaluation.num_videos, 0)

  def test_one_nan_is_seen_wherever_it_stands(self):
    for place in range(4):
      predictions = np.float32([[0.1, 0.2, 0.3, 0.4]])
      predictions[0, place] = np.nan
      with self.assertRaisesRegex(ValueError, 'scores must be finite'):
        metric_cases.add(metrics.GlobalMetrics(4), predictions, np.zeros([1, 4]), 1)

  @parameterized.named_parameters(
    ('class_too_many', {'positives': [1, 0, 0, 0]}, r'positives \[3\]'),
    ('video_too_many', {'perr': [1.0, 1.0]}, 'expected hit_at_one'),
    ('hit_missing', {'hits': [[True]]}, 'expected hit_at_one'),
    ('flat', {'scores': [0.9, 0.8]}, 'expected hit_at_one'),
    ('class_above', {'classes': [[0, 3]]}, 'from 0 to 2, not 0 to 3'),
    ('class_below', {'classes': [[-1, 0]]}, 'from 0 to 2, not -1 to 0'),
    ('positives', {'positives': [0, 0, 0]}, '1 hits, but only 0 positive'),
  )
  def test_a_bad_batch_is_refused(self, change, message):
    good = {
      'hit_at_one': [1.0],
      'perr': [1.0],
      'scores': [[0.9, 0.8]],
      'classes': [[0, 1]],
      'hits': [[True, False]],
      'positives': [1, 0, 0],
    }
    evaluation = metrics.GlobalMetrics(3)
    with self.assertRaisesRegex(ValueError, message):
      evaluation.update(**{**good, **change})
    evaluation.update(**good)
    self.assertEqual(evaluation.result()['gap'], 1.0)

  def test_unknown_option(self):
    with self.assertRaisesRegex(
      ValueError, "empty_classes is 'drop': choose zero or skip"
    ):
      metrics.GlobalMetrics(3, empty_classes='drop')


if __name__ == '__main__':
  tf.test.main()
