"""The registered experiments.

`yt8m_distill` trains a student together with its teacher. `yt8m_distill_single`
trains one network from scratch, as the paper does for its skyline and baselines.
`yt8m_distill_finetune` continues the training of a distilled student.

A factory writes every setting that concerns its experiment into one field of the
configuration, which the Garden then overrides with YAML and --params_override.
"""

import dataclasses
from typing import Any

from official.core import config_definitions as cfg
from official.modeling import hyperparams
from official.modeling import optimization

from yt8m_distill.configs import classification
from yt8m_distill.configs import data
from yt8m_distill.configs import distillation
from yt8m_distill.configs import model as model_config
from yt8m_distill.configs import registry
from yt8m_distill.configs import settings as settings_lib

# Passes over the 2018 training set (3,888,919 videos) in batches of 256.
_FIVE_EPOCHS = 75955
_THREE_EPOCHS = 45573
# The original's unit of learning rate decay.
_DECAY_EXAMPLES = 4_000_000


@registry.register('yt8m_distill')
def yt8m_distill(settings: settings_lib.Settings | None = None) -> cfg.ExperimentConfig:
  """Configures a teacher that sees all frames and a student that sees some.

  Args:
    settings: Settings of the experiment; None for those that gin binds.

  Returns:
    The configuration.

  Raises:
    ValueError: A setting has the wrong type, or names an unknown alternative.
  """
  settings = settings or settings_lib.Settings()
  return cfg.ExperimentConfig(
    task=distillation.DistillationTask(
      training=settings.training,
      teacher_checkpoint=settings.teacher_checkpoint,
      model=model_config.DistillerModel(
        num_classes=settings.num_classes,
        max_frames=settings.max_frames,
        teacher=_network(
          settings, model_config.FrameSelection(), settings.teacher_chunks
        ),
        student=_network(settings, _selection(settings), settings.student_chunks),
      ),
      losses=distillation.DistillationLoss(
        representation_weight=settings.representation_weight,
        prediction_reduction=settings.prediction_reduction,
      ),
      **_records_and_seed(settings),
    ),
    trainer=_trainer(settings, 'student/gap', _FIVE_EPOCHS),
  )


@registry.register('yt8m_distill_single')
def yt8m_distill_single(
  settings: settings_lib.Settings | None = None,
) -> cfg.ExperimentConfig:
  """Configures one network that is trained from scratch on its label loss.

  Args:
    settings: As for `yt8m_distill`.

  Returns:
    The configuration.

  Raises:
    ValueError: As for `yt8m_distill`.
  """
  settings = settings or settings_lib.Settings()
  return cfg.ExperimentConfig(
    task=_single_task(settings), trainer=_trainer(settings, 'gap', _FIVE_EPOCHS)
  )


@registry.register('yt8m_distill_finetune')
def yt8m_distill_finetune(
  settings: settings_lib.Settings | None = None,
) -> cfg.ExperimentConfig:
  """Configures a distilled student that continues on its label loss.

  Args:
    settings: As for `yt8m_distill`. Where num_classes differs from that of the
      network in init_checkpoint, the head is initialized anew.

  Returns:
    The configuration.

  Raises:
    ValueError: As for `yt8m_distill`.
  """
  settings = settings or settings_lib.Settings()
  task = _single_task(settings)
  task.init_checkpoint = settings.init_checkpoint
  return cfg.ExperimentConfig(
    task=task, trainer=_trainer(settings, 'gap', _THREE_EPOCHS)
  )


def _single_task(settings: settings_lib.Settings) -> classification.ClassificationTask:
  """One network: the teacher's if it sees all frames, otherwise the student's."""
  chunks = (
    settings.teacher_chunks if settings.frames == 'all' else settings.student_chunks
  )
  return classification.ClassificationTask(
    model=model_config.ClassifierModel(
      num_classes=settings.num_classes,
      max_frames=settings.max_frames,
      network=_network(settings, _selection(settings), chunks),
    ),
    **_records_and_seed(settings),
  )


def _one_of(name: str, value: str, config: type[hyperparams.OneOfConfig]) -> str:
  """Returns a setting that names an alternative of a one-of configuration."""
  choices = [field.name for field in dataclasses.fields(config) if field.name != 'type']
  if value not in choices:
    raise ValueError(
      f'yt8m_distill.{name} is {value!r}: it must be one of {", ".join(choices)}.'
    )
  return value


def _selection(settings: settings_lib.Settings) -> model_config.FrameSelection:
  """The frames that the student sees: k, or every N-th where k is 0."""
  frames = _one_of('frames', settings.frames, model_config.FrameSelection)
  selection = model_config.FrameSelection(type=frames)
  if frames == 'uniform':
    selection.uniform = model_config.UniformFrames(
      every_n=0 if settings.k else settings.every_n,
      k=settings.k,
      length=settings.length,
    )
  some = getattr(selection, frames)
  if isinstance(some, model_config.SomeFrames):
    some.k = settings.k
  return selection


def _network(
  settings: settings_lib.Settings, frames: model_config.FrameSelection, chunks: int
) -> model_config.Network:
  """A network with the head that was published with its backbone."""
  head = model_config.Head(moe=model_config.Moe(num_mixtures=settings.num_mixtures))
  # Half of the published decay: here a regularization_penalty of 2 multiplies it.
  if settings.backbone == 'netvlad':
    head.moe.input_gate = head.moe.output_gate = True
    head.moe.l2_weight_decay = 0.5e-6
  elif settings.backbone == 'nextvlad':
    head.type = 'logistic'
    head.logistic.input_gate = 'se'
    head.logistic.l2_weight_decay = 0.5e-5
  if settings.head:
    head.type = _one_of('head', settings.head, model_config.Head)
  return model_config.Network(
    frames=frames,
    backbone=model_config.Backbone(
      type=_one_of('backbone', settings.backbone, model_config.Backbone),
      hierarchical_lstm=model_config.HierarchicalLstm(
        chunks=chunks, num_cells=settings.num_cells, num_layers=settings.num_layers
      ),
    ),
    head=head,
  )


def _records_and_seed(
  settings: settings_lib.Settings,
) -> dict[str, Any]:
  """Fields that all tasks have."""
  return dict(
    train_data=data.VideoData(
      input_path=settings.train_path,
      global_batch_size=settings.batch_size,
      seed=settings.seed,
      is_training=True,
    ),
    validation_data=data.VideoData(
      input_path=settings.validation_path,
      global_batch_size=settings.batch_size,
      is_training=False,
      drop_remainder=False,
    ),
    seed=settings.seed,
  )


def _trainer(
  settings: settings_lib.Settings, best_metric: str, default_steps: int
) -> cfg.TrainerConfig:
  """Adam with clipping per tensor and exponential decay; keeps the best checkpoint."""
  return cfg.TrainerConfig(
    train_steps=settings.train_steps or default_steps,
    steps_per_loop=100,
    summary_interval=100,
    checkpoint_interval=1000,
    validation_interval=5000,
    best_checkpoint_export_subdir='best_ckpt',
    best_checkpoint_eval_metric=best_metric,
    best_checkpoint_metric_comp='higher',
    optimizer_config=optimization.OptimizationConfig(
      {
        'optimizer': {
          'type': 'adam',
          'adam': {'epsilon': settings.adam_epsilon, 'clipnorm': 1.0},
        },
        'learning_rate': {
          'type': 'exponential',
          'exponential': {
            'initial_learning_rate': settings.learning_rate,
            # The data's configuration reports a batch that is not positive.
            'decay_steps': max(1, _DECAY_EXAMPLES // max(1, settings.batch_size)),
            'decay_rate': settings.learning_rate_decay,
            'staircase': True,
          },
        },
      }
    ),
  )
