"""Other processes that tests start, and the environment they run in."""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import pathlib
import runpy
import signal
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


class Started:
  """A fork of a process that has imported the package, running a command.

  Attributes:
    pid: of the process.
  """

  def __init__(self, arguments):
    context = multiprocessing.get_context('forkserver')
    self._arguments = [*map(str, arguments)]
    self._folder = tempfile.TemporaryDirectory()
    self._outputs = [
      pathlib.Path(self._folder.name, name) for name in ('stdout', 'stderr')
    ]
    self._process = context.Process(
      target=_interpret,
      args=(self._arguments, self._outputs, {**os.environ}, _server_address()),
    )
    self._process.start()
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
    # A process that ended at once has no files.
    output = [path.read_text() if path.exists() else '' for path in self._outputs]
    self._folder.cleanup()
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


_server_pid = None  # of the server that _server_address() started


def _server_address():
  """Starts the server of forks if necessary; returns where to ask it for them."""
  global _server_pid
  server = multiprocessing.forkserver._forkserver
  if _server_pid != server._forkserver_pid or not _server_pid:
    server._stop()  # That of `utils.parallel` might end when a test kills a command.
    server.set_forkserver_preload(['yt8m_distill', 'tests.fork_server'])
    server.ensure_running()
    _server_pid = server._forkserver_pid
  return server._forkserver_address


def _interpret(arguments, outputs, environment, server_address):
  """Runs in this process what the interpreter would with these arguments."""
  # Its workers are forks of the same server; a new one would import all again.
  server = multiprocessing.forkserver._forkserver
  server._forkserver_address = server_address
  server.ensure_running = lambda: None
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
