"""File formats of labels in time: the CSV of YouTube-8M Segments, and Parquet.

For the CSV, each shard becomes a Parquet file of the probabilities of all its windows,
because only all shards together say which windows are the best of a class.

B videos, W windows of all videos, C classes that are predicted, K best of them.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import re

import numpy as np
import pyarrow as pa
from pyarrow import compute
import tensorflow as tf

from yt8m_distill.evaluation import first_keys
from yt8m_distill.evaluation import segment_metrics
from yt8m_distill.serving import tables
from yt8m_distill.utils import files

_MOST = segment_metrics.MAX_WINDOWS
_SCORES = 'probabilities'
_WINDOW = {'id': pa.string(), 'start': pa.int32(), 'end': pa.int32()}
_READ = 1024  # windows read at once


def check_ids(ids: Iterable[str]):
  """Raises a ValueError if the id of a video would break the lines of the CSV."""
  for name in ids:
    if re.search(r'[\s,]', name):
      raise ValueError(
        f'A video has the id {name!r}, but the CSV of windows separates ids by spaces '
        'and commas: use --format=parquet or another id.'
      )


class Scores(tables.ParquetRows):
  """Writes the probabilities of all windows of a shard; see `join`."""

  def __init__(self, file, classes: np.ndarray):
    """Starts the file.

    Args:
      file: open binary file.
      classes: int64 [C], those to write, in the order of the lists.
    """
    scores = pa.list_(pa.float32(), len(classes))
    super().__init__(file, {**_WINDOW, _SCORES: scores})
    self._classes = classes

  def write(self, outputs: dict[str, np.ndarray]):
    """Appends a batch.

    Args:
      outputs: of `ensemble.Ensemble.windows`.

    Raises:
      ValueError: see `check_ids`.
    """
    check_ids(tables.ids(outputs))
    scores = outputs['predictions'][:, self._classes]
    self.append(
      [
        *_windows(outputs),
        pa.FixedSizeListArray.from_arrays(scores.ravel(), len(self._classes)),
      ]
    )


class Labels(tables.ParquetRows):
  """Writes a row for each of the best classes of each window, best first.

  Columns: id, start, end, class, class_name (if names are known), probability.
  """

  def __init__(self, file, classes: np.ndarray, top_k: int, names: Sequence[str]):
    """Starts the file.

    Args:
      file: open binary file.
      classes: int64 [C], those to choose from.
      top_k: K; all classes if there are fewer.
      names: names of all classes of the networks; empty for none.
    """
    columns = {**_WINDOW, 'class': pa.int32()}
    if names:
      columns['class_name'] = pa.string()
    super().__init__(file, {**columns, 'probability': pa.float32()})
    self._classes = classes
    self._top_k = min(top_k, len(classes))
    self._names = np.array(names, object)

  def write(self, outputs: dict[str, np.ndarray]):
    """Appends a batch; `outputs` are those of `ensemble.Ensemble.windows`."""
    best, places = tf.math.top_k(outputs['predictions'][:, self._classes], self._top_k)
    classes = self._classes[places.numpy().ravel()]
    names = [pa.array(self._names[classes])] if len(self._names) else []
    self.append(
      [
        *(
          column.take(np.arange(best.shape.num_elements()) // self._top_k)
          for column in _windows(outputs)
        ),
        pa.array(classes, pa.int32()),
        *names,
        pa.array(best.numpy().ravel()),
      ]
    )


def _windows(outputs) -> list[pa.Array]:
  """Returns the columns _WINDOW, one row a window."""
  names = pa.array(tables.ids(outputs), pa.string())
  return [
    names.take(pa.array(outputs['video'])),
    pa.array(outputs['start']),
    pa.array(outputs['end']),
  ]


def join(paths: Sequence[str], out: str, classes: np.ndarray):
  """Writes the CSV of YouTube-8M Segments from the files of all shards.

  A line is a class and its best windows, at most 100,000, `3,ID:START ID:START ...`,
  by descending probability; equal ones in the order of videos and starts. All are
  compared exactly.

  Of each class, the windows that can still be among the best are kept, and up to a
  quarter more, at 8 bytes each: 1.0 GB for the 1000 classes of the competition,
  however many windows there are. Another 20 bytes or so a window hold its name.

  Args:
    paths: files of `Scores`, in the order of the shards.
    out: file to write; appears whole.
    classes: int64 [C], the classes of the files.
  """
  best = first_keys.FirstKeys(len(classes), _MOST)
  names: list[pa.Array] = []
  for path in paths:
    for rows, scores in _read(path, len(classes)):
      names.append(rows)
      best.add(scores, np.zeros([len(rows), 1], np.uint8))
  windows = pa.concat_arrays([pa.array([], pa.large_string()), *names])
  with files.whole_file(out) as partial, tf.io.gfile.GFile(partial, 'wb') as file:
    file.write(f'{segment_metrics.HEADER}\n'.encode())
    for label, keys in zip(classes, best.rows()):
      ranked = windows.take(pa.array(first_keys.windows_of(np.sort(keys))))
      file.write(f'{label},{" ".join(ranked.to_pylist())}\n'.encode())


def _read(path: str, num_classes: int) -> Iterator[tuple[pa.Array, np.ndarray]]:
  """Yields windows, `ID:START`, and their probabilities float32 [windows, C]."""
  for batch in tables.read_rows(path, _READ):
    names = compute.binary_join_element_wise(
      batch['id'], batch['start'].cast(pa.string()), ':'
    )
    scores = batch[_SCORES].flatten().to_numpy().reshape(-1, num_classes)
    yield names.cast(pa.large_string()), scores
