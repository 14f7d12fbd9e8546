"""Training a student with its teacher, as the CVPR 2019 paper does.

In parallel training both networks learn: the teacher on its label loss, the
student on L_REP, L_PRED and L_CE, and on L_INT where that has a weight. In
serial training the teacher was trained before and stays as it is. As in the
original code, which trains in parallel alone and without L_INT, the student
sees the teacher as a constant, and the teacher never sees the student, unless
they share their head.
"""

import math

from official.core import task_factory
import tensorflow as tf

from yt8m_distill.checkpoints import restore
from yt8m_distill.checkpoints import run_dir
from yt8m_distill.configs import distillation as config
from yt8m_distill.configs import model as model_config
from yt8m_distill.configs import settings
from yt8m_distill.dataloaders import reader
from yt8m_distill.evaluation import video_metrics
from yt8m_distill.modeling import distiller
from yt8m_distill.modeling import losses
from yt8m_distill.tasks import classification
from yt8m_distill.tasks import weight_schedule


@task_factory.register_task_cls(config.DistillationTask)
class DistillationTask(classification.ClassificationTask):
  """Teacher and student together."""

  prefixes = ('teacher/', 'student/')

  def __init__(self, params, logging_dir=None, name=None):
    super().__init__(params, logging_dir=logging_dir, name=name)
    for name, value, allowed in (
      ('training', params.training, ('parallel', 'serial')),
      (
        'losses.prediction_reduction',
        params.losses.prediction_reduction,
        ('mean', 'sum'),
      ),
    ):
      if value not in allowed:
        raise ValueError(f'{name} is {value!r}: choose one of {", ".join(allowed)}.')
    for name in ('label', 'representation', 'prediction', 'intermediate'):
      weight = getattr(params.losses, f'{name}_weight')
      if not 0 <= weight < math.inf:
        raise ValueError(
          f'losses.{name}_weight is {weight}: a weight must be finite, and at least 0.'
        )
    losses.check_prediction_loss(
      params.losses.prediction_kind, params.losses.prediction_temperature
    )
    self._serial = params.training == 'serial'
    self._schedule = weight_schedule.WeightSchedule(params.losses.schedule)

  @classmethod
  def create_optimizer(cls, optimizer_config, runtime_config=None, dp_config=None):
    """As the Garden's; refuses what would couple the networks."""
    optimizer = optimizer_config.optimizer.get()
    # AdamW's own field of that kind is on unless it is set to 0.
    for field in ('global_clipnorm', 'gradient_clip_norm'):
      norm = getattr(optimizer, field, None)
      if norm:
        raise ValueError(
          f"{field} is {norm}: it would scale the student by the teacher's "
          'gradients and the other way round (in serial training it is not '
          'needed). Set clipnorm, which clips each tensor, and '
          f'{field} to {0 if "gradient" in field else "null"}.'
        )
    return super().create_optimizer(optimizer_config, runtime_config, dp_config)

  def create_model(self):
    model = distiller.build(self.task_config.model, self._compared())
    model.teacher.trainable = not self._serial
    return model

  def _compared(self) -> list[str]:
    """Outputs of the student that a loss compares with the teacher's."""
    params = self.task_config.losses
    return [
      name
      for name, weight in (
        ('representation', params.representation_weight),
        ('moment_states', params.intermediate_weight),
      )
      if weight
    ]

  def build_inputs(self, params, input_context=None):
    if params.is_training:
      self._check_start()
    return super().build_inputs(params, input_context)

  def _check_start(self):
    """Raises where a run has no teacher, or had another training; early."""
    task, checkpoint = self.task_config, self._run_checkpoint()
    if checkpoint:
      path = run_dir.params_path(checkpoint)
      before = path and run_dir.read_params(path).task.training
      if path and before != task.training:
        raise ValueError(
          f'task.training is {task.training!r}, but the run in '
          f'{self.logging_dir} was begun as {before!r}: go on so, or name '
          'another --model_dir.'
        )
    elif task.teacher_checkpoint:
      restore.find_teacher(task.model, task.teacher_checkpoint)
    elif self._serial and not task.init_checkpoint:
      raise ValueError(
        "task.teacher_checkpoint is '': serial training needs a trained teacher. "
        'Name a run of yt8m_distill_single with '
        f'{settings.flag("teacher_checkpoint", "RUN")}, or train in parallel with '
        f'{settings.flag("training", "parallel")}.'
      )

  def initialize(self, model):
    """Starts a new run, its teacher from `teacher_checkpoint` if given."""
    super().initialize(model)
    source = self.task_config.teacher_checkpoint
    if source:
      restore.restore_model(
        model.teacher, *restore.find_teacher(self.task_config.model, source)
      )

  def start_from(self, model, source):
    checkpoint = run_dir.checkpoint(source)
    restore.check_config(self.task_config.model, checkpoint)
    restore.restore_model(model, checkpoint)

  def networks(self, model_or_outputs):
    if isinstance(model_or_outputs, distiller.Distiller):
      networks = model_or_outputs.teacher, model_or_outputs.student
    else:
      networks = model_or_outputs['teacher'], model_or_outputs['student']
    return dict(zip(self.prefixes, networks))

  def build_reader(self):
    # The teacher needs all frames; the model picks the student's.
    model = self.task_config.model
    # One that stays as it is has no dropout.
    draws = (
      model.teacher.frames.type == 'random' if self._serial else model.teacher.draws()
    )
    return reader.FrameReader(
      model.features,
      model.max_frames,
      model.num_classes,
      model_config.FrameSelection(),
      with_seeds=draws or model.student.draws(),
    )

  def loss_terms(self, labels, outputs) -> dict[str, tf.Tensor]:
    """Adds the student's distances from the teacher.

    'student/prediction_loss', 'student/representation_loss' and, where it has a
    weight, 'student/intermediate_loss'. The second is left out where the
    representations differ in width, which they may where it has no weight.
    """
    teacher, student = outputs['teacher'], outputs['student']
    student = {**student, **student.get('projected', {})}
    params = self.task_config.losses
    terms = {
      **super().loss_terms(labels, outputs),
      'student/prediction_loss': losses.prediction_loss(
        tf.stop_gradient(teacher['predictions']),
        student['predictions'],
        params.prediction_kind,
        params.label_epsilon,
        params.prediction_temperature,
      ),
    }
    wanted, seen = (
      tf.stop_gradient(teacher['representation']),
      student['representation'],
    )
    if wanted.shape[-1] == seen.shape[-1]:
      terms['student/representation_loss'] = losses.representation_loss(wanted, seen)
    if params.intermediate_weight:
      terms['student/intermediate_loss'] = losses.intermediate_loss(
        tf.stop_gradient(teacher['moment_states']),
        student['moment_states'],
        student['num_moments'],
      )
    return terms

  def regularization_terms(self, model):
    """As of single networks; a shared head counts as the teacher's."""
    terms = super().regularization_terms(model)
    if self.task_config.model.share_head:
      terms['student/regularization_loss'] = self._regularization(
        model.student.backbone
      )
    return terms

  def factors(self, step):
    return {'distillation_factor': self._schedule(step)}

  def total_loss(self, terms, regularization, mean, total, distillation_factor=1.0):
    """As of a single network; evaluation is not under the schedule."""
    params = self.task_config.losses
    reduce = total if params.prediction_reduction == 'sum' else mean
    loss = regularization['student/regularization_loss']
    for name, factor, average in (
      ('label', 1.0, mean),
      ('representation', distillation_factor, mean),
      ('intermediate', distillation_factor, mean),
      ('prediction', distillation_factor, reduce),
    ):
      weight = getattr(params, f'{name}_weight')
      if weight:  # Else no gradient is computed.
        loss += factor * weight * average(terms[f'student/{name}_loss'])
    if not self._serial:
      loss += (
        mean(terms['teacher/label_loss'])
        + regularization['teacher/regularization_loss']
      )
    return loss

  def _train_metric_names(self):
    """What has no weight is measured in evaluation alone."""
    params = self.task_config.losses
    names = [*super()._train_metric_names()]
    names += [
      f'student/{name}_loss'
      for name in ('representation', 'intermediate', 'prediction')
      if getattr(params, f'{name}_weight')
    ]
    return names if self._schedule.constant else [*names, 'distillation_factor']

  @tf.autograph.experimental.do_not_convert  # 3 times faster to trace
  def validation_step(self, inputs, model, metrics=None):
    """Adds the agreement of the two networks, per video."""
    logs = super().validation_step(inputs, model, metrics)
    agreement = video_metrics.agreement(
      logs['teacher/classes'], logs['student/classes']
    )
    return {**logs, **{f'agreement/{k}': v for k, v in agreement.items()}}
