"""Tests of the exact global metrics."""

import itertools
import math
import pathlib

from absl.testing import parameterized
import numpy as np
import tensorflow as tf

from yt8m_distill import metrics

_REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
_GOLDEN = _REPOSITORY / '../shared/golden/metrics_golden.npz'


def _golden(test):
  if not _GOLDEN.exists():
    test.skipTest(f'needs the original evaluator\'s values, {_GOLDEN}')
  with np.load(_GOLDEN) as data:
    return dict(data)


def _add(evaluation, predictions, labels, top_k):
  """Runs both stages on one batch."""
  values = metrics.video_metrics(predictions, labels, top_k)
  positives = (np.asarray(labels) > 0).sum(axis=0)
  evaluation.update(**values, positives=positives)


def _evaluate(predictions, labels, top_k=20, sizes=None, **options):
  """GlobalMetrics over batches of the given sizes (one batch if None)."""
  evaluation = metrics.GlobalMetrics(predictions.shape[1], **options)
  ends = np.cumsum([len(predictions)] if sizes is None else sizes)
  for start, end in zip(np.append(0, ends[:-1]), ends):
    _add(evaluation, predictions[start:end], labels[start:end], top_k)
  return evaluation


def _random_case(seed, num_videos=60, num_classes=12, levels=None):
  """Scores (tied if rounded to levels) and labels; some have none."""
  rng = np.random.default_rng(seed)
  predictions = rng.random([num_videos, num_classes]).astype(np.float32)
  if levels:
    predictions = np.floor(predictions * levels) / np.float32(levels)
  labels = rng.random([num_videos, num_classes]) < 0.15 + 0.3 * predictions
  labels[::7] = False
  labels[:, ::5] = False
  return predictions, labels


def _update_pairs(evaluation, scores, hits, classes=None, positives=None):
  """Adds one video whose top k are the given pairs, of class 0 if not said."""
  scores = np.asarray([scores], np.float32)
  hits = np.asarray([hits], bool)
  classes = np.asarray([classes or [0] * scores.size])
  if positives is None:
    num_classes = len(evaluation.positives)
    positives = np.bincount(classes[hits], minlength=num_classes)
  evaluation.update([0.], [0.], scores, classes, hits, positives)


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
  result = {'gap': gap, 'map': np.mean(aps),
            'hit_at_one': hit_at_one / num_videos, 'perr': perr / num_videos}
  return result, aps


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
      scores[:, :top_k].ravel(), hits[:, :top_k].ravel(), hits_first)

  num_labels = labels.sum(axis=1, keepdims=True)
  counted = hits & (scores > 0) & (np.arange(labels.shape[1]) < num_labels)
  perr = (counted.sum(axis=1) / np.maximum(num_labels[:, 0], 1)).mean()

  aps = np.zeros(labels.shape[1])
  for c in np.flatnonzero(counts):
    score = predictions[:, c:c + 1]
    above = (predictions > score).sum(axis=1)
    tied = (predictions == score).sum(axis=1) - 1
    listed = above + np.where(preferred[:, c], 0, tied) < top_k
    aps[c] = _ordered_precision_sum(
        predictions[listed, c], labels[listed, c], hits_first) / counts[c]
  gap /= counts.sum()
  return {'gap': gap, 'perr': perr, 'aps': aps, 'map': aps.mean()}


class GoldenTest(tf.test.TestCase, parameterized.TestCase):
  """Against the original: float64 sums in Python 2.7, float32 in Python 3."""

  def _case(self, name, top_k, batched):
    golden = _golden(self)
    predictions = golden[f'in/{name}/predictions']
    labels = golden[f'in/{name}/labels']
    sizes = golden['in/batch_sizes'] if batched else None
    evaluation = _evaluate(predictions, labels, top_k, sizes)
    ours = dict(evaluation.result(), aps=evaluation.average_precisions())
    return golden, predictions, labels, ours

  @parameterized.product(top_k=[20, 5], batched=[True, False])
  def test_distinct_scores(self, top_k, batched):
    golden, _, _, ours = self._case('distinct', top_k, batched)
    for python, tolerance in (('py27', 1e-12), ('py3', 5e-6)):
      want = f'{python}/distinct/top{top_k}/'
      for name in ('gap', 'map', 'aps'):
        self.assertAllClose(
            ours[name], golden[want + name], rtol=0, atol=tolerance)
      for name in ('hit_at_one', 'perr'):  # float32 per video on both sides.
        self.assertAllClose(
            ours[name], golden[want + 'avg_' + name], rtol=0, atol=1e-7)

  def test_distinct_scores_whole_and_per_batch(self):
    golden, predictions, labels, ours = self._case('distinct', 20, False)
    want = 'py27/distinct/'
    for name in ('hit_at_one', 'perr', 'gap'):
      self.assertAllClose(
          ours[name], golden[f'{want}whole_{name}'], rtol=0, atol=1e-7)
    ends = np.cumsum(golden['in/batch_sizes'])[:-1]
    batches = zip(np.split(predictions, ends), np.split(labels, ends))
    for i, (scores, truth) in enumerate(batches):
      values = metrics.video_metrics(scores, truth, 20)
      gap = metrics.batch_gap(values['scores'], values['hits'], truth.sum())
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
      for name, key, tolerance in (('gap', 'gap', 2e-3), ('map', 'map', 5e-3),
                                   ('hit_at_one', 'avg_hit_at_one', 1e-7)):
        self.assertAllClose(
            ours[name], golden[want + key], rtol=0, atol=tolerance)


class TieTest(tf.test.TestCase, parameterized.TestCase):

  @parameterized.parameters(
      ([.5] * 6, [1, 0, 0, 1, 1, 0]),
      ([.5] * 5, [0, 0, 0, 0, 1]),
      ([.5] * 4, [1, 1, 1, 1]),
      ([.9, .7, .7, .7, .4, .4, .1], [0, 1, 0, 1, 1, 0, 1]),
      ([.9, .8, .7, .6, .5], [1, 0, 1, 1, 0]),
      ([.2, .2, -.1, -.1, -.1], [1, 0, 0, 1, 0]),
      ([.0, -.0, .0], [0, 1, 0]),
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
    predictions, labels = _random_case(top_k, levels=levels)
    want, want_aps = _plain_metrics(predictions, labels, top_k)
    evaluation = _evaluate(predictions, labels, top_k)
    self.assertAllClose(
        evaluation.average_precisions(), want_aps, rtol=0, atol=1e-13)
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
    predictions, labels = _random_case(1, levels=levels)
    want = _evaluate(predictions, labels, 5).result()
    for sizes in ([60], [1] * 60, [7, 0, 50, 3, 0]):
      order = np.random.default_rng(len(sizes)).permutation(60)
      evaluation = _evaluate(predictions[order], labels[order], 5, sizes)
      self.assertEqual(evaluation.result(), want)

  def test_a_result_does_not_end_the_accumulation(self):
    predictions, labels = _random_case(2)
    evaluation = _evaluate(predictions[:30], labels[:30], 5)
    self.assertEqual(evaluation.result(), evaluation.result())
    _add(evaluation, predictions[30:], labels[30:], 5)
    whole = _evaluate(predictions, labels, 5)
    self.assertEqual(evaluation.result(), whole.result())

  def test_merged_shares_are_the_whole(self):
    predictions, labels = _random_case(2)
    whole, empty, *others = (
        _evaluate(predictions[rows], labels[rows], 5)
        for rows in (slice(60), slice(0), slice(7), slice(7, 60)))
    for other in others:
      empty.merge(other)
    self.assertEqual(empty.result(), whole.result())
    self.assertAllEqual(empty.positives, whole.positives)

  def test_keeps_no_reference_to_what_it_was_given(self):
    evaluation = metrics.GlobalMetrics(2)
    scores = np.float32([[.9, .1]])
    hits = np.array([[True, False]])
    evaluation.update([1.], [1.], scores, [[0, 1]], hits, [1, 0])
    scores[:], hits[:] = [[.1, .9]], [[False, True]]
    evaluation.positives[:] = 9
    self.assertEqual(evaluation.result(),
                     {'hit_at_one': 1., 'perr': 1., 'gap': 1., 'map': .5})

  def test_positives_outside_the_top_k_count(self):
    evaluation = metrics.GlobalMetrics(2)
    _update_pairs(evaluation, [.9, .8], [True, False], [0, 1], positives=[2, 2])
    self.assertAllEqual(evaluation.average_precisions(), [.5, 0])
    self.assertEqual(evaluation.result()['gap'], .25)

  def test_videos_without_labels_are_false_positives(self):
    predictions = np.float32([[.8, .1, .2], [.9, .3, .4]])
    labels = np.array([[1, 0, 0], [0, 0, 0]])
    result = _evaluate(predictions, labels, 1).result()
    # The wrong guess at .9 stands before the hit at .8.
    self.assertEqual(result, {
        'hit_at_one': .5, 'perr': .5, 'gap': .5, 'map': .5 / 3})

  def test_classes_without_positives(self):
    predictions, labels = np.float32([[.9, .8, .1]]), np.array([[1, 0, 0]])
    self.assertEqual(_evaluate(predictions, labels).result()['map'], 1 / 3)
    left_out = _evaluate(predictions, labels, empty_classes='skip')
    self.assertEqual(left_out.result()['map'], 1.)
    self.assertAllEqual(left_out.average_precisions(), [1, 0, 0])

  @parameterized.parameters('zero', 'skip')
  def test_no_positives_at_all(self, empty_classes):
    predictions = _random_case(3)[0]
    labels = np.zeros_like(predictions, bool)
    evaluation = _evaluate(predictions, labels, empty_classes=empty_classes)
    self.assertEqual(evaluation.result(),
                     {'hit_at_one': 0., 'perr': 0., 'gap': 0., 'map': 0.})
    self.assertAllEqual(evaluation.average_precisions(), np.zeros(12))

  def test_negative_scores_rank_below_zero(self):
    scores = [-3e38, -2., -1e-40, 0., 1e-40, 1., 3e38]
    for place, i in enumerate(reversed(range(7)), 1):
      evaluation = metrics.GlobalMetrics(1)
      _update_pairs(evaluation, scores, np.arange(7) == i)
      self.assertAlmostEqual(evaluation.result()['gap'], 1 / place)

  def test_many_classes(self):
    evaluation = metrics.GlobalMetrics(70000)  # Not to be kept in 16 bits.
    classes = [69999, 3, 65536 + 3, 69999, 3]
    _update_pairs(evaluation, [.9, .8, .7, .6, .5], [0, 1, 1, 1, 0], classes)
    precisions = evaluation.average_precisions()
    self.assertAllEqual(np.flatnonzero(precisions), [3, 65536 + 3, 69999])
    self.assertAllEqual(precisions[[3, 65536 + 3, 69999]], [1, 1, .5])

  def test_nothing_evaluated(self):
    evaluation = metrics.GlobalMetrics(3)
    with self.assertRaisesRegex(ValueError, 'no videos were evaluated: check'):
      evaluation.result()
    self.assertAllEqual(evaluation.average_precisions(), np.zeros(3))
    _add(evaluation, np.zeros([0, 3], np.float32), np.zeros([0, 3], bool), 2)
    with self.assertRaisesRegex(ValueError, 'no videos were evaluated'):
      evaluation.result()

  @parameterized.parameters(np.nan, np.inf, -np.inf)
  def test_scores_that_are_not_finite(self, value):
    evaluation = metrics.GlobalMetrics(4)
    predictions = np.float32([[.1, .2, .3, .4], [value] * 4])
    with self.assertRaisesRegex(ValueError, 'scores must be finite'):
      _add(evaluation, predictions, predictions == np.float32(.4), 2)
    self.assertEqual(evaluation.num_videos, 0)

  def test_one_nan_is_seen_wherever_it_stands(self):
    for place in range(4):
      predictions = np.float32([[.1, .2, .3, .4]])
      predictions[0, place] = np.nan
      with self.assertRaisesRegex(ValueError, 'scores must be finite'):
        _add(metrics.GlobalMetrics(4), predictions, np.zeros([1, 4]), 1)

  @parameterized.named_parameters(
      ('class_too_many', {'positives': [1, 0, 0, 0]}, r'positives \[3\]'),
      ('video_too_many', {'perr': [1., 1.]}, 'expected hit_at_one'),
      ('hit_missing', {'hits': [[True]]}, 'expected hit_at_one'),
      ('flat', {'scores': [.9, .8]}, 'expected hit_at_one'),
      ('class_above', {'classes': [[0, 3]]}, 'from 0 to 2, not 0 to 3'),
      ('class_below', {'classes': [[-1, 0]]}, 'from 0 to 2, not -1 to 0'),
      ('positives', {'positives': [0, 0, 0]}, '1 hits, but only 0 positive'),
  )
  def test_a_bad_batch_is_refused(self, change, message):
    good = {'hit_at_one': [1.], 'perr': [1.], 'scores': [[.9, .8]],
            'classes': [[0, 1]], 'hits': [[True, False]],
            'positives': [1, 0, 0]}
    evaluation = metrics.GlobalMetrics(3)
    with self.assertRaisesRegex(ValueError, message):
      evaluation.update(**{**good, **change})
    evaluation.update(**good)
    self.assertEqual(evaluation.result()['gap'], 1.)

  def test_unknown_option(self):
    with self.assertRaisesRegex(ValueError, "'zero' or 'skip', not 'drop'"):
      metrics.GlobalMetrics(3, empty_classes='drop')


class VideoMetricsTest(tf.test.TestCase, parameterized.TestCase):

  @parameterized.parameters(
      tf.bool, tf.int32, tf.int64, tf.uint8, tf.float32, tf.bfloat16)
  def test_values(self, label_type):
    predictions = [[.1, .9, .3, .2], [.5, .5, .5, .1], [.4, .3, .2, .1]]
    labels = tf.cast([[0, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]], label_type)
    values = metrics.video_metrics(predictions, labels, 2)
    self.assertAllEqual(values['hit_at_one'], [1, 0, 0])
    self.assertAllEqual(values['perr'], [.5, .5, 0])
    self.assertAllEqual(
        values['scores'], np.float32([[.9, .3], [.5, .5], [.4, .3]]))
    self.assertAllEqual(values['classes'], [[1, 2], [0, 1], [0, 1]])
    self.assertAllEqual(
        values['hits'], [[True, False], [False, True], [False, False]])

  def test_perr_counts_hits_with_a_score_above_zero_only(self):
    values = metrics.video_metrics(
        [[.5, 0., 0.], [-1., -2., -3.]], [[1, 1, 0], [1, 0, 0]], 1)
    self.assertAllEqual(values['perr'], [.5, 0])
    self.assertAllEqual(values['hit_at_one'], [1, 1])

  @parameterized.parameters(1, 3, 100)
  def test_perr_does_not_depend_on_top_k(self, top_k):
    predictions, labels = _random_case(4)
    perr = metrics.video_metrics(predictions, labels, top_k)['perr']
    all_listed = metrics.video_metrics(predictions, labels, 12)
    self.assertAllEqual(perr, all_listed['perr'])
    values = metrics.video_metrics(predictions[:5], np.ones([5, 12]), top_k)
    self.assertAllEqual(values['perr'], np.ones(5))

  @parameterized.product(
      dtype=[tf.float16, tf.bfloat16, tf.float32, tf.float64],
      num_videos=[0, 3])
  def test_types_and_shapes_in_a_graph(self, dtype, num_videos):
    signature = [tf.TensorSpec([None, 5], dtype), tf.TensorSpec([None, 5])]
    run = tf.function(
        lambda p, l: metrics.video_metrics(p, l, 3), input_signature=signature)
    outputs = run.get_concrete_function().structured_outputs
    self.assertEqual(
        {name: (x.dtype, x.shape.as_list()) for name, x in outputs.items()},
        {'hit_at_one': (tf.float32, [None]), 'perr': (tf.float32, [None]),
         'scores': (tf.float32, [None, 3]), 'classes': (tf.int32, [None, 3]),
         'hits': (tf.bool, [None, 3])})
    predictions, labels = _random_case(6, num_videos, 5)
    predictions = tf.cast(predictions, dtype)
    want = metrics.video_metrics(tf.cast(predictions, tf.float32), labels, 3)
    for name, value in run(predictions, tf.cast(labels, tf.float32)).items():
      self.assertAllEqual(value, want[name])

  def test_top_k_above_the_number_of_classes(self):
    values = metrics.video_metrics([[.1, .3, .2]], [[1, 0, 0]], 20)
    self.assertAllEqual(values['classes'], [[1, 2, 0]])
    unknown = tf.function(
        lambda p, l: metrics.video_metrics(p, l, 20),
        input_signature=[tf.TensorSpec([None, None])] * 2)
    values = unknown([[.1, .3, .2]], [[1., 0., 0.]])
    self.assertAllEqual(values['classes'], [[1, 2, 0]])

  def test_top_k_below_one(self):
    with self.assertRaisesRegex(ValueError, 'top_k must be at least 1, not 0'):
      metrics.video_metrics([[.1]], [[1]], 0)


class DeviceTest(tf.test.TestCase, parameterized.TestCase):

  def test_batch_gap_equals_the_global_value(self):
    predictions, labels = _random_case(5)
    want = _evaluate(predictions, labels, 5).result()['gap']
    values = metrics.video_metrics(predictions, labels, 5)
    gap = tf.function(metrics.batch_gap)(
        values['scores'], values['hits'], labels.sum())
    self.assertEqual((gap.dtype, gap.shape), (tf.float32, []))
    self.assertAllClose(gap, want, rtol=1e-6)

  def test_batch_gap_of_nothing(self):
    no_video = metrics.batch_gap(tf.zeros([0, 3]), tf.zeros([0, 3], tf.bool), 0)
    self.assertEqual(no_video, 0)
    self.assertEqual(metrics.batch_gap([[.5, .4]], [[False, False]], 0), 0)
    self.assertEqual(metrics.batch_gap([[.5, .4]], [[False, True]], 1), .5)

  def test_agreement(self):
    values = metrics.agreement([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]],
                               [[1, 2, 3, 4], [4, 9, 8, 1], [5, 6, 7, 8]])
    self.assertAllEqual(values['top1'], [1, 0, 0])
    self.assertAllEqual(values['overlap'], [1, .5, 0])
    self.assertEqual({v.dtype for v in values.values()}, {tf.float32})
    no_videos = tf.zeros([0, 4], tf.int32)
    nothing = tf.function(metrics.agreement)(no_videos, no_videos)
    self.assertEqual([v.shape for v in nothing.values()], [[0], [0]])
    with self.assertRaisesRegex(ValueError, 'not compatible|incompatible'):
      metrics.agreement([[1, 2]], [[1, 2, 3]])


if __name__ == '__main__':
  tf.test.main()
