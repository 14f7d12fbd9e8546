"""Files and folders that appear whole, and output folders that one job owns."""

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import json
import os
import re
import types
from typing import Any

import tensorflow as tf

_REMEDY = 'it was edited or damaged. Restore or remove it.'


@contextlib.contextmanager
def whole_file(path: str) -> Iterator[str]:
  """Lets a file appear under its name only once it is complete.

  An error removes the incomplete file; a killed process leaves it.

  Args:
    path: final name.

  Yields:
    Temporary name to write to, `<path>.partial`.
  """
  partial = f'{path}.partial'
  try:
    yield partial
    tf.io.gfile.rename(partial, path, overwrite=True)
  except BaseException:  # Interrupts too.
    if tf.io.gfile.exists(partial):
      tf.io.gfile.remove(partial)
    raise


@contextlib.contextmanager
def _writing(path: str) -> Iterator[None]:
  """Turns an error of the file system into a ValueError about `path`."""
  try:
    yield
  except tf.errors.OpError as error:
    raise ValueError(
      f'{path} cannot be written: {error.message}. Name a writable folder.'
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
    Temporary folder to fill, `<folder>.partial`.

  Raises:
    ValueError: `folder` is not empty, or cannot be written.
  """
  check_empty(folder)
  folder = folder.rstrip('/')
  partial = f'{folder}.partial'
  if tf.io.gfile.exists(partial):  # A killed process left it.
    tf.io.gfile.rmtree(partial)
  with _writing(folder):
    tf.io.gfile.makedirs(partial)
  try:
    yield partial
    check_empty(folder)  # Another process may have filled it meanwhile.
    if tf.io.gfile.exists(folder):
      tf.io.gfile.rmtree(folder)
    tf.io.gfile.rename(partial, folder)
  except BaseException:  # Interrupts too.
    if tf.io.gfile.exists(partial):
      tf.io.gfile.rmtree(partial)
    raise


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
    ValueError: `split` is no such prefix, or as of `claim_folder`.
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
