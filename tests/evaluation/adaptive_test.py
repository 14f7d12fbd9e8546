"""Adaptive inference: where videos stop, its exact scores, its calibration."""

import dataclasses

import metric_cases
import numpy as np
import pandas as pd
import pytest

from yt8m_distill.evaluation import adaptive
from yt8m_distill.evaluation import adaptive_report
from yt8m_distill.evaluation import report
from yt8m_distill.evaluation import video_metrics

_COUNTS = (3, 6, 12)
_FLOPS, _FIXED_FLOPS = (10, 25, 60), (10, 20, 40)
_V, _TOP_K = 12, 5


@dataclasses.dataclass
class _Case:
  """A set with everything that its `answers` were made of."""

  predictions: np.ndarray  # [A, N, V]
  labels: np.ndarray  # [N, V]
  confidences: dict[str, np.ndarray]  # [A, N]
  num_frames: np.ndarray  # [N]
  answers: adaptive.Answers


def _collect(predictions, labels, confidences, num_frames, sizes=None):
  """The answers, collected in batches of these sizes."""
  collector = adaptive.Collector(
    counts=_COUNTS,
    num_classes=_V,
    empty_classes='zero',
    flops=_FLOPS,
    fixed_flops=_FIXED_FLOPS,
  )
  ends = np.cumsum(sizes or [len(num_frames)])
  for start, end in zip([0, *ends], ends):
    collector.update(
      [
        {
          **{
            key: value.numpy()
            for key, value in video_metrics.compute(
              predictions[index, start:end], labels[start:end], _TOP_K
            ).items()
          },
          **{name: values[index, start:end] for name, values in confidences.items()},
        }
        for index in range(len(_COUNTS))
      ],
      num_frames[start:end],
      labels[start:end],
    )
  return collector.result()


def _case(seed=0, size=60, levels=None, shortest=1):
  """Answers that improve with frames, and a measure that tells which are right.

  Args:
    seed: of all values.
    size: N.
    levels: number of different scores and confidences; None for many.
    shortest: smallest number of frames of a video.
  """
  rng = np.random.default_rng(seed)
  labels = rng.random([size, _V]) < 0.2
  labels[:, 0] |= ~labels.any(axis=1)
  labels[1::9] = False
  num_frames = rng.integers(shortest, 20, size, np.int32)
  # How much noise is left at each count: little of it where a video is easy.
  noise = rng.choice([0.1, 1.0], size) * np.array([[1.0], [0.6], [0.3]])
  predictions = 0.3 * labels + 0.7 * noise[..., None] * rng.random([*noise.shape, _V])
  predictions = predictions.astype(np.float32)
  for index, count in enumerate(_COUNTS[:-1]):  # Then there is nothing new to see.
    ended = num_frames <= count
    predictions[index + 1, ended] = predictions[index, ended]
  confidences = {
    'good': 0.9 * (1 - noise) + 0.1 * rng.random(noise.shape),
    'poor': rng.random(noise.shape),
  }
  if levels:
    predictions = np.floor(predictions * levels) / np.float32(levels)
    confidences = {k: np.round(v * levels) / levels for k, v in confidences.items()}
  confidences = {k: v.astype(np.float32) for k, v in confidences.items()}
  parts = predictions, labels, confidences, num_frames
  return _Case(*parts, _collect(*parts))


def _slow_stop(confidences, num_frames, threshold):
  """Where one video stops, as the definition says it."""
  for index, count in enumerate(_COUNTS):
    if threshold < 1 and confidences[index] >= threshold:
      return index
    if num_frames <= count:
      return index
  return len(_COUNTS) - 1


def _slow_score(case, measure, threshold):
  """Stops, frames and FLOPs, and the metrics of all scores of all videos."""
  stopped = [
    _slow_stop(column, n, threshold)
    for column, n in zip(case.confidences[measure].T, case.num_frames)
  ]
  chosen = np.array([case.predictions[i, row] for row, i in enumerate(stopped)])
  frames = [min(n, _COUNTS[i]) for n, i in zip(case.num_frames, stopped)]
  flops = _FIXED_FLOPS if threshold == 1 else _FLOPS  # No answer is then asked before.
  return stopped, {
    'frames': sum(frames) / len(frames),
    'flops': sum(flops[i] for i in stopped) / len(stopped),
    **metric_cases.evaluate(chosen, case.labels, _TOP_K).result(),
  }


@pytest.mark.parametrize('levels', [None, 4])
@pytest.mark.parametrize('size', [1, 60])
@pytest.mark.parametrize('threshold', [0, 0.25, 0.5, 0.7, 1])
def test_equals_the_plain_statement(levels, size, threshold):
  case = _case(size=size, levels=levels)
  for measure in case.confidences:
    stopped, expected = _slow_score(case, measure, threshold)
    found = case.answers.stops(measure, threshold)
    np.testing.assert_array_equal(found, stopped)
    scores = case.answers.adaptive(measure, threshold)
    assert scores == pytest.approx(expected, abs=1e-12)


def test_threshold_0_stops_at_once_and_1_never():
  confidences = np.array([[0.0, 1.0, 0.5]] * 3, np.float32)
  num_frames = np.array([20, 20, 4], np.int32)
  np.testing.assert_array_equal(
    adaptive.stops(confidences, num_frames, _COUNTS, 0), [0, 0, 0]
  )
  np.testing.assert_array_equal(
    adaptive.stops(confidences, num_frames, _COUNTS, 1), [2, 2, 1]
  )


def test_an_equal_confidence_is_enough():
  confidence = np.float32(0.1)  # Not 0.1 as a Python float.
  confidences = np.full([3, 1], confidence)
  assert adaptive.stops(confidences, np.array([20]), _COUNTS, 0.1) == [0]
  above = float(np.nextafter(confidence, np.float32(1)))
  assert adaptive.stops(confidences, np.array([20]), _COUNTS, above) == [2]


def test_videos_without_further_frames_stop():
  case = _case()
  short = case.answers.num_frames <= _COUNTS[0]
  assert 0 < short.sum() < len(short)
  assert not case.answers.stops('good', 1)[short].any()
  assert (
    case.answers.seen(case.answers.fixed(2)) == np.minimum(case.num_frames, 12)
  ).all()


def test_no_video_is_longer_than_the_smallest_count():
  case = _case()
  num_frames = np.minimum(case.num_frames, _COUNTS[0])
  answers = _collect(case.predictions, case.labels, case.confidences, num_frames)
  points = adaptive.curve(answers, ['good'])
  assert points['threshold'].tolist() == [0, 1]
  assert points['frames'].nunique() == points['gap'].nunique() == 1


def test_batches_do_not_matter():
  case = _case()
  parts = case.predictions, case.labels, case.confidences, case.num_frames
  answers = _collect(*parts, sizes=[0, 7, 1, 0, 52])
  for name, value in dataclasses.asdict(answers).items():
    np.testing.assert_equal(value, getattr(case.answers, name))


def test_fixed_counts():
  case = _case()
  table = adaptive.fixed(case.answers)
  for index, (count, row) in enumerate(zip(_COUNTS, table.to_dict('records'))):
    assert row == pytest.approx(
      {
        'count': count,
        'frames': np.minimum(case.num_frames, count).mean(),
        'flops': np.mean(
          [
            _FIXED_FLOPS[min(index, sum(n > c for c in _COUNTS[:-1]))]
            for n in case.num_frames
          ]
        ),
        **metric_cases.evaluate(case.predictions[index], case.labels, _TOP_K).result(),
      }
    )


def test_a_curve_leads_from_the_first_answer_to_the_last():
  case = _case(size=300)
  points = adaptive.curve(case.answers, ['poor', 'good'])
  assert points['measure'].unique().tolist() == ['poor', 'good']
  for measure, rows in points.groupby('measure'):
    assert 45 <= len(rows) <= 52
    assert rows['threshold'].is_monotonic_increasing
    assert rows['frames'].is_monotonic_increasing
    assert rows['flops'].iloc[:-1].is_monotonic_increasing
    assert rows['threshold'].iloc[0] == 0 and rows['threshold'].iloc[-1] == 1
    for row in rows.iloc[[0, 15, 30, -1]].to_dict('records'):
      _, expected = _slow_score(case, measure, row['threshold'])
      assert {key: row[key] for key in expected} == pytest.approx(expected)


def test_rounding_does_not_decide_at_thresholds():
  answers = _case(size=40).answers
  rows = adaptive.curve(answers, ['good'])
  inner = rows['threshold'].iloc[2:-1]  # Above the smallest confidence.
  assert len(inner) > 30
  confidences = {'good': answers.confidences['good'] + np.float32(1e-6)}
  moved = dataclasses.replace(answers, confidences=confidences)
  for threshold in inner:
    np.testing.assert_array_equal(
      answers.stops('good', threshold), moved.stops('good', threshold)
    )


def _curves(**arguments):
  answers = _case(size=200, **arguments).answers
  return adaptive.curve(answers, ['poor', 'good']), adaptive.fixed(answers)


@pytest.mark.parametrize('levels', [None, 4])
def test_mean_frames_get_the_highest_gap(levels):
  points, counts = _curves(levels=levels)
  before = None
  for target in np.linspace(counts['frames'].min(), counts['frames'].max() + 1, 12):
    chosen = adaptive.calibrate(points, counts, mean_frames=target)
    affordable = points[points['frames'] <= target]
    assert chosen['frames'] <= target
    assert chosen['gap'] == affordable['gap'].max()
    equal = affordable[affordable['gap'] == chosen['gap']]
    assert chosen['frames'] == equal['frames'].min()
    assert before is None or chosen['gap'] >= before
    before = chosen['gap']


@pytest.mark.parametrize('levels', [None, 4])
def test_a_gap_loss_gets_the_fewest_frames(levels):
  points, counts = _curves(levels=levels)
  before = None
  for target in np.linspace(0.01, 0.3, 12):
    chosen = adaptive.calibrate(points, counts, gap_loss=target)
    good = points[points['gap'] >= counts['gap'].iloc[-1] - target]
    assert chosen['gap'] >= counts['gap'].iloc[-1] - target
    assert chosen['frames'] == good['frames'].min()
    assert before is None or chosen['frames'] <= before
    before = chosen['frames']


def test_a_choice_is_a_row_and_the_better_measure():
  points, counts = _curves()
  chosen = adaptive.calibrate(points, counts, mean_frames=6)
  assert chosen['measure'] == 'good'
  assert chosen in points.to_dict('records')
  poor = points[points['measure'] == 'poor']
  forced = adaptive.calibrate(poor, counts, mean_frames=6)
  assert forced['measure'] == 'poor' and forced['gap'] < chosen['gap']


@pytest.mark.parametrize(
  'target, message',
  [
    ({}, 'mean_frames is None and gap_loss is None: give exactly one'),
    ({'mean_frames': 6, 'gap_loss': 0.1}, 'mean_frames is 6 and gap_loss is 0.1'),
    ({'mean_frames': 0}, 'mean_frames is 0: it must be finite and above 0'),
    ({'mean_frames': float('nan')}, 'mean_frames is nan'),
    ({'mean_frames': float('inf')}, 'mean_frames is inf'),
    ({'gap_loss': -0.1}, 'gap_loss is -0.1: it must be at least 0 and below 1'),
    ({'gap_loss': float('nan')}, 'gap_loss is nan'),
    (
      {'mean_frames': 2},
      r'mean_frames is 2: at the smallest count, 3, .* sees 2\.\d+ on average',
    ),
  ],
)
def test_invalid_targets(target, message):
  points, counts = _curves()
  with pytest.raises(ValueError, match=message):
    adaptive.calibrate(points, counts, **target)


def test_targets_out_of_reach_name_one_that_is_not():
  points, counts = _curves()
  with pytest.raises(ValueError, match='mean_frames is 1') as error:
    adaptive.calibrate(points, counts, mean_frames=1)
  reached = float(str(error.value).split('sees ')[1].split(' ')[0])
  assert adaptive.calibrate(points, counts, mean_frames=reached)
  counts.loc[2, 'gap'] = points['gap'].max() + 0.01234
  with pytest.raises(
    ValueError, match='gap_loss is 0: GAP is .* at 12 frames'
  ) as error:
    adaptive.calibrate(points, counts, gap_loss=0)
  reached = float(str(error.value).split('loss of ')[1].rstrip('.'))
  assert reached == 0.0124
  assert adaptive.calibrate(points, counts, gap_loss=reached)


def test_gains_compare_at_equal_cost():
  counts = pd.DataFrame(
    {'frames': [3.0, 6, 12], 'flops': [10, 20, 40], 'gap': [0.2, 0.4, 0.5]}
  )
  points = pd.DataFrame(
    {
      'frames': [3.0, 4.5, 9, 12],
      'flops': [10, 15, 25, 60],
      'gap': [0.2, 0.35, 0.5, 0.5],
    }
  )
  gains = adaptive.gains(points, counts)
  np.testing.assert_allclose(gains['gain_at_frames'], [0, 0.05, 0.05, 0], atol=1e-12)
  np.testing.assert_allclose(gains['gain_at_flops'], [0, 0.05, 0.075, 0], atol=1e-12)


def test_the_ends_of_a_curve_are_fixed_counts():
  points, counts = _curves()
  counts = counts.drop(columns='count')
  for threshold, fixed in ((0, counts.iloc[0]), (1, counts.iloc[-1])):
    rows = points[points['threshold'] == threshold]
    assert len(rows) == 2
    assert (rows[counts.columns] == fixed).all(axis=None)


def test_gain_of_a_fixed_count_is_0():
  _, counts = _curves()
  assert not adaptive.gains(counts, counts).to_numpy().any()


def test_lengths_divide_the_videos():
  case = _case(size=97)
  stopped = case.answers.stops('good', 0.7)
  table = adaptive.by_length(case.answers, stopped)
  seen = np.minimum(case.num_frames, np.take(_COUNTS, stopped))
  for name, values in (('frames', case.num_frames), ('labels', case.labels.sum(1))):
    rows = table[table['by'] == name]
    assert 2 <= len(rows) <= 4
    assert rows['videos'].sum() == 97
    for row in rows.to_dict('records'):
      chosen = (values >= row['from']) & (values <= row['to'])
      assert row['videos'] == chosen.sum()
      assert row['seen'] == pytest.approx(seen[chosen].mean())
      for index, count in enumerate(_COUNTS):
        assert row[f'stop_at_{count}'] == (stopped[chosen] == index).mean()
      for kind, where in (
        ('smallest', 0 * stopped),
        ('adaptive', stopped),
        ('largest', 0 * stopped + 2),
      ):
        predictions = case.predictions[where, range(97)]
        scores = metric_cases.evaluate(predictions[chosen], case.labels[chosen], _TOP_K)
        assert row[f'gap_{kind}'] == pytest.approx(scores.result()['gap'])


def test_classes():
  case = _case()
  case.labels[:, 7] = False
  case.answers = _collect(
    case.predictions, case.labels, case.confidences, case.num_frames
  )
  stopped = case.answers.stops('good', 0.7)
  table = adaptive.by_class(case.answers, stopped)
  seen = np.minimum(case.num_frames, np.take(_COUNTS, stopped))
  for row in table.to_dict('records'):
    carry = case.labels[:, row['index']]
    assert row['positives'] == carry.sum()
    if row['index'] == 7:
      assert np.isnan(row['seen'])
    else:
      assert row['seen'] == pytest.approx(seen[carry].mean())
  chosen = case.predictions[stopped, range(60)]
  for kind, predictions in (
    ('smallest', case.predictions[0]),
    ('adaptive', chosen),
    ('largest', case.predictions[2]),
  ):
    np.testing.assert_allclose(
      table[f'ap_{kind}'],
      metric_cases.evaluate(predictions, case.labels, _TOP_K).average_precisions(),
    )


def test_one_video_has_all_tables(tmp_path):
  answers = _case(size=1).answers
  counts, points = adaptive.fixed(answers), adaptive.curve(answers, ['good'])
  chosen = adaptive.calibrate(points, counts, gap_loss=0.9)
  stopped = answers.stops(chosen['measure'], chosen['threshold'])
  lengths = adaptive.by_length(answers, stopped)
  assert lengths['videos'].tolist() == [1, 1]
  assert 'By class' not in adaptive_report.savings(
    lengths, adaptive.by_class(answers, stopped)
  )


def test_sets_without_videos_or_labels_are_refused():
  case = _case()
  parts = case.predictions, case.labels, case.confidences, case.num_frames
  with pytest.raises(ValueError, match='there are no videos: name files'):
    _collect(*parts, sizes=[0])
  with pytest.raises(ValueError, match='none of its 60 videos has a label'):
    _collect(parts[0], 0 * parts[1], *parts[2:])


def test_a_diverged_network_is_named():
  case = _case()
  case.predictions[1, 3, 4] = np.nan
  with pytest.raises(ValueError, match='scores must be finite'):
    _collect(case.predictions, case.labels, case.confidences, case.num_frames)


def test_report(tmp_path):
  case = _case(size=300)
  counts, points = (
    adaptive.fixed(case.answers),
    adaptive.curve(case.answers, ['good', 'poor']),
  )
  chosen = adaptive.calibrate(points, counts, mean_frames=6)
  stopped = case.answers.stops(chosen['measure'], chosen['threshold'])
  header, _, *rows = adaptive_report.summary(counts, chosen).splitlines()
  assert [cell.strip() for cell in header.strip('|').split('|')][:4] == [
    'answer',
    'frames',
    'GFLOPs',
    'GAP',
  ]
  assert [row.split('|')[1].strip() for row in rows[:3]] == [
    f'at {count} frames' for count in _COUNTS
  ]
  assert f'adaptive, good >= {chosen["threshold"]:.4g}' in rows[3]
  gain = adaptive.gains(pd.DataFrame([chosen]), counts)['gain_at_frames'][0]
  assert gain > 0 and f'+{gain:.4f}' in rows[3]
  classes = adaptive.by_class(case.answers, stopped)
  classes.insert(1, 'name', [f'class {index}' for index in classes['index']])
  text = adaptive_report.savings(adaptive.by_length(case.answers, stopped), classes)
  assert 'stop at 6' in text and '11 class 11' in text
  report.save(adaptive_report.plot(points, counts, chosen), str(tmp_path / 'x.png'))
  assert (tmp_path / 'x.png').read_bytes()[:4] == b'\x89PNG'


def _only(case, first, last):
  """The answers as a network with these counts would have given them."""
  part = slice(first, last + 1)
  start = _FIXED_FLOPS[first] - _FLOPS[first]
  return dataclasses.replace(
    case.answers,
    counts=_COUNTS[part],
    videos={name: values[part] for name, values in case.answers.videos.items()},
    confidences={name: values[part] for name, values in case.confidences.items()},
    flops=[start + cost for cost in _FLOPS[part]],
    fixed_flops=_FIXED_FLOPS[part],
  )


@pytest.mark.parametrize('first, last', [(0, 0), (0, 1), (1, 2), (2, 2), (0, 2)])
def test_some_of_the_counts(first, last):
  case = _case()
  part, wanted = case.answers.of(_COUNTS[first : last + 1]), _only(case, first, last)
  for threshold in (0, 0.3, 0.6, 1):
    assert part.adaptive('good', threshold) == wanted.adaptive('good', threshold)
  assert part.fixed_flops[0] == part.flops[0]


def test_measures_that_compare_do_not_stop_at_the_first_count():
  case = _case()
  confidences = {'agreement': case.confidences['good']}
  answers = dataclasses.replace(case.answers, confidences=confidences)
  stopped = answers.of(_COUNTS[1:]).stops('agreement', 0.01)
  has_more = answers.num_frames > _COUNTS[1]
  assert has_more.any() and (stopped[has_more] == 1).all()
  np.testing.assert_array_equal(confidences['agreement'], case.confidences['good'])


def test_calibration_may_start_with_more_frames():
  """All videos at 6 frames are better than some at 3 and some at 12, or equal."""
  case = _case(size=400)
  points = adaptive.rules(case.answers, ['poor'])
  assert {*points['counts']} == {_COUNTS, _COUNTS[:2], _COUNTS[1:]}
  counts = adaptive.fixed(case.answers)
  for row in counts.to_dict('records'):
    chosen = adaptive.calibrate(points, counts, mean_frames=row['frames'] + 1e-9)
    assert chosen['gap'] >= row['gap']
