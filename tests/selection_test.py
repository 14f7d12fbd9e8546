"""Which frames a network sees: by hand, and by the original's table."""

import golden
import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill import selection
from yt8m_distill.configs import model


def _uniform(every_n, length='ceil'):
  return model.FrameSelection(
      type='uniform',
      uniform=model.UniformFrames(every_n=every_n, length=length))


_ALL = model.FrameSelection()


# max_frames, selection, num_frames, indices, count
@pytest.mark.parametrize('max_frames, frames, num_frames, indices, count', [
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
])
def test_by_hand(max_frames, frames, num_frames, indices, count):
  actual = selection.frame_indices(tf.constant(num_frames), frames, max_frames)
  assert actual[0].dtype == actual[1].dtype == tf.int32
  np.testing.assert_array_equal(actual[0], indices)
  np.testing.assert_array_equal(actual[1], count)
  assert selection.max_selected(frames, max_frames) == len(indices)


@pytest.mark.parametrize('every_n', [1, 2, 7, 10, 300])
def test_counts_the_chosen_frames_that_exist(every_n):
  num_frames = tf.range(301)
  indices, count = selection.frame_indices(num_frames, _uniform(every_n), 300)
  np.testing.assert_array_equal(
      count, np.sum(indices < num_frames[:, None], axis=1))
  assert np.all(count[1:] >= 1)
  assert np.all(indices < 300)


@golden.needs_shared
def test_original_table():
  table = np.load(golden.GOLDEN / 'num_frames_table.npz')
  assert len(table) > 10
  for name, expected in table.items():
    every_n = int(name.removeprefix('every_'))
    count = selection.frame_indices(
        tf.range(301), _uniform(every_n, 'original'), 300)[1]
    np.testing.assert_array_equal(count, expected, name)


@pytest.mark.parametrize('length', selection.UNIFORM_LENGTHS)
def test_shapes_agree(length):
  """One video at a time, a batch, and a batch of no known size."""
  frames = _uniform(7, length)
  num_frames = np.array([[0, 1, 6], [7, 8, 20]], np.int32)
  choose = lambda n: selection.frame_indices(n, frames, 20)
  indices, count = choose(tf.constant(num_frames))
  assert indices.shape == [2, 3, 3] and count.shape == [2, 3]
  graph = tf.function(choose, autograph=False, input_signature=[
      tf.TensorSpec([None, None], tf.int32)])
  for ours, theirs in zip((indices, count), graph(num_frames)):
    np.testing.assert_array_equal(ours, theirs)
  for at in np.ndindex(*num_frames.shape):
    one_indices, one_count = choose(tf.constant(num_frames[at]))
    np.testing.assert_array_equal(one_indices, indices[at])
    np.testing.assert_array_equal(one_count, count[at])
  assert choose(tf.zeros([0], tf.int32))[0].shape == [0, 3]


def _of_type(name):
  # The one-of config cannot hold it, so that only the check can refuse it.
  class Selection:
    type = name
  return Selection()


@pytest.mark.parametrize('frames, parts', [
    (_uniform(0), ('every_n is 0', 'between 1 and max_frames (300)')),
    (_uniform(-3), ('every_n is -3', 'between 1')),
    (_uniform(301), ('every_n is 301', 'max_frames (300)')),
    (_of_type('middle'), ("frames.type is 'middle'", 'all or uniform')),
    (_uniform(10, 'floor'),
     ("frames.uniform.length is 'floor'", 'ceil', 'original')),
])
def test_errors_name_value_and_remedy(frames, parts):
  for function in (lambda: selection.max_selected(frames, 300),
                   lambda: selection.frame_indices(tf.range(3), frames, 300)):
    with pytest.raises(ValueError) as error:
      function()
    for part in parts:
      assert part in str(error.value)
