"""The experiment `yt8m_distill`: teacher and student trained in parallel."""

import dataclasses

import gin

from official.core import config_definitions as cfg
from official.core import exp_factory
from yt8m_distill.configs import classification
from yt8m_distill.configs import common
from yt8m_distill.configs import model as model_config

@dataclasses.dataclass
class DistillationLoss(classification.LabelLoss):
  """Weights of the student's losses; the teacher has L_CE alone.

  Attributes:
    label_weight: of L_CE.
    representation_weight: of L_REP.
    prediction_weight: of L_PRED.
    prediction_kind: distance of L_PRED.
    prediction_reduction: of L_PRED over the batch; the original sums.
  """
  label_weight: float = 1.0
  representation_weight: float = 1.0
  prediction_weight: float = 1.0
  prediction_kind: str = 'kl'  # kl | mse | bce
  prediction_reduction: str = 'mean'  # mean | sum


@dataclasses.dataclass
class DistillationTask(classification.VideoTask):
  """Teacher and student."""
  model: model_config.DistillerModel = dataclasses.field(
      default_factory=model_config.DistillerModel)
  losses: DistillationLoss = dataclasses.field(default_factory=DistillationLoss)


@exp_factory.register_config_factory('yt8m_distill')
@gin.configurable('yt8m_distill')
def yt8m_distill(every_n: int = 10,
                 student_length: str = 'ceil',
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
                 representation_weight: float = 1.0,
                 prediction_reduction: str = 'mean') -> cfg.ExperimentConfig:
  """Teacher that sees all frames, student that sees every N-th, in parallel.

  Args:
    every_n: N, the student sees frames 0, N, 2N, ...
    student_length: how the student counts its frames: ceil, or original.
    student_chunks: divides ceil(max_frames / every_n).
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

  Returns:
    The configuration; every argument is one of its fields.
  """
  sizes = dict(num_cells=num_cells, num_layers=num_layers,
               num_mixtures=num_mixtures)
  return cfg.ExperimentConfig(
      task=DistillationTask(
          model=model_config.DistillerModel(
              num_classes=num_classes, max_frames=max_frames,
              teacher=common.network(
                  model_config.FrameSelection(), teacher_chunks, **sizes),
              student=common.network(
                  common.uniform(every_n, student_length), student_chunks,
                  **sizes)),
          losses=DistillationLoss(
              representation_weight=representation_weight,
              prediction_reduction=prediction_reduction),
          **common.records(train_path, validation_path, batch_size)),
      trainer=common.trainer(
          'student/gap', batch_size, train_steps, learning_rate,
          learning_rate_decay, adam_epsilon))
