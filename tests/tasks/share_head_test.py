"""One head for both networks."""

import numpy as np
from official.core import train_utils
import pytest
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import extract_student
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.modeling import distiller
from yt8m_distill.tasks import distillation


def _params(**task):
  model = {'share_head': True, **task.pop('model', {})}
  return tiny.experiment({'task': {'model': model, **task}})


def _built(**task):
  task = distillation.DistillationTask(_params(**task).task)
  model = task.create_model()
  tiny.scatter_weights(model)
  return task, model


def _gradients(task, model):
  recorder = tiny.Recorder()
  task.train_step(tiny.batch(5), model, recorder)
  return recorder.gradients


def test_there_is_one_head():
  _, model = _built()
  assert model.student.head is model.teacher.head
  weights = model.student.head.weights
  assert len(model.weights) == (
    len(model.teacher.weights) + len(model.student.weights) - len(weights)
  )
  for network in model(tiny.batch(3)[0]).values():
    np.testing.assert_array_equal(
      network['predictions'], model.teacher.head(network['representation'])
    )


class _Muted(distillation.DistillationTask):
  """Its networks of these names learn nothing from the loss."""

  muted = ()

  def loss_terms(self, labels, outputs):
    return {
      name: value * (0.0 if name.startswith(self.muted) else 1.0)
      for name, value in super().loss_terms(labels, outputs).items()
    }


def test_both_networks_move_it():
  _, model = _built()
  task = _Muted(_params(losses={'regularization_penalty': 0.0}).task)
  both = _gradients(task, model)
  task.muted = ('teacher',)
  student_alone = _gradients(task, model)
  task.muted = ('student',)
  teacher_alone = _gradients(task, model)
  for variable in model.student.head.trainable_variables:
    one, other, total = (
      gradients[variable.ref()] for gradients in (student_alone, teacher_alone, both)
    )
    assert np.abs(one).max() > 0.01 and np.abs(other).max() > 0.01
    np.testing.assert_allclose(total, one + other, rtol=1e-3, atol=1e-5)


def test_its_regularization_counts_once():
  task, model = _built(
    model={
      name: {'head': {'moe': {'l2_weight_decay': 0.1}}}
      for name in ('teacher', 'student')
    }
  )
  head = model.student.head
  expected = (
    2.0
    * 0.05
    * sum(np.sum(np.square(layer.kernel)) for layer in (head.gates, head.experts))
  )
  terms = task.regularization_terms(model)
  np.testing.assert_allclose(sum(terms.values()), expected, rtol=1e-5)


def _save(folder):
  """Writes a run of one step; returns its model."""
  task, model = _built()
  tf.train.CheckpointManager(
    tf.train.Checkpoint(model=model, global_step=tf.Variable(1, dtype=tf.int64)),
    str(folder),
    1,
  ).save(1)
  train_utils.serialize_config(_params(), str(folder))
  return task, model


def test_student_taken_out_has_it(tmp_path):
  _, model = _save(tmp_path / 'run')
  values = tiny.checkpoint_values(tmp_path / 'run/ckpt-1')
  assert len(values) == len(model.weights) + 1  # And the step.
  inputs, _ = tiny.batch(4)
  expected = model(inputs)
  extract_student.extract(str(tmp_path / 'run'), str(tmp_path / 'out'))
  for source in ('run', 'out'):
    network = trained_network.Network(str(tmp_path / source)).network
    np.testing.assert_array_equal(
      network(tiny.students(inputs))['predictions'], expected['student']['predictions']
    )
  network = trained_network.Network(str(tmp_path / 'run'), 'teacher').network
  np.testing.assert_array_equal(
    network(inputs)['predictions'], expected['teacher']['predictions']
  )


def test_serial_training_leaves_it_as_the_teachers(tmp_path):
  _, before = _save(tmp_path)
  task = distillation.DistillationTask(
    _params(training='serial', teacher_checkpoint=str(tmp_path)).task
  )
  model = task.build_model()
  task.initialize(model)
  np.testing.assert_array_equal(
    model.student.head.experts.kernel, before.teacher.head.experts.kernel
  )
  assert _gradients(task, model).keys() == {
    variable.ref() for variable in model.student.backbone.variables
  }


def test_config_round_trip():
  _, model = _built()
  again = distiller.Distiller.from_config(model.get_config())
  assert again.student.head is again.teacher.head


@pytest.mark.parametrize(
  'student, message',
  [
    (
      {'backbone': {'hierarchical_lstm': {'num_cells': 3}}},
      "teacher's representation has 8 values and the student's 6: both must",
    ),
    (
      {'head': {'moe': {'num_mixtures': 3}}},
      "'num_mixtures': 2.* of the teacher, .*'num_mixtures': 3",
    ),
    ({'head': {'type': 'logistic'}}, "'type': 'logistic'.* of the student"),
  ],
)
def test_heads_that_cannot_be_one(student, message):
  with pytest.raises(ValueError, match=f'share_head is True, but .*{message}'):
    _built(model={'student': student}, losses={'representation_weight': 0.0})
