"""Shows the progress of a run: one line after each train loop and each evaluation."""

from collections.abc import Mapping
import datetime
import os
import time
from typing import Any

from absl import logging
import orbit
import tensorflow as tf

from yt8m_distill.dataloaders import skipped

_LOOP = ('training_loss', 'gap')
_EVALUATION = ('validation_loss', 'gap', 'map', 'map_at_k')


class Progress(orbit.Action):
  """Shows rate, time left and losses; the trainer calls it after each train loop.

  Prints a short line to standard output and logs one with all values. Writes
  `examples_per_second` and `seconds_left` to TensorBoard.
  """

  def __init__(self, batch_size: int, train_steps: int, model_dir: str):
    """Initializes the action.

    Args:
      batch_size: videos per step, over all replicas.
      train_steps: last step of training.
      model_dir: folder of the run.
    """
    self._batch_size = batch_size
    self._train_steps = train_steps
    self._folder = os.path.join(model_dir, 'train')
    self._writer: tf.summary.SummaryWriter | None = None
    self._last: tuple[int, float] | None = None  # step and time

  def after_evaluation(self, output):
    """Shows the main metrics; the trainer calls it after each evaluation.

    The next rate excludes the evaluation's time.

    Args:
      output: losses and metrics of the evaluation.
    """
    print(evaluation_line(_step(), output), flush=True)
    if self._last:
      self._last = self._last[0], time.monotonic()

  def __call__(self, output):
    """Shows the progress; called after each train loop.

    Args:
      output: losses and metrics of the loop.
    """
    step = _step()
    now = time.monotonic()
    last, self._last = self._last, (step, now)
    line = f'step {step}/{self._train_steps}'
    # The first loop includes tracing the graph, so its rate would mislead.
    if last:
      rate = (step - last[0]) / (now - last[1])
      left = (self._train_steps - step) / rate
      line += (
        f' | {rate * self._batch_size:.1f} videos/s | '
        f'{datetime.timedelta(seconds=round(left))} left'
      )
      self._write(step, rate * self._batch_size, left)
    so_far = skipped.total()
    if so_far.total:
      line += f' | skipped so far: {so_far}'
    print(line + _columns(output, _LOOP), flush=True)
    logging.info(line + _columns(output))

  def _write(self, step, examples_per_second, seconds_left):
    if self._writer is None:
      self._writer = tf.summary.create_file_writer(self._folder)
    with self._writer.as_default(step=step), tf.summary.record_if(True):
      tf.summary.scalar('examples_per_second', examples_per_second)
      tf.summary.scalar('seconds_left', seconds_left)
    self._writer.flush()


def evaluation_line(step: int, metrics: Mapping[str, Any]) -> str:
  """Returns one line with the main metrics of an evaluation.

  Args:
    step: step of the evaluated checkpoint.
    metrics: as the trainer returns them, or as evaluation.json holds them.
  """
  return f'evaluation of step {step}{_columns(metrics, _EVALUATION)}'


def _step() -> int:
  return int(orbit.utils.get_value(tf.summary.experimental.get_step()))


def _columns(values: Mapping[str, Any], names: tuple[str, ...] = ()) -> str:
  """Formats the values of all networks with these names; without names, all."""
  return ''.join(
    f' | {key} {float(orbit.utils.get_value(value)):.4g}'
    for key, value in sorted(values.items())
    # The trainer adds best_METRIC to the output of an evaluation.
    if not names or (key.split('/')[-1] in names and not key.startswith('best_'))
  )
