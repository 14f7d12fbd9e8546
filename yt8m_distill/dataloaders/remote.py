"""Files that TensorFlow reads through tensorflow-io: http, https, s3, az, hdfs.

Source: the file systems of tensorflow-io 0.37.1, which register themselves when
it is imported. They try nothing twice, so that is done here; what TensorFlow
reads by itself (local files, gs) is left to it. Python reads through `retry`,
a dataset through `shards.read`.
"""

import atexit
from collections.abc import Callable
from collections.abc import Iterable
import ctypes
import functools
import os
import platform
import re
import time
from typing import Any
import warnings

from absl import logging
import tensorflow as tf
from tensorflow.python.lib.io import file_io

ATTEMPTS = 5
_WAIT = 1.0  # seconds behind the first attempt, twice as many behind the next
_NATIVE = ('', 'file', 'ram', 'gs')
_TRANSIENT = (
  tf.errors.AbortedError,
  tf.errors.DeadlineExceededError,
  tf.errors.InternalError,
  tf.errors.ResourceExhaustedError,
  tf.errors.UnavailableError,
  tf.errors.UnknownError,
)
# What curl says when a server sends more bytes than it was asked for.
_NO_RANGE = 'Unable to perform (23)'
# What eager TensorFlow puts around a message.
_NOISE = re.compile(r'{{function_node.*?}} |\s*\[Op:.*', re.DOTALL)


def scheme(path: str) -> str:
  """Returns what stands before '://', '' of a local path."""
  return path.split('://')[0] if '://' in path else ''


def name(path: str) -> str:
  """Returns what a file is called: no folder, and of a URL no query."""
  if scheme(path):
    path = re.split('[?#]', path)[0]
  return os.path.basename(path)


def among(paths: Iterable[str]) -> bool:
  """Whether a path is one that is read through tensorflow-io."""
  return any(scheme(path) not in _NATIVE for path in paths)


def ensure(path: str):
  """Imports tensorflow-io if TensorFlow needs it for a path.

  Raises:
    ValueError: there is still no file system of that scheme.
  """
  name = scheme(path)
  if name not in file_io.get_registered_schemes():
    _register(path)
  if name == 's3':
    _end_early()


def _register(path):
  """Imports tensorflow-io, see `ensure`."""
  try:
    with warnings.catch_warnings():  # They say less than the error below.
      warnings.simplefilter('ignore')
      import tensorflow_io
    version = tensorflow_io.__version__
  except Exception as error:
    version = f'none that can be imported ({error})'
  name = scheme(path)
  if name not in file_io.get_registered_schemes():
    raise ValueError(
      f'{path}: TensorFlow has no file system {name}://. tensorflow-io has '
      'http, https, s3, az, hdfs, viewfs and oss, and works with one pair of '
      'versions: tensorflow 2.16 with tensorflow-io 0.37.1 (pip install -c '
      f'constraints/tf216.txt .). Here are tensorflow {tf.__version__} and '
      f'tensorflow-io {version}. Install that pair, or copy the files to a '
      'disk.'
    )


@functools.cache  # Once a process.
def _end_early():
  """Lets this process end before C++ destroys what is static.

  Else it aborts there (status 134): the S3 client of tensorflow-io 0.37.1 logs
  to what is destroyed already. What is lost are other libraries' handlers and
  destructors. Only glibc tells a handler the exit status; elsewhere nothing
  changes.
  """
  if platform.libc_ver()[0] != 'glibc':
    return
  libc = ctypes.CDLL(None)

  def end_first():
    # glibc calls first what was registered last, here behind all imports. By
    # then Python has flushed its streams, but C would flush its own later.
    libc.fflush(None)
    libc.on_exit(libc._exit, None)

  atexit.register(end_first)


def retry(path: str, action: Callable[[], Any]) -> Any:
  """Returns what `action` returns; tries again what may pass.

  Args:
    path: file that it opens and reads.
    action: without arguments, may run up to ATTEMPTS times.

  Raises:
    ValueError: it cannot be read, or no longer.
  """
  ensure(path)
  attempt = 1
  while True:
    try:
      return action()
    except tf.errors.OpError as error:
      wait(path, attempt, error)
    attempt += 1


def wait(path: str, attempt: int, error: tf.errors.OpError):
  """Waits before the next attempt at reading a file.

  Args:
    path: of the file.
    attempt: how many have failed in a row.
    error: of the last one.

  Raises:
    ValueError: another attempt is of no use.
  """
  cause = f'({_NOISE.sub("", error.message)})'
  if _NO_RANGE in error.message:
    raise ValueError(
      f'{path}: its server ignores Range requests, without which a file '
      'cannot be read in pieces: serve it by one that honours them, or copy '
      f'it to a disk. {cause}'
    ) from error
  if not among([path]) or not isinstance(error, _TRANSIENT):
    raise ValueError(
      f'{path}: no such file, or not readable: correct input_path. {cause}'
    ) from error
  if attempt >= ATTEMPTS:
    raise ValueError(
      f'{path}: not readable in {ATTEMPTS} attempts: see to the '
      'network and the server, or copy the file to a disk. '
      f'{cause}'
    ) from error
  seconds = _WAIT * 2 ** (attempt - 1)
  logging.warning(
    '%s: attempt %d of %d failed, the next one is in %g seconds. %s',
    path,
    attempt,
    ATTEMPTS,
    seconds,
    cause,
  )
  time.sleep(seconds)
