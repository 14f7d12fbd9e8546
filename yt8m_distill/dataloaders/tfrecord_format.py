"""The bytes of an uncompressed TFRecord file, read in Python.

A record is 8 bytes length, 4 bytes CRC of the length, the payload, and 4 bytes CRC of
the payload. Source: the format of TensorFlow's TFRecordWriter, in which the YouTube-8M
releases come.
"""

import struct

import tensorflow as tf

from yt8m_distill.utils import files

_HEADER = 12  # bytes: the length and its CRC
OVERHEAD = 16  # bytes of a record besides its payload


def open_file(path: str):
  """Opens a file for scattered small reads.

  A local file is opened without buffer, because gfile reads 512 KiB each time.
  """
  if files.is_remote(path):
    return tf.io.gfile.GFile(path, 'rb')
  return open(path, 'rb', buffering=0)


def payload_length(f, offset: int, size: int) -> int | None:
  """Returns the length of a record's payload and leaves `f` at the payload.

  Args:
    f: an open file.
    offset: where the record begins, in bytes.
    size: size of the file in bytes.

  Returns:
    The length in bytes; None if the record is truncated or its length is corrupt.
  """
  f.seek(offset)
  header = f.read(_HEADER)
  if len(header) < _HEADER:
    return None
  length, checksum = struct.unpack('<QI', header)
  is_complete = offset + OVERHEAD + length <= size
  return length if is_complete and masked_crc32c(header[:8]) == checksum else None


def _crc_table() -> list[int]:
  table = []
  for crc in range(256):
    for _ in range(8):
      crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    table.append(crc)
  return table


_CRC_TABLE = _crc_table()


def masked_crc32c(data: bytes) -> int:
  """Returns the checksum of TFRecord files: CRC-32C, rotated, plus a constant."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
  crc ^= 0xFFFFFFFF
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
