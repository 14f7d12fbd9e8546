"""Sets of TFRecord files: finding them, counting their records, reading them.

Source: `tf.data.TFRecordDataset`. Deviations from it:
- Its errors name no file; those of `read` name the file and the byte.
- It drops the rest of a file after a corrupt payload; `read` can skip only that record.
- It does not retry a failed request to a server; see `remote`.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import concurrent.futures
import functools
import os

from absl import logging
import tensorflow as tf

from yt8m_distill.dataloaders import file_patterns
from yt8m_distill.dataloaders import remote
from yt8m_distill.dataloaders import skipped
from yt8m_distill.dataloaders import tfrecord_format
from yt8m_distill.utils import progress_bar

_READ_BATCH = 8  # records accounted for at once: one call per record costs more
# Read-ahead in bytes. A remote request is expensive. The kernel reads local files
# ahead by itself, so a second buffer would only cost a copy.
_REMOTE_BUFFER, _LOCAL_BUFFER = 8 << 20, 0
_THREADS = 16  # they wait for file systems and compute little
_HEAD = 20  # bytes of a file that tell what it is
# As Python writes bytes: printable ASCII as it is, others as \x and two digits.
_ESCAPED = [repr(bytes([byte]))[2:-1] for byte in range(256)]
_GZIP = b'\x1f\x8b'  # the first bytes of a compressed file
# Valid UTF-8 without control characters, perhaps cut within a character. The length in
# a TFRecord file's first bytes contains zeros.
_TEXT = r'[^\x00-\x08\x0E-\x1F\x7F]+\C{0,3}'


def find(input_path: str | Sequence[str]) -> list[str]:
  """Returns the files that `input_path` names, sorted, without duplicates.

  Args:
    input_path: see `file_patterns`.

  Raises:
    ValueError: see `file_patterns.expand`.
  """
  return sorted(set(file_patterns.expand(input_path)))


def sizes(paths: Sequence[str]) -> list[int]:
  """Returns the size of each file in bytes.

  Raises:
    ValueError: a file does not exist or cannot be accessed, or is a folder.
  """

  def size(path):
    status = remote.retry(path, lambda: tf.io.gfile.stat(path))
    if status.is_directory:
      raise ValueError(
        f'{path}: a folder, not a file. Name the files in it: '
        f'{path.rstrip("/")}/*.tfrecord'
      )
    if not remote.scheme(path) and not os.access(path, os.R_OK):
      raise ValueError(
        f'{path}: you have no permission to read this file. Change its permissions.'
      )
    return status.length

  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    return list(pool.map(size, paths))


def count_records(paths: Sequence[str], skip_corrupt: bool = False) -> int:
  """Returns the sum of `count_by_file` and shows a progress bar."""
  total = 0
  with progress_bar.start('Counting records', len(paths), ' files') as bar:
    for count in count_by_file(paths, skip_corrupt):
      total += count
      bar.update()
  return total


def count_by_file(paths: Sequence[str], skip_corrupt: bool = False) -> Iterator[int]:
  """Counts records by their length fields, without reading payloads.

  Args:
    paths: the files.
    skip_corrupt: stop counting at a corrupt length instead of raising. Payloads are
      not checked, so the count is an upper bound of what `read` delivers.

  Yields:
    The number of records in each file.

  Raises:
    ValueError: a file is missing, empty, truncated or has a corrupt length.
  """

  def count(path, size):
    records = offset = 0
    with tfrecord_format.open_file(path) as f:
      while offset < size:
        length = tfrecord_format.payload_length(f, offset, size)
        if length is None:
          break
        offset += tfrecord_format.OVERHEAD + length
        records += 1
    if not skip_corrupt and (offset < size or not size):
      raise ValueError(unreadable(path, offset, size))
    return records

  def count_with_retry(path, size):
    return remote.retry(path, lambda: count(path, size))

  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    yield from pool.map(count_with_retry, paths, sizes(paths))


def first_record(
  paths: Sequence[str],
  file_sizes: Sequence[int],
  accept: Callable[[str, int, bytes], bool] = lambda *_: True,
) -> tuple[str, int, bytes] | None:
  """Returns the first valid record as (path, index, serialized), if there is one.

  Args:
    paths: the files.
    file_sizes: theirs in bytes.
    accept: takes such a record whose checksum is right; whether it is valid.

  Raises:
    ValueError: a file cannot be read.
  """

  def search(path, size):
    offset = index = 0
    with tfrecord_format.open_file(path) as f:
      while (length := tfrecord_format.payload_length(f, offset, size)) is not None:
        payload = f.read(length)
        checksum = int.from_bytes(f.read(4), 'little')
        record = path, index, payload
        if tfrecord_format.masked_crc32c(payload) == checksum and accept(*record):
          return record
        offset += tfrecord_format.OVERHEAD + length
        index += 1
    return None

  for path, size in zip(paths, file_sizes):
    record = remote.retry(path, functools.partial(search, path, size))
    if record:
      return record
  return None


def read(
  path: tf.Tensor,
  size: tf.Tensor,
  skip_corrupt: bool = False,
  retry: bool = False,
  count_skipped: bool = True,
) -> tf.data.Dataset:
  """Reads one file in order.

  Args:
    path: string [], a file that `find` returned.
    size: int64 [], its size in bytes, against which the bytes read are checked.
    skip_corrupt: log, count and skip corrupt records. This runs Python code
      where a file is corrupt, which a tf.data service cannot.
    retry: try again when reading fails (see `remote`); runs Python code, too.
    count_skipped: False if another process reads and counts the same records.

  Returns:
    A dataset of (path string [], index int64 [], serialized string []). `index` counts
    skipped records, too. Unless `skip_corrupt`, a file that is empty or does not end
    with a valid record raises an InvalidArgumentError that names the file and the byte.
  """
  # TFRecordDataset's error names no file, so it is ignored here. The bytes that it
  # dropped are missing at the end of the file, which an empty batch marks.
  is_remote = tf.strings.regex_full_match(path, '.+://.*')
  buffer_size = tf.where(is_remote, _REMOTE_BUFFER, _LOCAL_BUFFER)
  batches = (
    tf.data.TFRecordDataset(path, buffer_size=tf.cast(buffer_size, tf.int64))
    .ignore_errors(log_warning=True)
    .batch(_READ_BATCH)
    .concatenate(tf.data.Dataset.from_tensors(tf.constant([], tf.string)))
  )
  with_python = skip_corrupt or retry

  def account(state, batch):
    """Advances (offset, index) and checks the offset at the end of the file."""
    offset, index = state
    count = tf.size(batch, out_type=tf.int64)
    stopped_early = (count == 0) & ((offset < size) | (size == 0))
    if not with_python:
      check = tf.cond(
        stopped_early,
        lambda: tf.Assert(
          False,
          [_unreadable(path, offset, size)],
        ),
        tf.no_op,
      )
      with tf.control_dependencies([check]):
        count = tf.identity(count)
    end = (
      offset
      + tfrecord_format.OVERHEAD * count
      + tf.reduce_sum(tf.cast(tf.strings.length(batch), tf.int64))
    )
    records = (tf.fill([count], path), index + tf.range(count), batch)
    return (end, index + count), (
      (stopped_early, offset, index, records) if with_python else records
    )

  def with_recovered(stopped_early, offset, index, records):
    """Appends what `_recover` reads after the point where reading stopped."""
    recovered = (
      tf.data.Dataset.range(tf.cast(stopped_early, tf.int64))
      .flat_map(
        lambda _: tf.data.Dataset.from_generator(
          _recover,
          args=(path, size, offset, index, skip_corrupt, count_skipped),
          output_signature=tuple(
            tf.TensorSpec([], t) for t in (tf.string, tf.int64, tf.string)
          ),
        )
      )
      .map(_raise_message)
    )
    return tf.data.Dataset.from_tensor_slices(records).concatenate(recovered)

  zero = tf.zeros([], tf.int64)
  batches = batches.scan((zero, zero), account)
  return batches.flat_map(with_recovered) if with_python else batches.unbatch()


def _raise_message(path, index, serialized):
  """Raises the message that `_recover` yields with index -1."""
  with tf.control_dependencies([tf.Assert(index >= 0, [serialized])]):
    return path, tf.identity(index), serialized


def _recover(
  path: bytes,
  size: int,
  offset: int,
  index: int,
  skip_corrupt: bool,
  count_skipped: bool,
):
  """Yields the readable records of a file after `offset`, where reading failed.

  If the rest cannot be read, the last element holds a message and has index -1.
  """
  name = path.decode()
  attempt = 1
  if remote.needs_tensorflow_io(name):
    logging.warning(
      '%s: reading stopped at byte %d of %d and resumes there, attempt 2 of %d.',
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
          offset += tfrecord_format.OVERHEAD + len(serialized)
          index += 1
          attempt = 0
      except tf.errors.DataLossError:
        pass  # _next_offset tells whether the length or the payload is corrupt.
      except tf.errors.OpError as error:
        attempt += 1
        remote.wait_or_raise(name, attempt, error)
        continue
      if size and offset >= size:
        return
      if not skip_corrupt:
        raise ValueError(unreadable(name, offset, size))
      offset = _next_offset(name, size, offset, index, count_skipped)
      if not offset:
        return
      index += 1
  except ValueError as error:
    yield path, -1, str(error)


def _next_offset(
  path: str, size: int, offset: int, index: int, count_skipped: bool
) -> int:
  """Returns where the record after a corrupt one begins, or 0 if that is unknown."""

  def read_length():
    with tfrecord_format.open_file(path) as f:
      return tfrecord_format.payload_length(f, offset, size)

  length = remote.retry(path, read_length)
  log = logging.debug
  if count_skipped:
    log = logging.warning
    skipped.add(records=length is not None, shard_tails=length is None)
  if length is None:
    log(
      '%s: record %d at byte %d has a corrupt length or is truncated; the rest of '
      'the file, %d bytes, is skipped.',
      path,
      index,
      offset,
      size - offset,
    )
    return 0
  log(
    '%s: record %d at byte %d has a corrupt payload and is skipped.',
    path,
    index,
    offset,
  )
  return offset + tfrecord_format.OVERHEAD + length


def _records_from(path: str, offset: int) -> tf.data.Dataset:
  """Reads the records of a file from a byte on."""
  records = tf.data.experimental.from_variant(
    tf.raw_ops.TFRecordDatasetV2(
      filenames=[path],
      compression_type='',
      buffer_size=_REMOTE_BUFFER if remote.scheme(path) else _LOCAL_BUFFER,
      byte_offsets=[offset],
    ),
    tf.TensorSpec([], tf.string),
  )
  options = tf.data.Options()  # Graph rewrites would lose the offset.
  options.experimental_optimization.apply_default_optimizations = False
  return records.with_options(options)


def unreadable(path: str, offset: int, size: int) -> str:
  """Says why a file cannot be read.

  Args:
    path: the file.
    offset: the byte at which reading stopped.
    size: of the file in bytes.
  """
  with tf.init_scope():  # Eagerly, whoever calls it.
    return _unreadable(path, offset, size).numpy().decode()


def _escape(text) -> tf.Tensor:
  """Returns bytes as they appear in messages, string [], in a graph."""
  codes = tf.io.decode_raw(text, tf.uint8)
  return tf.strings.reduce_join(
    tf.gather(tf.constant(_ESCAPED), tf.cast(codes, tf.int32))
  )


def _unreadable(path, offset, size) -> tf.Tensor:
  """Returns the message of `unreadable`, string [], also in a graph."""
  head = (
    tf.data.FixedLengthRecordDataset(path, 1)
    .take(_HEAD)
    .ignore_errors()  # What cannot be read is missing.
    .reduce('', lambda text, byte: text + byte)
  )
  begins = tf.strings.join(
    [
      'it is a text file, which begins with "',
      _escape(head),
      '". Name TFRecord files. If it lists their paths, write @',
      path,
    ]
  )
  reason = tf.case(
    [
      (
        tf.equal(size, 0),
        lambda: (
          'it is empty. Fetch it again, remove it, or set skip_corrupt_records to True.'
        ),
      ),
      (
        tf.equal(tf.strings.substr(head, 0, len(_GZIP)), _GZIP),
        lambda: 'it is compressed with gzip. Decompress it with gunzip.',
      ),
      (tf.strings.regex_full_match(head, _TEXT), lambda: begins),
    ],
    lambda: (
      'it is truncated, corrupt, changed while it was read, or not a TFRecord file. '
      'Fetch it again, or set skip_corrupt_records to True to skip what is corrupt.'
    ),
  )
  return tf.strings.join(
    [
      path,
      ': unreadable from byte ',
      tf.strings.as_string(offset),
      ' of ',
      tf.strings.as_string(size),
      ': ',
      reason,
    ]
  )
