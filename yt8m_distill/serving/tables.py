"""Files of predictions: the CSV that Kaggle takes, and Parquet.

Source of the CSV: `format_lines` in the original's inference.py, with the same
header and figures. Deviation: an id that holds a comma is quoted.

B videos, K best classes, R representation.
"""

from collections.abc import Sequence
import csv
import io
import shutil

import numpy as np
import pyarrow as pa
from pyarrow import parquet
import tensorflow as tf

from yt8m_distill.utils import files

_HEADER = ('VideoId', 'LabelConfidencePairs')
_ROW_GROUP = 1024  # rows that readers of Parquet take at once
_BLOCK = 1 << 20  # bytes copied at once


class Csv:
  """Rows `id,class probability class probability ...`, the best class first."""

  def __init__(self, file):
    """Writes the header into an open file."""
    self._rows = csv.writer(file, lineterminator='\n')
    self._rows.writerow(_HEADER)

  def write(self, outputs: dict[str, np.ndarray]):
    """Appends a batch, see `ensemble.Ensemble`."""
    for name, indices, probabilities in zip(
      _ids(outputs),
      outputs['class_indices'].tolist(),
      outputs['probabilities'].tolist(),
    ):
      self._rows.writerow(
        (name, ' '.join(f'{i} {p:.6f}' for i, p in zip(indices, probabilities)))
      )

  def close(self):
    """Does nothing: every row is in the file."""


class Parquet:
  """Columns `id`, `class_indices`, `probabilities`, and what is known else."""

  def __init__(self, file, names: Sequence[str], embedding: bool):
    """Prepares an open file.

    Args:
      file: open for writing.
      names: of the classes, for `class_names`; without any it is left out.
      embedding: whether there is a column of that name, a video's
        representation.
    """
    self._names = np.array(names, object)
    columns = {
      'id': pa.string(),
      'class_indices': pa.list_(pa.int32()),
      'probabilities': pa.list_(pa.float32()),
    }
    if names:
      columns['class_names'] = pa.list_(pa.string())
    if embedding:
      columns['embedding'] = pa.list_(pa.float32())
    self._schema = pa.schema(columns)
    self._writer = parquet.ParquetWriter(_Stream(file), self._schema)
    self._batches, self._count = [], 0

  def write(self, outputs: dict[str, np.ndarray]):
    """Appends a batch, see `ensemble.Ensemble`."""
    columns = {**outputs, 'id': _ids(outputs)}
    if 'class_names' in self._schema.names:
      columns['class_names'] = self._names[outputs['class_indices']]
    if 'embedding' in self._schema.names:
      columns['embedding'] = outputs['representation']
    batch = pa.record_batch(
      [pa.array(list(columns[field.name]), field.type) for field in self._schema],
      self._schema,
    )
    self._batches.append(batch)
    self._count += batch.num_rows
    if self._count >= _ROW_GROUP:
      self._flush()

  def _flush(self):
    self._writer.write_table(pa.Table.from_batches(self._batches, self._schema))
    self._batches, self._count = [], 0

  def close(self):
    """Writes what is left, and the file's footer."""
    with self._writer:
      self._flush()


class _Stream(io.RawIOBase):
  """A GFile as pyarrow wants it."""

  def __init__(self, file):
    super().__init__()
    self._file = file

  def writable(self):
    return True

  def write(self, data):
    self._file.write(bytes(data))
    return len(data)


def join_csv(paths: Sequence[str], out: str):
  """Writes one CSV with the rows of several, under one header."""
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


def _ids(outputs) -> list[str]:
  # One id that is no UTF-8 is no reason to lose the others.
  return [name.decode(errors='backslashreplace') for name in outputs['id']]
