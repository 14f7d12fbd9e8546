"""The real task under gin/original_finetune.gin against three original steps.

Tolerance, relative to a tensor's largest value: losses and predictions 5e-6,
gradients and clipped gradients 2e-5, weights 5e-6 after 1 step and 2e-5 after
3, where their gradient is more than rounding (golden_cases.step_error).
"""

import golden_cases
import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill.checkpoints import import_tf1
from yt8m_distill.tasks import classification

pytestmark = pytest.mark.golden


class _Case:
  """A golden case with its task and what trains it."""

  def __init__(self, name):
    self.golden = golden_cases.Case(name)
    self.params = self.golden.experiment(
      'original_finetune.gin', 'yt8m_distill_finetune'
    )
    self.task = classification.ClassificationTask(self.params.task)
    self.batch = self.golden.student_inputs(), self.golden.labels()

  def optimizer(self):
    return self.task.create_optimizer(
      self.params.trainer.optimizer_config, self.params.runtime
    )

  def model(self):
    model = self.task.build_model()
    for variable, value in self.variables(model, 'w'):
      variable.assign(value)
    return model

  def variables(self, model, prefix):
    return self.golden.network_variables(model, f'{prefix}/model_student/')

  def assert_three_steps(self, model):
    """Trains from the golden start weights on."""
    optimizer = self.optimizer()

    def step():
      return self.task.train_step(self.batch, model, optimizer)

    if self.golden.name == 'paper_every10':  # As in golden_steps_test.
      step = tf.function(step)
    gradients = [g for _, g in self.variables(model, 'ft/grad')]
    for k, expected in enumerate(self.golden['ft/steps_final_loss']):
      assert golden_cases.error(step()['loss'], expected) < 5e-6
      if k in (0, 2):
        for (variable, value), gradient in zip(
          self.variables(model, f'ft/step{k + 1}/w'), gradients, strict=True
        ):
          assert golden_cases.step_error(variable.numpy(), value, gradient) < (
            5e-6 if k == 0 else 2e-5
          ), variable.name
    assert int(optimizer.iterations) == 3


@pytest.fixture(name='case', scope='module', params=golden_cases.NETWORK_CASES)
def _case(request):
  return _Case(request.param)


@pytest.mark.parametrize('clip', [False, True])
def test_gradients(case, clip):
  model = case.model()
  seen = golden_cases.gradients(case.task, model, case.optimizer(), case.batch, clip)
  prefix = 'ft/grad_clipped' if clip else 'ft/grad'
  for variable, expected in case.variables(model, prefix):
    assert golden_cases.error(seen[variable.ref()], expected) < 2e-5, variable.name


def test_predictions_and_losses(case):
  model = case.model()
  inputs, labels = case.batch
  outputs = model(inputs)
  assert (
    golden_cases.error(outputs['predictions'], case.golden['ft/student_predictions'])
    < 5e-6
  )
  terms = case.task.loss_terms(labels, outputs)
  assert (
    golden_cases.error(
      np.mean(terms['label_loss']), case.golden['ft/student_label_loss']
    )
    < 5e-6
  )


def test_three_steps(case):
  case.assert_three_steps(case.model())


def test_three_steps_from_an_imported_checkpoint(tmp_path):
  case = _Case('paper_every10')
  cfg = case.golden.cfg
  values = {
    name[len('w/') :]: case.golden[name]
    for name in case.golden.arrays
    if name.startswith('w/')
  }
  source = golden_cases.save_tf1(tmp_path, {**values, 'global_step': np.int32(0)})
  import_tf1.convert(
    source,
    str(tmp_path / 'run'),
    every_n=cfg['every_n'],
    student_chunks=cfg['num_inputs_L1'],
    max_frames=cfg['max_num_frames'],
    teacher_chunks=cfg['num_inputs_to_lstm'],
    features=[f'rgb:{cfg["rgb_size"]}', f'audio:{cfg["audio_size"]}'],
  )
  model = case.task.build_model()
  case.task.start_from(model, str(tmp_path / 'run'))
  case.assert_three_steps(model)
