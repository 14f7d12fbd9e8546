"""Files that TensorFlow reads through tensorflow-io: http, https, s3, az, hdfs.

Source: the file systems of tensorflow-io 0.37.1, which register themselves on import.
They do not retry failed requests, so this module does. Local files and gs:// are left
to TensorFlow. Python code reads through `retry`, datasets through `shards.read`.
"""

from collections.abc import Callable
import os
import re
import time
from typing import Any
import warnings

from absl import logging
import tensorflow as tf
from tensorflow.python.lib.io import file_io

from yt8m_distill.utils import process_exit

ATTEMPTS = 5
_WAIT = 1.0  # seconds after the first failure; doubles with each further one
_NATIVE_SCHEMES = ('', 'file', 'ram', 'gs')
_TRANSIENT_ERRORS = (
  tf.errors.AbortedError,
  tf.errors.DeadlineExceededError,
  tf.errors.InternalError,
  tf.errors.ResourceExhaustedError,
  tf.errors.UnavailableError,
  tf.errors.UnknownError,
)
# curl's error code when a server sends more bytes than it was asked for.
_NO_RANGE = 'Unable to perform (23)'
# What eager TensorFlow adds around an error message.
_RUNTIME_TEXT = re.compile(r'{{function_node.*?}} |\s*\[Op:.*', re.DOTALL)


def scheme(path: str) -> str:
  """Returns the part before '://', or '' for a local path."""
  return path.split('://')[0] if '://' in path else ''


def file_name(path: str) -> str:
  """Returns the last component of a path, without the query of a URL."""
  if scheme(path):
    path = re.split('[?#]', path)[0]
  return os.path.basename(path)


def needs_tensorflow_io(path: str) -> bool:
  """Returns whether a path is read through tensorflow-io."""
  return scheme(path) not in _NATIVE_SCHEMES


def ensure_file_system(path: str):
  """Imports tensorflow-io if TensorFlow needs it to read a path.

  A program that then reads from S3 must call `process_exit.end_process` last.

  Raises:
    ValueError: tensorflow-io does not add the file system.
  """
  if scheme(path) not in file_io.get_registered_schemes():
    _import_tensorflow_io(path)
  if scheme(path) == 's3':
    # When C++ destroys static objects, the S3 client of tensorflow-io 0.37.1 logs to
    # one that is already gone, and the process aborts (status 134).
    process_exit.skip_cpp_destructors()


def _import_tensorflow_io(path: str):
  """Imports tensorflow-io; raises a ValueError if the scheme is still missing."""
  try:
    with warnings.catch_warnings():  # The error below says more than they do.
      warnings.simplefilter('ignore')
      import tensorflow_io
    version = tensorflow_io.__version__
  except Exception as error:
    version = f'not importable ({error})'
  if scheme(path) not in file_io.get_registered_schemes():
    raise ValueError(
      f'{path}: TensorFlow has no file system {scheme(path)}://. tensorflow-io adds '
      'http, https, s3, az, hdfs, viewfs and oss, but only tensorflow 2.16 with '
      f'tensorflow-io 0.37.1 work together. Installed are tensorflow {tf.__version__} '
      f'and tensorflow-io {version}. Install that pair (pip install -c '
      'constraints/tf216.txt .), or copy the files to a disk.'
    )


def retry(path: str, action: Callable[[], Any]) -> Any:
  """Returns what `action` returns; repeats it after transient errors.

  Args:
    path: the file that `action` opens and reads.
    action: takes no arguments and may run up to ATTEMPTS times.

  Raises:
    ValueError: the file cannot be read.
  """
  ensure_file_system(path)
  attempt = 1
  while True:
    try:
      return action()
    except tf.errors.OpError as error:
      wait_or_raise(path, attempt, error)
    attempt += 1


def wait_or_raise(path: str, attempt: int, error: tf.errors.OpError):
  """Waits before the next attempt at reading a file, or gives up.

  Args:
    path: the file.
    attempt: number of consecutive failures.
    error: the last failure.

  Raises:
    ValueError: another attempt would not help.
  """
  cause = f'({_RUNTIME_TEXT.sub("", error.message)})'
  if _NO_RANGE in error.message:
    raise ValueError(
      f'{path}: its server ignores Range requests, but the file must be read in '
      'pieces. Use a server that supports them, or copy the file to a disk. '
      f'{cause}'
    ) from error
  if not needs_tensorflow_io(path) or not isinstance(error, _TRANSIENT_ERRORS):
    raise ValueError(
      f'{path}: no such file, or it is not readable. Correct the path. {cause}'
    ) from error
  if attempt >= ATTEMPTS:
    raise ValueError(
      f'{path}: not readable in {ATTEMPTS} attempts. Check the network and the server, '
      f'or copy the file to a disk. {cause}'
    ) from error
  seconds = _WAIT * 2 ** (attempt - 1)
  logging.warning(
    '%s: attempt %d of %d failed; the next one follows in %g seconds. %s',
    path,
    attempt,
    ATTEMPTS,
    seconds,
    cause,
  )
  time.sleep(seconds)
