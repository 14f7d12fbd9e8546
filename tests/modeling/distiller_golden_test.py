"""Forward pass and losses against the original code.

Tolerance, relative to a tensor's largest value: 2e-6 for what is dequantised
and normalized, 5e-6 for states, predictions and losses.
"""

import golden_cases
import numpy as np
import pytest

from yt8m_distill.modeling import distiller
from yt8m_distill.modeling import frame_normalization
from yt8m_distill.modeling import losses

pytestmark = pytest.mark.golden


@pytest.fixture(scope='module', params=golden_cases.NETWORK_CASES)
def case(request):
  case = golden_cases.Case(request.param)
  case.params = case.experiment()
  case.model = distiller.build(case.params.task.model)
  case.load(case.model)
  case.outputs = case.model(case.inputs())
  return case


def test_frames(case):
  inputs = case.inputs()
  actual = frame_normalization.normalize_videos(inputs['frames'], inputs['num_frames'])
  assert golden_cases.error(actual, case['fwd/model_input']) < 2e-6


@pytest.mark.parametrize('who', ['teacher', 'student'])
def test_states_and_predictions(case, who):
  outputs = case.outputs[who]
  for ours, name in (
    ('states', 'L1_states'),
    ('representation', 'state'),
    ('predictions', 'predictions'),
  ):
    expected = case[f'fwd/{who}_{name}']
    assert outputs[ours].shape == expected.shape
    assert golden_cases.error(outputs[ours], expected) < 5e-6


def test_losses(case):
  teacher, student = case.outputs['teacher'], case.outputs['student']
  labels, params = case.labels(), case.params.task.losses

  def cross_entropy(network):
    return np.mean(
      losses.cross_entropy(labels, network['predictions'], params.label_epsilon)
    )

  def regularization(network):
    return params.regularization_penalty * sum(network.losses)

  representation = losses.representation_loss(
    teacher['representation'], student['representation']
  )
  prediction = losses.prediction_loss(teacher['predictions'], student['predictions'])
  model = case.model
  actual = {
    'teacher_label_loss': cross_entropy(teacher),
    'student_label_loss': cross_entropy(student),
    'student_loss_state_per_video': representation,
    'student_loss_state': np.mean(representation),
    'pred_loss_per_video': prediction,
    'pred_loss': np.sum(prediction),
  }
  for name, value in actual.items():
    assert golden_cases.error(value, case[f'loss/{name}']) < 5e-6, name
  # The golden ones stand before the penalty.
  penalty = params.regularization_penalty
  for who, network in (('teacher', model.teacher), ('student', model.student)):
    assert (
      golden_cases.error(
        regularization(network), penalty * case[f'loss/{who}_reg_loss']
      )
      < 5e-6
    )
