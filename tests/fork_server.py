"""Forks of a process that has imported the package, in place of other Pythons.

The server of these forks imports this file too. Run as a script, it is a Python whose
commands run in forks of the server at $FORK_SERVER: scripts and clusters start it.
"""

import errno
import multiprocessing
from multiprocessing import connection
from multiprocessing import reduction
import multiprocessing.forkserver
import os
import runpy
import sys

_receive = reduction.recvfds


def _receive_or_continue(socket, size):
  try:
    return _receive(socket, size)
  except EOFError as error:
    # Python's server ends if a client is killed while it asks for a fork; it ignores
    # this error.
    raise OSError(errno.ECONNABORTED, 'the client was killed') from error


reduction.recvfds = _receive_or_continue


def start(address, arguments, outputs, environment, folder):
  """Starts a fork.

  Args:
    address: of the server.
    arguments: as the interpreter takes them: `-c`, `-m` or a path first.
    outputs: descriptors of its standard output and error.
    environment: its environment.
    folder: where it runs; modules are looked for there first.

  Returns:
    The multiprocessing.Process.
  """
  # Connections take descriptors to other processes.
  outputs = [connection.Connection(os.dup(fd), readable=False) for fd in outputs]
  process = multiprocessing.get_context('forkserver').Process(
    target=_interpret, args=(address, arguments, outputs, environment, str(folder))
  )
  process.start()
  return process


def _use(address):
  """Takes forks from the server at this address, and never starts another one."""
  server = multiprocessing.forkserver._forkserver
  server._forkserver_address = address
  server.ensure_running = lambda: None


def _interpret(address, arguments, outputs, environment, folder):
  """Runs in this process what the interpreter would with these arguments."""
  # Its workers are forks of the same server; a new one would import all again.
  _use(address)
  for number, output in enumerate(outputs, 1):
    os.dup2(output.fileno(), number)
  os.environ.clear()
  os.environ.update(environment)
  os.chdir(folder)
  sys.path.insert(0, folder)
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


def _main():
  address = os.environ['FORK_SERVER']
  _use(address)
  # Every fork is given this; only that of the server's first client has a meaning.
  server = multiprocessing.forkserver._forkserver
  server._forkserver_alive_fd = os.open(os.devnull, os.O_RDONLY)
  process = start(address, sys.argv[1:], (1, 2), {**os.environ}, os.getcwd())
  process.join()
  sys.exit(process.exitcode if process.exitcode >= 0 else 128 - process.exitcode)


if __name__ == '__main__':
  _main()
