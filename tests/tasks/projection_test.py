"""Networks of different widths, with a learned map between them and without."""

import numpy as np
from official.core import train_utils
import pytest
import tensorflow as tf
import tf_keras
import tiny

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.modeling import distiller
from yt8m_distill.modeling import losses
from yt8m_distill.tasks import distillation

_NARROW = {'num_cells': 3}
_BOTH = {'representation', 'moment_states'}


def _params(backbone=None, projection=True, **weights):
  return tiny.experiment(
    {
      'task': {
        'losses': weights,
        'model': {
          'projection': projection,
          'student': {'backbone': {'hierarchical_lstm': backbone or _NARROW}},
        },
      }
    }
  )


def _built(*arguments, **values):
  task = distillation.DistillationTask(_params(*arguments, **values).task)
  model = task.create_model()
  tiny.scatter_weights(model)
  return task, model


@pytest.mark.parametrize(
  'backbone', [_NARROW, {'num_layers': 2}, {'num_cells': 7, 'num_layers': 3}]
)
def test_student_of_another_width_trains(backbone):
  task, model = _built(backbone, intermediate_weight=0.5)
  assert set(model.projections) == _BOTH
  inputs, labels = tiny.batch(5)
  outputs = model(inputs)
  wanted = outputs['teacher']['representation']
  seen = outputs['student']['representation']
  kernel = model.projections['representation'].kernel
  assert kernel.shape == [seen.shape[1], wanted.shape[1]]
  expected = losses.representation_loss(wanted, seen @ kernel)
  assert outputs['student']['projected'].keys() == _BOTH
  before = model.get_weights()
  optimizer = tf_keras.optimizers.legacy.Adam(0.01)
  first, last = (task.train_step((inputs, labels), model, optimizer) for _ in range(2))
  np.testing.assert_allclose(first['student/representation_loss'], expected, rtol=1e-4)
  assert last['loss'] < first['loss']
  for old, new in zip(before, model.get_weights(), strict=True):
    assert np.any(new != old)  # The maps learn too.


def test_projection_learns_beside_a_frozen_teacher():
  params = _params()
  params.task.training = 'serial'
  task = distillation.DistillationTask(params.task)
  model = task.create_model()
  assert len(model.trainable_variables) == 1 + len(model.student.trainable_variables)


def test_projection_stays_behind(tmp_path):
  params = _params(intermediate_weight=0.5)
  _, model = _built(intermediate_weight=0.5)
  tf.train.CheckpointManager(
    tf.train.Checkpoint(model=model, global_step=tf.Variable(1, dtype=tf.int64)),
    str(tmp_path),
    1,
  ).save(1)
  train_utils.serialize_config(params, str(tmp_path))
  names = tiny.checkpoint_values(tmp_path / 'ckpt-1')
  assert sum('/projections/' in name for name in names) == 2
  network = trained_network.Network(str(tmp_path)).network
  assert len(network.weights) == len(model.student.weights)
  inputs, _ = tiny.batch(3)
  np.testing.assert_array_equal(
    network(tiny.students(inputs))['predictions'],
    model(inputs)['student']['predictions'],
  )


def test_config_round_trip():
  _, model = _built(intermediate_weight=0.5)
  again = distiller.Distiller.from_config(model.get_config())
  again.set_weights(model.get_weights())
  inputs, _ = tiny.batch(3)
  expected = model(inputs)['student']['projected']
  actual = again(inputs)['student']['projected']
  assert actual.keys() == _BOTH
  for name, value in expected.items():
    np.testing.assert_array_equal(actual[name], value)


def test_equal_widths_need_none():
  _, model = _built({'num_cells': 4}, intermediate_weight=0.5)
  assert not model.projections
  assert 'projected' not in model(tiny.batch(2)[0])['student']


def test_what_is_not_compared_may_differ():
  task, model = _built(representation_weight=0.0)
  assert not model.projections
  logs = task.train_step(tiny.batch(4), model, tiny.Recorder(), task.build_metrics())
  assert 'student/representation_loss' not in logs
  logs = task.validation_step(tiny.batch(4), model)
  assert 'student/representation_loss' not in logs
  assert np.all(np.isfinite(logs['loss']))


@pytest.mark.parametrize('backbone, width', [(_NARROW, 6), ({'num_layers': 2}, 16)])
def test_other_width_without_projection(backbone, width):
  with pytest.raises(
    ValueError,
    match="task.model.projection is False, but the student's representation has "
    f"{width} values and the teacher's 8: .*Set it to True .*weight of their loss",
  ):
    _built(backbone, projection=False)
