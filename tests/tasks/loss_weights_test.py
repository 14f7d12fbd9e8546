"""Weights of the student's losses: a loss of weight 0 costs nothing."""

import numpy as np
import pytest
import tensorflow as tf
import tiny

from yt8m_distill.tasks import distillation

_NAMES = ('label', 'representation', 'prediction', 'intermediate')


def _task(cls=distillation.DistillationTask, **weights):
  return cls(tiny.experiment({'task': {'losses': weights}}).task)


class _Broken(distillation.DistillationTask):
  """Each of the student's terms without a weight is NaN, with its gradient."""

  def loss_terms(self, labels, outputs):
    terms = super().loss_terms(labels, outputs)
    for name in _NAMES:
      key = f'student/{name}_loss'
      if key in terms and not getattr(self.task_config.losses, f'{name}_weight'):
        terms[key] *= np.nan
    return terms


@pytest.mark.parametrize('name', _NAMES[:3])
def test_term_without_a_weight_reaches_nothing(name):
  weights = {f'{name}_weight': 0.0}
  task, broken = _task(**weights), _task(_Broken, **weights)
  model = task.build_model()
  batch = tiny.batch(4)
  seen = []
  for one in (task, broken):
    recorder = tiny.Recorder()
    logs = one.train_step(batch, model, recorder)
    seen.append((logs['loss'], recorder.gradients))
  assert np.all(np.isnan(logs[f'student/{name}_loss']))
  np.testing.assert_array_equal(seen[0][0], seen[1][0])
  for variable in model.trainable_variables:
    np.testing.assert_array_equal(*(gradients[variable.ref()] for _, gradients in seen))
  # It is still measured in evaluation.
  logs = task.validation_step(batch, model)
  assert np.all(np.isfinite(logs[f'student/{name}_loss']))
  assert np.all(np.isfinite(logs['loss']))


def test_gradient_of_a_term_without_a_weight_is_not_computed():
  @tf.custom_gradient
  def guarded(x):
    def gradient(upstream):
      asked.append(True)
      return upstream

    return tf.identity(x), gradient

  class Guarded(distillation.DistillationTask):
    def loss_terms(self, labels, outputs):
      terms = super().loss_terms(labels, outputs)
      return {
        **terms,
        'student/prediction_loss': guarded(terms['student/prediction_loss']),
      }

  for weight in (1.0, 0.0):
    asked = []
    task = _task(Guarded, prediction_weight=weight)
    task.train_step(tiny.batch(2), task.create_model(), tiny.Recorder())
    assert bool(asked) == bool(weight)


def test_metrics_of_training_are_of_what_has_a_weight():
  def names(**weights):
    return {metric.name for metric in _task(**weights).build_metrics()}

  every = names(intermediate_weight=1.0)
  for name in _NAMES[1:]:
    assert every - names(**{'intermediate_weight': 1.0, f'{name}_weight': 0.0}) == {
      f'student/{name}_loss'
    }
  # Of labels it is always known how well they are met.
  assert names(label_weight=0.0) == names()


def test_student_without_any_loss_is_regularized_alone():
  task = _task(**{f'{name}_weight': 0.0 for name in _NAMES})
  logs = task.train_step(tiny.batch(4), task.create_model(), tiny.Recorder())
  np.testing.assert_allclose(
    logs['loss'],
    np.mean(logs['teacher/label_loss'])
    + logs['teacher/regularization_loss']
    + logs['student/regularization_loss'],
    rtol=1e-6,
  )
