"""The first K windows of each class, in bounded memory.

A window of a class is one uint64 key: 32 bits of score (high scores first), 30 of the
order in which windows were added, and 2 that are the caller's. So keys of a class are
distinct, and sorted keys are its ranking: among equal scores, the window that was added
first comes first.

Shapes: C classes, N windows, K first windows, E edges between which keys are counted.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from yt8m_distill.evaluation import metrics

_SCORE_SHIFT = np.uint64(32)
_ORDER_SHIFT = np.uint64(2)
_ORDER, _MARK = np.uint64(2**30 - 1), np.uint64(3)
# Windows wait until there are this many scores: many windows of a class are ranked
# in about the time of one.
_BLOCK = 2**21
_DIGIT = 8  # bits of a key that one exchange finds, at some 0.1 s each


class FirstKeys:
  """Of each class, the first K keys.

  It keeps the keys that can still be among them, and up to a quarter more.

  Attributes:
    num_windows: how many were added; fewer than 2 ** 30.
  """

  def __init__(self, num_classes: int, k: int):
    """Starts without keys.

    Args:
      num_classes: C.
      k: how many keys of a class count, K; at least 1.
    """
    self.num_windows = 0
    self._k = k
    # Keys of each class in the first _counts_C[c] elements of its row.
    self._rows = [np.empty(0, np.uint64)] * num_classes
    self._counts_C = np.zeros(num_classes, np.int64)
    # A later window counts only if its score's bits are below those of the K-th.
    self._cuts_C = np.full(num_classes, 2**32 - 1, np.uint32)
    # Bits of scores and marks of windows that are not in rows yet.
    self._block: list[tuple[np.ndarray, np.ndarray]] = []
    self._block_windows = 0

  def add(self, scores: np.ndarray, marks: np.ndarray):
    """Adds windows.

    Args:
      scores: finite float32 [N, C].
      marks: from 0 to 3, uint8 [N, C], or [N, 1] if classes share them.
    """
    self._block.append((metrics.descending_bits(scores), marks))
    self.num_windows += len(scores)
    self._block_windows += len(scores)
    if self._block_windows * len(self._rows) >= _BLOCK:
      self._rank_block()

  def merge(self, other: 'FirstKeys'):
    """Adds all windows of another instance of the same classes and K, after its own."""
    self._rank_block()
    offset = np.uint64(self.num_windows) << _ORDER_SHIFT
    for c, row in enumerate(other.rows()):
      self._add(c, row + offset)
    self.num_windows += other.num_windows

  def rows(self) -> list[np.ndarray]:
    """Returns the first K keys of each class, uint64, in any order."""
    self._rank_block()
    for c, count in enumerate(self._counts_C):
      self._set(c, self._first(c, self._rows[c][:count]))
    return self._rows

  def drop_unmarked(self):
    """Drops windows with mark 0; no windows may be added afterwards."""
    for c, row in enumerate(self.rows()):
      self._set(c, row[marks_of(row) != 0])

  def cut(self, gather: Callable[[Any], list[Any]], index: int):
    """Drops windows that are not among the first K of all workers' windows.

    All workers must call it; no windows may be added afterwards. It finds the K-th key
    of all digit by digit, from the numbers of keys below each possible one. So a worker
    sends 8 kB a class, however many keys it has.

    Args:
      gather: returns the values of all workers, in their order; see
        `utils.workers.gather_objects`.
      index: position of this worker in that order.
    """
    windows = gather(self.num_windows)
    if len(windows) == 1 or sum(windows) <= self._k:
      return
    offset = np.uint64(sum(windows[:index])) << _ORDER_SHIFT
    rows = self.rows()
    for row in rows:
      row.sort()
    kth_C = np.zeros(len(rows), np.uint64)
    digits_E = np.arange(1, 2**_DIGIT, dtype=np.uint64)
    for bits in range(64 - _DIGIT, -1, -_DIGIT):
      edges_CE = kth_C[:, np.newaxis] + (digits_E << np.uint64(bits))
      own_CE = np.maximum(edges_CE, offset) - offset
      below_CE = np.array(list(map(np.searchsorted, rows, own_CE)), np.int32)
      below_CE = sum(gather(below_CE))
      digits_C = np.count_nonzero(below_CE < self._k, axis=1).astype(np.uint64)
      kth_C += digits_C << np.uint64(bits)
    for c, row in enumerate(rows):
      self._set(c, row[row + offset <= kth_C[c]])

  def _rank_block(self):
    """Moves windows from the block to the rows."""
    if not self._block:
      return
    bits_CN, marks_CN = (
      np.concatenate(arrays).T.copy() for arrays in zip(*self._block)
    )
    marks_CN = np.broadcast_to(marks_CN, bits_CN.shape)
    start = self.num_windows - self._block_windows
    orders_N = np.arange(start, self.num_windows, dtype=np.uint64) << _ORDER_SHIFT
    self._block, self._block_windows = [], 0
    for c, cut in enumerate(self._cuts_C):
      new = np.flatnonzero(bits_CN[c] < cut)
      keys = bits_CN[c, new].astype(np.uint64) << _SCORE_SHIFT
      self._add(c, keys | orders_N[new] | marks_CN[c, new])

  def _add(self, c: int, keys: np.ndarray):
    """Adds keys to the row of class c; if they exceed its room, keeps the first K."""
    count = self._counts_C[c]
    if count + keys.size > self._rows[c].size:
      keys = self._first(c, np.concatenate([self._rows[c][:count], keys]))
      room = min(2 * keys.size, self._k + self._k // 4)
      self._rows[c] = np.empty(room, np.uint64)
      count = 0
    self._rows[c][count : count + keys.size] = keys
    self._counts_C[c] = count + keys.size

  def _set(self, c: int, keys: np.ndarray):
    """Makes these the keys of class c."""
    self._rows[c] = keys
    self._counts_C[c] = keys.size

  def _first(self, c: int, keys: np.ndarray) -> np.ndarray:
    """Returns the first K of the keys of class c, in any order."""
    if keys.size < self._k:
      return keys
    keys = np.partition(keys, self._k - 1)[: self._k]
    self._cuts_C[c] = keys[-1] >> _SCORE_SHIFT
    return keys


def marks_of(keys: np.ndarray) -> np.ndarray:
  """Returns the marks of keys, from 0 to 3."""
  return keys & _MARK


def windows_of(keys: np.ndarray) -> np.ndarray:
  """Returns the positions of keys' windows in the order in which they were added."""
  return keys >> _ORDER_SHIFT & _ORDER
