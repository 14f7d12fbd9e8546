"""Tests of simulated videos: labels, shots and frames."""

import numpy as np
import paths
import pytest
import records

from yt8m_distill.simulation import classes
from yt8m_distill.simulation import frames as frames_lib

_RGB = slice(0, 1024)


def _correlation(frames, lag):
  """Returns the mean correlation of frames at a distance of `lag`."""
  frames = frames - frames.mean(1, keepdims=True)
  frames /= np.sqrt(np.square(frames).sum(1, keepdims=True))
  return float((frames[:-lag] * frames[lag:]).sum(1).mean())


def _statistics(frames):
  """Returns std, adjacent and distant correlation of float frames."""
  distant = np.mean([_correlation(frames, lag) for lag in (30, 50, 100)])
  return float(frames.std(1).mean()), _correlation(frames, 1), float(distant)


def _draw(rng, world, mean=None):
  """Returns labels, mean, float frames and the plan of one random video."""
  labels, drawn = classes.random_record(rng, world, 20)
  mean = drawn if mean is None else mean
  length = frames_lib.random_length(rng, len(labels), 120, 300)
  plan = frames_lib.shot_plan(rng, labels, length)
  frames = frames_lib.simulate_frames(rng, world, mean, *plan)
  assert frames.dtype == np.uint8 and frames.shape == (length, len(mean))
  return labels, mean, records.dequantize(frames), plan


@pytest.fixture(name='world', scope='module')
def _world():
  return classes.random_world(np.random.default_rng(1), 100, 1024, 128)


@pytest.fixture(name='videos', scope='module')
def _videos(world):
  rng = np.random.default_rng(2)
  return [_draw(rng, world) for _ in range(30)]


def test_cutaways_hide_their_share_of_the_label_shots():
  rng = np.random.default_rng(4)
  lengths, shown = np.full(4000, 7), np.tile([3, frames_lib.FILLER], 2000)
  for share in (0.0, 0.3):
    cut = frames_lib.cutaways(rng, lengths, shown, share)
    by_shot = cut.reshape(len(shown), 7)
    assert not by_shot[1::2].any()
    assert by_shot[::2].mean() == pytest.approx(share, abs=0.02)
  # Whole cutaways, not single frames: few changes between neighbors.
  changes = np.mean(by_shot[::2, 1:] != by_shot[::2, :-1])
  assert changes == pytest.approx(2 * 0.3 * 0.7 / frames_lib.CUTAWAY, abs=0.02)


def test_frames_of_a_cutaway_do_not_show_the_label(world):
  rng = np.random.default_rng(7)
  on, off = [], []
  for _ in range(20):
    labels, mean = classes.random_record(rng, world, 20)
    plan = frames_lib.shot_plan(rng, labels, 200)
    cut = frames_lib.cutaways(rng, *plan, 0.4)
    frames = frames_lib.simulate_frames(rng, world, mean, *plan, cut)
    assert frames.dtype == np.uint8 and len(frames) == 200
    assert np.abs(records.dequantize(frames).mean(0) - mean).max() < 0.02
    label = np.repeat(plan[1], plan[0])
    shows = records.dequantize(frames) @ world.prototypes.T / len(mean)
    here = label != frames_lib.FILLER
    own = shows[np.arange(200), label] - shows[~here][:, label].mean(0)
    on += [*own[here & ~cut]]
    off += [*own[cut]]
  assert np.mean(on) > 0.15 > 0.05 > abs(np.mean(off))


@pytest.mark.parametrize('num_labels', [1, 3, 8, 23])
def test_every_label_has_shots_of_its_own(num_labels):
  rng = np.random.default_rng(num_labels)
  labels = 100 + np.arange(num_labels)
  seen = []
  for num_frames in [5 * (num_labels + 1), 121, 180, 300] * 10:
    num_frames = max(num_frames, 5 * (num_labels + 1))
    lengths, shown = frames_lib.shot_plan(rng, labels, num_frames)
    assert lengths.sum() == num_frames and len(lengths) == len(shown)
    assert lengths.min() >= 5 and lengths.max() <= 30
    assert set(shown) == {*labels, frames_lib.FILLER}
    seen.append(tuple(shown))
  assert len(set(seen)) > 10


def test_lengths_are_uniform_and_fit_the_labels():
  rng = np.random.default_rng(0)
  lengths = [frames_lib.random_length(rng, 2, 120, 300) for _ in range(4000)]
  assert min(lengths) == 120 and max(lengths) == 300
  assert np.mean(lengths) == pytest.approx(210, abs=4)
  assert frames_lib.random_length(rng, 59, 120, 300) == 300
  with pytest.raises(ValueError, match='60 labels needs 305 frames'):
    frames_lib.random_length(rng, 60, 120, 300)


def test_frames_of_a_label_differ_from_others(world, videos):
  right = []
  for labels, _, frames, (lengths, shown) in videos:
    shown = np.repeat(shown, lengths)
    for label in labels:
      score = frames @ world.prototypes[label]
      own, other = score[shown == label], score[shown != label]
      right.append(np.mean(own[:, None] > other))
  assert np.mean(right) > 0.95


def test_frames_measure_like_the_real_record(videos):
  for dims, expected in (
    (_RGB, (1.0, 0.49, 0.05)),
    (slice(1024, None), (0.92, 0.64, 0.07)),
  ):
    measured = np.mean(
      [_statistics(frames[:, dims]) for _, _, frames, _ in videos], axis=0
    )
    np.testing.assert_allclose(measured, expected, atol=0.03)


def test_real_record_measures_like_the_constants():
  ((_, _, rgb, audio),) = records.parse(paths.FRAME_LEVEL)
  for quantised, spread in ((rgb, classes.RGB_SPREAD), (audio, classes.AUDIO_SPREAD)):
    std, adjacent, distant = _statistics(records.dequantize(quantised))
    assert std == pytest.approx(spread.std, abs=0.01)
    assert adjacent == pytest.approx(spread.adjacent, abs=0.01)
    assert distant == pytest.approx(0.05, abs=0.04)


def test_frames_average_to_the_mean(world, videos):
  for _, mean, frames, _ in videos:
    np.testing.assert_allclose(frames.mean(0), mean, atol=0.01)
  rng = np.random.default_rng(5)
  wide = rng.uniform(*records.dequantize(np.array([0, 255])), 1152).astype(np.float32)
  wide[:4] = records.dequantize(np.array([0, 255, 1, 254]))
  for _ in range(5):
    _, _, frames, _ = _draw(rng, world, wide)
    np.testing.assert_allclose(frames.mean(0), wide, atol=0.01)


def test_labels_are_heavy_tailed_as_in_youtube_8m():
  world = classes.random_world(np.random.default_rng(0), 3862, 4, 2)
  rng = np.random.default_rng(1)
  labels = [classes.random_record(rng, world, 20)[0] for _ in range(2500)]
  sizes = np.array([len(label) for label in labels])
  assert sizes.min() == 1 and sizes.max() > 7
  assert sizes.mean() == pytest.approx(3.0, abs=0.15)
  assert all(len(set(label)) == len(label) for label in labels)
  share = np.bincount(np.concatenate(labels) + 1, minlength=3863) / len(labels)
  # Shares of the 2018 validation records at these ranks.
  for rank, real in ((1, 0.20), (10, 0.038), (100, 0.0043), (500, 0.0009)):
    about = share[int(np.ceil(rank * 0.9)) : int(rank * 1.1) + 1].mean()
    assert real / 2 < about < real * 2


def test_more_frames_tell_more(world):
  rng = np.random.default_rng(6)
  precisions = []
  for _ in range(200):
    labels, _, frames, _ = _draw(rng, world)
    means = np.stack([frames[::every].mean(0) for every in (1, 10, 30)])
    # Average precision of the true labels, ranked by nearest prototype.
    ranks = np.argsort(np.argsort(-means @ world.prototypes.T))[:, labels] + 1
    found = np.arange(1, len(labels) + 1)
    precisions.append((found / np.sort(ranks)).mean(1))
  every, tenth, thirtieth = np.mean(precisions, axis=0)
  assert every > 0.85
  assert every > tenth + 0.004
  assert tenth > thirtieth + 0.03
