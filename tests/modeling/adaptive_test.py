"""Networks that answer at several numbers of frames, and stop when they are sure."""

import numpy as np
from official.vision.modeling.backbones import factory
import pytest
import tensorflow as tf
import tf_keras
import tiny

from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import adaptive
from yt8m_distill.modeling import video_classifier
from yt8m_distill.modeling.backbones import base

_COUNTS = [2, 4, 8]
_ROWS = 12
_BACKBONES = {
  'hierarchical_lstm': {'chunks': 4, 'num_cells': 5},
  'yt8m_average': {},
  'netvlad': {'clusters': 4, 'hidden': 6},
  'nextvlad': {'clusters': 4, 'groups': 2, 'hidden': 6},
  'yt8m_dbof': {'clusters': 7, 'hidden': 6},
}


def _network(backbone, counts=None):
  config = model_config.ClassifierModel(max_frames=20, num_classes=9)
  config.override(
    {
      'features': [{'name': 'rgb', 'size': 8}, {'name': 'audio', 'size': 4}],
      'network': {
        'frames': {'type': 'nested', 'nested': {'counts': counts or _COUNTS}},
        'backbone': {'type': backbone, backbone: _BACKBONES[backbone]},
      },
    }
  )
  network = video_classifier.build(config, config.network, 'network')
  tiny.scatter_weights(network)
  return network


def _model(network, measure, threshold):
  return adaptive.AdaptiveClassifier(
    network, adaptive.Rule(_COUNTS, measure, threshold)
  )


@pytest.fixture(name='network', params=_BACKBONES)
def _each_network(request):
  return _network(request.param)


@pytest.fixture(name='videos')
def _videos():
  rng = np.random.default_rng(3)
  num_frames = np.array([8, 8, 8, 8, 7, 5, 4, 3, 2, 1, 8, 8], np.int32)
  frames = rng.integers(0, 256, (_ROWS, 8, 12)).astype(np.uint8)
  frames[np.arange(8) >= num_frames[:, None]] = 0
  return {'frames': tf.constant(frames), 'num_frames': tf.constant(num_frames)}


def _seen(videos, count):
  """The first frames of the videos."""
  return {
    'frames': videos['frames'][:, :count],
    'num_frames': tf.minimum(videos['num_frames'], count),
  }


def test_answers_are_those_of_the_first_frames(network, videos):
  outputs = network(videos, answers=True)
  assert len(outputs['answers']) == len(_COUNTS)
  for count, answer in zip(_COUNTS, outputs['answers']):
    wanted = network(_seen(videos, count))
    for name in ('predictions', 'representation'):
      np.testing.assert_allclose(answer[name], wanted[name], rtol=1e-5, atol=1e-6)
  last = outputs['answers'][-1]['predictions']
  np.testing.assert_array_equal(outputs['predictions'], last)
  np.testing.assert_allclose(network(videos)['predictions'], last, rtol=1e-5)
  assert np.ptp([a['predictions'] for a in outputs['answers']], axis=0).max() > 0.01


def test_round_trip(network, videos):
  again = type(network).from_config(network.get_config())
  again.set_weights(network.get_weights())
  one, other = (n(videos, answers=True)['answers'] for n in (network, again))
  for a, b in zip(one, other, strict=True):
    np.testing.assert_array_equal(a['predictions'], b['predictions'])


def _confidences(name, answers):
  """Plain statements of the measures, [B, counts]."""

  def entropy(p):
    return -np.sum([q * np.log2(q) for q in (p, 1 - p) if q > 0])

  def of(index, row):
    p = np.sort(answers[index][row].astype(np.float64))[::-1]
    if name == 'agreement':
      return index and 1 - np.abs(answers[index][row] - answers[index - 1][row]).max()
    plain = {
      'top': lambda: p[0],
      'margin': lambda: p[0] - p[1],
      'certainty': lambda: 1 - np.mean([entropy(q) for q in p[:20]]),
    }
    return plain[name]()

  return np.array(
    [[of(i, row) for i in range(len(answers))] for row in range(len(answers[0]))]
  )


@pytest.mark.parametrize('measure', adaptive.MEASURES)
def test_stops_when_sure(measure, videos):
  network = _network('hierarchical_lstm')
  answers = [a['predictions'].numpy() for a in network(videos, answers=True)['answers']]
  confidences = _confidences(measure, answers)
  threshold = float(np.median(confidences[:, 1 if measure == 'agreement' else 0]))
  outputs = _model(network, measure, threshold)(videos)
  stops = []
  for row, length in enumerate(videos['num_frames'].numpy()):
    stop = next(
      i
      for i, count in enumerate(_COUNTS)
      if confidences[row, i] >= threshold - 1e-6 or length <= count or i == 2
    )
    stops.append(stop)
    np.testing.assert_allclose(
      outputs['predictions'][row], answers[stop][row], rtol=1e-5, atol=1e-6
    )
    assert outputs['frames_seen'][row] == min(length, _COUNTS[stop])
  assert len(set(stops)) > 1


@pytest.mark.parametrize('threshold,count', [(0.0, 2), (1.0, 8)])
def test_ends_of_the_threshold_are_fixed_numbers(network, videos, threshold, count):
  model = _model(network, 'top', threshold)
  # As a student that only ever sees this many frames gets them.
  seen = _seen(videos, count)
  outputs, wanted = model(videos), network(seen)
  for name in ('predictions', 'representation'):
    np.testing.assert_array_equal(outputs[name], wanted[name])
  np.testing.assert_array_equal(outputs['frames_seen'], seen['num_frames'])


def test_neighbors_change_nothing(network, videos):
  model = tf.function(_model(network, 'top', 0.7))
  together = model(videos)
  for row in range(_ROWS):
    alone = model({name: values[row : row + 1] for name, values in videos.items()})
    for name, values in together.items():
      np.testing.assert_allclose(alone[name][0], values[row], rtol=1e-5, atol=1e-6)


def test_batch_without_videos(network, videos):
  model = _model(network, 'top', 0.7)
  outputs = model({name: values[:0] for name, values in videos.items()})
  assert outputs['predictions'].shape == (0, 9)


def test_cost():
  lstm, mean = _network('hierarchical_lstm'), _network('yt8m_average')
  head = lstm.head.flops()
  assert adaptive.flops_of(lstm, _COUNTS) == [
    lstm.backbone.flops() * count // 8 + (index + 1) * head
    for index, count in enumerate(_COUNTS)
  ]
  frame, head = 2 * 12, mean.head.flops()
  assert adaptive.flops_of(mean, _COUNTS) == [
    (2 * frame) + head,
    (2 + 4) * frame + 2 * head,
    (2 + 4 + 8) * frame + 3 * head,
  ]


@pytest.mark.parametrize(
  'measure,threshold,message',
  [
    ('best', 0.5, "measure is 'best': choose one of top, margin"),
    ('top', 1.5, 'threshold is 1.5: it must be from 0 to 1'),
    ('top', float('nan'), 'threshold is nan'),
  ],
)
def test_invalid(measure, threshold, message):
  with pytest.raises(ValueError, match=message):
    _model(_network('yt8m_average'), measure, threshold)


class _Foreign(base.Backbone):
  """A backbone whose flops() has no argument."""

  representation_size = 3

  def flops(self):
    return 0


class _Plain(tf_keras.Model):
  """A model of the Garden."""

  representation_size = 3


@pytest.mark.parametrize(
  'backbone, message',
  [
    (
      _Foreign(base.input_specs(8, [12])),
      r"network.frames.type is 'nested', but _Foreign.flops\(\) has no argument num_fr",
    ),
    (_Plain(), "network.frames.type is 'nested', but _Plain is no subclass of"),
  ],
)
def test_backbones_without_several_answers(monkeypatch, backbone, message):
  monkeypatch.setattr(factory, 'build_backbone', lambda **_: backbone)
  with pytest.raises(ValueError, match=message):
    _network('yt8m_average')


@pytest.mark.parametrize('measure', adaptive.MEASURES)
def test_one_class(measure):
  predictions = tf.constant([[0.25], [1.0], [0.0]])
  found = adaptive.MEASURES[measure](predictions, predictions)
  assert found.shape == (3,)
  if measure == 'margin':
    np.testing.assert_array_equal(found, [0.25, 1.0, 0.0])
