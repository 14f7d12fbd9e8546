"""Trains a student with its teacher, as in the CVPR 2019 paper.

Parallel training trains both networks: the teacher on its label loss, the student
on L_REP, L_PRED and L_CE, and on L_INT if it has a weight. Serial training freezes
a teacher that was trained before. As in the original code, which has only parallel
training and no L_INT, the student's losses see the teacher as a constant, and they
do not affect the teacher unless the networks share a head.
"""

from official.core import task_factory
import tensorflow as tf
import tf_keras

from yt8m_distill.checkpoints import restore
from yt8m_distill.checkpoints import run_dir
from yt8m_distill.configs import distillation as config
from yt8m_distill.configs import model as model_config
from yt8m_distill.configs import settings
from yt8m_distill.dataloaders import reader
from yt8m_distill.evaluation import video_metrics
from yt8m_distill.modeling import distiller
from yt8m_distill.tasks import classification
from yt8m_distill.tasks import loss_terms

_schedules = tf_keras.optimizers.schedules
# For each type, a function that returns a schedule from 1 to 0 in a number of steps.
_FALLS = {
  'linear': lambda steps: _schedules.PolynomialDecay(1.0, steps, 0.0),
  'cosine': lambda steps: _schedules.CosineDecay(1.0, steps),
}


class WeightSchedule:
  """A factor of the distillation losses' weights, as a function of the step.

  Attributes:
    constant: whether the factor never changes.
  """

  def __init__(self, params: config.WeightSchedule):
    """Initializes the schedule.

    Args:
      params: its configuration.
    """
    self.constant = params.type == 'constant'
    self._params = params

  def __call__(self, step: tf.Tensor) -> tf.Tensor:
    """Returns the factor at a step.

    Args:
      step: int, number of updates before this one.

    Returns:
      float32 scalar.
    """
    params = self._params
    if self.constant:
      return tf.constant(params.start, tf.float32)
    left = _FALLS[params.type](params.steps)(tf.cast(step, tf.float32))
    return params.end + (params.start - params.end) * left


class StudentTask(classification.ClassificationTask):
  """A task whose student learns from a teacher; `losses.schedule` scales how much."""

  def __init__(self, params, logging_dir=None, name=None):
    super().__init__(params, logging_dir=logging_dir, name=name)
    self._schedule = WeightSchedule(params.losses.schedule)

  def factors(self, step):
    """Returns the factor of the distillation losses at a step, a float32 scalar."""
    return {'distillation_factor': self._schedule(step)}

  def _train_metric_names(self):
    names = super()._train_metric_names()
    return names if self._schedule.constant else [*names, 'distillation_factor']


@task_factory.register_task_cls(config.DistillationTask)
class DistillationTask(StudentTask):
  """Teacher and student together."""

  prefixes = ('teacher/', 'student/')

  def __init__(self, params, logging_dir=None, name=None):
    super().__init__(params, logging_dir=logging_dir, name=name)
    self._serial = params.training == 'serial'

  def create_model(self):
    """Returns both networks; build_model() calls it."""
    model = distiller.build(self.task_config.model, self._compared())
    model.teacher.trainable = not self._serial
    return model

  def _compared(self) -> list[str]:
    """Returns the student's outputs that a loss compares with the teacher's."""
    terms = loss_terms.weighted(self.task_config.losses)
    names = [name for _, weight, term in terms if weight for name in term.compares]
    # Predictions have the same width, V, in all networks.
    return [name for name in dict.fromkeys(names) if name != 'predictions']

  def check_start(self):
    """Checks that training can start or resume; see ClassificationTask.check_start().

    Raises:
      ValueError: also if the run has no teacher, or was started with another
        `training`.
    """
    super().check_start()
    task, checkpoint = self.task_config, self._run_checkpoint()
    if checkpoint:
      path = run_dir.params_path(checkpoint)
      before = path and run_dir.read_params(path).task.training
      if path and before != task.training:
        raise ValueError(
          f'task.training is {task.training!r}, but the run in '
          f'{self.logging_dir} was started with {before!r}. Set it to that, or '
          'choose another --model_dir.'
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
    """Initializes a new run; the trainer calls it if there is no checkpoint.

    Restores the teacher from `teacher_checkpoint`, if given.
    """
    super().initialize(model)
    source = self.task_config.teacher_checkpoint
    if source:
      restore.restore_model(
        model.teacher, *restore.find_teacher(self.task_config.model, source)
      )

  def start_from(self, model, source):
    """Initializes both networks from a distillation run or checkpoint."""
    checkpoint = run_dir.checkpoint(source)
    restore.check_start(self.task_config.model, checkpoint)
    restore.restore_model(model, checkpoint)

  def networks(self, model_or_outputs):
    """Splits a model, or its outputs, by prefix: 'teacher/' and 'student/'."""
    if isinstance(model_or_outputs, distiller.Distiller):
      networks = model_or_outputs.teacher, model_or_outputs.student
    else:
      networks = model_or_outputs['teacher'], model_or_outputs['student']
    return dict(zip(self.prefixes, networks))

  def build_reader(self):
    """Returns the parser of records, which keeps all frames for the teacher."""
    model = self.task_config.model
    # A frozen teacher has no dropout.
    draws = (
      model.teacher.frames.type == 'random' if self._serial else model.teacher.draws()
    )
    return reader.FrameReader(
      model.features,
      model.max_frames,
      model.num_classes,
      model_config.FrameSelection(),
      with_seeds=draws or model.student.draws(),
      with_window_starts=any(
        network.frames.type == 'window' for network in model.networks().values()
      ),
      **self.labels_read(),
    )

  def student_and_teacher(self, outputs):
    """Returns the student's outputs, projected, and the teacher's as constants."""
    student = outputs['student']
    teacher = tf.nest.map_structure(tf.stop_gradient, outputs['teacher'])
    return {**student, **student.get('projected', {})}, teacher

  def regularization_terms(self, model):
    """Returns the L2 terms of both networks; a shared head is the teacher's."""
    terms = super().regularization_terms(model)
    if self.task_config.model.share_head:
      terms['student/regularization_loss'] = self._regularization(
        model.student.backbone
      )
    return terms

  def total_loss(self, terms, regularization, mean, total, distillation_factor=1.0):
    """Returns the loss to minimize; the schedule does not apply in evaluation."""
    loss = super().total_loss(terms, regularization, mean, total, distillation_factor)
    if not self._serial:
      loss += (
        mean(terms['teacher/label_loss'])
        + regularization['teacher/regularization_loss']
      )
    return loss

  @tf.autograph.experimental.do_not_convert  # 3 times faster to trace
  def validation_step(self, inputs, model, metrics=None):
    """Scores a batch; the trainer calls it on each replica for each batch.

    Args:
      inputs: a batch of build_inputs().
      model: the model.
      metrics: not used.

    Returns:
      What the base class returns, and, unless labels are ratings, 'agreement/top1' and
      'agreement/overlap', float32 [B].
    """
    logs = super().validation_step(inputs, model, metrics)
    if self._segments:
      return logs
    agreement = video_metrics.agreement(
      logs['teacher/classes'], logs['student/classes']
    )
    return {**logs, **{f'agreement/{k}': v for k, v in agreement.items()}}
