"""The real task under gin/original.gin against three steps of the original.

Tolerance, relative to a tensor's largest value: losses 5e-6, gradients and
clipped gradients 2e-5, weights 5e-6 after 1 step and 2e-5 after 3, where their
gradient is more than rounding (golden_cases.step_error).
"""

import golden_cases
import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill.tasks import distillation

pytestmark = pytest.mark.golden


@pytest.fixture(scope='module', params=golden_cases.NETWORK_CASES)
def case(request):
  case = golden_cases.Case(request.param)
  params = case.experiment()
  case.task = distillation.DistillationTask(params.task)
  case.optimizer = lambda: case.task.create_optimizer(
    params.trainer.optimizer_config, params.runtime
  )
  return case


def _model(case):
  model = case.task.build_model()
  case.load(model)
  return model


@pytest.mark.parametrize('clip', [False, True])
def test_gradients(case, clip):
  model = _model(case)
  seen = golden_cases.gradients(
    case.task, model, case.optimizer(), (case.inputs(), case.labels()), clip
  )
  suffix = '_clipped' if clip else ''
  for scope, prefix in (
    ('model/', f'grad_teacher{suffix}/'),
    ('model_student/', f'grad_student{suffix}/'),
  ):
    names = {key for key in case.arrays if key.startswith(prefix + scope)}
    assert names
  merged = _Merged(case, suffix)
  for variable, expected in merged.variables(model):
    assert golden_cases.error(seen[variable.ref()], expected) < 2e-5, variable.name


class _Merged(golden_cases.Case):
  """Presents both networks' golden gradients under one prefix."""

  def __init__(self, case, suffix):
    self.arrays, self._suffix = case.arrays, suffix

  def __getitem__(self, key):
    who = 'student' if key.startswith('model_student') else 'teacher'
    return self.arrays[f'grad_{who}{self._suffix}/{key}']

  def variables(self, model, prefix=''):
    return super().variables(model, prefix)


def test_three_steps(case):
  model, optimizer = _model(case), case.optimizer()

  def step():
    return case.task.train_step((case.inputs(), case.labels()), model, optimizer)

  if case.name == 'paper_every10':  # Tracing takes long: one graph is enough.
    step = tf.function(step)
  gradients = {
    variable.ref(): gradient
    for variable, gradient in _Merged(case, '').variables(model)
  }
  for k in range(3):
    logs = step()
    means = {name: np.mean(value) for name, value in logs.items()}
    for ours, name in (
      ('teacher/label_loss', 'teacher_label_loss'),
      ('student/label_loss', 'student_label_loss'),
      ('student/representation_loss', 'student_loss_state'),
    ):
      assert golden_cases.error(means[ours], case[f'steps/{name}'][k]) < 5e-6
    assert (
      golden_cases.error(
        np.sum(logs['student/prediction_loss']), case['steps/pred_loss'][k]
      )
      < 5e-6
    )
    assert (
      golden_cases.error(
        means['loss'],
        case['steps/teacher_final_loss'][k] + case['steps/total_student_loss'][k],
      )
      < 5e-6
    )
    if k in (0, 2):
      for variable, expected in case.variables(model, f'step{k + 1}/w/'):
        assert golden_cases.step_error(
          variable.numpy(), expected, gradients[variable.ref()]
        ) < (5e-6 if k == 0 else 2e-5), variable.name
  outputs = model(case.inputs())
  for who in ('teacher', 'student'):
    assert (
      golden_cases.error(outputs[who]['predictions'], case[f'after3/{who}_predictions'])
      < 2e-5
    )
  assert int(optimizer.iterations) == 3
