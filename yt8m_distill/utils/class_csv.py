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
  try:
    with tf.io.gfile.GFile(path) as file:
      table = pd.read_csv(file, keep_default_na=False)
  except tf.errors.NotFoundError as error:
    raise ValueError(
      f'{field} is {path!r}: there is no such file. Set it to a CSV file with the '
      f'columns Index and {column}.'
    ) from error
  except (ValueError, tf.errors.OpError) as error:
    raise ValueError(
      f'{field} is {path!r}: it cannot be read as CSV ({str(error).strip()}). Set it '
      f'to a CSV file with the columns Index and {column}.'
    ) from error
  if not {'Index', column} <= set(table.columns):
    raise ValueError(
      f'{field} is {path!r}, which has the columns {list(table.columns)}: it must '
      f'have Index and {column}.'
    )
  indices = pd.to_numeric(table['Index'], errors='coerce')
  if not ((indices >= 0) & (indices % 1 == 0)).all() or (
    indices.max() >= num_classes or (complete and indices.max() != num_classes - 1)
  ):
    raise ValueError(
      f'{field} is {path!r}, which has indices from {indices.min()} to '
      f'{indices.max()}: they must be whole numbers from 0 to the last class, '
      f'{num_classes - 1}. Choose the file of the release that num_classes '
      f'({num_classes}) belongs to.'
    )
  return pd.Series(table[column].astype(str).to_numpy(), indices.astype(int))
