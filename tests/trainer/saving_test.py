"""What a run's checkpoints are when it ends early."""

import errno
import json
import os
import signal
import threading
from unittest import mock

import pytest
import tensorflow as tf

from yt8m_distill.trainer import saving
from yt8m_distill.utils import process_exit
from yt8m_distill.utils import workers


@pytest.fixture(name='manager')
def _manager(tmp_path):
  step = tf.Variable(0, dtype=tf.int64)
  return saving.CheckpointManager(
    tf.train.Checkpoint(step=step),
    str(tmp_path),
    2,
    step_counter=step,
    checkpoint_interval=10,
  )


def _train_to(manager, step):
  manager._step_counter.assign(step)
  return manager.save(step, check_interval=True)


def test_sigterm_saves_at_the_next_step_boundary(manager):
  before = signal.getsignal(signal.SIGTERM)
  with manager.ends_on_sigterm():
    assert _train_to(manager, 10)
    assert not _train_to(manager, 11)
    signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # A second one kills.
    with pytest.raises(
      process_exit.Terminated, match='^Terminated at step 12: a check'
    ):
      _train_to(manager, 12)
  assert manager.latest_checkpoint.endswith('ckpt-12')
  assert signal.getsignal(signal.SIGTERM) == before


def test_all_workers_save_if_one_is_terminated(manager, monkeypatch):
  monkeypatch.setattr(workers, 'gather_objects', lambda mine: [mine, True])
  with pytest.raises(process_exit.Terminated):
    _train_to(manager, 3)
  assert manager.latest_checkpoint.endswith('ckpt-3')


def test_other_threads_leave_signals_alone(manager):
  def use():
    with manager.ends_on_sigterm():
      seen.append(signal.getsignal(signal.SIGTERM))

  seen = []
  thread = threading.Thread(target=use)
  thread.start()
  thread.join()
  assert seen == [signal.getsignal(signal.SIGTERM)]


def test_a_full_disk_is_named(manager):
  error = tf.errors.UnknownError(None, None, f'a; {os.strerror(errno.ENOSPC)}')
  with (
    mock.patch.object(tf.train.CheckpointManager, 'save', side_effect=error),
    pytest.raises(
      ValueError, match=f'^{manager.directory} cannot be written: No space'
    ),
  ):
    _train_to(manager, 10)


def _best(tmp_path):
  return saving.BestCheckpoint(str(tmp_path), 'gap', 'higher')


def test_info_describes_a_checkpoint_that_exists(tmp_path):
  """A run that is killed in between evaluates again, and then saves."""
  checkpoint = tf.train.Checkpoint(step=tf.Variable(0))
  best = _best(tmp_path)
  assert best.lacks({'gap': 0.1})
  assert best.maybe_export_checkpoint(checkpoint, {'gap': 0.1}, 1)
  with (
    mock.patch.object(
      tf.train.CheckpointManager, 'save', side_effect=KeyboardInterrupt
    ),
    pytest.raises(KeyboardInterrupt),
  ):
    best.maybe_export_checkpoint(checkpoint, {'gap': 0.2}, 2)
  info = json.loads((tmp_path / 'info.json').read_text())
  assert info == {'gap': 0.1, 'best_ckpt_global_step': 1.0}
  resumed = _best(tmp_path)
  assert resumed.lacks({'gap': 0.2})
  assert not resumed.lacks({'gap': 0.1}) and not resumed.lacks({'other': 1.0})
  assert resumed.maybe_export_checkpoint(checkpoint, {'gap': 0.2}, 2)
  assert not resumed.lacks({'gap': 0.2})


def test_damaged_info_is_named(tmp_path):
  (tmp_path / 'info.json').write_text('{"gap"')
  with pytest.raises(ValueError, match='info.json is not valid JSON'):
    _best(tmp_path)
