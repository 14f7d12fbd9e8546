"""The whole networks: VideoClassifier and Distiller.

B videos, T frames, D features, V classes.
"""

import json

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import distiller
from yt8m_distill.modeling import video_classifier
from yt8m_distill.modeling.backbones import base
from yt8m_distill.modeling.heads import moe
from yt8m_distill.utils import cli

_FRAMES, _FEATURES, _CLASSES = 12, 6, 5
_NUM_FRAMES = np.array([12, 1, 7, 0, 3], np.int32)


def _network(every_n, chunks, **sizes):
  frames = model_config.FrameSelection()
  if every_n:
    frames = model_config.FrameSelection(
      type='uniform', uniform=model_config.UniformFrames(every_n=every_n)
    )
  return model_config.Network(
    frames=frames,
    backbone=model_config.Backbone(
      hierarchical_lstm=model_config.HierarchicalLstm(
        chunks=chunks, **{'num_cells': 3, **sizes}
      )
    ),
  )


def _config(every_n=3, student_chunks=2):
  return model_config.DistillerModel(
    features=[
      data.Feature(name='rgb', size=_FEATURES - 2),
      data.Feature(name='audio', size=2),
    ],
    max_frames=_FRAMES,
    num_classes=_CLASSES,
    teacher=_network(None, 4),
    student=_network(every_n, student_chunks),
  )


def _randomize(model, seed=0):
  rng = np.random.default_rng(seed)
  model.set_weights([rng.normal(scale=0.5, size=w.shape) for w in model.weights])
  return model


def _inputs(num_frames=_NUM_FRAMES):
  rng = np.random.default_rng(1)
  shape = (len(num_frames), _FRAMES, _FEATURES)
  return {
    'frames': tf.constant(rng.integers(256, size=shape), tf.uint8),
    'num_frames': tf.constant(num_frames, tf.int32),
  }


def _text(config):
  return json.dumps(config, sort_keys=True)


def _check_equal(ours, theirs, tolerance=0.0):
  tf.nest.map_structure(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
    ours,
    theirs,
  )


@pytest.fixture(scope='module')
def pair():
  return _randomize(distiller.build(_config()))


def test_outputs(pair):
  outputs = pair(_inputs())
  for name, chunks in (('teacher', 4), ('student', 2)):
    shapes = {k: v.shape.as_list() for k, v in outputs[name].items()}
    assert shapes == {
      'predictions': [5, _CLASSES],
      'representation': [5, 12],
      'states': [5, chunks, 12],
    }
  assert not np.any(outputs['teacher']['representation'][3])  # has no frames
  together = pair.teacher.count_params() + pair.student.count_params()
  assert pair.count_params() == together


@pytest.mark.parametrize('every_n, chunks', [(3, 2), (5, 3), (12, 1)])
def test_student_sees_every_nth_frame(every_n, chunks):
  pair = _randomize(distiller.build(_config(every_n, chunks)))
  inputs = _inputs()
  outputs = pair(inputs)
  alone = pair.student(
    {
      'frames': inputs['frames'][:, ::every_n],
      'num_frames': tf.constant(np.ceil(_NUM_FRAMES / every_n), tf.int32),
    }
  )
  _check_equal(outputs['student'], alone)
  _check_equal(outputs['teacher'], pair.teacher(inputs))


def test_student_of_all_frames_with_the_teachers_weights_is_the_teacher():
  pair = _randomize(distiller.build(_config(every_n=1, student_chunks=4)))
  assert not np.array_equal(
    *(pair(_inputs())[name]['predictions'] for name in ('teacher', 'student'))
  )
  pair.student.set_weights(pair.teacher.get_weights())
  outputs = pair(_inputs())
  _check_equal(outputs['student'], outputs['teacher'])


def test_no_videos(pair):
  outputs = pair(_inputs(np.zeros([0], np.int32)), training=True)
  assert outputs['student']['predictions'].shape == [0, _CLASSES]
  assert outputs['teacher']['states'].shape == [0, 4, 12]


@pytest.mark.parametrize('which', ['pair', 'teacher', 'student'])
def test_config_round_trip(pair, which):
  model = pair if which == 'pair' else getattr(pair, which)
  again = type(model).from_config(model.get_config())
  # As text: a shape may come back as a list where it was a tuple.
  assert _text(again.get_config()) == _text(model.get_config())
  again.set_weights(model.get_weights())
  inputs = _inputs()
  if which == 'student':
    inputs = {
      'frames': inputs['frames'][:, ::3],
      'num_frames': -(-inputs['num_frames'] // 3),
    }
  _check_equal(again(inputs), model(inputs))


@pytest.mark.end_to_end
def test_saved_model(pair, tmp_path):
  path = str(tmp_path / 'model')
  network = pair.teacher

  @tf.function(
    autograph=False,
    input_signature=[
      tf.TensorSpec([None, _FRAMES, _FEATURES], tf.uint8, name='frames'),
      tf.TensorSpec([None], tf.int32, name='num_frames'),
    ],
  )
  def serve(frames, num_frames):
    return network({'frames': frames, 'num_frames': num_frames})

  # Without the Keras object itself, which would be traced once more.
  module = tf.Module()
  module.variables_of_network, module.serve = network.variables, serve
  tf.saved_model.save(module, path, signatures=serve)
  run = tf.saved_model.load(path).signatures['serving_default']
  for num_frames in (_NUM_FRAMES, [12], [1], [0], []):
    inputs = _inputs(np.array(num_frames, np.int32))
    _check_equal(run(**inputs), network(inputs), 1e-6)


@pytest.mark.parametrize('which', ['pair', 'teacher'])
def test_keras_file(pair, tmp_path, which):
  model = pair if which == 'pair' else pair.teacher
  path = str(tmp_path / 'model.keras')
  model.save(path)
  again = tf_keras.models.load_model(path)
  for num_frames in (_NUM_FRAMES, [12], [1]):
    inputs = _inputs(np.array(num_frames, np.int32))
    _check_equal(again(inputs), model(inputs), 1e-6)


def test_checkpoint(pair, tmp_path):
  path = tf.train.Checkpoint(model=pair).save(str(tmp_path / 'ckpt'))
  again = distiller.build(_config())
  before = again(_inputs())['student']['predictions']
  tf.train.Checkpoint(model=again).read(path).assert_existing_objects_matched()
  _check_equal(again(_inputs()), pair(_inputs()))
  assert not np.allclose(before, again(_inputs())['student']['predictions'])


def _unrolled_flops(network, steps):
  """Float operations of all MatMul nodes of a plain graph of one video."""
  lower, upper, head = (network.backbone.lower, network.backbone.upper, network.head)

  def run(stack, sequence):
    state = []
    for kernel in stack.kernels:
      cells = kernel.shape[1] // 4
      c = h = tf.zeros([1, cells])
      outputs = []
      for step in sequence:
        i, f, g, o = tf.split(tf.concat([step, h], 1) @ tf.zeros(kernel.shape), 4, 1)
        c = f * c + i * g
        h = o * c
        outputs.append(h)
      sequence = outputs
      state += [c, h]
    return tf.concat(state, 1)

  with tf.Graph().as_default() as graph:
    frames = tf.compat.v1.placeholder(tf.float32, [steps, 1, _FEATURES])
    video = tf.unstack(frames)
    length = steps // network.backbone.get_config()['chunks']
    state = run(
      upper, [run(lower, video[k : k + length]) for k in range(0, steps, length)]
    )
    for layer in (head.gates, head.experts):
      state @ tf.zeros(layer.kernel.shape)
  options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
  options['output'] = 'none'
  node = tf.compat.v1.profiler.profile(graph, cmd='op', options=options)
  while node.name != 'MatMul':
    (node,) = node.children
  return node.float_ops


@pytest.mark.parametrize('who, frames', [('teacher', 12), ('student', 4)])
def test_flops_equal_the_profilers(pair, who, frames):
  network = getattr(pair, who)
  assert network.flops() == _unrolled_flops(network, frames)


def test_flops_of_the_paper():
  """From its code: 5.87 and 0.762 G multiply-adds, a saving of 87 %."""
  # Variables of a graph take no memory before a session initialises them.
  with tf.Graph().as_default():
    pair = distiller.build(model_config.DistillerModel(num_classes=4716))
    teacher, student = pair.teacher.flops() / 2, pair.student.flops() / 2
    parameters = pair.teacher.count_params()

  def cell(inputs):
    return (inputs + 1024) * 4096

  lower, upper = cell(1152) + cell(1024), cell(4096) + cell(1024)
  head = 4096 * 4716 * (3 + 2)
  assert teacher == 300 * lower + 20 * upper + head
  assert student == 30 * lower + 5 * upper + head
  assert round(teacher / 1e9, 2) == 5.87 and round(student / 1e9, 3) == 0.762
  assert parameters == 143_271_128


@pytest.fixture
def mixed_bfloat16():
  before = tf_keras.mixed_precision.global_policy()
  tf_keras.mixed_precision.set_global_policy('mixed_bfloat16')
  yield
  tf_keras.mixed_precision.set_global_policy(before)


def _outputs_and_gradients(model):
  with tf.GradientTape() as tape:
    outputs = model(_inputs(), training=True)
    loss = sum(
      tf.reduce_sum(tf.square(network[name]))
      for network in outputs.values()
      for name in ('predictions', 'representation')
    )
  return outputs, tape.gradient(loss, model.trainable_weights)


def test_mixed_precision(pair, mixed_bfloat16):
  """Half precision is in the matrix products alone: all results are float32.

  Tolerance, relative to a tensor's largest value: 2 % of results and 5 % of
  gradients, where bfloat16 rounds by up to 0.4 % in every product.
  """
  del mixed_bfloat16
  model = distiller.build(_config())
  model.set_weights(pair.get_weights())
  assert {w.dtype for w in model.weights} == {tf.float32}
  outputs, gradients = _outputs_and_gradients(model)
  expected, expected_gradients = _outputs_and_gradients(pair)

  def check(ours, theirs, tolerance):
    assert ours.dtype == tf.float32
    assert np.isfinite(ours).all()
    assert np.abs(ours - theirs).max() < tolerance * np.abs(theirs).max()

  tf.nest.map_structure(lambda a, b: check(a, b, 0.02), outputs, expected)
  for ours, theirs in zip(gradients, expected_gradients):
    check(ours, theirs, 0.05)
  assert not np.array_equal(outputs['teacher']['states'], expected['teacher']['states'])


@pytest.mark.parametrize(
  'network, path',
  [
    (
      model_config.Network(
        head=model_config.Head(
          type='logistic',
          logistic=model_config.Logistic(input_gate='se', se_reduction=9000),
        )
      ),
      'head.logistic.se_reduction',
    ),
    (
      model_config.Network(
        backbone=model_config.Backbone(
          type='nextvlad', nextvlad=model_config.NextVlad(eigenvalues='absent')
        )
      ),
      'backbone.nextvlad.eigenvalues',
    ),
  ],
)
def test_what_only_building_shows_is_named_by_its_path(network, path):
  network.backbone.hierarchical_lstm.num_cells = 2
  config = model_config.ClassifierModel(network=network, num_classes=3)
  with pytest.raises(ValueError, match=f'^task.model.network.{path} is '):
    video_classifier.build(config, network, 'network')


class _Backbone(base.Backbone):
  """Returns what it is told to."""

  def __init__(self, returned, size=4):
    super().__init__(base.input_specs(3, [2]))
    self.built = True
    self._returned = returned
    self._size = size

  def call(self, inputs, training=False):
    return self._returned

  @property
  def representation_size(self):
    return self._size

  def flops(self):
    return 0


@pytest.mark.parametrize(
  'returned, words',
  [
    (tf.zeros([1, 4]), 'EagerTensor: it must return a dictionary with the key'),
    ({'states': tf.zeros([1, 4])}, "'states'.: it must return a dictionary with the"),
    ({'representation': tf.zeros([1, 5])}, r'shape \(1, 5\): it must be \(None, 4\)'),
    ({'representation': tf.zeros([1, 3, 4])}, r'shape \(1, 3, 4\): it must be'),
  ],
)
def test_backbone_that_returns_something_else_is_named(returned, words):
  network = video_classifier.VideoClassifier(_Backbone(returned), moe.MoeHead(2))
  inputs = {'frames': tf.zeros([1, 3, 2]), 'num_frames': tf.constant([3])}
  with pytest.raises(ValueError, match=f'_Backbone.call.*{words}') as error:
    network(inputs)
  assert cli.message(error.value).startswith('_Backbone.call()')


def test_backbone_without_a_size_is_named():
  with pytest.raises(ValueError, match='_Backbone has no property representation_size'):
    video_classifier.VideoClassifier(_Backbone({}, size=None), moe.MoeHead(2))
  nothing = base.Backbone(base.input_specs(3, [2]))
  with pytest.raises(NotImplementedError, match='Backbone has no property represent'):
    video_classifier.VideoClassifier(nothing, moe.MoeHead(2))
  with pytest.raises(NotImplementedError, match='Backbone has no method flops'):
    nothing.flops()


def test_representation_is_float32_whatever_the_backbone_returns():
  returned = {'representation': tf.ones([1, 4], tf.bfloat16), 'states': tf.ones([1])}
  network = video_classifier.VideoClassifier(_Backbone(returned), moe.MoeHead(2))
  outputs = network({'frames': tf.zeros([1, 3, 2]), 'num_frames': tf.constant([3])})
  assert outputs['representation'].dtype == tf.float32
  assert set(outputs) == {'representation', 'states', 'predictions'}
