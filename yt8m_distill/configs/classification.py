"""Configuration of the task that trains a single network."""

import dataclasses

from official.core import config_definitions as cfg
from official.modeling import hyperparams

from yt8m_distill.configs import allowed
from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config
from yt8m_distill.configs import validation

_MAX_EPOCHS = 1_000_000
LABEL_LOSSES = ('cross_entropy', 'softmax', 'hinge', 'weighted_cross_entropy')
# Of each network in an evaluation, by labels.
_METRICS = {
  'video': ('gap', 'map', 'hit_at_one', 'perr', 'label_loss'),
  'segments': ('map_at_k', 'label_loss'),
}


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
    weak_negatives: if labels are ratings of segments, the weight in the label
      loss of classes that are neither rated in the window nor labels of its video,
      which then count as negatives. Rated classes have weight 1, all others 0.
    regularization_penalty: factor of the layers' L2 terms.
  """

  label_kind: str = validation.choice('cross_entropy', *LABEL_LOSSES)
  label_epsilon: float = validation.number(1e-5, above=0)
  class_weights: str = ''
  weak_negatives: float = validation.number(0.0, least=0)
  regularization_penalty: float = validation.number(2.0, least=0)

  def weights(self) -> dict[str, float]:
    """Returns the weights of the terms besides L_CE: {NAME: NAME_weight}."""
    fields = {field.name for field in dataclasses.fields(self)} - {'label_weight'}
    return {
      name.removesuffix('_weight'): getattr(self, name)
      for name in sorted(fields)
      if name.endswith('_weight')
    }

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
    classes: if labels are ratings of segments, CSV file with the column Index of
      the classes that MAP@K is the mean of, such as segment_label_ids.csv of the
      release; '' for all classes.
    max_windows: K of MAP@K: how many windows of a class count.
  """

  top_k: int = validation.number(20, least=1)
  empty_classes: str = validation.choice('zero', 'zero', 'skip')
  vocabulary: str = ''
  classes: str = ''
  max_windows: int = validation.number(100_000, least=1)


@dataclasses.dataclass
class VideoTask(cfg.TaskConfig):
  """What all tasks have in common.

  Attributes:
    train_data: records to train on.
    validation_data: records to evaluate on.
    evaluation: how predictions are scored.
    labels: what networks learn and are scored on. 'video': the labels of videos.
      'segments': the ratings of windows; the records must be those that
      `yt8m-distill split-segments` writes.
    seed: seed of the initial weights; on a CPU, a run is repeatable bit for
      bit. The order of the data and the random numbers of a video follow from
      `train_data.seed`.
    train_epochs: length of training in passes over `train_data`. The driver
      `yt8m-distill train` converts it to `trainer.train_steps`, and
      the two below to the optimizer's steps; 0 keeps the steps.
    decay_epochs: passes between two decays of the learning rate.
    warmup_epochs: passes of warm-up.
  """

  train_data: data.VideoData = dataclasses.field(
    default_factory=lambda: data.VideoData(is_training=True)
  )
  validation_data: data.VideoData = dataclasses.field(
    default_factory=lambda: data.VideoData(is_training=False, drop_remainder=False)
  )
  evaluation: Evaluation = dataclasses.field(default_factory=Evaluation)
  labels: str = validation.choice('video', 'video', 'segments')
  seed: int = validation.number(0, least=0, most=validation.MAX_SEED)
  train_epochs: float = validation.number(0.0, least=0, most=_MAX_EPOCHS)
  decay_epochs: float = validation.number(0.0, least=0, most=_MAX_EPOCHS)
  warmup_epochs: float = validation.number(0.0, least=0, most=_MAX_EPOCHS)

  def check(self, path: str):
    """Raises where fields exclude each other; see `validation`."""
    for name, is_training in (('train_data', True), ('validation_data', False)):
      if getattr(self, name).is_training != is_training:
        raise ValueError(
          f'{path}.{name}.is_training is {not is_training}: it says what the records '
          f'are for. Set it to {is_training}.'
        )
    self.validation_data.check_evaluation(f'{path}.validation_data')
    *_, learner = self.model.networks().values()
    if learner.frames.counts() and self.labels != 'video':
      raise ValueError(
        f"{path}.labels is {self.labels!r}, but frames.type is 'nested', which is for "
        "labels of videos. Set labels to 'video', or choose another type."
      )
    for name, value, unset in (
      ('losses.weak_negatives', self.losses.weak_negatives, 0),
      ('evaluation.classes', self.evaluation.classes, ''),
    ):
      if value and self.labels != 'segments':
        raise ValueError(
          f'{path}.{name} is {value!r}, but {path}.labels is {self.labels!r}: it '
          f'applies to ratings only. Set it to {unset!r}, or labels to segments.'
        )

  def metric_names(self) -> list[str]:
    """Returns the keys of the metrics of an evaluation.

    The task of another project that computes further ones overrides it.
    """
    prefixes = [model_config.key_prefix(name) for name in self.model.networks()]
    answers = [f'{prefixes[-1]}{name}/' for name in self.model.earlier_answers()]
    return [
      *(
        f'{prefix}{name}'
        for prefix in (*prefixes, *answers)
        for name in _METRICS[self.labels]
      ),
      *(
        f'{prefix}{name}_loss'
        for prefix in (prefixes[-1], *answers)
        for name in self.losses.weights()
      ),
      'skipped',
      *(['validation_loss'] if self.labels == 'video' else []),
    ]

  def check_trainer(self, trainer: cfg.TrainerConfig):
    """Raises where the trainer's configuration does not fit this task.

    Args:
      trainer: the experiment's.

    Raises:
      ValueError: names the field by its full path, its value and the remedy.
    """
    metric, names = trainer.best_checkpoint_eval_metric, self.metric_names()
    if metric and metric not in names:
      allowed.fail(
        'trainer.best_checkpoint_eval_metric',
        metric,
        f'choose one of {", ".join(names)}',
      )
    chosen = trainer.optimizer_config.optimizer
    for name in ('clipnorm', 'clipvalue', 'global_clipnorm'):
      value = getattr(chosen.get(), name)
      if self.differential_privacy_config and value is not None:
        raise ValueError(
          f'trainer.optimizer_config.optimizer.{chosen.type}.{name} is {value}: '
          'task.differential_privacy_config clips gradients. Set either to null.'
        )
    for name, schedule, steps, types in (
      ('decay_epochs', 'learning_rate', 'decay_steps', 'exponential or cosine'),
      ('warmup_epochs', 'warmup', 'warmup_steps', 'linear or polynomial'),
    ):
      epochs, place = getattr(self, name), f'trainer.optimizer_config.{schedule}'
      chosen = getattr(trainer.optimizer_config, schedule)
      has_steps = hasattr(chosen.get(), steps)
      if epochs and not has_steps:
        raise ValueError(
          f'task.{name} is {epochs}, but {place}.type is {chosen.type!r}, which has no '
          f'{steps}. Set {place}.type to {types}, or task.{name} to 0.'
        )
      if has_steps and not epochs and getattr(chosen.get(), steps) is None:
        raise ValueError(
          f'{place}.{chosen.type}.{steps} is None: it needs a number of steps. Set it, '
          f'or task.{name}.'
        )


@dataclasses.dataclass
class ClassificationTask(VideoTask):
  """One network, trained on its label loss.

  Attributes:
    model: the network and its input.
    losses: its losses.
    fine_tunes: whether a new run must start from `init_checkpoint`.
    init_network: which network of a distillation run `init_checkpoint` stands for.
  """

  model: model_config.ClassifierModel = dataclasses.field(
    default_factory=model_config.ClassifierModel
  )
  losses: LabelLoss = dataclasses.field(default_factory=LabelLoss)
  fine_tunes: bool = False
  init_network: str = validation.choice('student', 'student', 'teacher')
