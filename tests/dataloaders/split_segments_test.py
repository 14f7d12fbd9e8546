"""Splitting videos into rated windows: frames, ratings, errors, restarts."""

import os

import frame_readers
import numpy as np
import pytest
import records as records_lib
import tensorflow as tf

from yt8m_distill.dataloaders import split_segments
from yt8m_distill.dataloaders import thin

# Start, class, score: a rating.
_RATINGS = ((5, 3, 1), (0, 7, 0), (5, 4, 0), (0, 3, 1))


def _video(frames=300, ratings=_RATINGS, name=b'abcd', **context):
  """A record as the release stores it; further values of its context override."""
  starts, classes, scores = (np.array(values) for values in zip(*ratings))
  return frame_readers.record(
    frames,
    labels=(7, 2),
    seed=frames,
    context={
      'id': name,
      'segment_start_times': starts,
      'segment_end_times': starts + 5,
      'segment_labels': classes,
      'segment_scores': scores.astype(np.float32),
      **context,
    },
  )


def _split(video, context=0, index=4):
  windows, left_out = split_segments.split_record(
    video.SerializeToString(), context, '/data/train07.tfrecord', index
  )
  return [tf.train.SequenceExample.FromString(window) for window in windows], left_out


def _values(record, key):
  feature = record.context.feature[key]
  return list(getattr(feature, feature.WhichOneof('kind')).value)


def test_one_record_per_start_with_its_ratings():
  windows, left_out = _split(_video(other=bytes(range(256))))
  assert left_out == 0
  assert [_values(window, 'id') for window in windows] == [[b'abcd:0'], [b'abcd:5']]
  assert [_values(w, 'segment_labels') for w in windows] == [[7, 3], [3, 4]]
  assert [_values(w, 'segment_scores') for w in windows] == [[0, 1], [1, 0]]
  for window in windows:
    assert set(window.context.feature) == {
      'id',
      'labels',
      'other',
      'window_start',
      'segment_labels',
      'segment_scores',
    }
    assert _values(window, 'labels') == [7, 2]
    assert _values(window, 'other') == [bytes(range(256))]


@pytest.mark.parametrize('frames', [1, 4, 5, 6, 299, 300])
@pytest.mark.parametrize('context', [0, 1, 10, -1])
def test_frames_are_those_of_the_window_and_around_it(frames, context):
  starts = [0, 1, 3, 4, 5, 295, 297, 299, 300, 305]
  video = _video(frames, [(start, 1, 1) for start in starts])
  windows, left_out = _split(video, context)
  kept = [start for start in starts if start < frames]
  assert left_out == len(starts) - len(kept)
  assert [_values(window, 'id') for window in windows] == [
    [b'abcd:%d' % start] for start in kept
  ]
  for window, start in zip(windows, kept):
    [shift] = _values(window, 'window_start')
    for name in frame_readers.FEATURES:
      all_frames = list(video.feature_lists.feature_list[name].feature)
      stored = list(window.feature_lists.feature_list[name].feature)
      assert stored[shift : shift + 5] == all_frames[start : start + 5]
      if context >= 0:
        before = all_frames[max(0, start - context) : start]
        after = all_frames[start + 5 : start + 5 + context]
        assert (stored[:shift], stored[shift + 5 :]) == (before, after)
      else:
        assert stored == all_frames


@pytest.mark.parametrize(
  'context, expected',
  [
    ({'video_id': b'old'}, b'old:5'),
    ({}, b'train07.tfrecord:4:5'),
    ({'video_id': b'\xff'}, b'\xff:5'),
  ],
)
def test_ids_of_other_records(context, expected):
  video = _video(ratings=[(5, 3, 1)], **context)
  del video.context.feature['id']
  assert _values(_split(video)[0][0], 'id') == [expected]


def test_a_rating_that_is_repeated_counts_once():
  [window], _ = _split(_video(ratings=[(5, 3, 1), (5, 3, 1)]))
  assert _values(window, 'segment_labels') == [3]


def test_a_record_without_ratings_has_no_windows():
  video = _video()
  for key in video.context.feature:
    if key.startswith('segment'):
      video.context.feature[key].Clear()
  assert _split(video) == ([], 0)


def _without(*keys):
  video = _video()
  for key in keys:
    del video.context.feature[key]
  return video


_KEYS = ('segment_start_times', 'segment_end_times', 'segment_labels', 'segment_scores')


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: _without(*_KEYS), f'no {", ".join(_KEYS)}, so it has no rated segments'),
    (lambda: _without('segment_scores'), 'no segment_scores, so it has no rated'),
    (lambda: _split(_video())[0][0], 'window_start, so it was split before'),
    (
      lambda: _video(segment_scores=[1.0]),
      "'segment_scores': 1} values, but must have one of each per rating",
    ),
    (
      lambda: _video(segment_start_times=[5.0]),
      'segment_start_times is stored as float_list, but must be stored as int64_list',
    ),
    (
      lambda: _video(segment_scores=[1, 0, 1, 0]),
      'segment_scores is stored as int64_list, but must be stored as float_list',
    ),
    (
      lambda: _video(ratings=[(0, 1, 1), (-5, 3, 1)]),
      'segment -5, class 3: it must start at a whole second of 0 or more',
    ),
    (
      lambda: _video(ratings=[(7, 3, 1)], segment_end_times=[7]),
      'segment 7, class 3: its end is 7, but must be from 8 to 12',
    ),
    (
      lambda: _video(ratings=[(7, 3, 1)], segment_end_times=[13]),
      'segment 7, class 3: its end is 13, but must be from 8 to 12',
    ),
    (lambda: _video(ratings=[(5, -1, 1)]), 'segment 5, class -1: a class must be 0 or'),
    (
      lambda: _video(ratings=[(5, 3, 0.5)]),
      'segment 5, class 3: its score is 0.5, but must be 0 or 1, without fractions',
    ),
    (lambda: _video(ratings=[(5, 3, np.nan)]), 'its score is nan, but must be 0 or 1'),
    (
      lambda: _video(ratings=[(5, 3, 1), (0, 3, 0), (5, 3, 0)]),
      'segment 5, class 3: it is rated both 0 and 1',
    ),
  ],
)
def test_invalid_ratings_are_named(make, message):
  with pytest.raises(ValueError) as error:
    _split(make())
  text = str(error.value)
  assert message in text and '\n' not in text
  assert text.startswith('/data/train07.tfrecord, record 4 (id abcd')


def test_thinned_records_are_refused():
  video = thin.thin_record(_video().SerializeToString(), 10, 300, 'x')
  with pytest.raises(ValueError, match='train.tfrecord, record 0: .* thinned before'):
    split_segments.split_record(video, 0, 'train.tfrecord', 0)


@pytest.fixture(name='source')
def _source(tmp_path):
  """Three shards; returns their pattern."""
  (tmp_path / 'full').mkdir()
  return records_lib.write_shards(
    tmp_path / 'full',
    [2, 3, 1],
    lambda number: _video(6, [(0, 1, 1), (5, 2, 0), (10, 1, 0)], b'v%d' % number),
  )


def _contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_end_of_the_command(source, tmp_path, capsys):
  out = tmp_path / 'out'
  outputs = split_segments.split(source, str(out), workers=1)
  assert outputs == [f'{out}/{shard}.tfrecord' for shard in range(3)]
  assert capsys.readouterr().out == (
    f'{out}: 3 shards, 12 windows.\n'
    'Left out, because they start after the last frame of their video: 6 of 18.\n'
  )
  assert [video[0] for video in records_lib.parse(outputs[2])] == [b'v5:0', b'v5:5']
  os.remove(outputs[1])
  split_segments.split(source, str(out), workers=1)
  assert '3 shards, 1 of them written now, 6 windows.' in capsys.readouterr().out
  with pytest.raises(ValueError, match='split_segments.json records another job: con'):
    split_segments.split(source, str(out), context=3)


def test_a_shard_of_which_nothing_is_left_is_an_error(tmp_path):
  path = records_lib.write(tmp_path / 'x.tfrecord', [_video(1, [(5, 1, 1)])])
  with pytest.raises(ValueError, match=f'{path}: no record is left of it.*Leave'):
    split_segments.split(path, str(tmp_path / 'out'), workers=1)
  assert not (tmp_path / 'out' / 'x.tfrecord').exists()


def test_bad_context(source, tmp_path):
  with pytest.raises(ValueError, match='context is -2: it must be a number of frames,'):
    split_segments.split(source, str(tmp_path / 'out'), context=-2)
