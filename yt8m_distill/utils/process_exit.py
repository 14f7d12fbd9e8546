"""Ends a process that would abort if it ended in the usual way."""

import atexit
import logging
import os
import sys

_skips_cpp_destructors = False


def skip_cpp_destructors():
  """Makes `end_process` end this process without destroying static C++ objects."""
  global _skips_cpp_destructors
  _skips_cpp_destructors = True


def end_process():
  """Ends this process if `skip_cpp_destructors` was called; otherwise returns.

  Call it at the end of a command, in a `finally` clause. The exit status is that of the
  exception being raised, if any, which is reported as Python would. Handlers of
  `atexit` run and output is flushed first.
  """
  if not _skips_cpp_destructors:
    return
  error, status = sys.exc_info()[1], 0
  if isinstance(error, SystemExit) and isinstance(error.code, int | None):
    status = error.code or 0
  elif isinstance(error, SystemExit):  # sys.exit(message)
    print(error.code, file=sys.stderr)
    status = 1
  elif error:
    sys.excepthook(type(error), error, error.__traceback__)
    status = 1
  atexit._run_exitfuncs()  # Private, but multiprocessing ends its workers like this.
  logging.shutdown()
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)
