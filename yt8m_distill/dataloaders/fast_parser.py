"""Cuts frames out of records directly, without a string per frame.

Source: the bytes that protobuf writes for a `tf.train.SequenceExample` in which every
frame of a feature has the same size, as in all YouTube-8M releases:

  0A len  context
  12 len  feature lists, one map entry per feature:
            0A len  entry:  0A len name   12 len list:
                      per frame:  0A len  0A len  0A len  payload
                      (Feature, BytesList and its value; equal bytes for all frames)

After the context, the number of bytes determines the number of frames, and so every
byte between the payloads. A record is *regular* if it has exactly these bytes. All
others are left to TensorFlow's parser, which is slower because it makes a string of
each frame. Where only some frames are cut out, the bytes between the others are not
compared.

B records, T frames: at least those of the longest regular record.
"""

from collections.abc import Sequence
import itertools
from typing import NamedTuple

import tensorflow as tf

_CONTEXT_TAG, _LISTS_TAG = 0x0A, 0x12  # fields of SequenceExample
_ENTRY_TAG, _KEY_TAG, _VALUE_TAG = 0x0A, 0x0A, 0x12  # the map of feature lists
_FRAME_TAGS = (
  0x0A,
  0x0A,
  0x0A,
)  # BytesList.value, Feature.bytes_list, FeatureList.feature
_MAX_FRAMES = 512  # longer videos are left to the parser
_MAX_ORDERS = 6  # orders of the map's entries that are tried: all of 3 features
_LENGTH_BYTES = 4  # bytes of a context's length that are decoded


class Found(NamedTuple):
  """Where records hold their frames.

  Attributes:
    is_regular: bool [], whether all records are regular so far. If False, the other
      values are meaningless.
    contexts: string [B], serialized records that have only the context.
    num_frames: int32 [B].
    offsets: per feature int32 [B], where its frames begin.
  """

  is_regular: tf.Tensor
  contexts: tf.Tensor
  num_frames: tf.Tensor
  offsets: list[tf.Tensor]


class FastParser:
  """Parses regular records that have certain features and no others."""

  def __init__(self, features: Sequence[tuple[str, int]]):
    """Initializes the parser.

    Args:
      features: name and bytes per frame of each.
    """
    names = [name.encode() for name, _ in features]
    self._sizes = [size for _, size in features]
    self._frame_headers = [_frame_header(size) for size in self._sizes]
    self._strides = [
      len(header) + size for header, size in zip(self._frame_headers, self._sizes)
    ]
    # A map's entries have no fixed order.
    self._orders = list(
      itertools.islice(itertools.permutations(range(len(features))), _MAX_ORDERS)
    )
    # [order][num_frames - 1][position in order]: bytes before the feature's frames.
    self._list_headers = [
      [_list_headers(order, names, self._strides, n) for n in range(1, _MAX_FRAMES + 1)]
      for order in self._orders
    ]
    # [num_frames - 1]: bytes after the context; the same in all orders.
    self._total_bytes = [
      sum(map(len, headers)) + n * sum(self._strides)
      for n, headers in enumerate(self._list_headers[0], 1)
    ]

  def find(self, serialized: tf.Tensor) -> Found:
    """Finds the frames of regular records.

    The headers of frames are compared later, when these are cut out.

    Args:
      serialized: string [B], any bytes.
    """
    # 1. The number of bytes after the context gives the number of frames.
    start = _context_end(serialized)
    total = tf.cast(tf.strings.length(serialized) - start, tf.int64)
    total_bytes = tf.constant(self._total_bytes, tf.int64)
    row = tf.minimum(tf.searchsorted(total_bytes, total), _MAX_FRAMES - 1)
    has_length = (start > 0) & (tf.gather(total_bytes, row) == total)
    num_frames = tf.where(has_length, row + 1, 0)
    # 2. The headers of the feature lists tell in which order they come.
    is_found = tf.zeros_like(has_length)
    offsets = tf.zeros([len(self._sizes), tf.size(serialized)], tf.int32)
    for order, headers in zip(self._orders, self._list_headers):
      matches, starts = self._match_order(
        serialized,
        start,
        has_length,
        num_frames,
        order,
        tf.gather(tf.constant(headers), row),
      )
      is_found |= matches
      offsets = tf.where(matches, starts, offsets)
    # 3. A record that ends after its context is valid for TensorFlow's parser.
    contexts = tf.strings.substr(
      serialized, tf.zeros_like(start), tf.where(is_found, start, 0)
    )
    return Found(
      tf.reduce_all(is_found),
      contexts,
      tf.where(is_found, num_frames, 0),
      tf.unstack(offsets),
    )

  def cut(
    self, serialized: tf.Tensor, found: Found, min_frames: int
  ) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Cuts out all frames.

    Args:
      serialized: string [B], the records.
      found: what `find` returned for them.
      min_frames: least T.

    Returns:
      is_regular: bool [], whether all frames have the expected headers. If False, the
        other value is meaningless.
      frames: per feature uint8 [B, T, bytes], zero after the frames of a video.
    """
    max_frames = tf.maximum(tf.reduce_max(found.num_frames), min_frames)
    cuts = [
      _cut_frames(serialized, offset, found.num_frames, max_frames, header, size)
      for offset, header, size in zip(found.offsets, self._frame_headers, self._sizes)
    ]
    regular, frames = zip(*cuts)
    return tf.reduce_all(regular), list(frames)

  def cut_some(
    self, serialized: tf.Tensor, found: Found, indices: tf.Tensor, count: tf.Tensor
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts out some frames, and reads nothing of the others.

    Args:
      serialized: string [B], the records.
      found: what `find` returned for them.
      indices: int32 [B, K], frames to cut out.
      count: int32 [B], how many of the K to cut out.

    Returns:
      is_regular: bool [], whether the frames exist and have the expected headers. If
        False, the other value is meaningless.
      frames: string [B, K], the bytes of all features; '' after the first `count`.
    """
    wanted = tf.sequence_mask(count, indices.shape[1])
    exists = (indices >= 0) & (indices < found.num_frames[:, tf.newaxis])
    is_regular, frames = tf.reduce_all(exists | ~wanted), []
    wanted &= exists

    def pieces(starts, size):
      # An operation per frame: one for all would copy the records K times.
      columns = [tf.unstack(tf.where(wanted, v, 0), axis=1) for v in (starts, size)]
      return tf.stack([tf.strings.substr(serialized, *c) for c in zip(*columns)], 1)

    for offset, header, size in zip(found.offsets, self._frame_headers, self._sizes):
      starts = offset[:, tf.newaxis] + indices * (len(header) + size)
      has_headers = pieces(starts, len(header)) == header
      is_regular &= tf.reduce_all(has_headers | ~wanted)
      frames.append(pieces(starts + len(header), size))
    return is_regular, tf.strings.join(frames)

  def _match_order(self, serialized, offset, matches, num_frames, order, headers):
    """Compares the headers of the feature lists in one order.

    Args:
      serialized: string [B].
      offset: int32 [B], where the feature lists begin.
      matches: bool [B], records to compare; False for others.
      num_frames: int32 [B].
      order: indices of the features.
      headers: string [B, features], expected, in `order`.

    Returns:
      bool [B], whether all headers match, and int32 [features, B], where the frames
      of each feature begin.
    """
    starts = [None] * len(order)
    end = tf.strings.length(serialized)
    for i, feature in enumerate(order):
      length = tf.strings.length(headers[:, i])
      found = tf.strings.substr(serialized, tf.minimum(offset, end), length)
      matches &= found == headers[:, i]
      starts[feature] = offset + length
      offset = starts[feature] + num_frames * self._strides[feature]
    return matches, tf.stack(starts)


def _cut_frames(serialized, offset, num_frames, max_frames, header, size):
  """Cuts out the frames of one feature.

  Returns:
    bool [], whether all frames have the expected header, and the payloads,
    uint8 [B, max_frames, size].
  """

  def rows(strings, starts, stride):
    # Frames have a fixed stride, so one call decodes all of a record, padded with 0.
    return tf.reshape(
      tf.io.decode_raw(
        tf.strings.substr(strings, starts, num_frames * stride),
        tf.uint8,
        fixed_length=max_frames * stride,
      ),
      [-1, stride],
    )

  # Matrices, because their slices are copied a whole row at a time.
  found = rows(serialized, offset, len(header) + size)
  # Padded rows are 0 in both.
  expected = rows(
    tf.fill(tf.shape(serialized), header * _MAX_FRAMES),
    tf.zeros_like(offset),
    len(header),
  )
  has_headers = tf.reduce_all(tf.slice(found, [0, 0], [-1, len(header)]) == expected)
  values = tf.slice(found, [0, len(header)], [-1, size])
  return has_headers, tf.reshape(values, [-1, max_frames, size])


def _context_end(serialized):
  """Returns where the context ends, int32 [B]; 0 if a record begins differently."""
  head = tf.cast(
    tf.io.decode_raw(serialized, tf.uint8, fixed_length=1 + _LENGTH_BYTES), tf.int32
  )
  # The length is a varint: 7 bits per byte, low bits first; bit 8: more bytes follow.
  continues, digits = head[:, 1:] // 128, head[:, 1:] % 128
  scales = tf.constant([128**i for i in range(_LENGTH_BYTES)])
  is_used = tf.math.cumprod(continues, 1, exclusive=True)
  # The tag, the bytes of the length, and the context itself.
  end = 1 + tf.reduce_sum(is_used * (1 + digits * scales), 1)
  is_valid = (
    (head[:, 0] == _CONTEXT_TAG)
    & (tf.reduce_prod(continues, 1) == 0)
    & (end <= tf.strings.length(serialized))
  )
  return tf.where(is_valid, end, 0)


def _header(tag: int, length: int) -> bytes:
  """Returns what protobuf writes before a field of `length` bytes."""
  header = [tag]
  while length >= 128:  # A varint, see _context_end.
    header.append(length % 128 + 128)
    length //= 128
  return bytes([*header, length])


def _frame_header(size: int) -> bytes:
  """Returns the bytes before the payload of a frame."""
  header = b''
  for tag in _FRAME_TAGS:
    header = _header(tag, len(header) + size) + header
  return header


def _list_headers(order, names, strides, num_frames: int) -> list[bytes]:
  """Returns the bytes before the frames of each feature, in `order`."""
  headers, total = [], 0
  for feature in order:
    length = num_frames * strides[feature]
    entry = (
      _header(_KEY_TAG, len(names[feature]))
      + names[feature]
      + _header(_VALUE_TAG, length)
    )
    headers.append(_header(_ENTRY_TAG, len(entry) + length) + entry)
    total += len(headers[-1]) + length
  return [_header(_LISTS_TAG, total) + headers[0], *headers[1:]]
