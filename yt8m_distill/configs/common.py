"""What the factories of experiments share."""

from official.core import config_definitions as cfg
from official.modeling import optimization

from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config

# Passes over the 2018 training set (3,888,919 videos) at batch 256.
FIVE_EPOCHS = 75955
THREE_EPOCHS = 45573
# The original's unit of learning rate decay.
_DECAY_EXAMPLES = 4_000_000


def selection(
  frames: str, every_n: int, k: int, length: str
) -> model_config.FrameSelection:
  """Some frames of a video: `k` of them, or every N-th where that is 0."""
  config = model_config.FrameSelection(type=frames)
  if frames == 'uniform':
    config.uniform = model_config.UniformFrames(
      every_n=0 if k else every_n, k=k, length=length
    )
  some = getattr(config, frames, None)
  if isinstance(some, model_config.SomeFrames):
    some.k = k
  return config


def network(
  frames: model_config.FrameSelection,
  backbone: str,
  head: str,
  chunks: int,
  num_cells: int,
  num_layers: int,
  num_mixtures: int,
) -> model_config.Network:
  """A network as it was published.

  Args:
    frames: that it sees.
    backbone: by its name in the registry.
    head: moe or logistic; '' for the one published with the backbone.
    chunks: of a hierarchical LSTM.
    num_cells: likewise.
    num_layers: likewise.
    num_mixtures: of a mixture of experts.

  Returns:
    Its configuration.
  """
  config = model_config.Network(
    frames=frames,
    backbone=model_config.Backbone(
      type=backbone,
      hierarchical_lstm=model_config.HierarchicalLstm(
        chunks=chunks, num_cells=num_cells, num_layers=num_layers
      ),
    ),
    head=model_config.Head(moe=model_config.Moe(num_mixtures=num_mixtures)),
  )
  # Half of the published decay: here a regularization_penalty of 2 follows.
  if backbone == 'netvlad':
    config.head.moe.input_gate = config.head.moe.output_gate = True
    config.head.moe.l2_weight_decay = 0.5e-6
  elif backbone == 'nextvlad':
    config.head.type = 'logistic'
    config.head.logistic.input_gate = 'se'
    config.head.logistic.l2_weight_decay = 0.5e-5
  if head:
    config.head.type = head
  return config


def records(
  train_path: str, validation_path: str, batch_size: int, seed: int
) -> dict[str, data.VideoData]:
  """Both sets of a task."""
  return dict(
    train_data=data.VideoData(
      input_path=train_path, global_batch_size=batch_size, seed=seed, is_training=True
    ),
    validation_data=data.VideoData(
      input_path=validation_path,
      global_batch_size=batch_size,
      is_training=False,
      drop_remainder=False,
    ),
  )


def trainer(
  best_metric: str,
  batch_size: int,
  train_steps: int,
  learning_rate: float,
  learning_rate_decay: float,
  adam_epsilon: float,
) -> cfg.TrainerConfig:
  """Adam, clipping per tensor, exponential decay; keeps the best checkpoint."""
  return cfg.TrainerConfig(
    train_steps=train_steps,
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
          'adam': {'epsilon': adam_epsilon, 'clipnorm': 1.0},
        },
        'learning_rate': {
          'type': 'exponential',
          'exponential': {
            'initial_learning_rate': learning_rate,
            'decay_steps': max(1, _DECAY_EXAMPLES // batch_size),
            'decay_rate': learning_rate_decay,
            'staircase': True,
          },
        },
      }
    ),
  )
