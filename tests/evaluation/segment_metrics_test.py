"""Exact MAP@K against a plain statement, Kaggle's format, and what they refuse."""

import math
import pickle
import tracemalloc

import numpy as np
import paths
import pytest

from experiments.benchmarks import exchange
from yt8m_distill.evaluation import first_keys
from yt8m_distill.evaluation import segment_metrics


def _plain_precisions(scores, rated, positives, k):
  """AP of each class, by the definition; shares no code with the module."""
  precisions = []
  for c in range(scores.shape[1]):
    count = sum(rated[i, c] and positives[i, c] for i in range(len(scores)))
    ranking = sorted(range(len(scores)), key=lambda i: -scores[i, c])[:k]  # Stable.
    total, seen, found = 0.0, 0, 0
    for i in ranking:
      if rated[i, c]:
        seen += 1
        if positives[i, c]:
          found += 1
          total += found / seen
    precisions.append(total / count if count else math.nan)
  return precisions


def _plain_mean(precisions):
  known = [p for p in precisions if not math.isnan(p)]
  return sum(known) / len(known)


def _random_case(seed, levels=None, windows=60, classes=8, rated_share=0.3):
  """Scores (tied if rounded to levels), ratings, labels; every 5th class has none."""
  rng = np.random.default_rng(seed)
  scores = rng.normal(size=[windows, classes]).astype(np.float32)
  if levels:
    scores = np.round(scores * levels) / np.float32(levels)
  rated = rng.random([windows, classes]) < rated_share
  positives = rng.random([windows, classes]) < 0.4
  positives[:, ::5] = False
  return scores, rated, positives


def _evaluate(case, k, sizes=None):
  evaluation = segment_metrics.SegmentMetrics(case[0].shape[1], k)
  return _add(evaluation, case, [len(case[0])] if sizes is None else sizes)


def _add(evaluation, case, sizes):
  ends = np.cumsum(sizes)
  for start, end in zip(ends - sizes, ends):
    evaluation.update(*(array[start:end] for array in case))
  return evaluation


@pytest.fixture(params=[1, 100, 2**21])
def block(request, monkeypatch):
  """Ranks windows after each update, after some, or only at the end."""
  monkeypatch.setattr(first_keys, '_BLOCK', request.param)


# SegmentMetrics.


@pytest.mark.usefixtures('block')
@pytest.mark.parametrize('levels', [None, 2, 1e-9])
@pytest.mark.parametrize('k', [1, 2, 7, 20, 59, 60, 100_000])
def test_equals_the_plain_statement(levels, k):
  for seed in range(3):
    case = _random_case(seed, levels)
    want = _plain_precisions(*case, k)
    evaluation = _evaluate(case, k, [1, 0, 22, 3, 3, 30, 1])
    np.testing.assert_allclose(evaluation.average_precisions(), want, atol=1e-14)
    assert evaluation.average_precisions().dtype == np.float64
    result = evaluation.result()
    assert result == {'map_at_k': pytest.approx(_plain_mean(want), abs=1e-14)}
    assert isinstance(result['map_at_k'], float)
    assert evaluation.positives().tolist() == (case[1] & case[2]).sum(axis=0).tolist()


def test_equals_the_plain_statement_of_every_rating_of_few_windows():
  scores = np.repeat(np.float32([[0.5], [0.9], [0.5], [0.5]]), 81, axis=1)
  choices = np.indices([3] * 4).reshape(4, 81)  # Unrated, negative, positive.
  case = scores, choices > 0, choices > 1
  for k in range(1, 6):
    want = _plain_precisions(*case, k)
    np.testing.assert_allclose(_evaluate(case, k).average_precisions(), want)


def test_unrated_windows_fill_the_first_k_before_they_are_dropped():
  scores = np.float32([[0.9], [0.8], [0.7], [0.6]])
  rated = np.array([[False], [False], [True], [True]])
  for k, want in [(2, 0), (3, 0.5), (4, 1)]:
    assert _evaluate((scores, rated, rated), k).result() == {'map_at_k': want}


@pytest.mark.usefixtures('block')
def test_of_equal_scores_at_the_cut_the_first_added_count():
  scores = np.float32([[0.9], *[[0.5]] * 50, [0.6]])
  for place in range(52):
    rated = np.arange(52)[:, np.newaxis] == place
    result = _evaluate((scores, rated, rated), 12, [1] * 52).result()
    assert result == {'map_at_k': place < 11 or place == 51}, place


@pytest.mark.usefixtures('block')
@pytest.mark.parametrize('k', [5, 40, 1000])
def test_batches_do_not_matter(k):
  case = _random_case(7, levels=2)
  want = _evaluate(case, k).average_precisions()
  for sizes in ([1] * 60, [7, 0, 50, 3, 0], [59, 1]):
    np.testing.assert_array_equal(
      _evaluate(case, k, sizes).average_precisions(), want, str(sizes)
    )


@pytest.mark.parametrize('k', [5, 40, 1000])
def test_order_matters_only_among_equal_scores(k):
  case = _random_case(8)
  order = np.random.default_rng(0).permutation(60)
  shuffled = tuple(array[order] for array in case)
  assert _evaluate(shuffled, k).result() == _evaluate(case, k).result()


@pytest.mark.usefixtures('block')
@pytest.mark.parametrize('k', [5, 40, 1000])
def test_merged_shares_are_the_whole(k):
  case = _random_case(9, levels=2)
  whole = _evaluate(case, k, [30, 30])
  merged, *others = (
    _evaluate(tuple(array[rows] for array in case), k)
    for rows in (slice(25), slice(25, 25), slice(25, 31), slice(31, 50))
  )
  for other in others:
    merged.merge(pickle.loads(pickle.dumps(other)))
  _add(merged, tuple(array[50:] for array in case), [10])
  np.testing.assert_array_equal(merged.average_precisions(), whole.average_precisions())
  np.testing.assert_array_equal(merged.positives(), whole.positives())


def _pruned(parts, k):
  """Evaluates parts of a case by a worker each; returns all results and bytes sent."""

  def work(index, gather):
    evaluation = _evaluate(parts[index], k)
    evaluation.prune(gather, index)
    whole, *others = gather(evaluation)
    for other in others:
      whole.merge(other)
    return whole

  return exchange.run(len(parts), work)


@pytest.mark.parametrize('ends', [(60,), (25, 25, 31, 60), (60, 60)])
@pytest.mark.parametrize('levels', [None, 2])
@pytest.mark.parametrize('k', [1, 2, 17, 40, 59, 60, 1000])
def test_what_workers_prune_changes_nothing(k, levels, ends):
  for seed in range(2):
    case = _random_case(seed, levels)
    parts = [
      tuple(array[start:end] for array in case) for start, end in zip((0, *ends), ends)
    ]
    want = _evaluate(case, k)
    for whole in _pruned(parts, k)[0]:
      np.testing.assert_array_equal(
        whole.average_precisions(), want.average_precisions()
      )
      assert whole.result() == want.result()


@pytest.mark.parametrize('k', [2500, 20_000])
def test_workers_send_little_for_windows_that_were_not_rated(k):
  classes = 50
  scores, *_ = _random_case(0, windows=12_000, classes=classes)
  ratings = np.arange(12_000)[:, np.newaxis] % 1000 == np.arange(classes)
  parts = [(scores[i::3], ratings[i::3], ratings[i::3]) for i in range(3)]
  _, sent = _pruned(parts, k)
  # Without pruning it would be 8 bytes a window and class: 20,000 and 32,000.
  assert max(sent) < classes * (8500 if k < 12_000 else 250)


def test_merge_leaves_the_other_as_it_is():
  case = _random_case(10)
  other = _evaluate(case, 7)
  want = other.average_precisions()
  _evaluate(_random_case(11), 7).merge(other)
  np.testing.assert_array_equal(other.average_precisions(), want)


def test_a_result_does_not_end_the_accumulation():
  case = _random_case(12, levels=2)
  evaluation = _evaluate(tuple(array[:35] for array in case), 6)
  assert evaluation.result() == evaluation.result()
  _add(evaluation, tuple(array[35:] for array in case), [25])
  assert evaluation.result() == _evaluate(case, 6).result()


def test_keeps_no_reference_to_what_it_was_given():
  scores, rated, positives = _random_case(13)
  evaluation = _evaluate((scores, rated, positives), 9)
  want = _evaluate((scores, rated, positives), 9).result()
  scores[:], rated[:], positives[:] = 0, True, False
  evaluation.positives()[:] = 99
  assert evaluation.result() == want


def test_scores_of_any_size_and_sign():
  scores = np.float32([-3e38, -2, -1e-40, 0, 1e-40, 1, 3e38])[:, np.newaxis]
  rated = np.ones([7, 1], bool)
  for i, place in enumerate(range(7, 0, -1)):
    positives = np.arange(7)[:, np.newaxis] == i
    evaluation = _evaluate((scores, rated, positives), 100)
    assert evaluation.result() == {'map_at_k': 1 / place}
  zeros = np.float32([[-0.0], [0.0]])
  first = np.array([[True], [False]])
  assert _evaluate((zeros, ~first | first, first), 9).result() == {'map_at_k': 1}


def test_a_positive_counts_only_where_it_is_rated():
  scores = np.float32([[0.9], [0.8]])
  rated = np.array([[False], [True]])
  evaluation = _evaluate((scores, rated, np.ones([2, 1], bool)), 5)
  assert evaluation.positives().tolist() == [1]
  assert evaluation.result() == {'map_at_k': 1}


def test_no_rated_positive_at_all():
  scores, rated, positives = _random_case(14)
  evaluation = _evaluate((scores, rated, positives & False), 5)
  assert np.isnan(evaluation.average_precisions()).all()
  assert evaluation.result() == {'map_at_k': 0}


def test_nothing_evaluated():
  evaluation = segment_metrics.SegmentMetrics(3)
  empty = np.zeros([0, 3], np.float32), np.zeros([0, 3], bool), np.zeros([0, 3], bool)
  for _ in range(2):
    with pytest.raises(ValueError, match='No windows were evaluated: check'):
      evaluation.result()
    evaluation.update(*empty)
    evaluation.merge(segment_metrics.SegmentMetrics(3))


def test_keeps_only_what_can_still_count():
  classes, k = 300, 10
  rng = np.random.default_rng(0)
  evaluation = segment_metrics.SegmentMetrics(classes, k)

  def add(windows):
    tracemalloc.start()
    for _ in range(windows // 100):
      scores = rng.random([100, classes], np.float32)
      evaluation.update(scores, scores < 0.5, scores < 0.2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak

  first = add(10_000)
  assert add(20_000) < 1.2 * first


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite(value):
  scores, rated, positives = _random_case(15)
  evaluation = segment_metrics.SegmentMetrics(8)
  scores[59, 7] = value
  with pytest.raises(ValueError, match='scores must be finite, but some are NaN'):
    evaluation.update(scores, rated, positives)
  assert not evaluation.positives().any()


@pytest.mark.parametrize(
  'shapes',
  [
    ([2, 4], [2, 4], [2, 4]),
    ([2, 3], [1, 3], [2, 3]),
    ([2, 3], [2, 3], [3]),
    ([3],) * 3,
  ],
)
def test_a_batch_of_another_shape(shapes):
  evaluation = segment_metrics.SegmentMetrics(3)
  with pytest.raises(ValueError, match=r'scores, rated and positives \[B, 3\], not'):
    evaluation.update(*map(np.zeros, shapes))


def test_classes_are_numbers_or_ids():
  assert segment_metrics.SegmentMetrics(3).classes.tolist() == [0, 1, 2]
  evaluation = segment_metrics.SegmentMetrics([7, 3, 11], 5)
  assert evaluation.classes.tolist() == [7, 3, 11]
  evaluation.update([[0.1, 0.2, 0.3]], [[True, True, False]], [[False, True, False]])
  np.testing.assert_array_equal(evaluation.average_precisions(), [np.nan, 1, np.nan])


def test_k_below_one():
  with pytest.raises(ValueError, match='k is 0: it must be at least 1'):
    segment_metrics.SegmentMetrics(3, 0)


# Classes.


def test_reads_the_classes_of_the_release():
  path = str(paths.REAL / 'segment_label_ids.csv')
  classes = segment_metrics.read_classes(path, 3862)
  assert (len(classes), classes[:3].tolist()) == (1000, [3, 7, 8])
  assert segment_metrics.read_classes('', 3).tolist() == [0, 1, 2]
  with pytest.raises(ValueError, match=r'from 3 to \d+: .*num_classes \(100\)'):
    segment_metrics.read_classes(path, 100)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('Index\n3\n7\n3\n', 'has the index 3 twice: each class must have one row'),
    ('Index\n', 'has no rows: name at least one class'),
    ('Class\n3\n', r"has the columns \['Class'\]: it must have Index\."),
    ('Index\n-1\n', r'has indices from -1 to -1: they must be whole numbers from 0 to'),
    ('Index\n1.5\n', 'must be whole numbers from 0 to'),
    ('', r'cannot be read as CSV \(.*\)\. Set it to a CSV file with the column Index'),
    (None, 'there is no such file. Set it to a CSV file with the column Index'),
  ],
)
def test_a_bad_file_of_classes(tmp_path, text, message):
  path = tmp_path / 'classes.csv'
  if text is not None:
    path.write_text(text)
  with pytest.raises(ValueError, match=message) as error:
    segment_metrics.read_classes(str(path), 10)
  assert str(error.value).startswith(f'classes is {str(path)!r}')
  assert '\n' not in str(error.value)


# Submissions.


def _write_submission(path, scores, names, classes, k):
  lines = ['Class,Segments']
  for c, column in zip(classes, scores.T):
    ranking = np.argsort(-column, kind='stable')[:k]
    lines.append(f'{c},{" ".join(names[i] for i in ranking)}')
  path.write_text('\n'.join(lines) + '\n')


@pytest.mark.parametrize('levels', [None, 2])
@pytest.mark.parametrize('k', [4, 20, 1000])
def test_a_submission_that_is_read_back_scores_the_same(tmp_path, levels, k):
  classes = [2, 30, 7, 11, 3861, 5, 0, 8]
  scores, rated, positives = case = _random_case(16, levels)
  names = [f'{i // 6:04}:{i % 6 * 5}' for i in range(60)]
  ratings = {
    (names[i], classes[c]): int(positives[i, c]) for i, c in zip(*np.nonzero(rated))
  }
  evaluation = segment_metrics.SegmentMetrics(classes, k)
  evaluation.update(*case)
  want = evaluation.average_precisions()
  for written in (k, 1000):  # More than K are cut.
    path = tmp_path / f'{written}.csv'
    _write_submission(path, scores, names, classes, written)
    precisions = segment_metrics.submission_average_precisions(
      str(path), ratings, classes, k
    )
    np.testing.assert_array_equal(precisions, want)
  assert segment_metrics.map_at_k(precisions) == evaluation.result()['map_at_k']


def _score(path, text, ratings, classes, **options):
  path.write_text(text)
  return segment_metrics.submission_average_precisions(
    str(path), ratings, classes, **options
  )


def test_classes_that_are_missing_empty_unknown_or_without_positives(tmp_path):
  ratings = {(window, c): 1 for window in ('a:0', 'b:5') for c in (3, 4, 5, 6)}
  ratings |= {('a:0', 8): 0, ('b:5', 9): 1}
  precisions = _score(
    tmp_path / 'file.csv',
    'Class,Segments\n4,\n3,x:0 b:5 y:10 a:0\r\n9,b:5\n5,b:5\n',
    ratings,
    [3, 4, 5, 6, 7, 8],
  )
  np.testing.assert_array_equal(precisions, [1, 0, 0.5, 0, np.nan, np.nan])
  assert segment_metrics.map_at_k(precisions) == 1.5 / 4


def test_windows_after_the_first_k_are_cut_before_unrated_ones_are_dropped(tmp_path):
  text = 'Class,Segments\n3,x:0 y:0 a:0 b:0\n'
  ratings = {('a:0', 3): 0, ('b:0', 3): 1}
  for k, want in [(2, 0), (3, 0), (4, 0.5)]:
    assert _score(tmp_path / 'file.csv', text, ratings, [3], k=k).tolist() == [want]


def test_ids_may_hold_colons(tmp_path):
  (tmp_path / 'file.csv').write_text('Class,Segments\n3,a:b:0 c:15\n')
  lines = list(segment_metrics.read_submission(str(tmp_path / 'file.csv')))
  assert lines == [(3, ['a:b:0', 'c:15'])]


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', "whose first line is '': it must be 'Class,Segments'"),
    ('3,a:0\n', "whose first line is '3,a:0': it must be 'Class,Segments'"),
    ('class,segments\n3,a:0\n', "first line is 'class,segments'"),
    (
      'Class,Segments\n3,a:0\n4,b:0\n3,c:0\n',
      'line 4 has class 3 again: join all its windows in one line',
    ),
    ('Class,Segments\nGame,a:0\n', "line 2 has the class 'Game': it must be a whole"),
    ('Class,Segments\n-1,a:0\n', "line 2 has the class '-1'"),
    ('Class,Segments\n3,a:0\n\n', "line 3 has the class ''"),
    (
      'Class,Segments\n3,a:0 b:0 b:5 b:0\n',
      "line 2 has the window 'b:0' of class 3 twice: each window counts once",
    ),
    (
      'Class,Segments\n3,a:0 b\n',
      "line 2 has the window 'b': windows must be id:start",
    ),
    ('Class,Segments\n3,a:0,b:5\n', "line 2 has the window 'a:0,b:5'"),
    ('Class,Segments\n3,a:5.0\n', "line 2 has the window 'a:5.0'"),
    ('Class,Segments\n3,a:05\n', "line 2 has the window 'a:05'"),
    (b'Class,Segments\n3,\xff\xfe:0\n', 'cannot be read as text'),
    (None, 'cannot be read as text .*No such file'),
  ],
)
def test_a_bad_submission(tmp_path, text, message):
  path = tmp_path / 'file.csv'
  if text is not None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(ValueError, match=message) as error:
    list(segment_metrics.read_submission(str(path)))
  assert str(error.value).startswith(f'submission is {str(path)!r}')
  assert '\n' not in str(error.value)
