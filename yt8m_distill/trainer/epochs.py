"""Converts lengths of training from epochs to steps."""

from absl import logging

from yt8m_distill.dataloaders import shards


def resolve_epochs(params):
  """Converts epochs to steps, in place.

  `task.train_epochs`, `decay_epochs` and `warmup_epochs` become
  `trainer.train_steps`, the decay steps of the learning rate and the steps of its
  warm-up. They are then set to 0, so that params.yaml holds each length
  once. Counts the records if `task.train_data.num_examples` is not set.

  Args:
    params: an unlocked ExperimentConfig, which is valid.
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
    optimizer.learning_rate.get().decay_steps = steps(task.decay_epochs)
  if task.warmup_epochs:
    optimizer.warmup.get().warmup_steps = steps(task.warmup_epochs)
  logging.info(
    '%d videos per epoch: %d steps of training.', data.num_examples, trainer.train_steps
  )
  task.train_epochs = task.decay_epochs = task.warmup_epochs = 0.0
