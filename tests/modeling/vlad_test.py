"""NetVLAD and NeXtVLAD against plain loops, and what holds for both.

B videos, T frames, D features, K clusters, G groups.
"""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import vlad_cases

from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import distiller
from yt8m_distill.modeling.backbones import netvlad

_BOTH = pytest.mark.parametrize('kind', ['netvlad', 'nextvlad'])


def _array(weight):
  return weight.numpy().astype(np.float64)


def _norm(layer, x):
  """Batch normalization outside of training."""
  return _array(layer.gamma) * (x - _array(layer.moving_mean)) / np.sqrt(
    _array(layer.moving_variance) + layer.epsilon
  ) + _array(layer.beta)


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
  return np.concatenate(descriptors) @ _array(network.projection.kernel) + _array(
    network.projection.bias
  )


def _plain_nextvlad(network, video):
  """Likewise; a group's assignment and attention see the whole frame."""
  descriptors = []
  for pool, part in zip(network.pools, _parts(video)):
    centres = _array(pool.centres)
    clusters, size = centres.shape
    residuals = np.zeros_like(centres)
    for frame in part:
      wide = frame @ _array(pool.expand.kernel) + _array(pool.expand.bias)
      attention = 1 / (
        1 + np.exp(-wide @ _array(pool.attend.kernel) - _array(pool.attend.bias))
      )
      logits = _norm(pool.assign_norm, wide @ _array(pool.assign.kernel))
      for g, attends in enumerate(attention):
        shares = _softmax(logits[g * clusters : (g + 1) * clusters])
        for k, share in enumerate(shares):
          residuals[k] += (
            attends * share * (wide[g * size : (g + 1) * size] - centres[k])
          )
    descriptors.append(_norm(pool.norm, np.concatenate([_unit(r) for r in residuals])))
  return _norm(
    network.norm, np.concatenate(descriptors) @ _array(network.projection.kernel)
  )


def _parts(video):
  return np.split(video, np.cumsum(vlad_cases.SIZES)[:-1], axis=-1)


@pytest.mark.parametrize(
  'kind,plain', [('netvlad', _plain_netvlad), ('nextvlad', _plain_nextvlad)]
)
def test_equals_plain_loops(kind, plain):
  network, inputs = vlad_cases.network_of(kind), vlad_cases.inputs_of()
  outputs = network(inputs)['representation']
  assert outputs.dtype == tf.float32
  for video, end, ours in zip(inputs['frames'], vlad_cases.NUM_FRAMES, outputs):
    np.testing.assert_allclose(
      ours, plain(network, _array(video)[:end]), rtol=1e-4, atol=1e-5
    )


@_BOTH
def test_more_padding_changes_nothing(kind):
  """Neither outputs and gradients of training nor moving averages."""
  results = []
  for frames in (vlad_cases.FRAMES, 3 * vlad_cases.FRAMES):
    network = vlad_cases.network_of(kind, frames)
    results.append(
      (
        vlad_cases.with_gradients(network, vlad_cases.inputs_of(frames)),
        network.get_weights(),
      )
    )
  tf.nest.map_structure(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *results
  )


@_BOTH
def test_neighbours_change_nothing(kind):
  network = vlad_cases.network_of(kind)
  together = network(vlad_cases.inputs_of())['representation']
  for k in range(len(vlad_cases.NUM_FRAMES)):
    alone = network(vlad_cases.inputs_of(videos=slice(k, k + 1)))['representation']
    np.testing.assert_allclose(together[k : k + 1], alone, rtol=1e-5, atol=1e-6)


@_BOTH
@pytest.mark.parametrize('videos', [slice(0), slice(1)], ids=['none', 'empty'])
def test_no_videos_and_no_frames(kind, videos):
  """Everything stays finite, and moving averages as they are."""
  network = vlad_cases.network_of(kind)
  before = network.get_weights()
  inputs = vlad_cases.inputs_of(videos=videos)
  outputs, gradients = vlad_cases.with_gradients(network, inputs)
  assert outputs.shape == [len(vlad_cases.NUM_FRAMES[videos]), 5]
  assert all(np.isfinite(value).all() for value in (outputs, *gradients))
  tf.nest.map_structure(np.testing.assert_array_equal, network.get_weights(), before)
  assert np.isfinite(network(inputs)['representation']).all()


@_BOTH
def test_gradient_reaches_every_weight(kind):
  network = vlad_cases.network_of(kind)
  _, gradients = vlad_cases.with_gradients(network, vlad_cases.inputs_of())
  for weight, gradient in zip(network.trainable_weights, gradients):
    assert np.isfinite(gradient).all() and np.any(gradient), weight.name
  assert len(network.trainable_weights) == {'netvlad': 12, 'nextvlad': 23}[kind]


@pytest.mark.end_to_end
@_BOTH
def test_flops_equal_the_graphs(kind):
  """Of all matrix products over one video.

  TensorFlow's profiler miscounts those that transpose.
  """
  with tf.Graph().as_default() as graph:
    network = vlad_cases.CLASSES[kind](vlad_cases.specs(), **vlad_cases.OPTIONS[kind])
    network(
      {
        'frames': tf.zeros([1, vlad_cases.FRAMES, sum(vlad_cases.SIZES)]),
        'num_frames': tf.constant([vlad_cases.FRAMES]),
      }
    )
  flops = 0
  for op in graph.get_operations():
    if 'MatMul' in op.type:
      transposed = op.get_attr(
        'adj_x' if op.type.startswith('Batch') else 'transpose_a'
      )
      flops += (
        2
        * op.outputs[0].shape.num_elements()
        * op.inputs[0].shape[-2 if transposed else -1]
      )
  assert network.flops() == flops


def _mixed(kind):
  before = tf_keras.mixed_precision.global_policy()
  tf_keras.mixed_precision.set_global_policy('mixed_bfloat16')
  try:
    return vlad_cases.network_of(kind)
  finally:
    tf_keras.mixed_precision.set_global_policy(before)


@_BOTH
def test_mixed_precision(kind):
  """Within 5 % of the largest value; all weights and results are float32."""
  network = _mixed(kind)
  ours = network(vlad_cases.inputs_of())['representation']
  theirs = vlad_cases.network_of(kind)(vlad_cases.inputs_of())['representation']
  assert {w.dtype for w in network.weights} == {tf.float32} == {ours.dtype}
  assert 0 < np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()
  outputs, gradients = vlad_cases.with_gradients(network, vlad_cases.inputs_of())
  assert all(np.isfinite(value).all() for value in (outputs, *gradients))


@_BOTH
def test_config_round_trip(kind):
  more = {}
  if kind == 'nextvlad':
    more = {'dropout': 0.25, 'eigenvalues': [2.0] * 8}
  network = vlad_cases.network_of(
    kind, kernel_regularizer=tf_keras.regularizers.L2(0.5), name='some', **more
  )
  again = tf_keras.layers.deserialize(tf_keras.layers.serialize(network))
  assert again.get_config() == network.get_config()
  again.set_weights(network.get_weights())
  np.testing.assert_array_equal(
    again(vlad_cases.inputs_of())['representation'],
    network(vlad_cases.inputs_of())['representation'],
  )
  assert len(again.losses) == 1


@pytest.mark.end_to_end
@_BOTH
def test_saved_model(kind, tmp_path):
  network = vlad_cases.network_of(kind)
  inputs = vlad_cases.inputs_of()
  function = tf.function(lambda **values: network(values, training=False))
  signature = function.get_concrete_function(
    **{
      name: tf.TensorSpec([None, *value.shape[1:]], value.dtype, name)
      for name, value in inputs.items()
      if name != 'seed'
    }
  )
  module = tf.Module()
  module.variables_ = network.weights  # Without Keras' own traces.
  tf.saved_model.save(module, str(tmp_path), signatures=signature)
  del inputs['seed']
  outputs = tf.saved_model.load(str(tmp_path)).signatures['serving_default'](**inputs)
  np.testing.assert_allclose(
    outputs['representation'], network(inputs)['representation'], rtol=1e-5, atol=1e-6
  )


def test_one_feature_without_a_list():
  specs = vlad_cases.specs()
  del specs['features']
  network = netvlad.NetVlad(specs, clusters=1, hidden=5)
  assert len(network.pools) == 1 and network.pools[0].output_size == 12


@_BOTH
def test_registered_with_the_garden(kind):
  backbone = vlad_cases.build(kind)
  assert isinstance(backbone, vlad_cases.CLASSES[kind])
  assert backbone.representation_size == 5
  assert [pool.output_size for pool in backbone.pools] == {
    'netvlad': [4 * 8, 2 * 4],
    'nextvlad': [4 * 4, 2 * 4],
  }[kind]
  np.testing.assert_allclose(
    tf.add_n(backbone.losses),
    0.5 * np.sum(backbone.projection.kernel.numpy() ** 2),
    rtol=1e-5,
  )


@pytest.mark.parametrize(
  'kind,options,message',
  [
    ('netvlad', {'clusters': 1}, 'clusters is 1.*at least 2'),
    ('nextvlad', {'groups': 1}, 'groups is 1.*at least 2'),
    ('nextvlad', {'groups': 6}, 'groups is 6 for a feature of 8 .*divide.*16'),
  ],
)
def test_option_errors(kind, options, message):
  with pytest.raises(ValueError, match=message):
    vlad_cases.network_of(kind, **options)


@_BOTH
def test_teacher_and_student(kind):
  """Both are trained side by side by the Distiller."""
  options = dict(vlad_cases.OPTIONS[kind])
  if 'dropout' in options:
    options['dropout'] = 0.5  # With seeds that the Distiller hands on.

  def network(frames):
    return model_config.Network(
      frames=frames, backbone=model_config.Backbone({'type': kind, kind: options})
    )

  pair = distiller.build(
    model_config.DistillerModel(
      features=[data.Feature(name='rgb', size=8), data.Feature(name='audio', size=4)],
      max_frames=vlad_cases.FRAMES,
      num_classes=3,
      teacher=network(model_config.FrameSelection()),
      student=network(
        model_config.FrameSelection(
          type='uniform', uniform=model_config.UniformFrames(every_n=2)
        )
      ),
    )
  )
  inputs = {
    **vlad_cases.inputs_of(),
    'frames': tf.ones([4, vlad_cases.FRAMES, 12], tf.uint8),
  }
  with tf.GradientTape() as tape:
    outputs = pair(inputs, training=True)
    loss = tf.add_n([tf.reduce_sum(value['predictions']) for value in outputs.values()])
  assert all(np.isfinite(g).all() for g in tape.gradient(loss, pair.trainable_weights))
  assert pair.student.flops() < pair.teacher.flops()
