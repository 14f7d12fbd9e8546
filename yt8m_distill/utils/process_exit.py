"""Ends a process early: one that failed, lost its parent, or would abort otherwise."""

import atexit
from collections.abc import Iterator
import contextlib
import logging
import multiprocessing
import os
import select
import signal
import sys
import threading

_skips_cpp_destructors = False


class Interrupted(SystemExit):
  """An interrupt, of which the process shall die, so that a shell's loop ends too."""


class Terminated(SystemExit):
  """The end after SIGTERM, with the status that a shell reports for that signal."""


@contextlib.contextmanager
def when_output_closes() -> Iterator[None]:
  """Exits without a message if nobody reads standard output any more, as with `| head`.

  The status is that of a process that SIGPIPE killed.
  """
  try:
    yield
    print(end='', flush=True)  # Unlike sys.stdout.flush(), also without an output.
  except BrokenPipeError:
    poll = select.poll()
    poll.register(sys.stdout, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
      raise  # Of another pipe.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(128 + signal.SIGPIPE)


def skip_cpp_destructors():
  """Makes `end_process` end this process without destroying static C++ objects."""
  global _skips_cpp_destructors
  _skips_cpp_destructors = True


def exit_with_parent():
  """Lets this process exit as soon as the process that started it is gone."""
  parent = multiprocessing.parent_process()
  assert parent  # a process of multiprocessing calls this

  def wait():
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()


def end_process():
  """Ends this process if it failed, or if `skip_cpp_destructors` was called.

  Call it at the end of a command, in a `finally` clause. The exit status is that of the
  exception being raised, if any, which is reported as Python would, after all other
  output: handlers of `atexit` run first, and objects that complain when they are
  destroyed are not.
  """
  error, status = sys.exc_info()[1], 0
  if isinstance(error, SystemExit) and isinstance(error.code, int | None):
    status = error.code or 0
  elif isinstance(error, Terminated):
    status = 128 + signal.SIGTERM
  elif error:
    status = 1
  if not (status or _skips_cpp_destructors):
    return
  atexit._run_exitfuncs()  # Private, but multiprocessing ends its workers like this.
  logging.shutdown()
  sys.stdout.flush()
  if isinstance(error, SystemExit):
    if not isinstance(error.code, int | None):  # sys.exit(message)
      print(error.code, file=sys.stderr)
  elif error:
    sys.excepthook(type(error), error, error.__traceback__)
  sys.stderr.flush()
  if isinstance(error, Interrupted):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
  os._exit(status)
