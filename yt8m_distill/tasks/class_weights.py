"""Weights of the classes in the label loss."""

import numpy as np
import pandas as pd

from yt8m_distill.utils import class_csv

_FIELD = 'task.losses.class_weights'


def read(path: str, num_classes: int) -> float | np.ndarray:
  """Reads the weights of the classes.

  Args:
    path: CSV file with the columns Index and Weight; '' for none.
    num_classes: V.

  Returns:
    float32 [V], 1 for classes without a row; without a file, 1 for all.

  Raises:
    ValueError: the file cannot be read, or holds an invalid weight.
  """
  if not path:
    return 1.0
  rows = class_csv.read(path, _FIELD, 'Weight', num_classes)
  values = pd.to_numeric(rows, errors='coerce')
  wrong = rows[~values.between(0, np.finfo(np.float32).max)]
  if len(wrong):
    raise ValueError(
      f'{_FIELD} is {path!r}, where the weight of class {wrong.index[0]} is '
      f'{wrong.iloc[0]!r}: a weight must be a finite number of at least 0.'
    )
  repeated = rows.index[rows.index.duplicated()]
  if len(repeated):
    raise ValueError(
      f'{_FIELD} is {path!r}, which has several rows for class {repeated[0]}: keep one.'
    )
  weights = np.ones(num_classes, np.float32)
  weights[values.index] = values
  return weights
