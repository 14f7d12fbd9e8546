"""Converts lengths of training from epochs to steps."""

from absl import logging

from yt8m_distill.dataloaders import shards


def resolve_epochs(params):
  """Converts epochs to steps, in place.

  `task.train_epochs`, `decay_epochs` and `warmup_epochs` become
  `trainer.train_steps`, the decay steps of the learning rate and the steps of its
  linear warm-up. They are then set to 0, so that params.yaml holds each length
  once. Counts the records if `task.train_data.num_examples` is not set.

  Args:
    params: an unlocked ExperimentConfig.

  Raises:
    ValueError: the learning rate has no decay steps or no linear warm-up.
  """
  task, trainer = params.task, params.trainer
  if not (task.train_epochs or task.decay_epochs or task.warmup_epochs):
    return
  data = task.train_data
  if not data.num_examples:
    data.num_examples = shards.count_records(
      shards.find(data.input_path), data.skip_corrupt_records
    )

  def steps(epochs):
    return max(1, round(epochs * data.num_examples / data.global_batch_size))

  optimizer = trainer.optimizer_config
  if task.train_epochs:
    trainer.train_steps = steps(task.train_epochs)
  if task.decay_epochs:
    schedule = optimizer.learning_rate.get()
    if not hasattr(schedule, 'decay_steps'):
      raise ValueError(
        f'task.decay_epochs is {task.decay_epochs}, but the learning rate '
        f'{optimizer.learning_rate.type!r} has no decay_steps: choose '
        'exponential, polynomial or cosine, or set task.decay_epochs to 0.'
      )
    schedule.decay_steps = steps(task.decay_epochs)
  if task.warmup_epochs:
    if optimizer.warmup.type != 'linear':
      raise ValueError(
        f'task.warmup_epochs is {task.warmup_epochs}, but the warm-up is '
        f'{optimizer.warmup.type!r}: set trainer.optimizer_config.warmup.type to '
        'linear, or task.warmup_epochs to 0.'
      )
    optimizer.warmup.linear.warmup_steps = steps(task.warmup_epochs)
  logging.info(
    '%d videos per epoch: %d steps of training.', data.num_examples, trainer.train_steps
  )
  task.train_epochs = task.decay_epochs = task.warmup_epochs = 0.0
