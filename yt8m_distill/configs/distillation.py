"""Configuration of the tasks that train a student with its teacher."""

import dataclasses

from official.core import config_definitions as cfg
from official.modeling import hyperparams

from yt8m_distill.configs import classification
from yt8m_distill.configs import model as model_config
from yt8m_distill.configs import registry
from yt8m_distill.configs import validation

PREDICTION_LOSSES = ('kl', 'mse', 'bce')


@dataclasses.dataclass
class WeightSchedule(hyperparams.Config):
  """A factor of the weights of L_REP, L_PRED and L_INT that changes over training.

  Attributes:
    type: how the factor moves from `start` to `end`; 'constant' stays at
      `start`.
    start: factor at step 0.
    end: factor from step `steps` on.
    steps: number of steps from `start` to `end`.
  """

  type: str = validation.choice('constant', 'constant', 'linear', 'cosine')
  start: float = validation.number(1.0, least=0)
  end: float = validation.number(1.0, least=0)
  steps: int = validation.number(0, least=0)

  def check(self, path: str):
    """Raises where fields exclude each other; see `validation`."""
    if self.type != 'constant' and not self.steps:
      raise ValueError(
        f'{path}.steps is 0: a {self.type} schedule takes at least 1 step. Set it, or '
        'type to constant.'
      )


@dataclasses.dataclass
class DistillationLoss(classification.LabelLoss):
  """Weights of the student's losses; the teacher has only L_CE.

  Attributes:
    label_weight: weight of L_CE.
    representation_weight: weight of L_REP, a sum of squares of unbounded states.
      At 1, as in the paper, it dominates the other losses while the teacher learns
      too (experiments/study/paper.yaml); with a trained teacher, 1 is better
      (experiments/study/audioset.yaml, gin/serial.gin).
    prediction_weight: weight of L_PRED.
    prediction_kind: distance that L_PRED measures.
    prediction_temperature: T of 'kl': predictions are raised to 1/T and
      normalized over the classes, and the divergence is multiplied by T^2.
    prediction_reduction: how L_PRED is reduced over the batch; the original
      sums.
    intermediate_weight: weight of L_INT, the squared distance of both networks'
      states at the frames that both see; the original has no such loss.
    schedule: factor of the weights of L_REP, L_PRED and L_INT.
  """

  label_weight: float = validation.number(1.0, least=0)
  representation_weight: float = validation.number(1e-3, least=0)
  prediction_weight: float = validation.number(1.0, least=0)
  prediction_kind: str = validation.choice('kl', *PREDICTION_LOSSES)
  prediction_temperature: float = validation.number(1.0, above=0)
  prediction_reduction: str = validation.choice('mean', 'mean', 'sum')
  intermediate_weight: float = validation.number(0.0, least=0)
  schedule: WeightSchedule = dataclasses.field(default_factory=WeightSchedule)

  def check(self, path: str):
    """Raises where fields exclude each other; see `validation`."""
    super().check(path)
    if self.prediction_kind != 'kl' and self.prediction_temperature != 1:
      raise ValueError(
        f'{path}.prediction_temperature is {self.prediction_temperature}: it applies '
        f'to prediction_kind kl only, which is {self.prediction_kind!r}. Set it to 1.'
      )


@dataclasses.dataclass
class StoredTask(classification.ClassificationTask):
  """A student whose teacher's answers are stored in the records.

  `yt8m-distill teach` writes such records. Evaluation reads any.

  Attributes:
    model: the student and its input.
    losses: its losses and their weights.
  """

  model: model_config.StoredModel = dataclasses.field(
    default_factory=model_config.StoredModel
  )
  losses: DistillationLoss = dataclasses.field(default_factory=DistillationLoss)

  def check(self, path: str):
    """Raises where fields exclude each other; see `validation`."""
    super().check(path)
    if self.losses.intermediate_weight:
      raise ValueError(
        f'{path}.losses.intermediate_weight is {self.losses.intermediate_weight}: '
        'records hold no states of the teacher. Set it to 0, or train with the teacher '
        '(experiment yt8m_distill).'
      )

  def metric_names(self) -> list[str]:
    """Returns the keys of the metrics of an evaluation; see VideoTask."""
    compared = {f'{name}_loss' for name in self.losses.weights()}
    names = super().metric_names()
    return [name for name in names if name.rpartition('/')[2] not in compared]


@dataclasses.dataclass
class DistillationTask(classification.VideoTask):
  """Teacher and student.

  Attributes:
    model: both networks and their input.
    losses: losses and their weights.
    training: 'parallel' also trains the teacher; 'serial' restores it from
      `teacher_checkpoint` and freezes it.
    teacher_checkpoint: a run of `yt8m_distill_single` or `yt8m_distill`, its
      best_ckpt, or the prefix of a checkpoint.
    student_experiment: experiment of the run that a student extracted from this one
      becomes. Its networks must be configured by the same classes.
  """

  model: model_config.DistillerModel = dataclasses.field(
    default_factory=model_config.DistillerModel
  )
  losses: DistillationLoss = dataclasses.field(default_factory=DistillationLoss)
  training: str = validation.choice('parallel', 'parallel', 'serial')
  teacher_checkpoint: str = ''
  student_experiment: str = 'yt8m_distill_finetune'

  def check(self, path: str):
    """Raises where fields exclude each other; see `validation`."""
    super().check(path)
    frames = self.model.teacher.frames.type
    if self.losses.intermediate_weight and frames != 'all':
      raise ValueError(
        f'{path}.model.teacher.frames.type is {frames!r}, but '
        f'{path}.losses.intermediate_weight is above 0: L_INT needs a teacher that '
        'sees all frames. Set the type to all, or the weight to 0.'
      )
    if self.losses.intermediate_weight and self.model.student.frames.counts():
      raise ValueError(
        f"{path}.model.student.frames.type is 'nested', but "
        f'{path}.losses.intermediate_weight is above 0: states are compared in '
        'temporal order. Choose another type, or set the weight to 0.'
      )
    self._check_student_experiment(path)

  def _check_student_experiment(self, path: str):
    try:
      single = registry.defaults(self.student_experiment)
    except LookupError as error:
      raise ValueError(
        f'{path}.student_experiment is {self.student_experiment!r}: no such experiment '
        'is registered. Correct the name, or import the module that registers it, for '
        'example with --import=MODULE.'
      ) from error
    try:
      student = model_config.single_network(self.model, 'student').as_dict()
      single.override({'task': {'model': student}})
    except (LookupError, ValueError) as error:
      raise ValueError(
        f'{path}.student_experiment is {self.student_experiment!r}, which cannot hold '
        f'the student: {error} Set it to an experiment of one network with the same '
        'classes.'
      ) from error

  def metric_names(self) -> list[str]:
    """Returns the keys of the metrics of an evaluation; see VideoTask."""
    names = super().metric_names()
    if self.labels == 'video':
      names += ['agreement/top1', 'agreement/overlap']
    if not self.losses.intermediate_weight:
      names = [n for n in names if n.rpartition('/')[2] != 'intermediate_loss']
    return names

  def check_trainer(self, trainer: cfg.TrainerConfig):
    """Raises a ValueError where the trainer does not fit this task; see VideoTask."""
    super().check_trainer(trainer)
    chosen = trainer.optimizer_config.optimizer
    optimizer = chosen.get()
    # AdamW has a field of its own, which is set by default.
    for field in ('global_clipnorm', 'gradient_clip_norm'):
      norm = getattr(optimizer, field, None)
      if norm:
        optional = validation.fields(type(optimizer))[field].has_type(None)
        raise ValueError(
          f'trainer.optimizer_config.optimizer.{chosen.type}.{field} is {norm}: it '
          'would scale the gradients of each network by the norm of both. Set '
          f'{field} to {"null" if optional else 0}, and clipnorm or clipvalue.'
        )
