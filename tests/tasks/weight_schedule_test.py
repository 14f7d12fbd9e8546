"""The schedule of the distillation losses' weights, and its effect."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tiny

from yt8m_distill.configs import distillation as config
from yt8m_distill.tasks import distillation


def _schedule(**values):
  return distillation.WeightSchedule(config.WeightSchedule(**values))


def test_constant_is_1_by_default():
  schedule = _schedule()
  assert schedule.constant
  for step in (0, 10**6):
    assert schedule(tf.constant(step, tf.int64)) == 1.0
  # A whole number, as a user may write it.
  assert _schedule(start=2, end=7)(tf.constant(3)).dtype == tf.float32


@pytest.mark.parametrize('start, end', [(3.0, 0.5), (0.0, 1.0), (1, 2)])
@pytest.mark.parametrize(
  'kind, share',
  [
    ('linear', lambda way: way),
    ('cosine', lambda way: (1 - math.cos(math.pi * way)) / 2),
  ],
)
def test_falls_or_rises(kind, share, start, end):
  schedule = _schedule(type=kind, start=start, end=end, steps=8)
  assert not schedule.constant
  for step in (0, 1, 4, 7, 8, 9, 10**6):
    expected = start + (end - start) * share(min(step, 8) / 8)
    factor = schedule(tf.constant(step, tf.int64))
    assert factor.dtype == tf.float32
    np.testing.assert_allclose(factor, expected, rtol=1e-5, atol=1e-6)


def _task(start, end):
  return distillation.DistillationTask(
    tiny.experiment(
      {
        'task': {
          'losses': {
            'representation_weight': 0.25,
            'intermediate_weight': 0.5,
            'label_weight': 2.0,
            'schedule': {'type': 'linear', 'start': start, 'end': end, 'steps': 4},
          }
        }
      }
    ).task
  )


def test_reaches_the_loss_and_the_metrics_of_a_step_but_not_evaluation():
  task = _task(1.0, 0.0)
  model = task.create_model()
  tiny.scatter_weights(model)
  batch = tiny.batch(5)
  means = task.build_metrics()
  sizes = {}
  for step, factor in ((0, 1.0), (1, 0.75), (4, 0.0), (9, 0.0)):
    for metric in means:
      metric.reset_states()
    recorder = tiny.Recorder(step)
    logs = task.train_step(batch, model, recorder, means)
    assert {metric.name: float(metric.result()) for metric in means}[
      'distillation_factor'
    ] == factor

    def term(name, logs=logs):
      return np.mean(logs[name])

    np.testing.assert_allclose(
      logs['loss'],
      term('teacher/label_loss')
      + term('teacher/regularization_loss')
      + 2.0 * term('student/label_loss')
      + term('student/regularization_loss')
      + factor
      * (
        0.25 * term('student/representation_loss')
        + term('student/prediction_loss')
        + 0.5 * term('student/intermediate_loss')
      ),
      rtol=1e-5,
    )
    sizes[factor] = recorder.gradients
  # Linear in the factor, as the loss is.
  for variable in model.student.trainable_variables:
    whole, part, none = (sizes[factor][variable.ref()] for factor in (1.0, 0.75, 0.0))
    np.testing.assert_allclose(part, 0.75 * whole + 0.25 * none, rtol=1e-3, atol=1e-4)
  evaluated = [other.validation_step(batch, model) for other in (task, _task(0.0, 3.0))]
  np.testing.assert_array_equal(evaluated[0]['loss'], evaluated[1]['loss'])


def test_constant_factor_counts_too():
  losses = []
  for start in (0.0, 3):
    task = distillation.DistillationTask(
      tiny.experiment(
        {
          'task': {
            'losses': {'representation_weight': 1.0, 'schedule': {'start': start}}
          }
        }
      ).task
    )
    assert 'distillation_factor' not in [metric.name for metric in task.build_metrics()]
    model = task.build_model()
    losses.append(task.train_step(tiny.batch(4), model, tiny.Recorder()))
  distances = sum(
    np.mean(losses[1][f'student/{name}_loss'])
    for name in ('representation', 'prediction')
  )
  np.testing.assert_allclose(
    losses[1]['loss'] - losses[0]['loss'], 3 * distances, rtol=1e-3
  )
