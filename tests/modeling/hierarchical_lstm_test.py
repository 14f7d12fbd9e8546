"""The hierarchical LSTM against a plain loop over chunks, and its invariants.

B videos, T frames, D features, C chunks, R representation.
"""

import functools

import lstm_cases
import numpy as np
from official.vision.modeling.backbones import factory
import pytest
import tensorflow as tf
import tf_keras

from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import frame_normalization
from yt8m_distill.modeling import video_classifier
from yt8m_distill.modeling.backbones import hierarchical_lstm

_FRAMES, _FEATURES, _CHUNKS = 12, 3, 4  # chunks of 3
# Of none, one, and around the borders of a chunk and of the video.
_NUM_FRAMES = np.array([0, 1, 2, 3, 4, 11, 12], np.int32)


def _specs(frames=_FRAMES, features=_FEATURES):
  return {
    'frames': tf_keras.layers.InputSpec(shape=[None, frames, features]),
    'num_frames': tf_keras.layers.InputSpec(shape=[None]),
  }


def _network(frames=_FRAMES, chunks=_CHUNKS, **options):
  network = hierarchical_lstm.HierarchicalLstm(
    _specs(frames), chunks=chunks, num_cells=2, num_layers=2, **options
  )
  rng = np.random.default_rng(0)
  network.set_weights([rng.normal(size=w.shape) for w in network.weights])
  return network


def _frames():
  rng = np.random.default_rng(1)
  return rng.normal(size=(len(_NUM_FRAMES), _FRAMES, _FEATURES)).astype('f')


def _run_stack(stack, sequence):
  """Final state [1, R] of a list of [1, D], one step at a time."""
  x = tf.stack(sequence, 1) if sequence else None
  return lstm_cases.plain(x, [len(sequence)], stack.kernels, stack.biases)


def _plain(network, frames, num_frames):
  """What the network should return, chunk by chunk."""
  length = _FRAMES // _CHUNKS
  representation, states = [], []
  for video, end in zip(frames, num_frames):
    chunks = []
    for start in range(0, _FRAMES, length):
      real = video[start : max(start, min(start + length, end))]
      chunks.append(_run_stack(network.lower, [x[None] for x in real]))
    filled = int(np.ceil(end / length))
    representation.append(_run_stack(network.upper, chunks[:filled]))
    states.append(tf.concat(chunks, 0))
  return {'representation': tf.concat(representation, 0), 'states': tf.stack(states)}


def _with_gradients(run, network):
  """Outputs of `run`, and gradients of all weights through both of them."""
  with tf.GradientTape() as tape:
    outputs = run()
    loss = sum(
      tf.reduce_sum(value * np.random.default_rng(2).normal(size=value.shape))
      for _, value in sorted(outputs.items())
    )
  return outputs, tape.gradient(loss, network.trainable_weights)


@pytest.fixture(scope='module')
def expected():
  network = _network()
  return _with_gradients(lambda: _plain(network, _frames(), _NUM_FRAMES), network)


@pytest.mark.parametrize(
  'options',
  [{}, {'tile': 1}, {'tile': 3}, {'tile': 100}, {'static_shapes': True}],
  ids=str,
)
@pytest.mark.parametrize('training', [False, True])
def test_lowerings_equal_plain_loop(expected, options, training):
  network = _network(**options)
  inputs = {'frames': tf.constant(_frames()), 'num_frames': tf.constant(_NUM_FRAMES)}
  outputs, gradients = _with_gradients(
    lambda: network(inputs, training=training), network
  )
  expected_outputs, expected_gradients = expected
  assert outputs.keys() == expected_outputs.keys()
  for name, value in expected_outputs.items():
    assert outputs[name].dtype == tf.float32
    np.testing.assert_allclose(outputs[name], value, rtol=1e-5, atol=2e-6)
  assert len(gradients) == 8
  for ours, theirs in zip(gradients, expected_gradients):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-5)


def test_one_xla_program_for_all_lengths(expected):
  network = _network(static_shapes=True)
  run = tf.function(
    lambda frames, num_frames: network(
      {'frames': frames, 'num_frames': num_frames}, training=False
    ),
    autograph=False,
    jit_compile=True,
  )
  outputs = run(_frames(), _NUM_FRAMES)
  for name, value in expected[0].items():
    np.testing.assert_allclose(outputs[name], value, rtol=1e-5, atol=2e-6)
  run(_frames(), _NUM_FRAMES[::-1].copy())
  assert run.experimental_get_tracing_count() == 1


def test_empty_video_and_empty_chunks_have_zero_states(expected):
  outputs = expected[0]
  assert not np.any(outputs['representation'][0])
  for video, end in enumerate(_NUM_FRAMES):
    filled = -(-end // 3)
    assert not np.any(outputs['states'][video, filled:])
    assert np.all(np.any(outputs['states'][video, :filled], axis=-1))


@pytest.mark.parametrize('chunks', [1, 2, 12])
def test_extreme_chunks(chunks):
  """One chunk, and chunks of one frame: one of the stacks has one step."""
  network = _network(chunks=chunks)
  inputs = {'frames': tf.constant(_frames()), 'num_frames': tf.constant(_NUM_FRAMES)}
  outputs, gradients = _with_gradients(lambda: network(inputs, training=True), network)
  assert outputs['states'].shape == [7, chunks, 8]
  length = _FRAMES // chunks
  # The last video is full.
  frames = [x[None] for x in _frames()[-1]]
  states = [
    _run_stack(network.lower, frames[k : k + length]) for k in range(0, _FRAMES, length)
  ]
  np.testing.assert_allclose(
    outputs['representation'][-1:],
    _run_stack(network.upper, states),
    rtol=1e-5,
    atol=2e-6,
  )
  assert all(np.any(g) for g in gradients)


def test_more_padding_changes_nothing():
  """The same video in a network of more chunks."""
  num_frames = tf.constant(_NUM_FRAMES)
  short = _network()({'frames': _frames(), 'num_frames': num_frames})
  padded = np.pad(_frames(), [(0, 0), (0, 9), (0, 0)])
  long = _network(frames=21, chunks=7)({'frames': padded, 'num_frames': num_frames})
  np.testing.assert_allclose(
    long['representation'], short['representation'], rtol=1e-6, atol=1e-6
  )
  np.testing.assert_allclose(
    long['states'][:, :_CHUNKS], short['states'], rtol=1e-6, atol=1e-6
  )


def _classifier():
  return video_classifier.build(
    model_config.VideoModel(
      features=[data.Feature(name='rgb', size=_FEATURES)],
      max_frames=_FRAMES,
      num_classes=5,
    ),
    model_config.Network(backbone=_config()),
    'network',
  )


def _config(**options):
  return model_config.Backbone(
    hierarchical_lstm=model_config.HierarchicalLstm(
      chunks=_CHUNKS, num_cells=2, **options
    )
  )


def test_content_of_padding_changes_nothing():
  network = _classifier()
  rng = np.random.default_rng(3)
  frames = rng.integers(256, size=_frames().shape).astype(np.uint8)
  behind = np.arange(_FRAMES) >= _NUM_FRAMES[:, None]
  results = []
  for padding in (0, 255, rng.integers(256, size=frames.shape)):
    padded = np.where(behind[..., None], padding, frames)
    inputs = {
      'frames': tf.constant(padded, tf.uint8),
      'num_frames': tf.constant(_NUM_FRAMES),
    }
    results.append(
      _with_gradients(
        functools.partial(network, inputs, training=True), network.backbone
      )
    )
  for other in results[1:]:
    tf.nest.map_structure(np.testing.assert_array_equal, results[0], other)


@pytest.mark.parametrize('options', [{}, {'tile': 3}, {'static_shapes': True}], ids=str)
def test_stored_frames_are_normalized_on_the_way(options):
  """Frames in uint8 equal what normalize_videos() makes of them."""
  network = _network(**options)
  frames = tf.constant(
    np.random.default_rng(3).integers(256, size=_frames().shape), tf.uint8
  )
  num_frames = tf.constant(_NUM_FRAMES)
  stored, prepared = (
    _with_gradients(
      functools.partial(
        network, {'frames': f, 'num_frames': num_frames}, training=True
      ),
      network,
    )
    for f in (frames, frame_normalization.normalize_videos(frames, num_frames))
  )
  tf.nest.map_structure(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    stored,
    prepared,
  )


def test_neighbours_change_nothing():
  network = _network()
  num_frames = tf.constant(_NUM_FRAMES)
  together = network({'frames': _frames(), 'num_frames': num_frames})
  for k in range(len(_NUM_FRAMES)):
    alone = network(
      {'frames': _frames()[k : k + 1], 'num_frames': num_frames[k : k + 1]}
    )
    for name, value in alone.items():
      np.testing.assert_allclose(together[name][k : k + 1], value, rtol=1e-6, atol=1e-6)


def test_no_videos():
  outputs = _network()(
    {'frames': tf.zeros([0, _FRAMES, _FEATURES]), 'num_frames': tf.zeros([0], tf.int32)}
  )
  assert outputs['representation'].shape == [0, 8]
  assert outputs['states'].shape == [0, _CHUNKS, 8]


@pytest.mark.parametrize(
  'chunks, near', [(5, '4 or 6'), (0, '1 or 2'), (24, '6 or 12')]
)
def test_chunks_must_divide(chunks, near):
  with pytest.raises(
    ValueError, match=f'^chunks is {chunks}: .* 12 frames .* {near}.$'
  ):
    _network(chunks=chunks)


def test_registered_with_the_garden():
  backbone = factory.build_backbone(
    _specs(),
    _config(num_layers=3, static_shapes=True, use_cudnn=False, recompute=True),
    norm_activation_config=None,
    l2_regularizer=tf_keras.regularizers.L2(0.5),
  )
  assert isinstance(backbone, hierarchical_lstm.HierarchicalLstm)
  assert backbone.representation_size == 2 * 3 * 2
  assert backbone.get_config()['static_shapes']
  assert not backbone.get_config()['use_cudnn']
  assert backbone.get_config()['recompute']
  kernels = [*backbone.lower.kernels, *backbone.upper.kernels]
  assert len(kernels) == 6
  np.testing.assert_allclose(
    tf.add_n(backbone.losses),
    0.5 * sum(np.sum(k.numpy() ** 2) for k in kernels),
    rtol=1e-5,
  )


def test_config_round_trip():
  backbone = hierarchical_lstm.HierarchicalLstm(
    _specs(),
    chunks=6,
    num_cells=3,
    num_layers=1,
    static_shapes=True,
    kernel_regularizer=tf_keras.regularizers.L2(0.5),
    tile=4,
    use_cudnn=False,
    recompute=True,
    name='some',
  )
  again = tf_keras.layers.deserialize(tf_keras.layers.serialize(backbone))
  assert isinstance(again, hierarchical_lstm.HierarchicalLstm)
  assert again.get_config() == backbone.get_config()
  assert [w.shape for w in again.weights] == [w.shape for w in backbone.weights]
  assert len(again.losses) == 2


def test_parameters_of_the_paper():
  # Variables of a graph take no memory before a session initialises them.
  with tf.Graph().as_default():
    backbone = hierarchical_lstm.HierarchicalLstm(_specs(300, 1152))
    sizes = [stack.count_params() for stack in (backbone.lower, backbone.upper)]
    shapes = [
      k.shape.as_list() for k in backbone.lower.kernels + backbone.upper.kernels
    ]
  assert sizes == [17_309_696, 29_368_320]
  assert shapes == [[2176, 4096], [2048, 4096], [5120, 4096], [2048, 4096]]
