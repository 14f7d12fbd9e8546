"""What the factories of experiments share."""

from typing import Dict

from official.core import config_definitions as cfg
from official.modeling import optimization
from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config

# Passes over the 2018 training set (3,888,919 videos) at batch 256.
FIVE_EPOCHS = 75955
THREE_EPOCHS = 45573
# The original's unit of learning rate decay.
_DECAY_EXAMPLES = 4_000_000


def uniform(every_n: int, length: str) -> model_config.FrameSelection:
  """Every N-th frame."""
  return model_config.FrameSelection(
      type='uniform',
      uniform=model_config.UniformFrames(every_n=every_n, length=length))


def network(frames: model_config.FrameSelection, chunks: int, num_cells: int,
            num_layers: int, num_mixtures: int) -> model_config.Network:
  """A hierarchical LSTM with a mixture of experts."""
  return model_config.Network(
      frames=frames,
      backbone=model_config.Backbone(
          hierarchical_lstm=model_config.HierarchicalLstm(
              chunks=chunks, num_cells=num_cells, num_layers=num_layers)),
      head=model_config.Head(moe=model_config.Moe(num_mixtures=num_mixtures)))


def records(train_path: str, validation_path: str,
            batch_size: int) -> Dict[str, data.VideoData]:
  """Both sets of a task."""
  return dict(
      train_data=data.VideoData(
          input_path=train_path, global_batch_size=batch_size,
          is_training=True),
      validation_data=data.VideoData(
          input_path=validation_path, global_batch_size=batch_size,
          is_training=False, drop_remainder=False))


def trainer(best_metric: str, batch_size: int, train_steps: int,
            learning_rate: float, learning_rate_decay: float,
            adam_epsilon: float) -> cfg.TrainerConfig:
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
      optimizer_config=optimization.OptimizationConfig({
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
      }))
