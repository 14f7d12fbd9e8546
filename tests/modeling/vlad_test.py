"""NetVLAD and NeXtVLAD against plain loops, and what holds for both.

B videos, T frames, D features, K clusters, G groups.
"""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from official.vision.modeling.backbones import factory
from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import distiller
from yt8m_distill.modeling import frames as frames_lib
from yt8m_distill.modeling import video_classifier
from yt8m_distill.modeling.backbones import netvlad
from yt8m_distill.modeling.backbones import nextvlad

_FRAMES, _SIZES = 6, (8, 4)
_NUM_FRAMES = np.array([0, 1, 4, 6], np.int32)
_OPTIONS = {
    'netvlad': dict(clusters=4, hidden=5),
    'nextvlad': dict(clusters=4, groups=4, expansion=2, hidden=5, dropout=0.0),
}
_CLASSES = {'netvlad': netvlad.NetVlad, 'nextvlad': nextvlad.NextVlad}
_BOTH = pytest.mark.parametrize('kind', ['netvlad', 'nextvlad'])


def _specs(frames=_FRAMES, sizes=_SIZES):
  spec = lambda size: tf_keras.layers.InputSpec(shape=[None, frames, size])
  return {'frames': spec(sum(sizes)),
          'features': [spec(size) for size in sizes]}


def _network(kind, frames=_FRAMES, **options):
  network = _CLASSES[kind](_specs(frames), **{**_OPTIONS[kind], **options})
  rng = np.random.default_rng(0)
  network.set_weights(
      [rng.uniform(0.5, 1.5, w.shape) if 'variance' in w.name
       else rng.normal(size=w.shape) for w in network.weights])
  return network


def _inputs(frames=_FRAMES, videos=slice(None)):
  rng = np.random.default_rng(1)
  x = rng.normal(size=[len(_NUM_FRAMES), _FRAMES, sum(_SIZES)]).astype('f')
  x = np.pad(x, [(0, 0), (0, frames - _FRAMES), (0, 0)])[videos]
  return {'frames': frames_lib.preprocess(tf.constant(x),
                                          tf.constant(_NUM_FRAMES[videos])),
          'num_frames': tf.constant(_NUM_FRAMES[videos]),
          'seed': tf.range(len(_NUM_FRAMES))[videos]}


def _gradients(network, inputs, training=True):
  with tf.GradientTape() as tape:
    outputs = network(inputs, training=training)['representation']
    loss = tf.reduce_sum(
        outputs * np.random.default_rng(2).normal(size=[5]))
  return outputs, tape.gradient(loss, network.trainable_weights)


def _array(weight):
  return weight.numpy().astype(np.float64)


def _norm(layer, x):
  """Batch normalisation outside of training."""
  return (_array(layer.gamma) * (x - _array(layer.moving_mean)) /
          np.sqrt(_array(layer.moving_variance) + layer.epsilon) +
          _array(layer.beta))


def _softmax(x):
  return np.exp(x) / np.exp(x).sum()


def _unit(x):
  return x / np.sqrt(max(np.square(x).sum(), 1e-12))


def _plain_netvlad(network, video):
  """Descriptors of the frames [n, D] of a video, all of them real."""
  descriptors = []
  for pool, part in zip(network.pools, _parts(_norm(network.norm, video))):
    centres = _array(pool.centres)
    residuals = np.zeros_like(centres)
    for frame in part:
      shares = _softmax(_norm(pool.norm, frame @ _array(pool.assign.kernel)))
      for k, share in enumerate(shares):
        residuals[k] += share * (frame - centres[k])
    descriptors.append(_unit(np.concatenate([_unit(r) for r in residuals])))
  return (np.concatenate(descriptors) @ _array(network.projection.kernel) +
          _array(network.projection.bias))


def _plain_nextvlad(network, video):
  """Likewise; a group's assignment and attention see the whole frame."""
  descriptors = []
  for pool, part in zip(network.pools, _parts(video)):
    centres = _array(pool.centres)
    clusters, size = centres.shape
    residuals = np.zeros_like(centres)
    for frame in part:
      wide = frame @ _array(pool.expand.kernel) + _array(pool.expand.bias)
      attention = 1 / (1 + np.exp(
          -wide @ _array(pool.attend.kernel) - _array(pool.attend.bias)))
      logits = _norm(pool.assign_norm, wide @ _array(pool.assign.kernel))
      for g, attends in enumerate(attention):
        shares = _softmax(logits[g * clusters:(g + 1) * clusters])
        for k, share in enumerate(shares):
          residuals[k] += attends * share * (
              wide[g * size:(g + 1) * size] - centres[k])
    descriptors.append(
        _norm(pool.norm, np.concatenate([_unit(r) for r in residuals])))
  return _norm(network.norm, np.concatenate(descriptors) @ _array(
      network.projection.kernel))


def _parts(video):
  return np.split(video, np.cumsum(_SIZES)[:-1], axis=-1)


@pytest.mark.parametrize('kind,plain', [
    ('netvlad', _plain_netvlad), ('nextvlad', _plain_nextvlad)])
def test_equals_plain_loops(kind, plain):
  network, inputs = _network(kind), _inputs()
  outputs = network(inputs)['representation']
  assert outputs.dtype == tf.float32
  for video, end, ours in zip(inputs['frames'], _NUM_FRAMES, outputs):
    np.testing.assert_allclose(
        ours, plain(network, _array(video)[:end]), rtol=1e-4, atol=1e-5)


@_BOTH
def test_more_padding_changes_nothing(kind):
  """Neither outputs and gradients of training nor moving averages."""
  results = []
  for frames in (_FRAMES, 3 * _FRAMES):
    network = _network(kind, frames)
    results.append((_gradients(network, _inputs(frames)),
                    network.get_weights()))
  tf.nest.map_structure(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      *results)


@_BOTH
def test_neighbours_change_nothing(kind):
  network = _network(kind)
  together = network(_inputs())['representation']
  for k in range(len(_NUM_FRAMES)):
    alone = network(_inputs(videos=slice(k, k + 1)))['representation']
    np.testing.assert_allclose(together[k:k + 1], alone, rtol=1e-5, atol=1e-6)


@_BOTH
@pytest.mark.parametrize('videos', [slice(0), slice(1)], ids=['none', 'empty'])
def test_no_videos_and_no_frames(kind, videos):
  """Everything stays finite, and moving averages as they are."""
  network = _network(kind)
  before = network.get_weights()
  outputs, gradients = _gradients(network, _inputs(videos=videos))
  assert outputs.shape == [len(_NUM_FRAMES[videos]), 5]
  assert all(np.isfinite(value).all() for value in (outputs, *gradients))
  tf.nest.map_structure(
      np.testing.assert_array_equal, network.get_weights(), before)
  assert np.isfinite(network(_inputs(videos=videos))['representation']).all()


def test_empty_video_leaves_the_others_statistics_alone():
  """Rows without frames are no descriptors."""
  results = []
  for videos in (slice(None), slice(1, None)):
    network = _network('nextvlad')
    outputs, _ = _gradients(network, _inputs(videos=videos))
    results.append((outputs[-3:], network.get_weights()))
  tf.nest.map_structure(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      *results)


@_BOTH
def test_gradient_reaches_every_weight(kind):
  network = _network(kind)
  _, gradients = _gradients(network, _inputs())
  for weight, gradient in zip(network.trainable_weights, gradients):
    assert np.isfinite(gradient).all() and np.any(gradient), weight.name
  assert len(network.trainable_weights) == {'netvlad': 12, 'nextvlad': 23}[kind]


@_BOTH
def test_flops_equal_the_graphs(kind):
  """Of all matrix products over one video.

  TensorFlow's profiler miscounts those that transpose.
  """
  with tf.Graph().as_default() as graph:
    network = _CLASSES[kind](_specs(), **_OPTIONS[kind])
    network({'frames': tf.zeros([1, _FRAMES, sum(_SIZES)]),
             'num_frames': tf.constant([_FRAMES])})
  flops = 0
  for op in graph.get_operations():
    if 'MatMul' in op.type:
      transposed = op.get_attr(
          'adj_x' if op.type.startswith('Batch') else 'transpose_a')
      flops += (2 * op.outputs[0].shape.num_elements() *
                op.inputs[0].shape[-2 if transposed else -1])
  assert network.flops() == flops


def test_flops_of_the_paper():
  """Multiply-adds at 300 frames: 1.377 G before the linear layer."""
  with tf.Graph().as_default():
    network = nextvlad.NextVlad(_specs(300, (1024, 128)))
    before = network.flops() / 2 - (256 * 128 + 64 * 64) * 2048
  assert round(before / 1e9, 3) == 1.377


def _mixed(kind):
  before = tf_keras.mixed_precision.global_policy()
  tf_keras.mixed_precision.set_global_policy('mixed_bfloat16')
  try:
    return _network(kind)
  finally:
    tf_keras.mixed_precision.set_global_policy(before)


@_BOTH
def test_mixed_precision(kind):
  """Within 5 % of the largest value; all weights and results are float32."""
  network = _mixed(kind)
  ours = network(_inputs())['representation']
  theirs = _network(kind)(_inputs())['representation']
  assert {w.dtype for w in network.weights} == {tf.float32} == {ours.dtype}
  assert 0 < np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()
  outputs, gradients = _gradients(network, _inputs())
  assert all(np.isfinite(value).all() for value in (outputs, *gradients))


@_BOTH
def test_config_round_trip(kind):
  more = {}
  if kind == 'nextvlad':
    more = {'dropout': 0.25, 'eigenvalues': [2.0] * 8}
  network = _network(
      kind, kernel_regularizer=tf_keras.regularizers.L2(0.5), name='some',
      **more)
  again = tf_keras.layers.deserialize(tf_keras.layers.serialize(network))
  assert again.get_config() == network.get_config()
  again.set_weights(network.get_weights())
  np.testing.assert_array_equal(again(_inputs())['representation'],
                                network(_inputs())['representation'])
  assert len(again.losses) == 1


@_BOTH
def test_saved_model(kind, tmp_path):
  network = _network(kind)
  inputs = _inputs()
  function = tf.function(lambda **values: network(values, training=False))
  signature = function.get_concrete_function(**{
      name: tf.TensorSpec([None, *value.shape[1:]], value.dtype, name)
      for name, value in inputs.items() if name != 'seed'})
  module = tf.Module()
  module.variables_ = network.weights  # Without Keras' own traces.
  tf.saved_model.save(module, str(tmp_path), signatures=signature)
  del inputs['seed']
  outputs = tf.saved_model.load(str(tmp_path)).signatures['serving_default'](
      **inputs)
  np.testing.assert_allclose(outputs['representation'],
                             network(inputs)['representation'], rtol=1e-5,
                             atol=1e-6)


def test_one_feature_without_a_list():
  specs = _specs()
  del specs['features']
  network = netvlad.NetVlad(specs, clusters=1, hidden=5)
  assert len(network.pools) == 1 and network.pools[0].output_size == 12


def test_dropout_by_video():
  network = _network('nextvlad', dropout=0.5)
  full = _network('nextvlad')
  np.testing.assert_array_equal(network(_inputs())['representation'],
                                full(_inputs())['representation'])
  inputs = _inputs()
  first = network(inputs, training=True)['representation']
  np.testing.assert_array_equal(
      first, network(inputs, training=True)['representation'])
  assert not np.allclose(
      first, full(inputs, training=True)['representation'])
  inputs['seed'] += 4
  assert not np.allclose(
      first, network(inputs, training=True)['representation'])


def _pca(path, values):
  np.save(path, values)
  return str(path)


def _build(kind, **options):
  return factory.build_backbone(
      _specs(),
      model_config.Backbone(
          {'type': kind, kind: {**_OPTIONS[kind], **options}}),
      norm_activation_config=None,
      l2_regularizer=tf_keras.regularizers.L2(0.5))


@_BOTH
def test_registered_with_the_garden(kind):
  backbone = _build(kind)
  assert isinstance(backbone, _CLASSES[kind])
  assert backbone.representation_size == 5
  assert [pool.output_size for pool in backbone.pools] == {
      'netvlad': [4 * 8, 2 * 4], 'nextvlad': [4 * 4, 2 * 4]}[kind]
  np.testing.assert_allclose(
      tf.add_n(backbone.losses),
      0.5 * np.sum(backbone.projection.kernel.numpy()**2), rtol=1e-5)


def test_whitening_is_undone(tmp_path):
  """As if frames had been unwhitened before they were normalised."""
  values = np.linspace(9.0, 1.0, 10)[:, None]
  backbone = _build(
      'nextvlad', eigenvalues=_pca(tmp_path / 'eigenvals.npy', values))
  (tmp_path / 'eigenvals.npy').unlink()  # It is part of the model now.
  plain = _build('nextvlad')
  plain.set_weights(backbone.get_weights())
  raw = np.random.default_rng(3).normal(size=[4, _FRAMES, 12]).astype('f')
  scaled = raw.copy()
  scaled[..., :8] *= np.sqrt(values[:8, 0] + 1e-4)
  num_frames = tf.constant(_NUM_FRAMES)
  run = lambda network, frames: network({
      'frames': frames_lib.preprocess(tf.constant(frames), num_frames),
      'num_frames': num_frames})['representation']
  np.testing.assert_allclose(run(backbone, raw), run(plain, scaled), rtol=1e-5,
                             atol=1e-6)
  assert not np.allclose(run(backbone, raw), run(plain, raw))


@pytest.mark.parametrize('values,message', [
    (None, 'which does not exist'), ('text', 'no .npy file'),
    (np.ones([7, 1]), r'array \[7, 1\], where the first feature has 8'),
    (np.ones([8, 8]), r'array \[8, 8\]'), (np.float32(1.0), r'array \[\]'),
    (np.full([8], -1.0), 'negative'), (np.full([8], np.nan), 'NaN')])
def test_eigenvalue_errors(tmp_path, values, message):
  path = tmp_path / 'some.npy'
  if isinstance(values, str):
    path.write_text(values)
  elif values is not None:
    np.save(path, values)
  with pytest.raises(ValueError, match=f'some.npy.*{message}.*yt8m_pca'):
    _build('nextvlad', eigenvalues=str(path))


@pytest.mark.parametrize('kind,options,message', [
    ('netvlad', {'clusters': 1}, 'clusters is 1.*at least 2'),
    ('netvlad', {'hidden': 0}, 'hidden is 0.*at least 1'),
    ('nextvlad', {'groups': 1}, 'groups is 1.*at least 2'),
    ('nextvlad', {'groups': 6}, 'groups is 6 for a feature of 8 .*divide.*16'),
    ('nextvlad', {'expansion': 0}, 'expansion is 0.*at least 1'),
    ('nextvlad', {'dropout': 1.0}, 'dropout is 1.0.*below 1')])
def test_option_errors(kind, options, message):
  with pytest.raises(ValueError, match=message):
    _network(kind, **options)


@_BOTH
def test_teacher_and_student(kind):
  """Both are trained side by side by the Distiller."""
  options = dict(_OPTIONS[kind])
  if 'dropout' in options:
    options['dropout'] = 0.5  # With seeds that the Distiller hands on.
  network = lambda frames: model_config.Network(
      frames=frames, backbone=model_config.Backbone(
          {'type': kind, kind: options}))
  pair = distiller.build(model_config.DistillerModel(
      features=[data.Feature(name='rgb', size=8),
                data.Feature(name='audio', size=4)],
      max_frames=_FRAMES, num_classes=3,
      teacher=network(model_config.FrameSelection()),
      student=network(model_config.FrameSelection(
          type='uniform', uniform=model_config.UniformFrames(every_n=2)))))
  inputs = {**_inputs(), 'frames': tf.ones([4, _FRAMES, 12], tf.uint8)}
  with tf.GradientTape() as tape:
    outputs = pair(inputs, training=True)
    loss = tf.add_n([tf.reduce_sum(value['predictions'])
                     for value in outputs.values()])
  assert all(np.isfinite(g).all()
             for g in tape.gradient(loss, pair.trainable_weights))
  assert pair.student.flops() < pair.teacher.flops()
