"""Checkpoints of a run that may end at any moment.

After SIGTERM, which a machine sends that is about to be taken away, training saves and
ends. A kill at any moment leaves nothing that the next start could misread.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import signal
import threading
from typing import Any

from official.core import train_utils
import orbit
import tensorflow as tf

from yt8m_distill.utils import files
from yt8m_distill.utils import process_exit
from yt8m_distill.utils import workers


class CheckpointManager(tf.train.CheckpointManager):
  """Saves a run's checkpoints; after SIGTERM it saves at once and ends training.

  TensorFlow's PreemptionCheckpointHandler asks the network where it runs, ignores
  the signal on a CPU of Google's cloud, adds a variable to checkpoints and trains
  another loop first.
  """

  _terminated = False

  @contextlib.contextmanager
  def ends_on_sigterm(self) -> Iterator[None]:
    """Lets the first SIGTERM end training with a checkpoint; a second ends it at once.

    Only the main thread receives signals; in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
      yield
      return
    before = signal.signal(signal.SIGTERM, self._terminate)
    try:
      yield
    finally:
      signal.signal(signal.SIGTERM, before)

  def _terminate(self, *_):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    self._terminated = True

  def save(self, checkpoint_number=None, check_interval=True, options=None):
    """Saves if it is time; Orbit calls it after each train loop.

    Raises:
      Terminated: a worker received SIGTERM; all have now saved.
      ValueError: the disk is full or became read-only.
    """
    terminated = any(workers.gather_objects(self._terminated))
    with files.explained_disk(self.directory):
      path = super().save(checkpoint_number, check_interval and not terminated, options)
    if terminated:
      raise process_exit.Terminated(
        f'Terminated at step {checkpoint_number}: a checkpoint was written. Repeat the '
        'command to continue.'
      )
    return path


class BestCheckpoint(train_utils.BestCheckpointExporter):
  """The best checkpoint of a run and its info.json, which says how good it is.

  The Garden writes info.json first. Killed before it saves, it would take the older
  checkpoint for the better one.
  """

  def maybe_export_checkpoint(
    self, checkpoint, eval_logs, global_step, write_logs=True
  ) -> bool:
    """Saves a checkpoint if it is the best; the trainer calls it after evaluation."""
    with files.explained_disk(self._export_dir):
      is_best = super().maybe_export_checkpoint(
        checkpoint, eval_logs, global_step, write_logs=False
      )
    if is_best and write_logs:
      self.export_best_eval_metric(eval_logs, global_step)
    return is_best

  def export_best_eval_metric(self, eval_logs, global_step):
    """Writes info.json, which appears whole."""
    scalars = {
      name: float(orbit.utils.get_value(value))
      for name, value in eval_logs.items()
      if tf.rank(value) == 0
    }
    files.write_json(
      self.best_ckpt_logs_path, {**scalars, 'best_ckpt_global_step': float(global_step)}
    )

  def _maybe_load_best_eval_metric(self):
    return files.read_json(self.best_ckpt_logs_path)

  def lacks(self, metrics: Mapping[str, Any]) -> bool:
    """Returns whether an evaluation found a better checkpoint than the one saved."""
    best = self.best_ckpt_logs
    name = '|'.join(self._metric_name)
    return name in metrics and (
      best is None or self._new_metric_is_better(best, metrics)
    )
