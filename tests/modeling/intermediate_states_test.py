"""States of both networks at the same frames, in the model and in the task.

B videos, T frames, D features, K frames of the student, R states.
"""

import json

import numpy as np
from official.vision.modeling.backbones import factory
import pytest
import tensorflow as tf
import tf_keras
import tiny

from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import distiller
from yt8m_distill.modeling import losses
from yt8m_distill.tasks import distillation


def _task(losses_override=None, **model):
  return distillation.DistillationTask(
    tiny.experiment(
      {
        'task': {
          'model': model,
          'losses': {'intermediate_weight': 1.0, **(losses_override or {})},
        }
      }
    ).task
  )


def _model(task):
  model = task.create_model()
  tiny.scatter_weights(model)
  return model


def _backbone(**options):
  """One without a head, and its random weights."""
  config = model_config.Backbone(
    hierarchical_lstm=dict(chunks=5, num_cells=3, num_layers=2, **options)
  )
  backbone = factory.build_backbone(
    {'frames': tf_keras.layers.InputSpec(shape=[None, tiny.MAX_FRAMES, 12])},
    config,
    norm_activation_config=None,
  )
  tiny.scatter_weights(backbone)
  return backbone


def _every(rows, count):
  return tf.tile(tf.range(count)[None], [rows, 1])


@pytest.mark.parametrize('static_shapes', [False, True])
def test_states_are_those_of_chunks_that_end_there(static_shapes):
  backbone = _backbone(static_shapes=static_shapes)
  inputs, _ = tiny.batch(3)
  inputs['num_frames'] = tf.constant([20, 0, 6])
  outputs = backbone({**inputs, 'moments': _every(3, 20)})
  assert outputs['moment_states'].shape == [3, 20, 12]
  assert backbone.moment_states_size == 12
  for frame in range(20):
    cut = backbone({**inputs, 'num_frames': tf.constant([frame + 1] * 3)})
    assert 'moment_states' not in cut
    real = (frame < inputs['num_frames'].numpy())[:, None]
    np.testing.assert_allclose(
      outputs['moment_states'][:, frame],
      np.where(real, cut['states'][:, frame // 4], 0),
      rtol=1e-5,
      atol=1e-6,
    )
  alone = backbone(inputs)
  for name, value in alone.items():
    np.testing.assert_array_equal(outputs[name], value)


@pytest.mark.parametrize('length', ['ceil', 'original'])
def test_both_states_are_of_the_students_frames(length):
  model = _model(_task(student={'frames': {'uniform': {'length': length}}}))
  inputs, _ = tiny.batch(4)
  inputs['num_frames'] = tf.constant([20, 1, 0, 11])
  outputs = model(inputs)
  every = model.teacher.backbone({**inputs, 'moments': _every(4, 20)})
  np.testing.assert_array_equal(
    outputs['teacher']['moment_states'], every['moment_states'][:, :: tiny.EVERY_N]
  )
  counts = [4, 1, 0, 3] if length == 'ceil' else [4, 0, 0, 2]
  np.testing.assert_array_equal(outputs['student']['num_moments'], counts)
  seen = {
    'frames': inputs['frames'][:, :: tiny.EVERY_N],
    'num_frames': tf.constant(counts),
  }
  np.testing.assert_array_equal(
    outputs['student']['moment_states'],
    model.student.backbone({**seen, 'moments': _every(4, 4)})['moment_states'],
  )


def test_student_that_is_the_teacher_has_no_loss():
  task = _task(
    student={
      'frames': {'uniform': {'every_n': 1}},
      'backbone': {'hierarchical_lstm': {'chunks': 5}},
    }
  )
  model = _model(task)
  inputs, labels = tiny.batch(5)
  before = task.loss_terms(labels, model(inputs))
  assert np.all(before['student/intermediate_loss'] > 1e-3)
  model.student.set_weights(model.teacher.get_weights())
  after = task.loss_terms(labels, model(inputs, training=True))
  np.testing.assert_array_equal(after['student/intermediate_loss'], np.zeros(5))


def test_padding_changes_nothing():
  task = _task()
  model = _model(task)
  inputs, labels = tiny.batch(5)
  padding = np.arange(tiny.MAX_FRAMES) >= inputs['num_frames'].numpy()[:, None]
  terms = [
    task.loss_terms(
      labels,
      model(
        {
          **inputs,
          'frames': tf.where(
            padding[..., None], tf.cast(garbage, tf.uint8), inputs['frames']
          ),
        }
      ),
    )
    for garbage in (0, 255)
  ]
  np.testing.assert_array_equal(*(term['student/intermediate_loss'] for term in terms))


def _gradients(task, model):
  """Logs of a training step, and what it takes from each variable."""
  before = model.get_weights()
  logs = task.train_step(tiny.batch(5), model, tf_keras.optimizers.legacy.SGD(1.0))
  taken = {
    variable.ref(): old - variable.numpy()
    for variable, old in zip(model.weights, before, strict=True)
  }
  model.set_weights(before)
  return logs, taken


def test_the_students_lower_lstm_alone_learns_from_it():
  model = _model(_task())
  logs, without = _gradients(_task({'intermediate_weight': 0.0}), model)
  assert 'student/intermediate_loss' not in logs
  logs, with_it = _gradients(_task({'intermediate_weight': 3.0}), model)
  lower = {v.ref() for v in model.student.backbone.lower.trainable_variables}
  for variable in model.trainable_variables:
    difference = with_it[variable.ref()] - without[variable.ref()]
    if variable.ref() in lower:
      assert np.abs(difference).max() > 0.01
    else:
      np.testing.assert_array_equal(difference, 0.0)

  inputs, _ = tiny.batch(5)
  with tf.GradientTape() as tape:
    outputs = model(inputs)
    loss = 3.0 * tf.reduce_mean(
      losses.intermediate_loss(
        tf.stop_gradient(outputs['teacher']['moment_states']),
        outputs['student']['moment_states'],
        outputs['student']['num_moments'],
      )
    )
  weights = model.student.backbone.lower.trainable_variables
  for weight, gradient in zip(weights, tape.gradient(loss, weights)):
    np.testing.assert_allclose(
      with_it[weight.ref()] - without[weight.ref()], gradient, rtol=1e-4, atol=1e-5
    )


def test_weight_schedule_and_metrics():
  task = _task(
    {
      'intermediate_weight': 3.0,
      'schedule': {'type': 'linear', 'start': 0.0, 'end': 1.0, 'steps': 4},
    }
  )
  model = _model(task)
  inputs, labels = tiny.batch(5)
  terms = task.loss_terms(labels, model(inputs))
  regularization = task.regularization_terms(model)

  def total(terms, step):
    return task.total_loss(
      terms,
      regularization,
      tf.reduce_mean,
      tf.reduce_sum,
      **task.factors(tf.constant(step)),
    )

  more = {
    **terms,
    'student/intermediate_loss': tf.add(terms['student/intermediate_loss'], 1.0),
  }
  for step, factor in ((0, 0.0), (2, 0.5), (9, 1.0)):
    np.testing.assert_allclose(
      total(more, step) - total(terms, step), 3.0 * factor, rtol=1e-3
    )
  assert 'student/intermediate_loss' in [metric.name for metric in task.build_metrics()]
  evaluated = task.validation_step((inputs, labels), model)
  np.testing.assert_array_equal(
    evaluated['student/intermediate_loss'], terms['student/intermediate_loss']
  )


def test_mixed_bfloat16():
  try:
    tf_keras.mixed_precision.set_global_policy('mixed_bfloat16')
    task = _task()
    logs, gradients = _gradients(task, _model(task))
  finally:
    tf_keras.mixed_precision.set_global_policy('float32')
  assert logs['student/intermediate_loss'].dtype == tf.float32
  assert np.all(np.isfinite(logs['student/intermediate_loss']))
  assert np.all(logs['student/intermediate_loss'] > 0.0)
  assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_no_videos():
  task = _task()
  model = _model(task)
  evaluated = task.validation_step(tiny.batch(0), model)
  assert evaluated['student/intermediate_loss'].shape == [0]


_WIDER = {'backbone': {'hierarchical_lstm': {'num_cells': 6}}}


def test_projection():
  """States of a wider student are mapped to the teacher's."""
  task = _task(student=_WIDER, projection=True)
  model = _model(task)
  logs, gradients = _gradients(task, model)
  assert np.all(np.isfinite(logs['student/intermediate_loss']))
  kernel = model.projections['moment_states'].kernel
  assert kernel.shape == [12, 8]
  assert np.abs(gradients[kernel.ref()]).max() > 0.0
  inputs, _ = tiny.batch(5)
  outputs = model(inputs)
  np.testing.assert_allclose(
    logs['student/intermediate_loss'],
    losses.intermediate_loss(
      outputs['teacher']['moment_states'],
      outputs['student']['moment_states'] @ kernel,
      outputs['student']['num_moments'],
    ),
    rtol=1e-4,
  )


def test_other_width_is_an_error():
  with pytest.raises(
    ValueError,
    match='projection is False, .*moment_states has 12 values and '
    "the teacher's 8.*weight",
  ):
    _task({'representation_weight': 0.0}, student=_WIDER).create_model()


def test_teacher_must_see_all_frames():
  with pytest.raises(
    ValueError,
    match="teacher.frames.type is 'uniform', but .*a teacher that sees all frames",
  ):
    _task(
      teacher={
        'frames': {'type': 'uniform', 'uniform': {'every_n': 2}},
        'backbone': {'hierarchical_lstm': {'chunks': 5}},
      }
    ).create_model()


class _OtherBackbone(tf_keras.Model):
  representation_size = 8


def test_other_backbone_is_an_error(monkeypatch):
  def build(input_specs, backbone_config, norm_activation_config):
    del input_specs, backbone_config, norm_activation_config
    return _OtherBackbone()

  task = _task(teacher={'backbone': {'type': 'yt8m_average'}})
  monkeypatch.setattr(factory, 'build_backbone', build)
  with pytest.raises(
    ValueError,
    match="teacher.backbone.type is 'yt8m_average', but .*needs hierarchical_lstm",
  ):
    task.create_model()


def test_config_round_trip():
  model = _model(_task())
  config = model.get_config()
  again = distiller.Distiller.from_config(config)
  assert json.dumps(again.get_config()) == json.dumps(config)
  again.set_weights(model.get_weights())
  inputs, _ = tiny.batch(3)
  np.testing.assert_array_equal(
    again(inputs)['teacher']['moment_states'], model(inputs)['teacher']['moment_states']
  )
