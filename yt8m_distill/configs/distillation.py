"""The experiment `yt8m_distill`: a student trained with its teacher."""

import dataclasses

from official.core import config_definitions as cfg
from official.core import exp_factory
from official.modeling import hyperparams

import gin
from yt8m_distill.configs import classification
from yt8m_distill.configs import common
from yt8m_distill.configs import model as model_config
from yt8m_distill.configs import validation


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
    representation_weight: weight of L_REP, a sum of squares of unbounded
      states: at 1, as in the paper, it dominates the other losses
      (experiments/study/paper.yaml).
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
  prediction_kind: str = validation.choice('kl', 'kl', 'mse', 'bce')
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
class DistillationTask(classification.VideoTask):
  """Teacher and student.

  Attributes:
    model: both networks and their input.
    losses: losses and their weights.
    training: 'parallel' also trains the teacher; 'serial' restores it from
      `teacher_checkpoint` and freezes it.
    teacher_checkpoint: a run of `yt8m_distill_single` or `yt8m_distill`, its
      best_ckpt, or the prefix of a checkpoint.
  """

  model: model_config.DistillerModel = dataclasses.field(
    default_factory=model_config.DistillerModel
  )
  losses: DistillationLoss = dataclasses.field(default_factory=DistillationLoss)
  training: str = validation.choice('parallel', 'parallel', 'serial')
  teacher_checkpoint: str = ''


@exp_factory.register_config_factory('yt8m_distill')
@gin.configurable('yt8m_distill')
def yt8m_distill(
  training: str = 'parallel',
  teacher_checkpoint: str = '',
  frames: str = 'uniform',
  every_n: int = 10,
  k: int = 0,
  student_length: str = 'ceil',
  backbone: str = 'hierarchical_lstm',
  head: str = '',
  student_chunks: int = 5,
  teacher_chunks: int = 20,
  num_cells: int = 1024,
  num_layers: int = 2,
  num_mixtures: int = 2,
  num_classes: int = 3862,
  max_frames: int = 300,
  train_path: str = '',
  validation_path: str = '',
  batch_size: int = 256,
  train_steps: int = common.FIVE_EPOCHS,
  learning_rate: float = 1e-3,
  learning_rate_decay: float = 0.95,
  adam_epsilon: float = 1e-7,
  representation_weight: float = 1e-3,
  prediction_reduction: str = 'mean',
  seed: int = 0,
) -> cfg.ExperimentConfig:
  """Teacher that sees all frames, student that sees some of them.

  Args:
    training: parallel, or serial, where the teacher stays as it is.
    teacher_checkpoint: where a serial run's teacher comes from.
    frames: which ones the student sees: uniform, random, first, middle, last,
      first_middle_last, all.
    every_n: N, the student sees frames 0, N, 2N, ...; unless k is given.
    k: how many frames the student sees, unless all; 0 for every N-th.
    student_length: how the student counts every N-th frame: ceil, or original.
    backbone: of both networks.
    head: of both: moe, logistic, or the one published with the backbone ('').
    student_chunks: divides the number of frames that the student sees.
    teacher_chunks: divides max_frames.
    num_cells: cells of every LSTM layer of both networks.
    num_layers: LSTM layers of each of their stacks.
    num_mixtures: experts per class, beside the dummy.
    num_classes: 3862 (2018), 4716 (2017), 4800 (2016) or another.
    max_frames: longer videos are cut here.
    train_path: records to train on: files or patterns, comma separated.
    validation_path: records to evaluate on.
    batch_size: over all replicas, in training and evaluation.
    train_steps: length of training.
    learning_rate: of Adam, at the start.
    learning_rate_decay: factor every 4,000,000 videos, in steps of its own.
    adam_epsilon: of Adam.
    representation_weight: of L_REP.
    prediction_reduction: of L_PRED over the batch: mean or sum.
    seed: of the weights' start and of the order of the data.

  Returns:
    The configuration; every argument is one of its fields.
  """
  sizes = dict(
    backbone=backbone,
    head=head,
    num_cells=num_cells,
    num_layers=num_layers,
    num_mixtures=num_mixtures,
  )
  return cfg.ExperimentConfig(
    task=DistillationTask(
      training=training,
      teacher_checkpoint=teacher_checkpoint,
      seed=seed,
      model=model_config.DistillerModel(
        num_classes=num_classes,
        max_frames=max_frames,
        teacher=common.network(
          model_config.FrameSelection(), chunks=teacher_chunks, **sizes
        ),
        student=common.network(
          common.selection(frames, every_n, k, student_length),
          chunks=student_chunks,
          **sizes,
        ),
      ),
      losses=DistillationLoss(
        representation_weight=representation_weight,
        prediction_reduction=prediction_reduction,
      ),
      **common.records(train_path, validation_path, batch_size, seed),
    ),
    trainer=common.trainer(
      'student/gap',
      batch_size,
      train_steps,
      learning_rate,
      learning_rate_decay,
      adam_epsilon,
    ),
  )
