"""Configuration of the task that trains a student with its teacher."""

import dataclasses

from official.modeling import hyperparams

from yt8m_distill.configs import classification
from yt8m_distill.configs import model as model_config


@dataclasses.dataclass
class WeightSchedule(hyperparams.Config):
  """A factor on the weights of L_REP, L_PRED and L_INT over training.

  Attributes:
    type: how it goes from `start` to `end`; 'constant' stays at `start`.
    start: at step 0.
    end: from step `steps` on.
    steps: of the way.
  """

  type: str = 'constant'  # constant | linear | cosine
  start: float = 1.0
  end: float = 1.0
  steps: int = 0


@dataclasses.dataclass
class DistillationLoss(classification.LabelLoss):
  """Weights of the student's losses; the teacher has L_CE alone.

  Attributes:
    label_weight: of L_CE.
    representation_weight: of L_REP, a sum of squares of states that have no
      bound: at 1, as in the paper, it drowns the other losses
      (experiments/study/paper.yaml).
    prediction_weight: of L_PRED.
    prediction_kind: distance of L_PRED.
    prediction_temperature: T of 'kl': predictions are raised to 1/T and
      normalised over the classes, the divergence counts T^2 times.
    prediction_reduction: of L_PRED over the batch; the original sums.
    intermediate_weight: of L_INT, the squared distance of both networks' states
      at the moments that both see; the original has no such loss.
    schedule: of the weights of L_REP, L_PRED and L_INT.
  """

  label_weight: float = 1.0
  representation_weight: float = 1e-3
  prediction_weight: float = 1.0
  prediction_kind: str = 'kl'  # kl | mse | bce
  prediction_temperature: float = 1.0
  prediction_reduction: str = 'mean'  # mean | sum
  intermediate_weight: float = 0.0
  schedule: WeightSchedule = dataclasses.field(default_factory=WeightSchedule)


@dataclasses.dataclass
class DistillationTask(classification.VideoTask):
  """Teacher and student.

  Attributes:
    training: 'parallel', the teacher learns too; 'serial', it comes from
      `teacher_checkpoint` and stays as it is.
    teacher_checkpoint: a run of `yt8m_distill_single` or of `yt8m_distill`, its
      best_ckpt, or the prefix of a checkpoint.
  """

  model: model_config.DistillerModel = dataclasses.field(
    default_factory=model_config.DistillerModel
  )
  losses: DistillationLoss = dataclasses.field(default_factory=DistillationLoss)
  training: str = 'parallel'  # parallel | serial
  teacher_checkpoint: str = ''
