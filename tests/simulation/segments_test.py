"""Tests of ratings: which classes hold where, which windows are rated, learnability."""

import numpy as np
import pytest
import records

from yt8m_distill.simulation import classes
from yt8m_distill.simulation import frames as frames_lib
from yt8m_distill.simulation import segments

_KNOWN = np.arange(40)


def _holds(plan, start, class_id):
  """Returns whether most frames of a window are of shots that show a class."""
  shown = [label for length, label in zip(*plan) for _ in range(length)]
  window = shown[start : start + 5]
  return window.count(class_id) > len(window) / 2


def _rate(rng, kind, num_labels, num_frames, known=_KNOWN):
  """Returns labels, plan and ratings of a random video; checks what all have."""
  labels = np.sort(rng.choice(known, num_labels, replace=False))
  plan = frames_lib.shot_plan(rng, labels, num_frames)
  ratings = segments.rate(rng, kind, labels, known, *plan)
  starts, class_ids, scores = ratings
  pairs = list(zip(starts.tolist(), class_ids.tolist()))
  assert pairs == sorted(set(pairs))
  assert set(starts) <= set(range(0, num_frames, 5))
  assert scores.dtype == np.float32
  assert scores.tolist() == [float(_holds(plan, *pair)) for pair in pairs]
  return labels, plan, ratings


def test_a_class_holds_where_its_shots_have_most_frames():
  # Windows: 7 7 7 7 7 | 7 7 3 3 3 | 3 3 - - - | - - - 7 7 | 7 7 7
  plan = np.array([7, 5, 6, 5]), np.array([7, 3, frames_lib.FILLER, 7])
  ratings = segments.rate(
    np.random.default_rng(0), 'dense', np.array([3, 7]), np.array([3, 7]), *plan
  )
  assert ratings.starts.tolist() == [0, 0, 5, 5, 10, 10, 15, 15, 20, 20]
  assert ratings.classes.tolist() == [3, 7] * 5
  assert ratings.scores.tolist() == [0, 1, 1, 0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize('num_labels', [1, 2, 6])
def test_sparse_ratings_are_few_and_even(num_labels):
  rng = np.random.default_rng(num_labels)
  rated, short = set(), 0
  for _ in range(200):
    num_frames = int(rng.integers(120, 301))
    labels, _, (starts, class_ids, scores) = _rate(
      rng, 'sparse', num_labels, num_frames
    )
    windows, times = np.unique(starts, return_counts=True)
    twice = int(num_labels > 1)
    assert len(windows) == 5 and sorted(times) == [1] * (5 - twice) + [2] * twice
    assert scores.sum() == 3 and len(scores) == 5 + twice
    assert set(class_ids) <= set(labels)
    rated |= {(np.searchsorted(labels, class_ids[i]), scores[i]) for i in range(5)}
    short += windows[-1] + 5 > num_frames
  # Each label is rated both ways; the last window, which is short, is rated too.
  assert rated == {(label, score) for label in range(num_labels) for score in (0, 1)}
  assert 0 < short < 50


def test_sparse_ratings_of_short_videos_have_both_scores():
  rng = np.random.default_rng(0)
  for num_labels, num_frames in [(1, 10), (1, 17), (2, 15), (3, 24), (23, 120)] * 20:
    _, _, ratings = _rate(rng, 'sparse', num_labels, num_frames)
    windows = len(set(ratings.starts))
    assert 2 <= windows <= min(5, -(-num_frames // 5))
    assert {*ratings.scores} == {0, 1}
    assert len(ratings.scores) <= windows + 1


def test_dense_ratings_cover_all_windows_labels_and_as_many_other_classes():
  rng = np.random.default_rng(0)
  others = set()
  for num_labels in [*[1] * 30, 2, 6, 40]:
    labels, _, (starts, class_ids, scores) = _rate(rng, 'dense', num_labels, 303)
    rated = sorted(set(class_ids))
    assert set(labels) <= set(rated) <= set(_KNOWN)
    assert len(rated) == min(2 * num_labels, 40)
    assert starts.tolist() == [s for s in range(0, 303, 5) for _ in rated]
    assert class_ids.tolist() == rated * 61
    assert {*class_ids[scores == 1]} == set(labels)
    others |= set(rated) - set(labels)
  assert len(others) > 15


def _rated_windows(rng, world, videos):
  """Returns window means, one-hot classes and scores of sparse ratings of videos."""
  means, class_ids, scores = [], [], []
  for _ in range(videos):
    labels, mean = classes.random_record(rng, world, 5)
    plan = frames_lib.shot_plan(rng, labels, 120)
    frames = frames_lib.simulate_frames(rng, world, mean, *plan)
    ratings = segments.rate(rng, 'sparse', labels, world.known, *plan)
    means += [
      records.dequantize(frames[start : start + 5]).mean(0) for start in ratings.starts
    ]
    class_ids += [*ratings.classes]
    scores += [*ratings.scores]
  return np.array(means), np.eye(len(world.known))[class_ids], np.array(scores)


def test_rated_windows_teach_where_a_class_holds():
  rng = np.random.default_rng(0)
  world = classes.random_world(rng, 5, 1024, 128)
  means, rated, scores = _rated_windows(rng, world, 100)
  weights = np.zeros((means.shape[1], 5))
  for _ in range(100):  # Logistic regression over the rated pairs only.
    chances = 1 / (1 + np.exp(-means @ weights))
    weights += 0.1 * means.T @ (rated * (scores[:, None] - chances)) / len(means)
  means, rated, scores = _rated_windows(rng, world, 50)
  logits = np.sum(rated * (means @ weights), axis=1)
  ones, zeros = logits[scores == 1], logits[scores == 0]
  # All rated classes are labels of their video: by labels, this would be 0.5.
  assert np.mean(ones[:, None] > zeros) > 0.8
