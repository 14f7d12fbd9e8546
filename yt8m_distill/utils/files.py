"""Folders that one job fills, and that another must not mix into."""

from collections.abc import Sequence
import json
import os
from typing import Any

import tensorflow as tf


def write_text(path: str, text: str):
  """Writes a file under a temporary name and renames it."""
  partial = f'{path}.partial'
  with tf.io.gfile.GFile(partial, 'w') as file:
    file.write(text)
  tf.io.gfile.rename(partial, path, overwrite=True)


def claim(path: str, outputs: Sequence[str], job: dict[str, Any]):
  """Makes a folder that of a job, or raises where it is that of another.

  Args:
    path: file that names the job, in its folder, which is made if missing.
    outputs: files that the job will write.
    job: what the outputs depend on, as JSON has it.

  Raises:
    ValueError: the folder holds something else, or cannot be written.
  """
  if tf.io.gfile.exists(path):
    with tf.io.gfile.GFile(path) as file:
      before = json.load(file)
    changed = [
      f'{key} is {value!r}, and was {before.get(key)!r}'
      for key, value in job.items()
      if value != before.get(key)
    ]
    if changed:
      raise ValueError(
        f'{path} is of another job: {"; ".join(changed)}. Name '
        'another output_dir, or repeat that job.'
      )
    return
  strangers = [name for name in outputs if tf.io.gfile.exists(name)]
  if strangers:
    raise ValueError(
      f'{strangers[0]} is there, but no {path} that says how it '
      'was made: name another output_dir.'
    )
  folder = os.path.dirname(path)
  try:
    tf.io.gfile.makedirs(folder)
    write_text(path, json.dumps(job, indent=2) + '\n')
  except tf.errors.OpError as error:
    raise ValueError(
      f'output_dir is {folder}, which cannot be written: '
      f'{error.message}. Name a folder that can.'
    ) from error
