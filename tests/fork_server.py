"""Imported by the server that `processes` takes forks from; tests do not import it.

Python's server ends if a client is killed while it asks for a fork.
"""

import errno
from multiprocessing import reduction

_receive = reduction.recvfds


def _receive_or_continue(socket, size):
  try:
    return _receive(socket, size)
  except EOFError as error:
    # The server ignores this one.
    raise OSError(errno.ECONNABORTED, 'the client was killed') from error


reduction.recvfds = _receive_or_continue
