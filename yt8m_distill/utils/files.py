"""Files and folders that appear whole, and output folders that one job owns."""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import errno
import fcntl
import json
import os
import pathlib
import re
import secrets
import types
from typing import Any

import tensorflow as tf

_PARTIAL = re.compile(r'.+\.[0-9a-f]{8}\.partial')
_READ_ONLY = os.strerror(errno.EROFS)
_FAULTS = (
  _READ_ONLY,
  *map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)),
)
_REMEDY = 'it was edited or damaged. Restore or remove it.'


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[str]:
  """Lets a file appear under its name only once it is complete.

  Several processes may write the same file: the last one to finish wins. An error
  removes the incomplete file; a killed process leaves it for `remove_abandoned`.

  Args:
    path: final name.

  Yields:
    Temporary name to write to, `<path>.<random>.partial`.

  Raises:
    ValueError: the disk is full or became read-only.
  """
  with explained_disk(path), _partial(path, _create_file) as partial:
    yield partial
    tf.io.gfile.rename(partial, path, overwrite=True)


@contextlib.contextmanager
def _partial(path: str, create: Callable[[str], Any]) -> Iterator[str]:
  """Names what shall become `path`, and locks it to say that it is being written.

  Args:
    path: final name.
    create: creates the file or folder, if it is a local one.

  Yields:
    Its temporary name. An error removes what has it.
  """
  with contextlib.ExitStack() as stack:
    partial = _new_partial(path)
    while not is_remote(path):
      with _writing(path):
        create(partial)
      with contextlib.suppress(FileNotFoundError):
        stack.enter_context(_lock(partial, wait=True))
        if os.path.exists(partial):
          break
      # It was taken for abandoned before it was locked.
      partial = _new_partial(path)
    try:
      yield partial
    except BaseException:  # Interrupts too.
      _remove(partial)
      raise


def _new_partial(path: str) -> str:
  return f'{path}.{secrets.token_hex(4)}.partial'


def _create_file(path: str):
  pathlib.Path(path).touch(exist_ok=False)


def _remove(path: str):
  """Removes a file, or a folder and all that it holds, if it exists."""
  if tf.io.gfile.isdir(path):
    tf.io.gfile.rmtree(path)
  elif tf.io.gfile.exists(path):
    tf.io.gfile.remove(path)


def remove_abandoned(folder: str, prefix: str = ''):
  """Removes what killed processes left incomplete in a local folder.

  Keeps what a living process writes, on this machine or, where the file system shares
  locks, on another one.

  Args:
    folder: of the files; may be missing.
    prefix: of their names.
  """
  if is_remote(folder) or not os.path.isdir(folder):
    return
  for name in os.listdir(folder):
    if name.startswith(prefix) and _PARTIAL.fullmatch(name):
      path = os.path.join(folder, name)
      # Another process may finish or remove it meanwhile; a disk may be read-only.
      with contextlib.suppress(OSError, tf.errors.OpError), _lock(path) as locked:
        if locked:
          _remove(path)


def is_remote(path: str) -> bool:
  """Returns whether a path is not one of this machine's file systems."""
  return '://' in path


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
  """Holds the lock of a local file or folder; the end of this process releases it.

  Without effect where the file system is remote or has no locks.

  Args:
    path: must exist.

  Raises:
    BlockingIOError: another process holds it.
  """
  with _lock(path):
    yield


@contextlib.contextmanager
def _lock(path: str, wait: bool = False) -> Iterator[bool]:
  """Locks a path, see `locked`; yields whether the file system has locks."""
  if is_remote(path):
    yield False
    return
  # Locks of a network file system need a file that is open for writing.
  file = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)
  try:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
      has_locks = True
    except BlockingIOError:
      raise
    except OSError:
      has_locks = False
    yield has_locks
  finally:
    os.close(file)


@contextlib.contextmanager
def explained_disk(path: str) -> Iterator[None]:
  """Turns the error of a disk that is full or read-only into a ValueError.

  Args:
    path: what is written to.
  """
  try:
    yield
  except (tf.errors.OpError, OSError) as error:
    fault = next((fault for fault in _FAULTS if fault in str(error)), None)
    if not fault:
      raise
    remedy = 'Make it writable' if fault == _READ_ONLY else 'Free space there'
    raise ValueError(
      f'{path} cannot be written: {fault}. {remedy}, and repeat the command.'
    ) from error


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
  """Turns an error of the file system into a ValueError about `path`."""
  try:
    with explained_disk(path):
      yield
  except (tf.errors.OpError, OSError) as error:
    reason = error.message if isinstance(error, tf.errors.OpError) else error.strerror
    raise ValueError(
      f'{path} cannot be written: {reason}. Name a writable folder.'
    ) from error


def write_text(path: str, text: str):
  """Writes a text file, which appears whole.

  Raises:
    ValueError: it cannot be written.
  """
  with (
    _writing(path),
    whole_file(path) as partial,
    tf.io.gfile.GFile(partial, 'w') as file,
  ):
    file.write(text)


def read_json(path: str, **required: type | types.UnionType) -> dict[str, Any] | None:
  """Returns the object in a JSON file, None if the file does not exist.

  Args:
    path: the file.
    **required: types of the values that it must have, by key.

  Raises:
    ValueError: the file is not valid JSON, or holds something else.
  """
  if not tf.io.gfile.exists(path):
    return None
  try:
    with tf.io.gfile.GFile(path) as file:
      values = json.load(file)
  except (ValueError, RecursionError) as error:
    raise ValueError(f'{path} is not valid JSON ({error}): {_REMEDY}') from error
  if not isinstance(values, dict):
    raise ValueError(f'{path} holds {values!r:.60} instead of an object: {_REMEDY}')
  check_values(path, values, **required)
  return values


def check_values(path: str, values: dict[str, Any], **required: type | types.UnionType):
  """Raises a ValueError if an object in a JSON file lacks a value of a type.

  Args:
    path: the file, for the message.
    values: the object.
    **required: as for `read_json`.
  """
  for key, kind in required.items():
    if not isinstance(values.get(key), kind):
      raise ValueError(f'{path}: its {key} is {values.get(key)!r:.60}: {_REMEDY}')


def write_json(path: str, value: Any):
  """Writes a JSON file, which appears whole; raises as `write_text`."""
  write_text(path, json.dumps(value, indent=2) + '\n')


@contextlib.contextmanager
def whole_folder(folder: str) -> Iterator[str]:
  """Lets a folder appear under its name only once it is complete.

  Args:
    folder: final name; must not exist, or be empty.

  Yields:
    Temporary folder to fill, `<folder>.<random>.partial`.

  Raises:
    ValueError: `folder` is not empty, or cannot be written.
  """
  check_empty(folder)
  folder = folder.rstrip('/')
  parent, name = os.path.split(folder)
  with _writing(folder):
    tf.io.gfile.makedirs(parent or '.')
    remove_abandoned(parent or '.', f'{name}.')
  with explained_disk(folder), _partial(folder, os.mkdir) as partial:
    if is_remote(folder):
      tf.io.gfile.makedirs(partial)
    yield partial
    check_empty(folder)  # Another process may have filled it meanwhile.
    if is_remote(folder) and tf.io.gfile.exists(folder):
      tf.io.gfile.rmtree(folder)
    # Replaces an empty folder only.
    tf.io.gfile.rename(partial, folder, overwrite=True)


def check_empty(folder: str):
  """Raises a ValueError unless a folder is empty or does not exist."""
  _check_named(folder)
  if not tf.io.gfile.exists(folder):
    return
  if not tf.io.gfile.isdir(folder):
    raise ValueError(f'{folder} is a file. Name another folder, or remove it.')
  if tf.io.gfile.listdir(folder):
    raise ValueError(f'{folder} is not empty. Name another folder, or remove it.')


def _check_named(folder: str):
  # TensorFlow would take '' for the current folder.
  if not folder:
    raise ValueError("The output folder is '': name one, or '.' for the current one.")


def claim_folder(
  path: str,
  job: dict[str, Any],
  outputs: Sequence[str] = (),
  shared: bool = False,
  inputs: Collection[str] = (),
):
  """Claims an output folder for a job; raises if it belongs to a different one.

  A job that wrote nothing yields to the next one, so that a command can be corrected.

  Args:
    path: JSON file in the folder that records the job. Both are made if missing.
    job: everything that the outputs depend on.
    outputs: files that the job will write; none may exist before the folder is
      claimed.
    shared: whether files of other jobs may lie in the folder. `outputs` then includes
      all that a job recorded at `path` has written, whole or partial.
    inputs: names of what the folder holds for the job to read; it may stay.

  Raises:
    ValueError: the folder belongs to a different job, holds outputs of an
      unknown one, or cannot be written.
  """
  folder = os.path.dirname(path)
  _check_named(folder)
  remove_abandoned(folder)
  existing = [name for name in outputs if tf.io.gfile.exists(name)]
  difference = job_difference(path, job)
  # A job with other settings may have written other files than `outputs`.
  if difference and (existing if shared else _others(path, inputs)):
    raise ValueError(
      f'{path} records another job: {difference}. Name another output_dir, or '
      'repeat that job.'
    )
  recorded = tf.io.gfile.exists(path)
  if recorded and not difference:
    return
  if existing and not recorded:
    raise ValueError(
      f'{existing[0]} exists, but no {path} that records how it was made. Name '
      'another output_dir, or remove the file.'
    )
  with _writing(folder):
    tf.io.gfile.makedirs(folder)
  write_json(path, job)


def claim_split(folder: str, command: str, split: str, job: dict[str, Any]):
  """Claims the files <split>0000.*, <split>0001.*, ... of a folder for a job.

  Files of other splits, and of other kinds, may lie in the folder.

  Args:
    folder: made if missing. <command>_<split>.json in it records the job.
    command: name of the command.
    split: prefix of the names.
    job: everything that the files depend on.

  Raises:
    ValueError: `split` is no such prefix; or see `claim_folder`.
  """
  if not re.fullmatch(r'[\w-]+', split):
    raise ValueError(
      f'split is {split!r}: only letters, digits, "-" and "_" are allowed.'
    )
  existing = tf.io.gfile.glob(os.path.join(folder, f'{split}{"[0-9]" * 4}.*'))
  path = os.path.join(folder, f'{command}_{split}.json')
  claim_folder(path, job, existing, shared=True)


def _others(path: str, known: Collection[str]) -> set[str]:
  """Returns the names of what a file's folder holds besides it and what is known."""
  folder, name = os.path.split(path)
  # Remote folders end with a slash.
  found = {other.rstrip('/') for other in tf.io.gfile.listdir(folder)}
  return found - {name, *known}


def job_difference(path: str, job: dict[str, Any]) -> str:
  """Describes how a job differs from the one that a claimed folder records.

  Args:
    path: as for claim_folder(); may be missing.
    job: likewise.

  Returns:
    'KEY is NEW, was OLD' for each difference; '' if there is none.
  """
  recorded = read_json(path)
  if recorded is None:
    return ''
  job = json.loads(json.dumps(job))  # Tuples become lists, as in the file.
  return '; '.join(
    f'{key} is {job.get(key)!r}, was {recorded.get(key)!r}'
    for key in {**job, **recorded}
    if job.get(key) != recorded.get(key)
  )
