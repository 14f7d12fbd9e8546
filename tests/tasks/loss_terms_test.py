"""Loss terms that another project registers."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tiny

from yt8m_distill.configs import classification as classification_config
from yt8m_distill.configs import distillation as config
from yt8m_distill.tasks import classification
from yt8m_distill.tasks import distillation
from yt8m_distill.tasks import loss_terms


@dataclasses.dataclass
class _Loss(config.DistillationLoss):
  own_weight: float = 0.5
  gap_weight: float = 0.25
  gap_reduction: str = 'sum'


@dataclasses.dataclass
class _LabelLoss(classification_config.LabelLoss):
  own_weight: float = 0.5


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
  monkeypatch.setattr(loss_terms, '_TERMS', dict(loss_terms._TERMS))

  @loss_terms.register('own')
  def own(labels, network, teacher, params):
    del labels, teacher, params
    return tf.reduce_max(network['predictions'], axis=-1)

  @loss_terms.register('gap', compares=['predictions'])
  def gap(labels, network, teacher, params):
    del labels, params
    difference = network['predictions'] - teacher['predictions']
    return tf.reduce_max(tf.abs(difference), axis=-1)


def _distillation(**values):
  params = tiny.experiment(
    {
      'task': {
        'losses': {
          f'{name}_weight': 0.0 for name in ('label', 'representation', 'prediction')
        }
      }
    }
  ).task
  losses = _Loss()
  losses.override({**params.losses.as_dict(), **values})
  params.losses = losses
  return distillation.DistillationTask(params)


def test_total_has_each_term_by_its_weight_reduction_and_schedule():
  # At step 3 of 4 the schedule has fallen to 1/4.
  schedule = {'type': 'linear', 'start': 1.0, 'end': 0.0, 'steps': 4}
  task = _distillation(schedule=schedule)
  logs = task.train_step(tiny.batch(4), task.create_model(), tiny.Recorder(step=3))
  np.testing.assert_allclose(
    logs['loss'],
    0.5 * np.mean(logs['student/own_loss'])
    + 0.25 * 0.25 * np.sum(logs['student/gap_loss'])
    + np.mean(logs['teacher/label_loss'])
    + logs['teacher/regularization_loss']
    + logs['student/regularization_loss'],
    rtol=1e-6,
  )


def test_teacher_does_not_learn_from_a_term_that_compares():
  losses = {'own_weight': 0.0, 'gap_weight': 0.0}
  model = _distillation().build_model()
  tiny.scatter_weights(model)
  gradients = []
  for values in (losses, {**losses, 'gap_weight': 10.0}):
    recorder = tiny.Recorder()
    _distillation(**values).train_step(tiny.batch(4), model, recorder)
    gradients.append(recorder.gradients)
  for variable in model.teacher.trainable_variables:
    np.testing.assert_array_equal(*(some[variable.ref()] for some in gradients))
  assert any(
    np.any(gradients[0][v.ref()] != gradients[1][v.ref()])
    for v in model.student.trainable_variables
  )


def test_single_network_has_a_term_without_a_prefix():
  params = tiny.experiment(experiment='yt8m_distill_single').task
  params.losses = _LabelLoss()
  task = classification.ClassificationTask(params)
  inputs, labels = tiny.batch(4)
  batch = tiny.students(inputs), labels
  logs = task.train_step(batch, task.create_model(), tiny.Recorder())
  np.testing.assert_allclose(
    logs['loss'],
    np.mean(logs['label_loss'])
    + 0.5 * np.mean(logs['own_loss'])
    + logs['regularization_loss'],
    rtol=1e-6,
  )
  assert 'own_loss' in {metric.name for metric in task.build_metrics()}


def test_weight_of_a_term_that_has_no_value_is_an_error():
  @loss_terms.register('absent')
  def absent(labels, network, teacher, params):
    del labels, network, teacher, params

  @dataclasses.dataclass
  class Loss(_LabelLoss):
    absent_weight: float = 0.0

  params = tiny.experiment(experiment='yt8m_distill_single').task
  params.losses = Loss()
  inputs, labels = tiny.batch(2)
  batch = tiny.students(inputs), labels
  task = classification.ClassificationTask(params)
  model = task.build_model()
  assert 'absent_loss' not in task.train_step(batch, model, tiny.Recorder())
  params.losses.absent_weight = 2.0
  task = classification.ClassificationTask(params)
  with pytest.raises(ValueError, match='absent_weight is 2.0.*no absent loss.*to 0'):
    task.train_step(batch, model, tiny.Recorder())


def test_name_is_registered_once():
  with pytest.raises(KeyError, match='own'):
    loss_terms.register('own')(lambda labels, network, teacher, params: None)


def test_term_compares_projected_outputs():
  @loss_terms.register('cosine', compares=['representation'])
  def cosine(labels, network, teacher, params):
    del labels, params
    pair = [tf.nn.l2_normalize(x['representation'], -1) for x in (network, teacher)]
    return 1.0 - tf.reduce_sum(pair[0] * pair[1], axis=-1)

  @dataclasses.dataclass
  class Loss(config.DistillationLoss):
    cosine_weight: float = 1.0
    representation_weight: float = 0.0

  cells = {'hierarchical_lstm': {'num_cells': 6}}
  params = tiny.experiment(
    {'task': {'model': {'projection': True, 'student': {'backbone': cells}}}}
  ).task
  params.losses = Loss()
  task = distillation.DistillationTask(params)
  model = task.build_model()
  assert set(model.projections) == {'representation'}
  logs = task.train_step(tiny.batch(2), model, tiny.Recorder())
  assert logs['student/cosine_loss'].shape == [2]


@pytest.mark.parametrize('weight', [0.0, 3.0])
def test_weight_without_a_registered_term_is_an_error(weight):
  @dataclasses.dataclass
  class Loss(_LabelLoss):
    ghost_weight: float = weight

  params = tiny.experiment(experiment='yt8m_distill_single').task
  params.losses = Loss()
  with pytest.raises(
    ValueError, match="ghost_weight is .*no loss 'ghost' is registered"
  ):
    classification.ClassificationTask(params)

  class Task(classification.ClassificationTask):
    """Computes the loss itself."""

    def loss_terms(self, labels, outputs):
      return super().loss_terms(labels, outputs)

  Task(params)


def test_label_is_not_a_term_to_register():
  with pytest.raises(KeyError, match='label is the name of L_CE'):
    loss_terms.register('label')(lambda labels, network, teacher, params: None)
