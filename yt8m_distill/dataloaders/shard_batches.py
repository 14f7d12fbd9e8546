"""Reads shards one after another through one pipeline, so that small ones cost little.

Starting a pipeline takes tens of milliseconds, which for a shard of few records is more
than reading it. Batches never span shards: a video's numbers may depend on the size of
its batch in the last bit, and must not depend on which shards are read together.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import functools
import threading
from typing import NamedTuple
from typing import TypeVar

import tensorflow as tf

from yt8m_distill.dataloaders import record_errors
from yt8m_distill.dataloaders import remote
from yt8m_distill.dataloaders import shards
from yt8m_distill.dataloaders import skipped
from yt8m_distill.utils import parallel

_PREFETCHED = 2  # batches read while one is used
_lock = threading.Lock()
_T = TypeVar('_T')

# path string [B], index int64 [B], serialized string [B]; see `shards.read`.
Batch = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


class Record(NamedTuple):
  """A record of a batch, in Python.

  Attributes:
    path: its file.
    position: its index there.
    serialized: its bytes.
  """

  path: str
  position: int
  serialized: bytes

  def __str__(self) -> str:
    return record_errors.name_of(self.path, self.position)


def records_of(batch: Batch) -> list[Record]:
  """Returns the records of a batch."""
  paths, positions, serialized = (values.numpy() for values in batch)
  return [
    Record(path.decode(), int(position), record)
    for path, position, record in zip(paths, positions, serialized)
  ]


def batch_of(records: Sequence[Record]) -> Batch:
  """Returns records, at least one, as a batch."""
  paths, positions, serialized = zip(*records)
  return (
    tf.constant(paths),
    tf.constant(positions, tf.int64),
    tf.constant(serialized),
  )


def apply(
  function: Callable[[Batch], _T], batch: Batch, skip_malformed: bool
) -> tuple[_T | None, int]:
  """Applies a function to a batch.

  Args:
    function: raises a RecordError about a malformed record.
    batch: the batch.
    skip_malformed: if that happens, log, count and leave out all malformed records.

  Returns:
    What the function returns, None if no record is left; and how many are left out.
  """
  try:
    return function(batch), 0
  except record_errors.RecordError:
    if not skip_malformed:
      raise
  records, valid = records_of(batch), []
  for record in records:
    try:
      function(batch_of([record]))
    except record_errors.RecordError as error:
      skipped.malformed(str(error))
    else:
      valid.append(record)
  left = function(batch_of(valid)) if valid else None
  return left, len(records) - len(valid)


def of_shards(
  batch_size: int, skip_corrupt: bool, group: Sequence[parallel.Shard]
) -> Iterator[Iterator[Batch]]:
  """Reads shards in order; with the first two arguments, a `parallel.Opener`.

  Args:
    batch_size: records of each batch but the last of a shard.
    skip_corrupt: as for `shards.read`.
    group: files as sources, with sizes in bytes.

  Yields:
    For each shard its batches, to be used up before the next shard is asked for. They
    raise the errors of `shards.read`.
  """
  paths = [shard.source for shard in group]
  for path in paths:  # This process may not have the file system yet.
    remote.ensure_file_system(path)
  with _lock:  # Otherwise several threads would trace the pipeline.
    pipeline = _pipeline(
      batch_size, skip_corrupt, any(map(remote.needs_tensorflow_io, paths))
    )
  sizes = tf.constant([shard.size for shard in group], tf.int64)
  batches = iter(pipeline(tf.constant(paths), sizes))

  def of_one_shard():
    for batch in batches:
      if not batch[0].shape[0]:
        return
      yield batch

  for _ in paths:
    yield of_one_shard()


@functools.cache
def _pipeline(batch_size: int, skip_corrupt: bool, retry: bool):
  """Returns a function of paths and sizes that makes their dataset.

  An empty batch marks the end of each shard.
  """

  def read_file(path, size):
    records = shards.read(path, size, skip_corrupt, retry).batch(batch_size)
    end = [tf.zeros([0], spec.dtype) for spec in records.element_spec]
    return records.concatenate(tf.data.Dataset.from_tensors(tuple(end)))

  # A tf.function traces the pipeline only once.
  @functools.partial(
    tf.function,
    autograph=False,
    input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.int64)],
  )
  def batches(paths, sizes):
    files = tf.data.Dataset.from_tensor_slices((paths, sizes))
    return files.flat_map(read_file).prefetch(_PREFETCHED)

  return batches.get_concrete_function()
