"""Records of rated windows: ratings, frames, errors, and reading them as videos."""

import frame_readers
import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill.configs import model
from yt8m_distill.dataloaders import window_records

_CASES = {  # Classes, scores, start, frames.
  'whole': ([3, 7], [1, 0], 2, 9),
  'one': ([49], [1], 0, 5),
  'at the end': ([0, 3, 7], [0, 0, 1], 8, 9),
}


def _window(classes=(3, 7), scores=(1, 0), start=2, frames=9, **context):
  context = {
    'id': b'abcd:5',
    'segment_labels': np.array(classes, int),
    'segment_scores': np.array(scores, np.float32),
    'window_start': start,
    **context,
  }
  return frame_readers.record(
    frames,
    labels=(3, 12),
    seed=frames,
    context={key: value for key, value in context.items() if value is not None},
  )


def _frames(k=0):
  return model.FrameSelection(type='window', window=model.WindowFrames(k=k))


def _slow(**kwargs):
  """A reader that never takes the fast path."""
  return frame_readers.reader(selection=frame_readers.every(1), **kwargs)


@pytest.mark.parametrize('make', [frame_readers.reader, _slow])
def test_ratings(make):
  windows = [_window(*case) for case in _CASES.values()]
  inputs, labels = frame_readers.read(
    make(rated=True, with_window_starts=True), *windows
  )
  assert inputs.keys() == {
    'frames',
    'num_frames',
    'window_start',
    'rated',
    'video_labels',
  }
  for row, (classes, scores, start, _) in enumerate(_CASES.values()):
    assert np.flatnonzero(inputs['rated'][row]).tolist() == classes
    assert np.flatnonzero(labels[row]).tolist() == [
      label for label, score in zip(classes, scores) if score
    ]
    assert np.flatnonzero(inputs['video_labels'][row]).tolist() == [3, 12]
    assert inputs['window_start'][row] == start
  assert labels.dtype == inputs['rated'].dtype == bool
  assert inputs['window_start'].dtype == np.int32


def test_labels_of_the_video_are_read_only_if_wanted():
  window = _window()
  del window.context.feature['labels']
  reader = frame_readers.reader(rated=True, with_labels=False)
  inputs, labels = frame_readers.read(reader, window)
  assert 'video_labels' not in inputs and labels[0, 3]
  with pytest.raises(tf.errors.InvalidArgumentError, match='no `labels`'):
    frame_readers.read(frame_readers.reader(rated=True), window)


@pytest.mark.parametrize('k', [0, 1, 3])
def test_frames_of_the_window(k):
  windows = [_window(*case) for case in _CASES.values()]
  inputs, _ = frame_readers.read(frame_readers.reader(selection=_frames(k)), *windows)
  for row, (window, (_, _, start, _)) in enumerate(zip(windows, _CASES.values())):
    stored = [
      rgb.bytes_list.value[0] + audio.bytes_list.value[0]
      for rgb, audio in zip(
        *(window.feature_lists.feature_list[n].feature for n in ('rgb', 'audio'))
      )
    ][start : start + 5]
    if 0 < k < len(stored):
      stored = [stored[i * len(stored) // k] for i in range(k)]
    assert inputs['num_frames'][row] == len(stored)
    for i in range(k or 5):
      expected = stored[i] if i < len(stored) else bytes(16)
      assert inputs['frames'][row, i].tobytes() == expected
    assert inputs['window_start'][row] == start


def test_windows_are_ordinary_records_otherwise():
  window = _window()
  inputs, labels = frame_readers.read(frame_readers.reader(with_ids=True), window)
  assert inputs.keys() == {'frames', 'num_frames', 'id'}
  assert np.flatnonzero(labels[0]).tolist() == [3, 12]
  assert list(inputs['id']) == [b'abcd:5'] and inputs['num_frames'] == [9]


def test_official_records_are_ordinary_videos():
  record = frame_readers.record(
    9,
    labels=(3, 12),
    context={
      'segment_start_times': [0, 5],
      'segment_end_times': [5, 10],
      'segment_labels': [3, 4],
      'segment_scores': [1.0, 0.0],
    },
  )
  inputs, labels = frame_readers.read(frame_readers.reader(), record)
  assert inputs.keys() == {'frames', 'num_frames'}
  assert np.flatnonzero(labels[0]).tolist() == [3, 12]


_SPLIT = 'Set input_path to records that yt8m-distill split-segments wrote.'


@pytest.mark.parametrize('make', [frame_readers.reader, _slow])
@pytest.mark.parametrize(
  'changes, message',
  [
    (
      dict(segment_labels=None, segment_scores=None),
      'segment_labels has 0 values and segment_scores 0, but a rated window has '
      f'equally many of both, at least 1 (0 can mean that they are missing). {_SPLIT}',
    ),
    (dict(segment_scores=None), 'segment_labels has 2 values and segment_scores 0'),
    (dict(classes=[3, 50]), 'segment_labels are 50, but must be between 0 and 49.'),
    (dict(classes=[-1, 3]), 'segment_labels are -1, but must be'),
    (
      dict(scores=[0.5, 1]),
      'segment_scores are 0.5, but each must be 0 or',
    ),
    (
      dict(window_start=None),
      f'no `window_start`, which frames of type window need. {_SPLIT}',
    ),
    (dict(start=9), 'window_start is 9, but must be from 0 to 8, the last frame'),
    (dict(start=-1), 'window_start is -1, but must be from 0 to 8'),
    (dict(window_start=[1, 2]), 'window_start has 2 values, but must have one'),
  ],
)
def test_invalid_windows_are_named(make, changes, message):
  reader = make(rated=True, with_window_starts=True)
  with pytest.raises(tf.errors.InvalidArgumentError) as error:
    frame_readers.read(reader, _window(), _window(**changes))
  text = error.value.message
  assert f'/data/train07.tfrecord, record 1 (id abcd:5): {message}' in text
  assert '\n' not in text.strip()


def test_windows_after_max_frames_are_named():
  reader = frame_readers.reader(selection=_frames(), max_frames=8)
  assert frame_readers.read(reader, _window(start=7))[0]['num_frames'] == [1]
  with pytest.raises(
    tf.errors.InvalidArgumentError,
    match='window_start is 8, but must be from 0 to 7, .* Raise task.model.max_frames',
  ):
    frame_readers.read(reader, _window(start=8))


def test_thinned_windows_are_read_without_their_window():
  """They lack frames of the window."""
  from yt8m_distill.dataloaders import thin

  window = thin.thin_record(_window(frames=25).SerializeToString(), 5, 300, 'x')
  reader = frame_readers.reader(selection=frame_readers.every(5), rated=True)
  inputs, labels = frame_readers.read(reader, window)
  assert inputs['num_frames'] == [5] and labels[0, 3]
  with pytest.raises(tf.errors.InvalidArgumentError, match='frames of type window'):
    frame_readers.read(frame_readers.reader(selection=_frames()), window)


def test_multi_hot_of_no_pairs():
  pairs = tf.zeros([0, 2], tf.int64)
  assert not window_records.multi_hot(pairs, [2, 3]).numpy().any()
