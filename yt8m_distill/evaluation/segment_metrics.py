"""Exact MAP@K of rated 5-second windows, the metric of YouTube-8M Segments.

Definition, for each class:

1. Take the first K windows by descending score. Among equal scores, the window that
   was added first comes first.
2. Drop those that are not rated for the class.
3. AP is the sum of the precision at each hit, divided by the number of all rated
   positives of the class, including those outside the first K.

MAP@K is the unweighted mean over classes. A class without a rated positive is left
out; a class that a submission lacks counts as 0.

`SegmentMetrics` scores a network's outputs, `submission_average_precisions` a file in
Kaggle's format; equal rankings have equal scores.

Shapes: B windows of a batch, C classes, N ranked windows, K first windows.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import re
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_distill.evaluation import first_keys
from yt8m_distill.evaluation import metrics
from yt8m_distill.utils import class_csv

MAX_WINDOWS = 100_000  # K of YouTube-8M Segments.
HEADER = 'Class,Segments'

# Marks of windows; see `first_keys`.
_UNRATED, _POSITIVE = 0, 2  # 1 is a rated negative.
_WINDOW = re.compile(r'[^\s,]+:(0|[1-9][0-9]*)')


class SegmentMetrics:
  """MAP@K over all windows of an evaluation, on the host.

  Of each class, it keeps the windows that can still be among the first K, and up to a
  quarter more, at 8 bytes each: 1.0 GB with 1000 classes and the default K, however
  many windows are added. 1.7 million windows of 1000 classes in batches of 1024 take
  1.0 GiB at peak (`python -m experiments.benchmarks.segment_metrics`).

  The result does not depend on the split into updates; the order of windows matters
  only among equal scores.

  Attributes:
    classes: ids of the classes, int64 [C].
  """

  def __init__(self, classes: Sequence[int] | np.ndarray | int, k: int = MAX_WINDOWS):
    """Starts an empty evaluation of fewer than 2 ** 30 windows.

    Args:
      classes: id of each column of a batch, or the number of columns, C.
      k: how many windows of a class count, K.

    Raises:
      ValueError: k is below 1.
    """
    if k < 1:
      raise ValueError(f'k is {k}: it must be at least 1.')
    self.classes = (
      np.arange(classes) if isinstance(classes, int) else np.array(classes, np.int64)
    )
    self._positives_C = np.zeros(len(self.classes), np.int64)
    self._keys = first_keys.FirstKeys(len(self.classes), k)

  def update(self, scores, rated, positives):
    """Adds a batch of windows.

    Args:
      scores: float [B, C], compared as float32; B may be 0.
      rated: whether a window is rated for a class, bool [B, C].
      positives: whether the class holds in the window, bool [B, C]; only rated pairs
        count.

    Raises:
      ValueError: shapes do not match, or a score is not finite. Nothing is added.
    """
    scores = np.asarray(scores, np.float32)
    rated = np.asarray(rated, bool)
    positives = np.asarray(positives, bool)
    num_classes = len(self.classes)
    shapes = {scores.shape, rated.shape, positives.shape}
    if len(shapes) > 1 or scores.shape[1:] != (num_classes,):
      raise ValueError(
        f'expected scores, rated and positives [B, {num_classes}], not '
        f'{scores.shape}, {rated.shape} and {positives.shape}.'
      )
    metrics.check_finite(scores)
    positives = positives & rated
    self._positives_C += np.count_nonzero(positives, axis=0)
    self._keys.add(scores, rated + positives.view(np.uint8))

  def prune(self, gather: Callable[[Any], list[Any]], index: int):
    """Drops windows that cannot change the result of all workers' windows.

    What is left is small enough to exchange: rated windows among the first K of all.
    All workers must call it. Nothing may be added afterwards, except by `merge`: merged
    in the workers' order, what they keep has the same result as all their windows.

    Args:
      gather: returns the values of all workers, in their order; see
        `utils.workers.gather_objects`.
      index: position of this worker in that order.
    """
    self._keys.cut(gather, index)
    self._keys.drop_unmarked()

  def merge(self, other: 'SegmentMetrics'):
    """Adds all windows of another instance of the same classes and K, after its own."""
    self._keys.merge(other._keys)
    self._positives_C += other._positives_C

  def average_precisions(self) -> np.ndarray:
    """Returns the AP of each class, float64 [C]; NaN without a rated positive."""
    return np.array(
      [_average_precision(*pair) for pair in zip(self._hits(), self._positives_C)]
    )

  def positives(self) -> np.ndarray:
    """Returns the number of rated positives of each class, int64 [C]."""
    return self._positives_C.copy()

  def result(self) -> dict[str, float]:
    """Computes the metric of everything added so far; more may be added later.

    Returns:
      `map_at_k`, from 0 to 1; 0 if no class has a rated positive.

    Raises:
      ValueError: no window was added.
    """
    precisions = self.average_precisions()
    if not self._keys.num_windows:
      raise ValueError(
        'No windows were evaluated: check that task.validation_data.input_path '
        'matches files with rated windows and that trainer.validation_steps is not 0.'
      )
    return {'map_at_k': map_at_k(precisions)}

  def _hits(self) -> Iterator[np.ndarray]:
    """Yields for each class which of its rated windows are positives, by rank."""
    for row in self._keys.rows():
      rated = np.sort(row[first_keys.marks_of(row) != _UNRATED])
      yield first_keys.marks_of(rated) == _POSITIVE


def map_at_k(average_precisions: np.ndarray) -> float:
  """Returns the mean of average precisions [C] that are not NaN; 0 if all are."""
  known = average_precisions[~np.isnan(average_precisions)]
  return float(known.mean()) if known.size else 0.0


def read_classes(path: str, num_classes: int) -> np.ndarray:
  """Reads the classes to predict or to score from the column Index of a CSV.

  Args:
    path: a CSV such as segment_label_ids.csv of the release; '' for all classes.
    num_classes: number of classes of the network.

  Returns:
    int64 [C], in the order of the file.

  Raises:
    ValueError: the file does not exist or is not CSV, or its indices are missing,
      invalid or not distinct.
  """
  if not path:
    return np.arange(num_classes)
  classes = class_csv.read_indices(path, 'classes', num_classes)
  if classes.empty:
    raise ValueError(
      f'classes is {path!r}, which has no rows: name at least one class in its column '
      'Index.'
    )
  repeated = classes[classes.duplicated()]
  if not repeated.empty:
    raise ValueError(
      f'classes is {path!r}, which has the index {repeated.iloc[0]} twice: each class '
      'must have one row. Delete the other.'
    )
  return classes.to_numpy()


def read_submission(path: str) -> Iterator[tuple[int, list[str]]]:
  """Reads a file in Kaggle's format, a line at a time.

  The first line is `Class,Segments`; each other one is a class and its windows by
  descending score: `3,id:start id:start ...`, with starts in seconds.

  Args:
    path: the file.

  Yields:
    A class and its windows `id:start`, which may be more than K.

  Raises:
    ValueError: the file cannot be read or has an invalid line.
  """
  seen: set[int] = set()
  try:
    with tf.io.gfile.GFile(path) as file:
      header = file.readline().rstrip('\r\n')
      if header != HEADER:
        raise ValueError(
          f'submission is {path!r}, whose first line is {header[:80]!r}: it must be '
          f'{HEADER!r}. Choose a file in the format of the YouTube-8M Segments '
          'challenge.'
        )
      for number, line in enumerate(file, 2):
        label, _, rest = line.partition(',')
        windows = rest.split()
        fault = _fault(label, seen, windows)
        if fault:
          raise ValueError(f'submission is {path!r}, whose line {number} {fault}')
        seen.add(int(label))
        yield int(label), windows
  except (UnicodeDecodeError, tf.errors.OpError) as error:
    raise ValueError(
      f'submission is {path!r}: it cannot be read as text ({str(error).strip()}). '
      f'Choose a file that begins with {HEADER!r}.'
    ) from error


def _fault(label: str, seen: set[int], windows: list[str]) -> str:
  """Says what is wrong with a line of a submission; '' if nothing is."""
  if not label.strip().isdecimal():
    return (
      f'has the class {label[:80].strip()!r}: it must be a whole number from 0 up, '
      'followed by a comma. Correct or delete the line.'
    )
  if int(label) in seen:
    return f'has class {int(label)} again: join all its windows in one line.'
  for window in windows:
    if not _WINDOW.fullmatch(window):
      return (
        f'has the window {window[:80]!r}: windows must be id:start, with the start in '
        'whole seconds, and separated by spaces. Correct it.'
      )
  if len(set(windows)) < len(windows):
    twice, _ = collections.Counter(windows).most_common(1)[0]
    return (
      f'has the window {twice!r} of class {int(label)} twice: each window counts once. '
      'Delete the later one.'
    )
  return ''


def submission_average_precisions(
  path: str,
  ratings: Mapping[tuple[str, int], float],
  classes: Sequence[int],
  k: int = MAX_WINDOWS,
) -> np.ndarray:
  """Scores a file in Kaggle's format; the mean is that of `map_at_k`.

  Args:
    path: the file; see `read_submission`. Other classes than `classes` are ignored.
    ratings: for each rated pair of a window `id:start` and a class, 1 if the class
      holds in the window, otherwise 0.
    classes: ids of the classes, C.
    k: how many windows of a class count, K.

  Returns:
    The AP of each class, float64 [C]; 0 for a class that the file lacks, NaN without a
    rated positive.

  Raises:
    ValueError: the file cannot be read or has an invalid line.
  """
  rated: dict[int, dict[str, float]] = {c: {} for c in classes}
  for (window, c), rating in ratings.items():
    if c in rated:
      rated[c][window] = rating
  hits: dict[int, list[float]] = {c: [] for c in classes}
  for c, windows in read_submission(path):
    if c in rated:
      hits[c] = [rated[c][w] for w in windows[:k] if w in rated[c]]
  return np.array(
    [
      _average_precision(np.array(hits[c], bool), int(sum(rated[c].values())))
      for c in classes
    ]
  )


def _average_precision(hits_N: np.ndarray, positives: int) -> float:
  """Returns the AP of ranked hits, bool [N]; NaN without positives."""
  if not positives:
    return np.nan
  places_N = np.arange(1, hits_N.size + 1)
  return (np.cumsum(hits_N) / places_N)[hits_N].sum() / positives
