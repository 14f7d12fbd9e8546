"""Single networks: their task, and the experiments that train them.

`yt8m_distill_single` trains one from scratch: the paper's skyline and
baselines. `yt8m_distill_finetune` trains a student on that was distilled
before.
"""

import dataclasses

from official.core import config_definitions as cfg
from official.core import exp_factory
from official.modeling import hyperparams

import gin
from yt8m_distill.configs import experiments
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


def _experiment(
  frames,
  every_n,
  k,
  length,
  backbone,
  head,
  chunks,
  num_cells,
  num_layers,
  num_mixtures,
  num_classes,
  max_frames,
  train_path,
  validation_path,
  batch_size,
  train_steps,
  learning_rate,
  learning_rate_decay,
  adam_epsilon,
  seed,
  init_checkpoint='',
) -> cfg.ExperimentConfig:
  return cfg.ExperimentConfig(
    task=ClassificationTask(
      init_checkpoint=init_checkpoint,
      seed=seed,
      model=model_config.ClassifierModel(
        num_classes=num_classes,
        max_frames=max_frames,
        network=experiments.network(
          experiments.selection(frames, every_n, k, length),
          backbone,
          head,
          chunks,
          num_cells,
          num_layers,
          num_mixtures,
        ),
      ),
      **experiments.records(train_path, validation_path, batch_size, seed),
    ),
    trainer=experiments.trainer(
      'gap', batch_size, train_steps, learning_rate, learning_rate_decay, adam_epsilon
    ),
  )


@exp_factory.register_config_factory('yt8m_distill_single')
@gin.configurable('yt8m_distill_single')
def yt8m_distill_single(
  frames: str = 'uniform',
  every_n: int = 10,
  k: int = 0,
  length: str = 'ceil',
  backbone: str = 'hierarchical_lstm',
  head: str = '',
  chunks: int = 5,
  num_cells: int = 1024,
  num_layers: int = 2,
  num_mixtures: int = 2,
  num_classes: int = 3862,
  max_frames: int = 300,
  train_path: str = '',
  validation_path: str = '',
  batch_size: int = 256,
  train_steps: int = experiments.FIVE_EPOCHS,
  learning_rate: float = 1e-3,
  learning_rate_decay: float = 0.95,
  adam_epsilon: float = 1e-7,
  seed: int = 0,
) -> cfg.ExperimentConfig:
  """One network on its label loss, from scratch.

  Args:
    frames: which ones the network sees: uniform, random, first, middle, last,
      first_middle_last, all.
    every_n: N, the network sees frames 0, N, 2N, ...; unless k is given.
    k: how many frames it sees, unless all; 0 for every N-th.
    length: how it counts every N-th frame: ceil, or original.
    backbone: from frames to the representation.
    head: moe, logistic, or the one published with the backbone ('').
    chunks: divides the number of frames that the network sees.
    num_cells: cells of every LSTM layer.
    num_layers: LSTM layers of each stack.
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
    seed: of the weights' start and of the order of the data.

  Returns:
    The configuration; every argument is one of its fields.
  """
  return _experiment(**locals())


@exp_factory.register_config_factory('yt8m_distill_finetune')
@gin.configurable('yt8m_distill_finetune')
def yt8m_distill_finetune(
  init_checkpoint: str = '',
  frames: str = 'uniform',
  every_n: int = 10,
  k: int = 0,
  length: str = 'ceil',
  backbone: str = 'hierarchical_lstm',
  head: str = '',
  chunks: int = 5,
  num_cells: int = 1024,
  num_layers: int = 2,
  num_mixtures: int = 2,
  num_classes: int = 3862,
  max_frames: int = 300,
  train_path: str = '',
  validation_path: str = '',
  batch_size: int = 256,
  train_steps: int = experiments.THREE_EPOCHS,
  learning_rate: float = 1e-3,
  learning_rate_decay: float = 0.95,
  adam_epsilon: float = 1e-7,
  seed: int = 0,
) -> cfg.ExperimentConfig:
  """A student on its label loss, from where distillation left it.

  The arguments are those of `yt8m_distill_single`, and

  Args:
    init_checkpoint: folder of a distillation run, its best_ckpt, a converted
      student, or the prefix of a checkpoint. Where num_classes differs from
      the one it was trained with, the head starts anew.

  Returns:
    The configuration; every argument is one of its fields.
  """
  return _experiment(**locals())
