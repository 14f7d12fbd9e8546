"""Other processes that tests start, and the environment they run in."""

import contextlib
import functools
import multiprocessing.forkserver
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

import fork_server
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


class Started:
  """A fork of a process that has imported the package, running a command.

  Attributes:
    pid: of the process.
  """

  def __init__(self, arguments):
    self._arguments = [*map(str, arguments)]
    self._outputs = [os.memfd_create(name) for name in ('stdout', 'stderr')]
    self._process = fork_server.start(
      server_address(),
      self._arguments,
      self._outputs,
      {**os.environ, **ENVIRONMENT},
      paths.ROOT,
    )
    self.pid = self._process.pid

  def is_alive(self):
    """Returns whether it still runs."""
    return self._process.is_alive()

  def workers(self):
    """Returns the processes that it started, if no other one of this process runs."""
    # All are children of the one server.
    siblings = _children(_parent(self.pid)) if self.is_alive() else ()
    return [pid for pid in siblings if pid != self.pid]

  def kill(self, number=signal.SIGKILL, with_workers=False):
    """Sends it a signal, and to its workers as well if asked to."""
    for pid in (*(self.workers() if with_workers else ()), self.pid):
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)

  def wait(self, timeout=None):
    """Waits for its end; returns the subprocess.CompletedProcess."""
    self._process.join(timeout)
    if self._process.is_alive():
      self.kill(with_workers=True)
      self._process.join()
      raise TimeoutError(f'{self._arguments} took more than {timeout} seconds')
    output = []
    for descriptor in self._outputs:
      with open(descriptor, encoding='utf-8') as file:
        file.seek(0)
        output.append(file.read())
    return subprocess.CompletedProcess(self._arguments, self._process.exitcode, *output)


def _parent(pid):
  stat = pathlib.Path(f'/proc/{pid}/stat').read_text()
  return int(stat.rpartition(')')[2].split()[1])


def _children(parent):
  """Returns the pids of all processes with this parent."""
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*'):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
      if _parent(path.name) == parent:
        found.append(int(path.name))
  return found


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
  done = Started(arguments).wait()
  assert not check or done.returncode == 0, done.stderr[-4000:]
  return done


_server_pid = None  # of the server that server_address() started


def server_address():
  """Starts the server of forks if necessary; returns where to ask it for them."""
  global _server_pid
  server = multiprocessing.forkserver._forkserver
  if _server_pid != server._forkserver_pid or not _server_pid:
    server._stop()  # That of `utils.parallel` might end when a test kills a command.
    server.set_forkserver_preload(['yt8m_distill', 'tests.fork_server'])
    server.ensure_running()
    _server_pid = server._forkserver_pid
  return server._forkserver_address


@functools.cache
def _script_venv():
  """Returns a temporary environment of scripts, which the cache keeps."""
  folder = tempfile.TemporaryDirectory()
  python = pathlib.Path(folder.name, 'bin', 'python')
  python.parent.mkdir()
  command = shlex.join([sys.executable, fork_server.__file__])
  python.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
  python.chmod(0o755)
  shutil.copy(pathlib.Path(sys.prefix) / '.complete', folder.name)
  return folder


def script_environment():
  """Environment in which the commands of a script of experiments/ are forks."""
  # For another set of versions the script would install its own over them.
  versions = ''.join(tf.__version__.split('.')[:2])
  return {
    **os.environ,
    'VENV': _script_venv().name,
    'TF_SET': f'tf{versions}',
    'FORK_SERVER': server_address(),
  }


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
