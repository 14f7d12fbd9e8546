"""File formats of predictions: Kaggle's CSV, and Parquet.

Source of the CSV: `format_lines` in the original's inference.py, with the same
header and number format. Deviation: an id with a comma is quoted.

B videos, K best classes, R representation.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import csv
import io
import shutil
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import tensorflow as tf

from yt8m_distill.utils import files

_HEADER = ('VideoId', 'LabelConfidencePairs')
_ROW_GROUP = 1024  # rows that Parquet readers load at once
_BLOCK = 1 << 20  # bytes copied at once


class Csv:
  """Writes rows `id,class probability class probability ...`, best class first."""

  def __init__(self, file):
    """Writes the header.

    Args:
      file: open binary file.
    """
    self._rows = csv.writer(file, lineterminator='\n')
    self._rows.writerow(_HEADER)

  def write(self, outputs: dict[str, np.ndarray]):
    """Appends a batch.

    Args:
      outputs: of `ensemble.Ensemble`.
    """
    for name, indices, probabilities in zip(
      ids(outputs),
      outputs['class_indices'].tolist(),
      outputs['probabilities'].tolist(),
    ):
      self._rows.writerow(
        (name, ' '.join(f'{i} {p:.6f}' for i, p in zip(indices, probabilities)))
      )

  def close(self):
    """Does nothing: all rows are written."""


class ParquetRows:
  """Writes rows as a Parquet file, a group at a time."""

  def __init__(self, file, columns: dict[str, pa.DataType]):
    """Starts the file.

    Args:
      file: open binary file.
      columns: types by name.
    """
    self._schema = pa.schema(columns)
    self._writer = parquet.ParquetWriter(_Stream(file), self._schema)
    self._batches: list[pa.RecordBatch] = []
    self._count = 0

  def append(self, columns: Sequence[pa.Array]):
    """Appends rows, given as the columns of the schema."""
    batch = pa.record_batch(columns, self._schema)
    self._batches.append(batch)
    self._count += batch.num_rows
    if self._count >= _ROW_GROUP:
      self._flush()

  def _flush(self):
    self._writer.write_table(pa.Table.from_batches(self._batches, self._schema))
    self._batches, self._count = [], 0

  def close(self):
    """Writes the remaining rows and the file's footer."""
    with self._writer:
      self._flush()


class Parquet(ParquetRows):
  """Writes columns `id`, `class_indices`, `probabilities`, and optional ones."""

  def __init__(self, file, names: Sequence[str], extras: Sequence[str]):
    """Starts the file.

    Args:
      file: open binary file.
      names: names of the classes for a column `class_names`; empty for none.
      extras: further outputs, each a column: `representation` is the column
        `embedding`, and `frames_seen` keeps its name.
    """
    self._names = np.array(names, object)
    columns = {
      'id': pa.string(),
      'class_indices': pa.list_(pa.int32()),
      'probabilities': pa.list_(pa.float32()),
    }
    if names:
      columns['class_names'] = pa.list_(pa.string())
    if 'representation' in extras:
      columns['embedding'] = pa.list_(pa.float32())
    if 'frames_seen' in extras:
      columns['frames_seen'] = pa.int32()
    super().__init__(file, columns)

  def write(self, outputs: dict[str, np.ndarray]):
    """Appends a batch.

    Args:
      outputs: of `ensemble.Ensemble`.
    """
    columns: dict[str, Any] = {**outputs, 'id': ids(outputs)}
    if 'class_names' in self._schema.names:
      columns['class_names'] = self._names[outputs['class_indices']]
    if 'embedding' in self._schema.names:
      columns['embedding'] = outputs['representation']
    self.append(
      [pa.array(list(columns[field.name]), field.type) for field in self._schema]
    )


class _Stream(io.RawIOBase):
  """Wraps a GFile for pyarrow."""

  def __init__(self, file):
    super().__init__()
    self._file = file

  def readable(self):
    return 'r' in self._file.mode

  def writable(self):
    return not self.readable()

  def seekable(self):
    return self.readable()

  def seek(self, offset, whence=io.SEEK_SET):
    self._file.seek(offset, whence)
    return self.tell()

  def tell(self):
    return self._file.tell()

  def readinto(self, buffer):
    data = self._file.read(len(buffer))
    buffer[: len(data)] = data
    return len(data)

  def write(self, data):
    self._file.write(bytes(data))
    return len(data)


def read_rows(path: str, at_once: int) -> Iterator[pa.RecordBatch]:
  """Yields the rows of a Parquet file, at most `at_once` together."""
  with tf.io.gfile.GFile(path, 'rb') as file:
    yield from parquet.ParquetFile(_Stream(file)).iter_batches(at_once)


def join_csv(paths: Sequence[str], out: str):
  """Concatenates CSV files under one header."""
  with (
    files.whole_file(out) as partial,
    tf.io.gfile.GFile(partial, 'wb') as joined,
  ):
    for number, path in enumerate(paths):
      with tf.io.gfile.GFile(path, 'rb') as part:
        header = part.readline()
        if not number:
          joined.write(header)
        shutil.copyfileobj(part, joined, _BLOCK)


def ids(outputs) -> list[str]:
  """Returns the ids of videos as text; they may be invalid UTF-8."""
  return [name.decode(errors='backslashreplace') for name in outputs['id']]
