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
from yt8m_distill.configs import common
from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config
from yt8m_distill.configs import validation


@dataclasses.dataclass
class LabelLoss(hyperparams.Config):
  """Losses of every network.

  Attributes:
    label_kind: the label loss L_CE.
      'cross_entropy': binary cross-entropy, summed over the classes (as in the
        original).
      'softmax': cross-entropy of one distribution over the classes, in which
        all labels have the same probability.
      'hinge': hinge loss, summed over the classes.
      'weighted_cross_entropy': as 'cross_entropy', with the positive terms of a
        class multiplied by its weight in `class_weights`.
    label_epsilon: added to the arguments of the logarithms.
    class_weights: CSV file with the columns Index and Weight; classes without
      a row have weight 1.
    regularization_penalty: factor of the layers' L2 terms.
  """

  label_kind: str = validation.choice(
    'cross_entropy', 'cross_entropy', 'softmax', 'hinge', 'weighted_cross_entropy'
  )
  label_epsilon: float = validation.number(1e-5, above=0)
  class_weights: str = ''
  regularization_penalty: float = validation.number(2.0, least=0)

  def check(self, path: str):
    """Raises where fields exclude each other; see `validation`."""
    weighted = self.label_kind == 'weighted_cross_entropy'
    if weighted and not self.class_weights:
      raise ValueError(
        f"{path}.class_weights is '': label_kind weighted_cross_entropy needs a CSV "
        'file with the columns Index and Weight. Set it.'
      )
    if self.class_weights and not weighted:
      raise ValueError(
        f'{path}.class_weights is {self.class_weights!r}: label_kind '
        f"{self.label_kind} uses no weights. Set it to '', or label_kind to "
        'weighted_cross_entropy.'
      )


@dataclasses.dataclass
class Evaluation(hyperparams.Config):
  """How predictions are scored.

  Attributes:
    top_k: number of predictions per video that count in GAP and mAP.
    empty_classes: whether a class without positives counts as AP 0 in mAP
      ('zero') or is left out of the mean ('skip').
    vocabulary: CSV file with the columns Index and Name, whose names
      per_class.csv repeats; '' for none.
  """

  top_k: int = validation.number(20, least=1)
  empty_classes: str = validation.choice('zero', 'zero', 'skip')
  vocabulary: str = ''


@dataclasses.dataclass
class VideoTask(cfg.TaskConfig):
  """What all tasks have in common.

  Attributes:
    train_data: records to train on.
    validation_data: records to evaluate on.
    evaluation: how predictions are scored.
    seed: seed of the initial weights; on a CPU, a run is repeatable bit for
      bit. The order of the data and the random numbers of a video follow from
      `train_data.seed`.
    train_epochs: length of training in passes over `train_data`. The driver
      `python -m yt8m_distill.train` converts it to `trainer.train_steps`, and
      the two below to the optimizer's steps; 0 keeps the steps.
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
  train_epochs: float = validation.number(0.0, least=0)
  decay_epochs: float = validation.number(0.0, least=0)
  warmup_epochs: float = validation.number(0.0, least=0)


@dataclasses.dataclass
class ClassificationTask(VideoTask):
  """One network, trained on its label loss.

  Attributes:
    model: the network and its input.
    losses: its losses.
  """

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
        network=common.network(
          common.selection(frames, every_n, k, length),
          backbone,
          head,
          chunks,
          num_cells,
          num_layers,
          num_mixtures,
        ),
      ),
      **common.records(train_path, validation_path, batch_size, seed),
    ),
    trainer=common.trainer(
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
  train_steps: int = common.FIVE_EPOCHS,
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
  train_steps: int = common.THREE_EPOCHS,
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
