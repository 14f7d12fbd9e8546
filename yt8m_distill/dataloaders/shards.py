"""Files of TFRecords: which there are, how many records, and their bytes.

Source: the TFRecord framing that the YouTube-8M releases use, uncompressed: per
record 8 bytes length, 4 bytes CRC of the length, the payload, 4 bytes CRC of
the payload. Deviation from `tf.data.TFRecordDataset`: its errors name no file
and cost the rest of the shard; those of `read` name file and byte, and a bad
payload need cost one record only.
"""

import concurrent.futures
import dataclasses
import struct
import threading
from typing import List, Optional, Sequence, Tuple, Union

from absl import logging
import tensorflow as tf
import tqdm

from official.core import input_reader

_HEADER = 12  # bytes: length and its CRC
_FRAMING = 16  # bytes that a record takes beside its payload
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
    return Skipped(self.records + other.records,
                   self.shard_tails + other.shard_tails)


_lock = threading.Lock()
_skipped = Skipped()


def skipped() -> Skipped:
  """Returns what has been left out so far."""
  return _skipped


def find(input_path: Union[str, Sequence[str]]) -> List[str]:
  """Returns the files that `input_path` names, sorted, each once.

  Args:
    input_path: file or pattern (* and ?), several separated by commas, or a
      list of these.

  Raises:
    ValueError: a pattern matches nothing, or no path is given.
  """
  if not input_path:
    raise ValueError('input_path is empty: set it to TFRecord files, for '
                     "example '/data/train*.tfrecord'.")
  try:
    return sorted(set(input_reader.match_files(input_path)))
  except ValueError as e:
    raise ValueError(f'input_path is {input_path!r}: no file matches. Check '
                     f'the folder and the pattern. ({e})') from e


def sizes(paths: Sequence[str]) -> List[int]:
  """Returns the size of each file in bytes.

  Raises:
    ValueError: a file is not there or cannot be looked at.
  """
  def size(path):
    try:
      return tf.io.gfile.stat(path).length
    except tf.errors.OpError as e:
      raise ValueError(f'{path}: no such file, or not readable: correct '
                       f'input_path. ({e.message})') from e

  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    return list(pool.map(size, paths))


def count_records(paths: Sequence[str], skip_corrupt: bool = False) -> int:
  """Counts records by their lengths alone, without reading payloads.

  Args:
    paths: files.
    skip_corrupt: count up to the first bad length of a file. Bad payloads are
      not seen, so the count is then an upper bound of what `read` delivers.

  Raises:
    ValueError: a file is missing, empty, truncated or has a bad length.
  """
  def count(path, size):
    records = offset = 0
    with _open(path) as f:
      while offset < size:
        length = _payload_length(f, offset, size)
        if length is None:
          break
        offset += _FRAMING + length
        records += 1
    if not skip_corrupt and (offset < size or not size):
      raise ValueError(_broken(path, offset, size))
    return records

  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    counts = pool.map(count, paths, sizes(paths))
    return sum(tqdm.tqdm(counts, 'Counting records', len(paths), unit=' files',
                         disable=len(paths) < 2))


def first(paths: Sequence[str],
          file_sizes: Sequence[int]) -> Optional[Tuple[str, int, bytes]]:
  """Returns the first whole record, (path, index, serialized), or None."""
  for path, size in zip(paths, file_sizes):
    offset = index = 0
    with _open(path) as f:
      while (length := _payload_length(f, offset, size)) is not None:
        payload = f.read(length)
        if _masked_crc32c(payload) == int.from_bytes(f.read(4), 'little'):
          return path, index, payload
        offset += _FRAMING + length
        index += 1
  return None


def read(path: tf.Tensor, size: tf.Tensor, skip_corrupt: bool = False,
         count: bool = True) -> tf.data.Dataset:
  """Reads one file in order.

  Args:
    path: string [], the file.
    size: int64 [], its bytes; what is read is held against it.
    skip_corrupt: log, count and leave out what is corrupt. Runs Python where a
      file is corrupt, so it cannot be sent to a tf.data service.
    count: False where another process reads, logs and counts the same.

  Returns:
    A dataset of (path string [], index int64 [], serialized string []). A
    record keeps its index where others before it are left out. Unless
    `skip_corrupt`, a file that is empty or does not end with a whole record
    raises an InvalidArgumentError that names it and the byte.
  """
  # The op's own error names no file. What it drops shows at the end of the
  # file, which an empty block marks.
  remote = tf.strings.regex_full_match(path, '.+://.*')
  blocks = tf.data.TFRecordDataset(path, buffer_size=tf.cast(
      tf.where(remote, *_BUFFERS), tf.int64)).ignore_errors(log_warning=True)
  blocks = blocks.batch(_BLOCK).concatenate(
      tf.data.Dataset.from_tensors(tf.constant([], tf.string)))

  def account(state, block):
    offset, index = state
    count = tf.size(block, out_type=tf.int64)
    lost = (count == 0) & ((offset < size) | (size == 0))
    if not skip_corrupt:
      check = tf.cond(lost, lambda: tf.Assert(False, [_broken(
          path, tf.strings.as_string(offset), tf.strings.as_string(size))]),
                      tf.no_op)
      with tf.control_dependencies([check]):
        count = tf.identity(count)
    end = offset + _FRAMING * count + tf.reduce_sum(
        tf.cast(tf.strings.length(block), tf.int64))
    records = (tf.fill([count], path), index + tf.range(count), block)
    return (end, index + count), (
        (lost, offset, index, records) if skip_corrupt else records)

  def with_tail(lost, offset, index, records):
    tail = tf.data.Dataset.range(tf.cast(lost, tf.int64)).flat_map(
        lambda _: tf.data.Dataset.from_generator(
            _recover, args=(path, size, offset, index, count),
            output_signature=tuple(tf.TensorSpec([], t) for t in (
                tf.string, tf.int64, tf.string))))
    return tf.data.Dataset.from_tensor_slices(records).concatenate(tail)

  zero = tf.zeros([], tf.int64)
  blocks = blocks.scan((zero, zero), account)
  return blocks.flat_map(with_tail) if skip_corrupt else blocks.unbatch()


def _recover(path: bytes, size: int, offset: int, index: int, count: bool):
  """Yields what can be read of a file from `offset` on, which is corrupt."""
  name = path.decode()
  while True:
    try:
      for record in _records_from(name, offset):
        serialized = record.numpy()
        yield path, index, serialized
        offset += _FRAMING + len(serialized)
        index += 1
    except tf.errors.DataLossError:
      pass  # Which kind is for the header to say.
    if size and offset >= size:
      return
    with _open(name) as f:
      length = _payload_length(f, offset, size)
    if count:
      _count(records=length is not None, shard_tails=length is None)
    log = logging.warning if count else logging.debug
    if length is None:
      log('%s: no whole record with a good length at byte %d (record %d); the '
          'rest of the file, %d bytes, is left out.', name, offset, index,
          size - offset)
      return
    log('%s: bad payload at byte %d; record %d is left out.', name, offset,
        index)
    offset += _FRAMING + length
    index += 1


def _records_from(path: str, offset: int) -> tf.data.Dataset:
  """Returns the records of a file from a byte on."""
  records = tf.data.experimental.from_variant(
      tf.raw_ops.TFRecordDatasetV2(
          filenames=[path], compression_type='', buffer_size=_BUFFERS[1],
          byte_offsets=[offset]),
      tf.TensorSpec([], tf.string))
  options = tf.data.Options()  # Rewriting the dataset would lose the offset.
  options.experimental_optimization.apply_default_optimizations = False
  return records.with_options(options)


def _count(records: int = 0, shard_tails: int = 0):
  global _skipped
  with _lock:  # Files are read side by side.
    _skipped += Skipped(records, shard_tails)


def _payload_length(f, offset: int, size: int) -> Optional[int]:
  """Returns the length of the payload at `offset`, None if it cannot be."""
  f.seek(offset)
  header = f.read(_HEADER)
  if len(header) < _HEADER:
    return None
  length, checksum = struct.unpack('<QI', header)
  whole = offset + _FRAMING + length <= size
  return length if whole and _masked_crc32c(header[:8]) == checksum else None


def _open(path: str):
  """Opens a file for scattered reads; gfile reads half a MiB at each."""
  return (tf.io.gfile.GFile(path, 'rb') if '://' in path
          else open(path, 'rb', buffering=0))


def _broken(path, offset, size):
  """Says where a file breaks off; for strings and string tensors alike."""
  parts = [path, ': unreadable from byte ', offset, ' of ', size, ' on: the '
           'file is empty, truncated, corrupt, changed while it was read, or '
           'no TFRecord. Fetch it again, or set skip_corrupt_records=True to '
           'go on without what is lost.']
  if isinstance(path, str):
    return ''.join(map(str, parts))
  return tf.strings.join(parts)


def _crc_table() -> List[int]:
  table = []
  for crc in range(256):
    for _ in range(8):
      crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    table.append(crc)
  return table


_CRC_TABLE = _crc_table()


def _masked_crc32c(data: bytes) -> int:
  """The checksum of TFRecords: CRC-32C, rotated and offset."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
  crc ^= 0xFFFFFFFF
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
