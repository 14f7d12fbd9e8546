"""CSV files with one row per class, in any order."""

import pandas as pd
import tensorflow as tf


def read(
  path: str, field: str, column: str, num_classes: int, complete: bool = False
) -> pd.Series:
  """Reads one column.

  Args:
    path: a CSV file with the columns Index and `column`.
    field: field of the configuration that names the file, for messages.
    column: name of the column to read.
    num_classes: V.
    complete: whether the last class must have a row, which tells files of
      different releases apart.

  Returns:
    The values as strings, indexed by class.

  Raises:
    ValueError: the file does not exist, is not CSV, lacks a column, or has an
      index that is not one of the V classes.
  """
  table = _read_table(path, field, ['Index', column])
  indices = _indices(table, path, field, num_classes, complete)
  return pd.Series(table[column].astype(str).to_numpy(), indices)


def read_indices(path: str, field: str, num_classes: int) -> pd.Series:
  """Reads only the classes, in the order of the file.

  Args:
    path: a CSV file with the column Index.
    field: field of the configuration that names the file, for messages.
    num_classes: V.

  Returns:
    The indices, which may repeat.

  Raises:
    ValueError: the file does not exist, is not CSV, lacks the column, or has an
      index that is not one of the V classes.
  """
  table = _read_table(path, field, ['Index'])
  return _indices(table, path, field, num_classes, complete=False)


def _read_table(path: str, field: str, columns: list[str]) -> pd.DataFrame:
  """Reads a CSV file that must have some columns."""
  names = ' and '.join(columns)
  wanted = f'a CSV file with the column{"s" * (len(columns) > 1)} {names}'
  try:
    with tf.io.gfile.GFile(path) as file:
      table = pd.read_csv(file, keep_default_na=False)
  except tf.errors.NotFoundError as error:
    raise ValueError(
      f'{field} is {path!r}: there is no such file. Set it to {wanted}.'
    ) from error
  except (ValueError, tf.errors.OpError) as error:
    raise ValueError(
      f'{field} is {path!r}: it cannot be read as CSV ({str(error).strip()}). Set it '
      f'to {wanted}.'
    ) from error
  if not set(columns) <= set(table.columns):
    raise ValueError(
      f'{field} is {path!r}, which has the columns {list(table.columns)}: it must '
      f'have {names}.'
    )
  return table


def _indices(
  table: pd.DataFrame, path: str, field: str, num_classes: int, complete: bool
) -> pd.Series:
  """Returns the column Index as integers; see `read`."""
  indices = pd.to_numeric(table['Index'], errors='coerce')
  last = indices.max()
  valid = ((indices >= 0) & (indices % 1 == 0)).all()
  if not valid or last >= num_classes or (complete and last != num_classes - 1):
    raise ValueError(
      f'{field} is {path!r}, which has indices from {indices.min()} to {last}: they '
      f'must be whole numbers from 0 to the last class, {num_classes - 1}. Choose the '
      f'file of the release that num_classes ({num_classes}) belongs to.'
    )
  return indices.astype(int)
