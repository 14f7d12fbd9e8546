"""The registered experiments.

`yt8m_distill` trains a student together with its teacher. `yt8m_distill_single`
trains one network from scratch, as the paper does for its skyline and baselines.
`yt8m_distill_stored` trains a student whose teacher's answers are in the records.
`yt8m_distill_finetune` continues the training of a distilled student.
`yt8m_distill_segments` continues that of any network on ratings of windows.

A factory writes every setting that concerns its experiment into one field of the
configuration, which the Garden then overrides with YAML and --params_override.

An experiment of another project calls one of these factories with its own classes,
and registers the result under its own name with `registry.register`.
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
# On rated windows, which are few: more steps overfit.
_SEGMENT_STEPS = 2500
_SEGMENT_INTERVAL = 500  # steps between two evaluations
# The original's unit of learning rate decay.
_DECAY_EXAMPLES = 4_000_000


@registry.register('yt8m_distill')
def yt8m_distill(
  settings: settings_lib.Settings | None = None,
  task: type[distillation.DistillationTask] = distillation.DistillationTask,
  network: type[model_config.Network] = model_config.Network,
) -> cfg.ExperimentConfig:
  """Configures a teacher that sees all frames and a student that sees some.

  Args:
    settings: Settings of the experiment; None for those that gin binds.
    task: Class of the task's configuration. Its default losses are kept, except
      for the fields that settings set.
    network: Class of the networks' configuration. The settings `backbone` and
      `head` name alternatives of its fields.

  Returns:
    The configuration.

  Raises:
    ValueError: A setting has the wrong type, or names an unknown alternative.
  """
  settings = settings or settings_lib.current()
  params = task(
    training=settings.training,
    teacher_checkpoint=settings.teacher_checkpoint,
    init_checkpoint=settings.init_checkpoint,
    **_records_and_seed(settings),
  )
  if settings.labels == 'segments':
    params.student_experiment = 'yt8m_distill_segments'
  params.model.num_classes = settings.num_classes
  params.model.max_frames = settings.max_frames
  params.model.teacher = _network(
    network, settings, model_config.FrameSelection(), settings.teacher_chunks
  )
  params.model.student = _network(
    network, settings, _selection(settings), settings.student_chunks
  )
  _set_losses(params.losses, settings)
  return cfg.ExperimentConfig(
    task=params, trainer=_trainer(settings, 'student/', _FIVE_EPOCHS)
  )


@registry.register('yt8m_distill_single')
def yt8m_distill_single(
  settings: settings_lib.Settings | None = None,
  task: type[classification.ClassificationTask] = classification.ClassificationTask,
  network: type[model_config.Network] = model_config.Network,
) -> cfg.ExperimentConfig:
  """Configures one network that is trained from scratch on its label loss.

  Args:
    settings: As for `yt8m_distill`.
    task: As for `yt8m_distill`.
    network: As for `yt8m_distill`.

  Returns:
    The configuration.

  Raises:
    ValueError: As for `yt8m_distill`.
  """
  settings = settings or settings_lib.current()
  return cfg.ExperimentConfig(
    task=_single_task(settings, task, network),
    trainer=_trainer(settings, '', _FIVE_EPOCHS),
  )


@registry.register('yt8m_distill_stored')
def yt8m_distill_stored(
  settings: settings_lib.Settings | None = None,
  task: type[distillation.StoredTask] = distillation.StoredTask,
  network: type[model_config.Network] = model_config.Network,
) -> cfg.ExperimentConfig:
  """Configures a student whose teacher's answers are stored in the records.

  Args:
    settings: As for `yt8m_distill`.
    task: As for `yt8m_distill`.
    network: As for `yt8m_distill`.

  Returns:
    The configuration.

  Raises:
    ValueError: As for `yt8m_distill`.
  """
  settings = settings or settings_lib.current()
  params = _single_task(settings, task, network)
  params.init_checkpoint = settings.init_checkpoint
  params.init_network = settings.init_network
  _set_losses(params.losses, settings)
  return cfg.ExperimentConfig(task=params, trainer=_trainer(settings, '', _FIVE_EPOCHS))


@registry.register('yt8m_distill_finetune')
def yt8m_distill_finetune(
  settings: settings_lib.Settings | None = None,
  task: type[classification.ClassificationTask] = classification.ClassificationTask,
  network: type[model_config.Network] = model_config.Network,
) -> cfg.ExperimentConfig:
  """Configures a distilled student that continues on its label loss.

  Args:
    settings: As for `yt8m_distill`. Where num_classes differs from that of the
      network in init_checkpoint, the head is initialized from scratch.
    task: As for `yt8m_distill`.
    network: As for `yt8m_distill`.

  Returns:
    The configuration.

  Raises:
    ValueError: As for `yt8m_distill`.
  """
  settings = settings or settings_lib.current()
  params = _single_task(settings, task, network)
  params.init_checkpoint = settings.init_checkpoint
  params.init_network = settings.init_network
  params.fine_tunes = True
  return cfg.ExperimentConfig(
    task=params, trainer=_trainer(settings, '', _THREE_EPOCHS)
  )


@registry.register('yt8m_distill_segments')
def yt8m_distill_segments(
  settings: settings_lib.Settings | None = None,
  task: type[classification.ClassificationTask] = classification.ClassificationTask,
  network: type[model_config.Network] = model_config.Network,
) -> cfg.ExperimentConfig:
  """Configures a trained network that continues on ratings of windows.

  Args:
    settings: As for `yt8m_distill_finetune`, but labels are 'segments'.
    task: As for `yt8m_distill`.
    network: As for `yt8m_distill`.

  Returns:
    The configuration.

  Raises:
    ValueError: As for `yt8m_distill`.
  """
  settings = settings or settings_lib.current()
  return yt8m_distill_finetune(
    dataclasses.replace(settings, labels='segments'), task, network
  )


def _single_task(
  settings: settings_lib.Settings,
  task: type[classification.ClassificationTask],
  network: type[model_config.Network],
) -> classification.ClassificationTask:
  """One network: the teacher's if it sees all frames, otherwise the student's."""
  chunks = (
    settings.teacher_chunks if settings.frames == 'all' else settings.student_chunks
  )
  params = task(**_records_and_seed(settings))
  params.model.num_classes = settings.num_classes
  params.model.max_frames = settings.max_frames
  params.model.network = _network(network, settings, _selection(settings), chunks)
  return params


def _set_losses(losses: distillation.DistillationLoss, settings: settings_lib.Settings):
  """Sets the fields of losses that settings hold."""
  losses.representation_weight = settings.representation_weight
  losses.prediction_reduction = settings.prediction_reduction


def _one_of(name: str, value: str, config: type[hyperparams.OneOfConfig]) -> str:
  """Returns a setting that names an alternative of a one-of configuration."""
  choices = [field.name for field in dataclasses.fields(config) if field.name != 'type']
  if value not in choices:
    raise ValueError(
      f'yt8m_distill.{name} is {value!r}: it must be one of {", ".join(choices)}.'
    )
  return value


def _selection(settings: settings_lib.Settings) -> model_config.FrameSelection:
  """The frames that the student sees; uniform ones are k, or every N-th if k is 0."""
  frames = _one_of('frames', settings.frames, model_config.FrameSelection)
  selection = model_config.FrameSelection(type=frames)
  if frames == 'uniform':
    selection.uniform = model_config.UniformFrames(
      every_n=0 if settings.k else settings.every_n,
      k=settings.k,
      length=settings.length,
    )
  if frames == 'nested':
    selection.nested.counts = list(settings.counts)
  some = getattr(selection, frames)
  if isinstance(some, model_config.SomeFrames):
    some.k = settings.k
  return selection


def _network(
  network: type[model_config.Network],
  settings: settings_lib.Settings,
  frames: model_config.FrameSelection,
  chunks: int,
) -> model_config.Network:
  """A network with the head that was published with its backbone."""
  params = network(frames=frames)
  backbone, head = params.backbone, params.head
  backbone.type = _one_of('backbone', settings.backbone, type(backbone))
  lstm = backbone.hierarchical_lstm
  lstm.chunks = chunks
  lstm.num_cells, lstm.num_layers = settings.num_cells, settings.num_layers
  head.moe.num_mixtures = settings.num_mixtures
  # Half of the published decay: here a regularization_penalty of 2 multiplies it.
  if settings.backbone == 'netvlad':
    head.moe.input_gate = head.moe.output_gate = True
    head.moe.l2_weight_decay = 0.5e-6
  elif settings.backbone == 'nextvlad':
    head.type = 'logistic'
    head.logistic.input_gate = 'se'
    head.logistic.l2_weight_decay = 0.5e-5
  if settings.head:
    head.type = _one_of('head', settings.head, type(head))
  return params


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
    labels=settings.labels,
    seed=settings.seed,
  )


def _trainer(
  settings: settings_lib.Settings, prefix: str, default_steps: int
) -> cfg.TrainerConfig:
  """Adam with clipping per tensor and exponential decay; keeps the best checkpoint.

  Args:
    settings: settings of the experiment.
    prefix: of the metrics of the network that decides which checkpoint is best.
    default_steps: length of training on labels of videos.
  """
  metric, interval = 'gap', 5000
  if settings.labels == 'segments':
    metric, interval, default_steps = 'map_at_k', _SEGMENT_INTERVAL, _SEGMENT_STEPS
  return cfg.TrainerConfig(
    train_steps=settings.train_steps or default_steps,
    steps_per_loop=100,
    summary_interval=100,
    checkpoint_interval=1000,
    validation_interval=interval,
    best_checkpoint_export_subdir='best_ckpt',
    best_checkpoint_eval_metric=f'{prefix}{metric}',
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
