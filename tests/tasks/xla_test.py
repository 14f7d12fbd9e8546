"""A step has a form that XLA compiles, as a TPU needs it.

The backbones' own tests compile those.
"""

import numpy as np
import tensorflow as tf
import tiny

from yt8m_distill.tasks import classification


def test_steps_compile_to_what_they_are():
  params = tiny.experiment(
    {'task': {'model': {'network': {'backbone': {'type': 'yt8m_average'}}}}},
    experiment='yt8m_distill_single',
  )
  task = classification.ClassificationTask(params.task)
  model = task.build_model()
  optimizer = task.create_optimizer(params.trainer.optimizer_config)
  features, labels = tiny.batch(4)
  # Labels are an argument: as constants they would be folded away.
  inputs = tiny.students(features), labels

  def compiled(step):
    return tf.function(step, jit_compile=True, autograph=False)(*inputs)

  def train(*batch):
    return task.train_step(batch, model, optimizer)

  def validate(*batch):
    return task.validation_step(batch, model)

  expected = validate(*inputs)
  for name, value in compiled(validate).items():
    np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=name)
  before = [variable.numpy() for variable in model.trainable_variables]
  loss = compiled(train)['loss']
  np.testing.assert_allclose(loss, np.mean(expected['loss']), rtol=1e-5)
  assert all(
    (variable.numpy() != value).any()
    for variable, value in zip(model.trainable_variables, before)
  )
