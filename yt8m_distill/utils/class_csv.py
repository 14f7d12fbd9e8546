"""CSV files with a row per class, in any order."""

import numpy as np
import pandas as pd
import tensorflow as tf

from yt8m_distill.configs import classification as config
from yt8m_distill.modeling import losses


def read(
  path: str, kind: str, column: str, num_classes: int, whole: bool = False
) -> pd.Series:
  """Reads one column, by class.

  Args:
    path: of a CSV with the columns Index and `column`.
    kind: what the file is, for messages.
    column: its name.
    num_classes: V.
    whole: the last class must have a row.

  Returns:
    Its values as strings; the index is that of the class.

  Raises:
    ValueError: no CSV, no such columns, or an index that is none of the V
      classes.
  """
  with tf.io.gfile.GFile(path) as file:
    try:
      table = pd.read_csv(file, keep_default_na=False)
    except ValueError as error:
      raise ValueError(f'{kind} {path} is no CSV: {error}.') from error
  if not {'Index', column} <= set(table.columns):
    raise ValueError(
      f'{kind} {path} has the columns {list(table.columns)}: '
      f'it needs Index and {column}.'
    )
  indices = pd.to_numeric(table['Index'], errors='coerce')
  if not ((indices >= 0) & (indices % 1 == 0)).all() or (
    indices.max() >= num_classes or (whole and indices.max() != num_classes - 1)
  ):
    raise ValueError(
      f'{kind} {path} has indices from {indices.min()} to {indices.max()}, '
      f'but num_classes is {num_classes}: choose the one of the same '
      'release, with whole numbers up to the last class.'
    )
  return pd.Series(table[column].astype(str).to_numpy(), indices.astype(int))


def class_weights(params: config.VideoTask) -> float | np.ndarray:
  """Returns the weights of a task's label loss, which its file has.

  Args:
    params: of the task.

  Returns:
    float32 [V], classes without a row weigh 1; 1 for all without a file.

  Raises:
    ValueError: `label_kind` is none, or does not go with `class_weights`; the
      file cannot be read, or a weight is none.
  """
  kind, path = params.losses.label_kind, params.losses.class_weights
  if kind not in losses.LABEL_LOSSES:
    raise ValueError(
      f'losses.label_kind is {kind!r}: choose one of {", ".join(losses.LABEL_LOSSES)}.'
    )
  if bool(path) != (kind == 'weighted_cross_entropy'):
    raise ValueError(
      f'losses.label_kind is {kind!r} and losses.class_weights {path!r}: '
      'weighted_cross_entropy needs a file of weights, no other kind reads '
      'one.'
    )
  return _read_weights(path, params.model.num_classes) if path else 1.0


def _read_weights(path, num_classes):
  try:
    rows = read(path, 'class_weights', 'Weight', num_classes)
  except tf.errors.NotFoundError as error:
    raise ValueError(
      f'There is no file {path}: set losses.class_weights to a '
      'CSV with the columns Index and Weight.'
    ) from error
  values = pd.to_numeric(rows, errors='coerce')
  wrong = rows[~values.between(0, np.finfo(np.float32).max)]
  if len(wrong):
    raise ValueError(
      f'class_weights {path} weighs class {wrong.index[0]} with '
      f'{wrong.iloc[0]!r}: a weight is a finite number, at least 0.'
    )
  twice = rows.index[rows.index.duplicated()]
  if len(twice):
    raise ValueError(
      f'class_weights {path} has several rows for class {twice[0]}: leave one.'
    )
  weights = np.ones(num_classes, np.float32)
  weights[values.index] = values
  return weights
