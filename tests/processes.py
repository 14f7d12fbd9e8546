"""Other processes that tests start, and the environment they run in."""

import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile

import paths
import pytest
import tensorflow as tf

needs_script_environment = pytest.mark.skipif(
  not (pathlib.Path(sys.prefix) / '.complete').exists(),
  reason='not in an environment of experiments/environment.sh',
)
ENVIRONMENT = {
  'PYTHONPATH': ':'.join(
    map(str, (paths.ROOT, paths.ROOT / 'tests', paths.ROOT / 'tests/foreign_project'))
  ),
  'CUDA_VISIBLE_DEVICES': '-1',
  'TF_CPP_MIN_LOG_LEVEL': '2',
}


def python(*arguments, check=True):
  """Runs another Python in the repository's root, on the CPU.

  Args:
    *arguments: of the interpreter.
    check: fails unless the process exits with 0.

  Returns:
    The subprocess.CompletedProcess, with its output as text.
  """
  done = subprocess.run(
    [sys.executable, *map(str, arguments)],
    cwd=paths.ROOT,
    env={**os.environ, **ENVIRONMENT},
    capture_output=True,
    text=True,
    check=False,
  )
  assert not check or done.returncode == 0, done.stderr[-4000:]
  return done


def forked(*arguments, check=True):
  """Runs what `python` would, in a fork of a process that has imported the package.

  Importing would take 5 seconds of CPU time. What happens before and while a command
  imports the package is not repeated: tests of that need `python`.

  Args:
    *arguments: as `python` takes them: `-c`, `-m` or a path first.
    check: fails unless the process exits with 0.

  Returns:
    The subprocess.CompletedProcess, with its output as text.
  """
  context = multiprocessing.get_context('forkserver')
  # The server is that of `utils.parallel`, which preloads the same.
  context.set_forkserver_preload(['yt8m_distill'])
  with tempfile.TemporaryDirectory() as folder:
    outputs = [pathlib.Path(folder, name) for name in ('stdout', 'stderr')]
    process = context.Process(
      target=_interpret, args=([*map(str, arguments)], outputs, {**os.environ})
    )
    process.start()
    process.join()
    done = subprocess.CompletedProcess(
      arguments, process.exitcode, *(path.read_text() for path in outputs)
    )
  assert not check or done.returncode == 0, done.stderr[-4000:]
  return done


def _interpret(arguments, outputs, environment):
  """Runs in this process what the interpreter would with these arguments."""
  for number, path in enumerate(outputs, 1):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
  os.environ.clear()
  os.environ.update({**environment, **ENVIRONMENT})
  os.chdir(paths.ROOT)
  option, *rest = arguments
  if option == '-c':
    sys.argv = ['-c', *rest[1:]]
    exec(rest[0], {'__name__': '__main__'})
  elif option == '-m':
    sys.argv = rest
    runpy.run_module(rest[0], run_name='__main__', alter_sys=True)
  else:
    sys.argv = arguments
    runpy.run_path(option, run_name='__main__')


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
