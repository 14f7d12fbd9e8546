"""The start of the weights follows task.seed alone."""

import random

import numpy as np
import pytest
import tensorflow as tf
import tiny

from yt8m_distill.tasks import classification
from yt8m_distill.tasks import distillation

_TASKS = {
  'yt8m_distill': distillation.DistillationTask,
  'yt8m_distill_single': classification.ClassificationTask,
}


def _model(seed, experiment='yt8m_distill', **model):
  params = tiny.experiment(
    {'task': {'seed': seed, 'model': model}}, experiment=experiment
  ).task
  return _TASKS[experiment](params).build_model()


def _drawn(model):
  """Weights that are random; biases have one value or two."""
  weights = [w for w in model.get_weights() if len(np.unique(w)) > 2]
  assert len(weights) >= 3
  return weights


_BACKBONES = {
  'hierarchical_lstm': {},
  'netvlad': {'clusters': 4, 'hidden': 6},
  'nextvlad': {'clusters': 4, 'groups': 2, 'hidden': 16},
  'yt8m_dbof': {'clusters': 6, 'hidden': 5},
}


@pytest.mark.parametrize(
  'experiment, model',
  [
    ('yt8m_distill', {}),
    *(
      ('yt8m_distill_single', {'network': {'backbone': {'type': name, name: sizes}}})
      for name, sizes in _BACKBONES.items()
    ),
  ],
)
def test_same_seed_same_start(experiment, model):
  first = _drawn(_model(3, experiment, **model))
  random.random()
  tf.random.normal([2])
  again, other = (_drawn(_model(seed, experiment, **model)) for seed in (3, 4))
  for value, same, different in zip(first, again, other, strict=True):
    np.testing.assert_array_equal(same, value)
    assert not np.any(different == value)


def test_teacher_and_student_start_differently():
  model = _model(0)
  for teacher, student in zip(
    _drawn(model.teacher), _drawn(model.student), strict=True
  ):
    assert not np.any(teacher == student)


@pytest.mark.parametrize('experiment', _TASKS)
def test_random_numbers_of_others_are_left_alone(experiment):
  random.seed(7)
  expected = [random.random() for _ in range(3)]
  random.seed(7)
  numbers = [random.random()]
  for seed in (0, 1):
    _model(seed, experiment)
    numbers.append(random.random())
  assert numbers == expected
