"""Training steps of the distillation task: who learns from whom, and errors."""

import re

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import tiny

from yt8m_distill.configs import classification as classification_config
from yt8m_distill.configs import distillation as distillation_config
from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import distiller
from yt8m_distill.modeling import losses
from yt8m_distill.tasks import classification
from yt8m_distill.tasks import distillation

_WEIGHTS = ('label_weight', 'representation_weight', 'prediction_weight')


def _task(**losses_override):
  return distillation.DistillationTask(
    tiny.experiment({'task': {'losses': losses_override}}).task
  )


def _model(task):
  model = task.create_model()
  tiny.scatter_weights(model)
  return model


def _gradients(task, model, rows=5):
  """Gradients that the task hands to the optimizer, by variable."""
  recorder = tiny.Recorder()
  task.train_step(tiny.batch(rows), model, recorder)
  return recorder.gradients


def _of(gradients, network):
  """The gradients of one network, in the order of its variables."""
  return [gradients[variable.ref()] for variable in network.trainable_variables]


def test_teacher_learns_as_if_it_were_alone():
  task = _task(**dict.fromkeys(_WEIGHTS, 100.0))
  model = _model(task)
  beside_student = _of(_gradients(task, model), model.teacher)

  tiny_model = task.task_config.model
  alone = classification.ClassificationTask(
    classification_config.ClassificationTask(
      model=model_config.ClassifierModel(
        features=tiny_model.features,
        max_frames=tiny_model.max_frames,
        num_classes=tiny_model.num_classes,
        network=tiny_model.teacher,
      ),
      evaluation=task.task_config.evaluation,
    )
  )
  teacher = alone.create_model()
  teacher.set_weights(model.teacher.get_weights())
  for expected, actual in zip(
    _of(_gradients(alone, teacher), teacher), beside_student, strict=True
  ):
    assert np.abs(expected).max() > 0.0
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-9)


def test_teacher_loss_sends_nothing_to_the_student():
  class LoudTeacher(distillation.DistillationTask):
    def loss_terms(self, labels, outputs):
      terms = super().loss_terms(labels, outputs)
      return {**terms, 'teacher/label_loss': 50.0 * terms['teacher/label_loss']}

  task = _task()
  model = _model(task)
  quiet = _gradients(task, model)
  loud = _gradients(LoudTeacher(task.task_config), model)
  for before, after in zip(_of(quiet, model.student), _of(loud, model.student)):
    np.testing.assert_array_equal(after, before)
  assert all(
    np.abs(after).max() > 10.0 * np.abs(before).max()
    for before, after in zip(_of(quiet, model.teacher), _of(loud, model.teacher))
  )


def test_weights_scale_the_terms_of_the_student():
  def gradients(**weights):
    task = _task(**{**dict.fromkeys(_WEIGHTS, 0.0), **weights})
    return _of(_gradients(task, model), model.student)

  model = _model(_task())
  nothing = gradients()
  for gradient, variable in zip(nothing, model.student.trainable_variables):
    # Regularization alone is left, which falls on the head's kernels.
    kernel = variable is model.student.head.gates.kernel or (
      variable is model.student.head.experts.kernel
    )
    np.testing.assert_allclose(
      gradient, 2.0 * 1e-8 * variable * float(kernel), rtol=1e-5
    )
  single = [gradients(**{name: 3.0}) for name in _WEIGHTS]
  lstm = 0
  assert all(np.abs(term[lstm]).max() > 1e-4 for term in single)
  together = gradients(**dict.fromkeys(_WEIGHTS, 3.0))
  for total, base, *terms in zip(together, nothing, *single):
    np.testing.assert_allclose(total, sum(terms) - 2.0 * base, rtol=1e-4, atol=1e-5)


def test_prediction_loss_summed_over_the_batch_is_its_mean_times_the_batch():
  def lstm_gradient(reduction):
    task = _task(
      label_weight=0.0, representation_weight=0.0, prediction_reduction=reduction
    )
    return _of(_gradients(task, model, rows=6), model.student)[0]

  model = _model(_task())
  np.testing.assert_allclose(
    lstm_gradient('sum'), 6.0 * lstm_gradient('mean'), rtol=1e-5, atol=1e-7
  )


@pytest.mark.parametrize('kind', distillation_config.PREDICTION_LOSSES)
def test_prediction_loss_of_each_kind_trains(kind):
  task = _task(prediction_kind=kind, label_weight=0.0, representation_weight=0.0)
  model = _model(task)
  inputs, labels = tiny.batch(5)
  optimizer = tf_keras.optimizers.legacy.Adam(0.01)
  first = task.train_step((inputs, labels), model, optimizer)
  outputs = model(inputs)
  last = task.train_step((inputs, labels), model, optimizer)
  np.testing.assert_allclose(
    last['student/prediction_loss'],
    losses.prediction_loss(
      outputs['teacher']['predictions'], outputs['student']['predictions'], kind
    ),
    rtol=1e-5,
  )
  assert np.mean(last['student/prediction_loss']) < np.mean(
    first['student/prediction_loss']
  )


def test_metrics_of_the_batch_are_averaged_under_their_names():
  task = _task()
  model = _model(task)
  means = task.build_metrics(training=True)
  seen = [
    task.train_step(tiny.batch(4, seed), model, tiny.Recorder(), means)
    for seed in range(2)
  ]
  assert len(means) == 12
  for mean in means:
    np.testing.assert_allclose(
      mean.result(), np.mean([np.mean(logs[mean.name]) for logs in seen]), rtol=1e-5
    )


def test_loss_that_is_not_finite_names_the_step_and_leaves_the_weights():
  strategy = tf.distribute.MirroredStrategy(['cpu:0'])
  average = {'backbone': {'type': 'yt8m_average'}}  # Quick to trace.
  params = tiny.experiment(
    {'task': {'model': {'teacher': average, 'student': average}}}
  )
  with strategy.scope():
    task = distillation.DistillationTask(params.task)
    model = _model(task)
    optimizer = task.create_optimizer(params.trainer.optimizer_config, params.runtime)
  step = tf.function(
    lambda: strategy.run(task.train_step, args=(tiny.batch(3), model, optimizer))
  )
  step()
  step()
  model.student.head.experts.bias.assign(
    tf.fill(model.student.head.experts.bias.shape, np.nan)
  )
  before = model.get_weights()
  with pytest.raises(tf.errors.InvalidArgumentError) as error:
    step()
  assert re.search(r'not finite at step\W+3\W', error.value.message)
  assert 'Lower the learning rate' in error.value.message
  assert re.search(r'student/label_loss\W+nan', error.value.message)
  for old, new in zip(before, model.get_weights()):
    np.testing.assert_array_equal(new, old)
  assert optimizer.iterations.numpy() == 2


def test_mixed_bfloat16_stays_near_float32():
  weights = None
  outcome = {}
  try:
    for policy in ('float32', 'mixed_bfloat16'):
      tf_keras.mixed_precision.set_global_policy(policy)
      params = tiny.experiment()
      task = distillation.DistillationTask(params.task)
      model = _model(task)
      weights = weights or model.get_weights()
      model.set_weights(weights)
      optimizer = task.create_optimizer(params.trainer.optimizer_config, params.runtime)
      trained = task.train_step(tiny.batch(6), model, optimizer)
      evaluated = task.validation_step(tiny.batch(6, seed=1), model)
      assert isinstance(model, distiller.Distiller)
      assert all(
        v.dtype == tf.float32 and np.isfinite(v).all()
        for v in model.trainable_variables
      )
      outcome[policy] = {
        **{f'train {k}': v for k, v in trained.items()},
        **{f'eval {k}': v for k, v in evaluated.items()},
      }
  finally:
    tf_keras.mixed_precision.set_global_policy('float32')
  differs = False
  for name, expected in outcome['float32'].items():
    if name.endswith(('loss', 'scores')):
      actual = outcome['mixed_bfloat16'][name]
      assert actual.dtype == tf.float32, name
      # bfloat16 keeps 8 bits: 0.4 % each rounding.
      np.testing.assert_allclose(actual, expected, rtol=0.03, atol=0.02, err_msg=name)
      differs |= not np.array_equal(actual, expected)
  assert differs  # Otherwise the policy did nothing.
