"""The bytes of a TFRecord file, as Python sees them.

Source: the TFRecord framing that the YouTube-8M releases use, uncompressed: per
record 8 bytes length, 4 bytes CRC of the length, the payload, 4 bytes CRC of
the payload.
"""

import struct

import tensorflow as tf

HEADER = 12  # bytes: length and its CRC
FRAMING = 16  # bytes that a record takes beside its payload


def open_file(path: str):
  """Opens a file for scattered reads; gfile reads half a MiB at each."""
  return (
    tf.io.gfile.GFile(path, 'rb') if '://' in path else open(path, 'rb', buffering=0)
  )


def payload_length(f, offset: int, size: int) -> int | None:
  """Returns the length of the payload at `offset`, None if it cannot be."""
  f.seek(offset)
  header = f.read(HEADER)
  if len(header) < HEADER:
    return None
  length, checksum = struct.unpack('<QI', header)
  whole = offset + FRAMING + length <= size
  return length if whole and masked_crc32c(header[:8]) == checksum else None


def _crc_table() -> list[int]:
  table = []
  for crc in range(256):
    for _ in range(8):
      crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    table.append(crc)
  return table


_CRC_TABLE = _crc_table()


def masked_crc32c(data: bytes) -> int:
  """The checksum of TFRecords: CRC-32C, rotated and offset."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
  crc ^= 0xFFFFFFFF
  return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
