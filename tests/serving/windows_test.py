"""A window of a video is predicted as the record that split-segments makes of it.

B videos, W windows, V classes.
"""

import types
from unittest import mock

import numpy as np
import pytest
import records as records_lib
import tensorflow as tf
import tiny

from yt8m_distill.configs import model as model_config
from yt8m_distill.dataloaders import split_segments
from yt8m_distill.serving import signatures
from yt8m_distill.serving import windows
from yt8m_distill.utils import quantization

_LENGTHS = (1, 4, 5, 6, 299, 300)
_SELECTIONS = {
  'all': {},
  'uniform': {'every_n': 2},
  'random': {'k': 3},
  'last': {'k': 3},
  'first_middle_last': {'k': 4},
  'window': {'k': 0},
}
_AVERAGE = {'backbone': {'type': 'yt8m_average'}, 'head': {'type': 'logistic'}}


def _module(kind, context, **network):
  fields = {'type': kind, kind: _SELECTIONS.get(kind, {})}
  task, model = tiny.single_task(frames=fields, **network)
  return signatures.ServingModule(model, task.task_config.model, 3, context=context)


def _videos(lengths=_LENGTHS, seed=0):
  """Records as the release stores them, rated at every fifth second."""
  rng = np.random.default_rng(seed)
  videos = []
  for number, length in enumerate(lengths):
    starts = np.arange(0, length, 5)
    ratings = {
      'segment_start_times': starts,
      'segment_end_times': starts + 5,
      'segment_labels': np.zeros(len(starts), int),
      'segment_scores': np.ones(len(starts), np.float32),
    }
    sizes = {'rgb': 8, 'audio': 4}
    name = b'v%d' % number
    videos.append(
      records_lib.random_frame_level(length, sizes, (1,), rng, id=name, **ratings)
    )
  return records_lib.serialize(videos)


def _records(serialized):
  count = len(serialized)
  return tf.fill([count], 'a'), tf.range(count, dtype=tf.int64), tf.constant(serialized)


def _split(videos, context):
  return [w for v in videos for w in split_segments.split_record(v, context, 'a', 0)[0]]


def _predict(module, videos, length=5):
  with tiny.eagerly():
    return {
      key: value.numpy()
      for key, value in module.record_windows(*_records(videos), length).items()
    }


@pytest.mark.parametrize('context', [0, 3, 10])
@pytest.mark.parametrize('kind', _SELECTIONS)
def test_a_window_is_predicted_as_its_record(kind, context):
  # As in training: a network that sees windows only ignores their context.
  module = _module(kind, 0 if kind == 'window' else context, **_AVERAGE)
  videos = _videos()
  found = _predict(module, videos)
  split = _split(videos, context)
  with tiny.eagerly():
    expected = module.records(*_records(split))
  names = [
    b'%s:%d' % (found['id'][video], start)
    for video, start in zip(found['video'], found['start'])
  ]
  assert names == expected['id'].numpy().tolist()
  np.testing.assert_allclose(
    found['predictions'], expected['predictions'], rtol=1e-5, atol=1e-7
  )
  assert len(np.unique(found['predictions'].round(5), axis=0)) > len(split) / 2


def test_a_recurrent_network_in_slices(monkeypatch):
  monkeypatch.setattr(windows, '_WINDOWS_AT_ONCE', 4)
  module = _module('window', 0, backbone={'hierarchical_lstm': {'chunks': 1}})
  videos = _videos((4, 23, 17))  # 10 windows: the last slice is smaller.
  with tiny.eagerly():
    expected = module.records(*_records(_split(videos, 0)))['predictions']
  np.testing.assert_allclose(
    _predict(module, videos)['predictions'], expected, atol=1e-6
  )


def test_slices_hold_at_most_as_many_frames_as_a_batch_of_videos(monkeypatch):
  monkeypatch.setattr(windows, '_FRAMES_AT_ONCE', 3 * tiny.MAX_FRAMES)
  module = _module('all', 0, **_AVERAGE)
  with mock.patch.object(module, 'network', wraps=module.network) as network:
    _predict(module, _videos((40,)))
  shapes = [call.args[0]['frames'].shape.as_list() for call in network.mock_calls]
  assert [shape[0] for shape in shapes] == [3, 3, 2]


def test_neighbors_change_nothing():
  module = _module('random', 3, **_AVERAGE)
  videos = _videos()
  together = _predict(module, videos)
  for row, video in enumerate(videos):
    alone = _predict(module, [video])
    np.testing.assert_allclose(
      alone['predictions'],
      together['predictions'][together['video'] == row],
      rtol=1e-5,
      atol=1e-7,
    )


def test_windows_of_videos():
  found = windows.of_videos(tf.constant([6, 1, 10]), 5)
  assert [tensor.numpy().tolist() for tensor in found] == [
    [0, 0, 1, 2, 2],
    [0, 5, 0, 0, 5],
    [5, 6, 1, 5, 10],
  ]


def test_windows_may_have_another_length():
  module = _module('all', 0, **_AVERAGE)
  videos = _videos((20, 7))
  found = _predict(module, videos, 10)
  assert found['start'].tolist() == [0, 10, 0] and found['end'].tolist() == [10, 20, 7]
  with tiny.eagerly():
    whole = module.records(*_records(videos))['predictions']
  np.testing.assert_allclose(found['predictions'][2], whole[1], rtol=1e-5)


@pytest.mark.parametrize('kind', ['all', 'window', 'last'])
def test_the_signature_predicts_what_records_predict(kind):
  module = _module(kind, 2, **_AVERAGE)
  lengths = (6, 20, 1)
  videos = _videos(lengths)
  frames = np.zeros([3, 22, 12], np.uint8)
  for row, video in zip(frames, videos):
    lists = tf.train.SequenceExample.FromString(video).feature_lists.feature_list
    for place, parts in enumerate(zip(lists['rgb'].feature, lists['audio'].feature)):
      row[place] = np.frombuffer(b''.join(p.bytes_list.value[0] for p in parts), 'u1')
  expected = _predict(module, videos)
  with tiny.eagerly():
    found = module.segments(tf.constant(frames), tf.constant(lengths))
  for key in ('video', 'start', 'end', 'predictions'):
    np.testing.assert_allclose(found[key], expected[key], rtol=1e-5)
  best = np.argsort(-expected['predictions'], 1)[:, :3]
  np.testing.assert_array_equal(found['class_indices'], best)
  np.testing.assert_array_equal(
    found['probabilities'], np.take_along_axis(found['predictions'].numpy(), best, 1)
  )


def test_features_stored_as_floats():
  module = _module('all', 0, **_AVERAGE)
  stored = [feature.replace(format='floats') for feature in module.params.features]
  model = signatures.stored_as(module.params, stored)
  floats = signatures.ServingModule(module.model, model)
  frames = np.random.default_rng(0).integers(0, 256, [13, 12], np.uint8)
  bytes_and_floats = [
    records_lib.frame_level({'rgb': values[:, :8], 'audio': values[:, 8:]}, (1,))
    for values in (frames, quantization.dequantize(tf.constant(frames)).numpy())
  ]
  expected, found = (
    _predict(which, records_lib.serialize([video]))['predictions']
    for which, video in zip((module, floats), bytes_and_floats)
  )
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  assert len(found) == 3 and 'segments' not in floats.get_inference_signatures()


def test_a_request_is_checked():
  module = _module('all', 0, **_AVERAGE)
  with pytest.raises(tf.errors.InvalidArgumentError, match='from 1 to that number'):
    module.segments(tf.zeros([1, 3, 12], tf.uint8), tf.constant([4]))


@pytest.mark.parametrize(
  'labels, kind, context, expected',
  [
    ('video', 'all', None, 0),
    ('video', 'uniform', 7, 7),
    ('segments', 'all', 10, 10),
    ('segments', 'all', 0, 0),
    ('segments', 'window', None, 0),
    ('segments', 'window', 10, 0),
  ],
)
def test_context(labels, kind, context, expected):
  task = types.SimpleNamespace(labels=labels)
  frames = model_config.FrameSelection(type=kind)
  assert windows.context_of(task, frames, context) == expected


@pytest.mark.parametrize(
  'context, message',
  [
    (-1, 'context is -1: it must be 0 or more'),
    (None, "frames of type 'all', also of their context. Set --context to"),
  ],
)
def test_context_that_is_wrong_or_unknown(context, message):
  task = types.SimpleNamespace(labels='segments')
  with pytest.raises(ValueError, match=message):
    windows.context_of(task, model_config.FrameSelection(), context)
