"""Frames straight from the bytes of records of the regular layout.

Source: how protobuf writes a `tf.train.SequenceExample` of a context and byte
strings of equal size, as in all YouTube-8M releases. The number of bytes behind
the context then tells the number of frames, and that every byte between the
payloads. Whatever differs in one of them is for the parser, which takes longer
because it makes a string of each frame.

B records, T frames, at least those of the longest regular record.
"""

from collections.abc import Sequence
import itertools

import tensorflow as tf

_CONTEXT, _LISTS = 0x0A, 0x12  # tags in a SequenceExample
_ENTRY, _KEY, _VALUE = 0x0A, 0x0A, 0x12  # tags in its map of feature lists
_FRAME = (0x0A, 0x0A, 0x0A)  # tags in BytesList, Feature and FeatureList
_LONGEST = 512  # frames; longer videos are for the parser
_ORDERS = 6  # of a map's entries: all of up to 3 features
_DIGITS = 4  # bytes of a context's length


class Layout:
  """Regular records of certain features and no others."""

  def __init__(self, features: Sequence[tuple[str, int]]):
    """Initializes the layout.

    Args:
      features: name and bytes per frame of each.
    """
    names = [name.encode() for name, _ in features]
    self._sizes = [size for _, size in features]
    self._headers = [_frame_header(size) for size in self._sizes]
    self._strides = [
      len(header) + size for header, size in zip(self._headers, self._sizes)
    ]
    self._orders = list(
      itertools.islice(itertools.permutations(range(len(features))), _ORDERS)
    )
    # By order and number of frames less 1: bytes before the frames of each.
    self._before = [
      [_before(order, names, self._strides, n) for n in range(1, _LONGEST + 1)]
      for order in self._orders
    ]
    # All bytes behind the context, the same in every order.
    self._totals = [
      sum(map(len, before)) + n * sum(self._strides)
      for n, before in enumerate(self._before[0], 1)
    ]

  def read(
    self, serialized: tf.Tensor, least: int
  ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, list[tf.Tensor]]:
    """Finds the frames.

    Args:
      serialized: string [B], of any bytes.
      least: T is no less.

    Returns:
      regular: bool [], whether all records are. If not, the rest is of no use.
      contexts: string [B], records that have the context alone.
      num_frames: int32 [B].
      frames: per feature uint8 [B, T, size], zero behind the frames of a video.
    """
    start = _context_end(serialized)
    total = tf.cast(tf.strings.length(serialized) - start, tf.int64)
    totals = tf.constant(self._totals, tf.int64)
    row = tf.minimum(tf.searchsorted(totals, total), _LONGEST - 1)
    good = (start > 0) & (tf.gather(totals, row) == total)
    num_frames = tf.where(good, row + 1, 0)
    found = tf.zeros_like(good)
    positions = tf.zeros([len(self._sizes), tf.size(serialized)], tf.int32)
    for order, before in zip(self._orders, self._before):
      fits, places = self._places(
        serialized, start, good, num_frames, order, tf.gather(tf.constant(before), row)
      )
      found |= fits
      positions = tf.where(fits, places, positions)
    num_frames = tf.where(found, num_frames, 0)
    longest = tf.maximum(tf.reduce_max(num_frames), least)
    regular, frames = tf.reduce_all(found), []
    for position, header, size in zip(
      tf.unstack(positions), self._headers, self._sizes
    ):
      fine, values = _frames(serialized, position, num_frames, longest, header, size)
      regular &= fine
      frames.append(values)
    contexts = tf.strings.substr(
      serialized, tf.zeros_like(start), tf.where(found, start, 0)
    )
    return regular, contexts, num_frames, frames

  def _places(self, serialized, position, fits, num_frames, order, before):
    """Whether features come in `order` [B]; where each begins [features, B]."""
    places = [None] * len(order)
    end = tf.strings.length(serialized)
    for i, feature in enumerate(order):
      length = tf.strings.length(before[:, i])
      there = tf.strings.substr(serialized, tf.minimum(position, end), length)
      fits &= there == before[:, i]
      places[feature] = position + length
      position = places[feature] + num_frames * self._strides[feature]
    return fits, tf.stack(places)


def _frames(serialized, position, num_frames, longest, header, size):
  """Whether all headers are as they must be; uint8 [B, longest, size]."""

  def rows(strings, starts, stride):
    return tf.reshape(
      tf.io.decode_raw(
        tf.strings.substr(strings, starts, num_frames * stride),
        tf.uint8,
        fixed_length=longest * stride,
      ),
      [-1, stride],
    )

  # In matrices: their slices are copied a row at once.
  found = rows(serialized, position, len(header) + size)
  expected = rows(
    tf.fill(tf.shape(serialized), header * _LONGEST),
    tf.zeros_like(position),
    len(header),
  )
  fine = tf.reduce_all(tf.slice(found, [0, 0], [-1, len(header)]) == expected)
  values = tf.slice(found, [0, len(header)], [-1, size])
  return fine, tf.reshape(values, [-1, longest, size])


def _context_end(serialized):
  """Where the context ends, 0 if none begins the record; int32 [B]."""
  head = tf.cast(
    tf.io.decode_raw(serialized, tf.uint8, fixed_length=1 + _DIGITS), tf.int32
  )
  more, digits = head[:, 1:] // 128, head[:, 1:] % 128
  scales = tf.constant([128**i for i in range(_DIGITS)])
  used = tf.math.cumprod(more, 1, exclusive=True)
  end = 1 + tf.reduce_sum(used * (1 + digits * scales), 1)
  good = (
    (head[:, 0] == _CONTEXT)
    & (tf.reduce_prod(more, 1) == 0)
    & (end <= tf.strings.length(serialized))
  )
  return tf.where(good, end, 0)


def _header(tag: int, length: int) -> bytes:
  """What protobuf writes before a field of `length` bytes."""
  header = [tag]
  while length >= 128:
    header.append(length % 128 + 128)
    length //= 128
  return bytes([*header, length])


def _frame_header(size: int) -> bytes:
  header = b''
  for tag in _FRAME:
    header = _header(tag, len(header) + size) + header
  return header


def _before(order, names, strides, num_frames: int) -> list[bytes]:
  """Bytes before the frames of each feature, in `order`."""
  headers, total = [], 0
  for feature in order:
    length = num_frames * strides[feature]
    entry = (
      _header(_KEY, len(names[feature])) + names[feature] + _header(_VALUE, length)
    )
    headers.append(_header(_ENTRY, len(entry) + length) + entry)
    total += len(headers[-1]) + length
  return [_header(_LISTS, total) + headers[0], *headers[1:]]
