"""Restoring checkpoints, and refusing those of another architecture."""

import os
import tempfile
from typing import Dict, List, Optional

import tensorflow as tf
import tf_keras

# Differences that a message names.
_MAX_NAMED = 6


def latest(path: str) -> Optional[str]:
  """Returns a checkpoint's prefix from that prefix or from a run's folder."""
  if tf.io.gfile.isdir(path):
    return tf.train.latest_checkpoint(path)
  return path


def restore_model(model: tf_keras.Model, checkpoint: str):
  """Restores the variables of a model, all or none.

  TensorFlow takes a checkpoint with other variables in silence and leaves the
  unmatched ones random; here that is an error.

  Args:
    model: built.
    checkpoint: prefix of a checkpoint with an object 'model'.

  Raises:
    ValueError: variables are missing, or have other shapes; names both.
  """
  try:
    # Slots of an optimizer and the step stay behind.
    tf.train.Checkpoint(model=model).read(
        checkpoint).expect_partial().assert_existing_objects_matched()
  except (AssertionError, ValueError) as error:
    raise ValueError(_difference(model, checkpoint)) from error
  except tf.errors.NotFoundError as error:
    raise ValueError(
        f'There is no checkpoint {checkpoint}. Name the prefix of one, such as '
        '.../ckpt-1000, or the folder of a run.') from error
  check(model, checkpoint)


def check(model: tf_keras.Model, checkpoint: str):
  """Raises a ValueError unless both have variables of the same shapes."""
  if sorted(_variables(checkpoint).values()) != sorted(
      variable.shape.as_list() for variable in model.variables):
    raise ValueError(_difference(model, checkpoint))


def _variables(checkpoint: str) -> Dict[str, List[int]]:
  suffix = '/.ATTRIBUTES/VARIABLE_VALUE'
  return {
      name[:-len(suffix)]: shape
      for name, shape in tf.train.list_variables(checkpoint)
      if name.startswith('model/') and name.endswith(suffix) and
      '.OPTIMIZER_SLOT' not in name
  }


def _difference(model: tf_keras.Model, checkpoint: str) -> str:
  """Says in which variables a checkpoint and a model differ."""
  # The names that this model's variables have in a checkpoint.
  with tempfile.TemporaryDirectory() as folder:
    wanted = _variables(tf.train.Checkpoint(model=model).write(
        os.path.join(folder, 'model')))
  found = _variables(checkpoint)
  lines = [
      f'{name}: {found.get(name, "absent")} in the checkpoint, '
      f'{wanted.get(name, "absent")} in the model'
      for name in sorted(set(wanted) | set(found))
      if wanted.get(name) != found.get(name)
  ]
  named = '; '.join(lines[:_MAX_NAMED])
  more = f'; and {len(lines) - _MAX_NAMED} more' * (len(lines) > _MAX_NAMED)
  return (f'Checkpoint {checkpoint} is of another architecture. {named}{more}. '
          'Configure the model as in the params.yaml beside the checkpoint, or '
          'choose another folder.')
