"""Which frames a network sees: by hand, and by the original's table."""

import numpy as np
import paths
import pytest
import tensorflow as tf

from yt8m_distill.configs import model
from yt8m_distill.modeling import frame_selection
from yt8m_distill.utils import per_video_random

_SOME = ('random', 'first', 'middle', 'last', 'first_middle_last')
_LENGTHS = ('ceil', 'original')
_ALL = model.FrameSelection()


def _uniform(every_n, length='ceil', k=0):
  return model.FrameSelection(
    type='uniform', uniform=model.UniformFrames(every_n=every_n, k=k, length=length)
  )


def _some(kind, k):
  """`k` frames of a video."""
  if kind == 'uniform':
    return _uniform(0, k=k)
  return model.FrameSelection(type=kind, **{kind: model.SomeFrames(k=k)})


# max_frames, selection, num_frames, indices, count
@pytest.mark.parametrize(
  'max_frames, frames, num_frames, indices, count',
  [
    # Every frame, whatever the length.
    (4, _ALL, 0, [0, 1, 2, 3], 0),
    (4, _ALL, 3, [0, 1, 2, 3], 3),
    (4, _ALL, 4, [0, 1, 2, 3], 4),
    (4, _uniform(1), 3, [0, 1, 2, 3], 3),
    # N divides max_frames: frames 0 and 3 exist of a video of 4.
    (9, _uniform(3), 0, [0, 3, 6], 0),
    (9, _uniform(3), 1, [0, 3, 6], 1),
    (9, _uniform(3), 3, [0, 3, 6], 1),
    (9, _uniform(3), 4, [0, 3, 6], 2),
    (9, _uniform(3), 9, [0, 3, 6], 3),
    # The original rounds down, so that a video shorter than N has none.
    (9, _uniform(3, 'original'), 2, [0, 3, 6], 0),
    (9, _uniform(3, 'original'), 3, [0, 3, 6], 1),
    (9, _uniform(3, 'original'), 8, [0, 3, 6], 2),
    (9, _uniform(3, 'original'), 9, [0, 3, 6], 3),
    # N does not divide max_frames.
    (10, _uniform(4), 4, [0, 4, 8], 1),
    (10, _uniform(4), 5, [0, 4, 8], 2),
    (10, _uniform(4), 8, [0, 4, 8], 2),
    (10, _uniform(4), 9, [0, 4, 8], 3),
    (10, _uniform(4), 10, [0, 4, 8], 3),
    (10, _uniform(4, 'original'), 10, [0, 4, 8], 2),
    # The longest step keeps one frame.
    (5, _uniform(5), 5, [0], 1),
    (5, _uniform(5), 1, [0], 1),
  ],
)
def test_by_hand(max_frames, frames, num_frames, indices, count):
  actual = frame_selection.frame_indices(tf.constant(num_frames), frames, max_frames)
  assert actual[0].dtype == actual[1].dtype == tf.int32
  np.testing.assert_array_equal(actual[0], indices)
  np.testing.assert_array_equal(actual[1], count)
  assert frames.max_selected(max_frames) == len(indices)


# selection, k, num_frames, frames that the network sees
@pytest.mark.parametrize(
  'kind, k, num_frames, expected',
  [
    ('uniform', 4, 0, []),
    ('uniform', 4, 3, [0, 1, 2]),
    ('uniform', 4, 4, [0, 1, 2, 3]),
    ('uniform', 4, 5, [0, 1, 2, 3]),  # 5 i / 4, rounded down
    ('uniform', 4, 7, [0, 1, 3, 5]),
    ('uniform', 4, 8, [0, 2, 4, 6]),
    ('uniform', 4, 300, [0, 75, 150, 225]),
    ('uniform', 1, 300, [0]),
    ('first', 3, 2, [0, 1]),
    ('first', 3, 3, [0, 1, 2]),
    ('first', 3, 4, [0, 1, 2]),
    ('first', 3, 300, [0, 1, 2]),
    ('middle', 3, 0, []),
    ('middle', 3, 2, [0, 1]),
    ('middle', 3, 3, [0, 1, 2]),
    ('middle', 3, 4, [0, 1, 2]),
    ('middle', 3, 5, [1, 2, 3]),
    ('middle', 3, 6, [1, 2, 3]),
    ('middle', 4, 300, [148, 149, 150, 151]),
    ('last', 3, 2, [0, 1]),
    ('last', 3, 3, [0, 1, 2]),
    ('last', 3, 4, [1, 2, 3]),
    ('last', 3, 300, [297, 298, 299]),
    ('first_middle_last', 6, 0, []),
    ('first_middle_last', 6, 5, [0, 1, 2, 3, 4]),
    ('first_middle_last', 6, 6, [0, 1, 2, 3, 4, 5]),
    ('first_middle_last', 6, 7, [0, 1, 2, 3, 5, 6]),
    ('first_middle_last', 6, 8, [0, 1, 3, 4, 6, 7]),
    ('first_middle_last', 6, 300, [0, 1, 149, 150, 298, 299]),
    # What 3 does not divide goes to the first, then to the middle.
    ('first_middle_last', 4, 5, [0, 1, 2, 4]),
    ('first_middle_last', 4, 300, [0, 1, 149, 299]),
    ('first_middle_last', 5, 5, [0, 1, 2, 3, 4]),
    ('first_middle_last', 5, 6, [0, 1, 2, 3, 5]),
    ('first_middle_last', 5, 7, [0, 1, 2, 3, 6]),
    ('first_middle_last', 5, 300, [0, 1, 149, 150, 299]),
    ('first_middle_last', 1, 300, [0]),
    ('first_middle_last', 2, 300, [0, 149]),
  ],
)
def test_some_frames_by_hand(kind, k, num_frames, expected):
  indices, count = frame_selection.frame_indices(
    tf.constant(num_frames), _some(kind, k), 300
  )
  assert indices.dtype == count.dtype == tf.int32 and indices.shape == [k]
  assert indices[: int(count)].numpy().tolist() == expected


def _window(k):
  return model.FrameSelection(type='window', window=model.WindowFrames(k=k))


@pytest.mark.parametrize(
  'k, num_frames, start, expected',
  [
    (0, 300, 100, [100, 101, 102, 103, 104]),
    (5, 300, 100, [100, 101, 102, 103, 104]),
    (0, 5, 0, [0, 1, 2, 3, 4]),
    (0, 4, 0, [0, 1, 2, 3]),
    (0, 1, 0, [0]),
    (0, 300, 297, [297, 298, 299]),  # The video ends within the window.
    (0, 300, 299, [299]),
    (1, 300, 100, [100]),
    (2, 300, 100, [100, 102]),  # 5 i / 2, rounded down
    (3, 300, 100, [100, 101, 103]),
    (4, 300, 100, [100, 101, 102, 103]),
    (2, 300, 297, [297, 298]),
    (2, 103, 100, [100, 101]),
    (2, 104, 100, [100, 102]),
    (4, 102, 100, [100, 101]),
  ],
)
def test_window_by_hand(k, num_frames, start, expected):
  indices, count = frame_selection.frame_indices(
    tf.constant([num_frames]), _window(k), 300, window_starts=tf.constant([start])
  )
  assert indices.dtype == count.dtype == tf.int32 and indices.shape == [1, k or 5]
  assert _window(k).max_selected(300) == (k or 5)
  assert indices[0, : int(count[0])].numpy().tolist() == expected
  assert indices.numpy().max() < 300


def test_window_needs_starts():
  with pytest.raises(ValueError, match="inputs\\['window_start'\\], int32"):
    frame_selection.frame_indices(tf.range(3), _window(0), 300)


def test_30_frames_of_300_are_every_tenth():
  for ours, theirs in zip(
    frame_selection.frame_indices(tf.constant([300]), _some('uniform', 30), 300),
    frame_selection.frame_indices(tf.constant([300]), _uniform(10), 300),
  ):
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize('k', [1, 2, 7, 30, 299, 300])
@pytest.mark.parametrize('kind', ['uniform', *_SOME])
def test_some_frames_are_in_order_distinct_and_there(kind, k):
  num_frames = np.arange(301, dtype=np.int32)
  indices, count = frame_selection.frame_indices(
    tf.constant(num_frames), _some(kind, k), 300, num_frames
  )
  assert _some(kind, k).max_selected(300) == k
  np.testing.assert_array_equal(count, np.minimum(num_frames, k))
  indices = indices.numpy()
  assert indices.shape == (301, k) and indices.max() < 300
  assert (np.diff(indices) > 0).all() and (indices >= 0).all()
  assert (indices[num_frames >= k].max(1) < num_frames[num_frames >= k]).all()
  np.testing.assert_array_equal(indices[: k + 1], np.tile(np.arange(k), [k + 1, 1]))


def test_middle_is_as_far_from_both_ends():
  num_frames = tf.range(7, 301)
  indices, _ = frame_selection.frame_indices(num_frames, _some('middle', 7), 300)
  before, behind = indices[:, 0], num_frames - 1 - indices[:, -1]
  assert set((behind - before).numpy().tolist()) == {0, 1}


def test_random_frames_by_the_plain_formula():
  num_frames = np.array([0, 3, 4, 9, 20, 20], np.int32)
  seeds = np.array([5, 5, 6, 7, 8, 9], np.int32)
  indices, count = frame_selection.frame_indices(
    tf.constant(num_frames), _some('random', 4), 20, seeds
  )
  numbers = per_video_random.uniform(seeds, 20, salt=2).numpy()
  for row, length in enumerate(num_frames):
    smallest = sorted(range(length), key=lambda i, r=row: numbers[r, i])[:4]
    assert indices[row, : int(count[row])].numpy().tolist() == sorted(smallest)


def test_random_frames_follow_the_seed_alone():
  def draw(seeds, k=5):
    return (
      frame_selection.frame_indices(
        tf.fill([len(seeds)], 300),
        _some('random', k),
        300,
        tf.constant(seeds, tf.int32),
      )[0]
      .numpy()
      .tolist()
    )

  one, two, three = draw([1, 2, 3])
  assert one != two != three != one
  assert draw([3, 1]) == [three, one] and draw([2]) == [two]
  assert set(one) < set(draw([1], k=20)[0])
  # One seed may stand for all videos.
  same = frame_selection.frame_indices(
    tf.constant([300, 300]), _some('random', 5), 300, (1,)
  )[0]
  assert same.numpy().tolist() == [one, one]


def test_random_frames_are_uniform():
  """Each of 10 frames is 3 times in 10 among 3: of 20,000 draws, 6,000."""
  videos = 20_000
  indices, _ = frame_selection.frame_indices(
    tf.fill([videos], 10), _some('random', 3), 12, tf.range(videos)
  )
  seen = np.bincount(indices.numpy().ravel(), minlength=12)
  assert not seen[10:].any()
  # 5 standard deviations of a binomial distribution.
  np.testing.assert_allclose(
    seen[:10], 0.3 * videos, rtol=0, atol=5 * (videos * 0.3 * 0.7) ** 0.5
  )
  # So is each of the 120 sets of three.
  _, sets = np.unique(indices, axis=0, return_counts=True)
  assert len(sets) == 120
  np.testing.assert_allclose(sets, videos / 120, rtol=0, atol=5 * (videos / 120) ** 0.5)


@pytest.mark.parametrize('every_n', [1, 2, 7, 10, 300])
def test_counts_the_chosen_frames_that_exist(every_n):
  num_frames = tf.range(301)
  indices, count = frame_selection.frame_indices(num_frames, _uniform(every_n), 300)
  np.testing.assert_array_equal(count, np.sum(indices < num_frames[:, None], axis=1))
  assert np.all(count[1:] >= 1)
  assert np.all(indices < 300)


@pytest.mark.golden
def test_original_table():
  table = np.load(paths.GOLDEN / 'num_frames_table.npz')
  assert len(table) > 10
  for name, expected in table.items():
    every_n = int(name.removeprefix('every_'))
    count = frame_selection.frame_indices(
      tf.range(301), _uniform(every_n, 'original'), 300
    )[1]
    np.testing.assert_array_equal(count, expected, name)


def test_original_count_by_the_plain_statement():
  """Python 2 divided 300 by N as whole numbers."""
  num_frames = tf.range(301)
  for every_n in range(1, 301):
    count = frame_selection.frame_indices(
      num_frames, _uniform(every_n, 'original'), 300
    )[1]
    assert count.numpy().tolist() == [
      int(n / 300 * (300 // every_n)) for n in range(301)
    ]


@pytest.mark.parametrize(
  'frames',
  [
    *(_uniform(7, length) for length in _LENGTHS),
    *(_some(kind, 3) for kind in ('uniform', *_SOME) if kind != 'random'),
  ],
  ids=lambda frames: frames.type,
)
def test_shapes_agree(frames):
  """One video at a time, a batch, and a batch of no known size."""
  num_frames = np.array([[0, 1, 6], [7, 8, 20]], np.int32)

  def choose(n):
    return frame_selection.frame_indices(n, frames, 20)

  indices, count = choose(tf.constant(num_frames))
  assert indices.shape == [2, 3, 3] and count.shape == [2, 3]
  graph = tf.function(
    choose, autograph=False, input_signature=[tf.TensorSpec([None, None], tf.int32)]
  )
  for ours, theirs in zip((indices, count), graph(num_frames)):
    np.testing.assert_array_equal(ours, theirs)
  for at in np.ndindex(*num_frames.shape):
    one_indices, one_count = choose(tf.constant(num_frames[at]))
    np.testing.assert_array_equal(one_indices, indices[at])
    np.testing.assert_array_equal(one_count, count[at])
  assert choose(tf.zeros([0], tf.int32))[0].shape == [0, 3]


def test_every_selection_compiles_under_xla():
  selections = [
    _ALL,
    _window(3),
    *(_uniform(7, length) for length in _LENGTHS),
    *(_some(kind, 5) for kind in ('uniform', *_SOME)),
  ]

  def choose(n, seeds):
    starts = tf.zeros_like(n)
    return [frame_selection.frame_indices(n, s, 20, seeds, starts) for s in selections]

  num_frames = tf.range(21)
  compiled = tf.function(choose, jit_compile=True, autograph=False)
  tf.nest.map_structure(
    np.testing.assert_array_equal,
    compiled(num_frames, num_frames),
    choose(num_frames, num_frames),
  )


def test_random_frames_need_seeds():
  with pytest.raises(ValueError, match="inputs\\['seed'\\], int32"):
    frame_selection.frame_indices(tf.range(3), _some('random', 2), 300)


@pytest.mark.parametrize('counts', [[1], [6, 12, 18, 30], [1, 2, 5, 10], [3, 7, 16]])
@pytest.mark.parametrize('num_frames', [300, 31, 30, 11, 7, 1, 0])
def test_nested_frames_are_spread_at_each_number(counts, num_frames):
  frames = model.FrameSelection(type='nested')
  frames.nested.counts = counts
  indices, count = frame_selection.frame_indices(tf.constant([num_frames]), frames, 300)
  most = counts[-1]
  assert count == min(num_frames, most)
  assert frames.max_selected(300) == most
  uniform, _ = frame_selection.frame_indices(
    tf.constant([num_frames]), _uniform(0, k=most), 300
  )
  seen = indices.numpy()[0][: int(count[0])]
  assert sorted(seen) == uniform.numpy()[0][: int(count[0])].tolist()
  if num_frames < most:
    return  # Frames that are missing leave gaps.
  for one in counts:
    gaps = np.diff([-1, *sorted(seen[:one]), num_frames])
    assert gaps.max() <= 2 * num_frames / one + 1
  for before, after in zip([0, *counts], counts):
    assert (np.diff(seen[before:after]) > 0).all()
