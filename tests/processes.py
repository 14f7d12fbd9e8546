"""Other processes that tests start, and the environment they run in."""

import os
import subprocess
import sys

import paths
import tensorflow as tf


def python(*arguments, check=True):
  """Runs another Python in the repository's root, on the CPU.

  Args:
    *arguments: of the interpreter.
    check: fails unless the process exits with 0.

  Returns:
    The subprocess.CompletedProcess, with its output as text.
  """
  environment = {
    **os.environ,
    'PYTHONPATH': ':'.join(
      map(str, (paths.ROOT, paths.ROOT / 'tests', paths.ROOT / 'tests/foreign_project'))
    ),
    'CUDA_VISIBLE_DEVICES': '-1',
    'TF_CPP_MIN_LOG_LEVEL': '2',
  }
  done = subprocess.run(
    [sys.executable, *map(str, arguments)],
    cwd=paths.ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert not check or done.returncode == 0, done.stderr[-4000:]
  return done


def script_environment():
  """Environment in which a script of experiments/ uses the tests' packages."""
  # For another set of versions the script would install its own over them.
  versions = ''.join(tf.__version__.split('.')[:2])
  return {**os.environ, 'VENV': sys.prefix, 'TF_SET': f'tf{versions}'}


def killed_driver(checkpoint, killed='os.getpid()'):
  """Program for `python -c`: the driver, killed while it trains.

  Args:
    checkpoint: prefix of a checkpoint; training ends with the first loop after
      it was written.
    killed: Python expression for the argument of os.kill(); '0' is the process
      group.

  Returns:
    The program, which takes the driver's flags.
  """
  return f"""
import os, runpy, signal
from yt8m_distill.trainer import progress

class Killing(progress.Progress):
  def __call__(self, output):
    super().__call__(output)
    if os.path.exists('{checkpoint}.index'):
      os.kill({killed}, signal.SIGKILL)

progress.Progress = Killing
runpy.run_module('yt8m_distill.train', run_name='__main__')
"""
