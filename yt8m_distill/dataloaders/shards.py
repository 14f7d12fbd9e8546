"""Files of TFRecords: which there are, how many records, and their bytes.

Source: `tf.data.TFRecordDataset`. Deviation from it: its errors name no file
and cost the rest of the shard; those of `read` name file and byte, a bad
payload need cost one record only, and a server that fails is asked again.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import concurrent.futures
import dataclasses
import threading

from absl import logging
import tensorflow as tf
import tqdm

from yt8m_distill.dataloaders import file_patterns
from yt8m_distill.dataloaders import remote
from yt8m_distill.dataloaders import tfrecord_format

_BLOCK = 8  # records counted at once: one call per record costs more
# Bytes read ahead, remote and local: a request is dear, but the kernel reads
# ahead by itself, and a second buffer costs a copy.
_BUFFERS = (8 << 20, 0)
_THREADS = 16  # waiting for file systems, not computing


@dataclasses.dataclass(frozen=True)
class Skipped:
  """What `read` left out in this process; a second pass counts again.

  Attributes:
    records: single records, with a bad payload.
    shard_tails: ends of shards, behind a bad length or cut off.
  """

  records: int = 0
  shard_tails: int = 0

  @property
  def total(self) -> int:
    return self.records + self.shard_tails

  def __add__(self, other: 'Skipped') -> 'Skipped':
    return Skipped(self.records + other.records, self.shard_tails + other.shard_tails)


_lock = threading.Lock()
_skipped = Skipped()


def skipped() -> Skipped:
  """Returns what has been left out so far."""
  return _skipped


def find(input_path: str | Sequence[str]) -> list[str]:
  """Returns the files that `input_path` names, sorted, each once.

  Args:
    input_path: as `patterns` has it.

  Raises:
    ValueError: see `patterns.expand`.
  """
  return sorted(set(file_patterns.expand(input_path)))


def sizes(paths: Sequence[str]) -> list[int]:
  """Returns the size of each file in bytes.

  Raises:
    ValueError: a file is not there or cannot be looked at.
  """

  def size(path):
    return remote.retry(path, lambda: tf.io.gfile.stat(path).length)

  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    return list(pool.map(size, paths))


def count_records(paths: Sequence[str], skip_corrupt: bool = False) -> int:
  """Returns the sum of `count_by_file`, and shows its progress."""
  return sum(
    tqdm.tqdm(
      count_by_file(paths, skip_corrupt),
      'Counting records',
      len(paths),
      unit=' files',
      disable=len(paths) < 2,
    )
  )


def count_by_file(paths: Sequence[str], skip_corrupt: bool = False) -> Iterator[int]:
  """Counts records by their lengths alone, without reading payloads.

  Args:
    paths: files.
    skip_corrupt: count up to the first bad length of a file. Bad payloads are
      not seen, so the count is then an upper bound of what `read` delivers.

  Yields:
    How many records each file holds.

  Raises:
    ValueError: a file is missing, empty, truncated or has a bad length.
  """

  def count(path, size):
    records = offset = 0
    with tfrecord_format.open_file(path) as f:
      while offset < size:
        length = tfrecord_format.payload_length(f, offset, size)
        if length is None:
          break
        offset += tfrecord_format.FRAMING + length
        records += 1
    if not skip_corrupt and (offset < size or not size):
      raise ValueError(_broken(path, offset, size))
    return records

  def count_again(path, size):
    return remote.retry(path, lambda: count(path, size))

  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    yield from pool.map(count_again, paths, sizes(paths))


def first(
  paths: Sequence[str], file_sizes: Sequence[int]
) -> tuple[str, int, bytes] | None:
  """Returns the first whole record, (path, index, serialized), or None.

  Raises:
    ValueError: a file cannot be read.
  """

  def find_in(path, size):
    offset = index = 0
    with tfrecord_format.open_file(path) as f:
      while (length := tfrecord_format.payload_length(f, offset, size)) is not None:
        payload = f.read(length)
        if tfrecord_format.masked_crc32c(payload) == int.from_bytes(
          f.read(4), 'little'
        ):
          return path, index, payload
        offset += tfrecord_format.FRAMING + length
        index += 1
    return None

  for path, size in zip(paths, file_sizes):
    found = remote.retry(path, lambda p=path, s=size: find_in(p, s))
    if found:
      return found
  return None


def read(
  path: tf.Tensor,
  size: tf.Tensor,
  skip_corrupt: bool = False,
  retry: bool = False,
  count: bool = True,
) -> tf.data.Dataset:
  """Reads one file in order.

  Args:
    path: string [], the file, of those that `find` has returned.
    size: int64 [], its bytes; what is read is held against it.
    skip_corrupt: log, count and leave out what is corrupt. Runs Python where a
      file is corrupt, so it cannot be sent to a tf.data service.
    retry: try again where reading fails, see `remote`; likewise.
    count: False where another process reads, logs and counts the same.

  Returns:
    A dataset of (path string [], index int64 [], serialized string []). A
    record keeps its index where others before it are left out. Unless
    `skip_corrupt`, a file that is empty or does not end with a whole record
    raises an InvalidArgumentError that names it and the byte.
  """
  # The op's own error names no file. What it drops shows at the end of the
  # file, which an empty block marks.
  far = tf.strings.regex_full_match(path, '.+://.*')
  blocks = tf.data.TFRecordDataset(
    path, buffer_size=tf.cast(tf.where(far, *_BUFFERS), tf.int64)
  ).ignore_errors(log_warning=True)
  blocks = blocks.batch(_BLOCK).concatenate(
    tf.data.Dataset.from_tensors(tf.constant([], tf.string))
  )
  with_python = skip_corrupt or retry

  def account(state, block):
    offset, index = state
    count = tf.size(block, out_type=tf.int64)
    lost = (count == 0) & ((offset < size) | (size == 0))
    if not with_python:
      check = tf.cond(
        lost,
        lambda: tf.Assert(
          False,
          [_broken(path, tf.strings.as_string(offset), tf.strings.as_string(size))],
        ),
        tf.no_op,
      )
      with tf.control_dependencies([check]):
        count = tf.identity(count)
    end = (
      offset
      + tfrecord_format.FRAMING * count
      + tf.reduce_sum(tf.cast(tf.strings.length(block), tf.int64))
    )
    records = (tf.fill([count], path), index + tf.range(count), block)
    return (end, index + count), (
      (lost, offset, index, records) if with_python else records
    )

  def with_tail(lost, offset, index, records):
    tail = (
      tf.data.Dataset.range(tf.cast(lost, tf.int64))
      .flat_map(
        lambda _: tf.data.Dataset.from_generator(
          _recover,
          args=(path, size, offset, index, skip_corrupt, count),
          output_signature=tuple(
            tf.TensorSpec([], t) for t in (tf.string, tf.int64, tf.string)
          ),
        )
      )
      .map(_raise_message)
    )
    return tf.data.Dataset.from_tensor_slices(records).concatenate(tail)

  zero = tf.zeros([], tf.int64)
  blocks = blocks.scan((zero, zero), account)
  return blocks.flat_map(with_tail) if with_python else blocks.unbatch()


def _raise_message(path, index, serialized):
  """Raises what `_recover` could not read."""
  with tf.control_dependencies([tf.Assert(index >= 0, [serialized])]):
    return path, tf.identity(index), serialized


def _recover(
  path: bytes, size: int, offset: int, index: int, skip_corrupt: bool, count: bool
):
  """Yields what can be read of a file from `offset` on, where reading failed.

  A last element with index -1 has a message: what follows cannot be read.
  """
  name = path.decode()
  attempt = 1
  if remote.among([name]):
    logging.warning(
      '%s: reading stopped at byte %d of %d and goes on there, attempt 2 of %d.',
      name,
      offset,
      size,
      remote.ATTEMPTS,
    )
  try:
    while True:
      try:
        for record in _records_from(name, offset):
          serialized = record.numpy()
          yield path, index, serialized
          offset += tfrecord_format.FRAMING + len(serialized)
          index += 1
          attempt = 0
      except tf.errors.DataLossError:
        pass  # Which kind is for the header to say.
      except tf.errors.OpError as error:
        attempt += 1
        remote.wait(name, attempt, error)
        continue
      if size and offset >= size:
        return
      if not skip_corrupt:
        raise ValueError(_broken(name, offset, size))
      offset = _pass_over(name, size, offset, index, count)
      if not offset:
        return
      index += 1
  except ValueError as error:
    yield path, -1, str(error)


def _pass_over(path: str, size: int, offset: int, index: int, count: bool) -> int:
  """Where the record behind a corrupt one begins; 0 if that cannot be told."""

  def length_there():
    with tfrecord_format.open_file(path) as f:
      return tfrecord_format.payload_length(f, offset, size)

  length = remote.retry(path, length_there)
  log = logging.warning if count else logging.debug
  if count:
    _count(records=length is not None, shard_tails=length is None)
  if length is None:
    log(
      '%s: no whole record with a good length at byte %d (record %d); the '
      'rest of the file, %d bytes, is left out.',
      path,
      offset,
      index,
      size - offset,
    )
    return 0
  log('%s: bad payload at byte %d; record %d is left out.', path, offset, index)
  return offset + tfrecord_format.FRAMING + length


def _records_from(path: str, offset: int) -> tf.data.Dataset:
  """Returns the records of a file from a byte on."""
  records = tf.data.experimental.from_variant(
    tf.raw_ops.TFRecordDatasetV2(
      filenames=[path],
      compression_type='',
      buffer_size=_BUFFERS[0 if '://' in path else 1],
      byte_offsets=[offset],
    ),
    tf.TensorSpec([], tf.string),
  )
  options = tf.data.Options()  # Rewriting the dataset would lose the offset.
  options.experimental_optimization.apply_default_optimizations = False
  return records.with_options(options)


def _count(records: int = 0, shard_tails: int = 0):
  global _skipped
  with _lock:  # Files are read side by side.
    _skipped += Skipped(records, shard_tails)


def _broken(path, offset, size):
  """Says where a file breaks off; for strings and string tensors alike."""
  parts = [
    path,
    ': unreadable from byte ',
    offset,
    ' of ',
    size,
    ' on: the '
    'file is empty, truncated, corrupt, changed while it was read, or '
    'no TFRecord. Fetch it again, or set skip_corrupt_records=True to '
    'go on without what is lost.',
  ]
  if isinstance(path, str):
    return ''.join(map(str, parts))
  return tf.strings.join(parts)
