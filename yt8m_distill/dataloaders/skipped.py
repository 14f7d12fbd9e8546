"""Counts the invalid records that this process skips, and logs malformed ones."""

import dataclasses
import threading

from absl import logging


@dataclasses.dataclass(frozen=True)
class Skipped:
  """Numbers of what was skipped; a second pass over records counts again.

  Attributes:
    records: single records with a corrupt payload.
    shard_tails: rests of files after a corrupt length or a truncation.
    malformed: records whose checksum is right, but whose content is invalid.
  """

  records: int = 0
  shard_tails: int = 0
  malformed: int = 0

  @property
  def total(self) -> int:
    """Records and rests of files together."""
    return self.records + self.shard_tails + self.malformed

  def __str__(self) -> str:
    text = f'{self.records} corrupt records, {self.shard_tails} ends of shards'
    return text + (f', {self.malformed} malformed records' if self.malformed else '')

  def __add__(self, other: 'Skipped') -> 'Skipped':
    return Skipped(
      self.records + other.records,
      self.shard_tails + other.shard_tails,
      self.malformed + other.malformed,
    )

  def __sub__(self, other: 'Skipped') -> 'Skipped':
    return Skipped(
      self.records - other.records,
      self.shard_tails - other.shard_tails,
      self.malformed - other.malformed,
    )


_lock = threading.Lock()
_total = Skipped()


def total() -> Skipped:
  """Returns what this process has skipped so far."""
  return _total


def add(**numbers: int):
  """Counts what is skipped; `numbers` are fields of Skipped."""
  global _total
  with _lock:  # Several threads read files.
    _total += Skipped(**numbers)


def malformed(fault: str):
  """Logs and counts a record that is left out; `fault` names it."""
  logging.warning('%s It is skipped.', fault)
  add(malformed=1)
