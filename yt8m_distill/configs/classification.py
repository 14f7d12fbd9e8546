"""Configuration of the task that trains a single network."""

import dataclasses

from official.core import config_definitions as cfg
from official.modeling import hyperparams

from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config


@dataclasses.dataclass
class LabelLoss(hyperparams.Config):
  """Losses that any network has.

  Attributes:
    label_kind: what L_CE is.
      'cross_entropy': binary, summed over the classes (the original).
      'softmax': of one distribution over the classes; labels share its mass.
      'hinge': summed over the classes.
      'weighted_cross_entropy': positives of a class count `class_weights`.
    label_epsilon: inside both logarithms of a cross-entropy.
    class_weights: CSV with columns Index and Weight; classes without a row
      weigh 1.
    regularization_penalty: times the L2 terms of the layers.
  """

  # cross_entropy | softmax | hinge | weighted_cross_entropy
  label_kind: str = 'cross_entropy'
  label_epsilon: float = 1e-5
  class_weights: str = ''
  regularization_penalty: float = 2.0


@dataclasses.dataclass
class Evaluation(hyperparams.Config):
  """How predictions are scored.

  Attributes:
    top_k: predictions of a video that enter GAP and mAP.
    empty_classes: a class without positives counts as AP 0 in mAP ('zero'), or
      is left out of the mean ('skip').
    vocabulary: CSV with columns Index and Name for per_class.csv; '' for none.
  """

  top_k: int = 20
  empty_classes: str = 'zero'  # zero | skip
  vocabulary: str = ''


@dataclasses.dataclass
class VideoTask(cfg.TaskConfig):
  """What the tasks share.

  Attributes:
    seed: of the weights' start, on a CPU a run repeats bit for bit. The order
      of the data, and what is drawn at random for a video, follow
      `train_data.seed`.
    train_epochs: length of training in passes over `train_data`. The driver
      `python -m yt8m_distill.train` turns it into `trainer.train_steps`, and
      the two below into the optimizer's steps; 0 leaves the steps as they are.
    decay_epochs: passes between two decays of the learning rate.
    warmup_epochs: passes of linear warm-up.
  """

  train_data: data.VideoData = dataclasses.field(
    default_factory=lambda: data.VideoData(is_training=True)
  )
  validation_data: data.VideoData = dataclasses.field(
    default_factory=lambda: data.VideoData(is_training=False, drop_remainder=False)
  )
  evaluation: Evaluation = dataclasses.field(default_factory=Evaluation)
  seed: int = 0
  train_epochs: float = 0.0
  decay_epochs: float = 0.0
  warmup_epochs: float = 0.0


@dataclasses.dataclass
class ClassificationTask(VideoTask):
  """One network, trained on its label loss."""

  model: model_config.ClassifierModel = dataclasses.field(
    default_factory=model_config.ClassifierModel
  )
  losses: LabelLoss = dataclasses.field(default_factory=LabelLoss)
