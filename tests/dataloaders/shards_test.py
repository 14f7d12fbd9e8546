"""Tests of finding, counting and reading shards, valid and corrupt."""

import gzip
import re
import struct

import pytest
import records as records_lib
import tensorflow as tf

from yt8m_distill.dataloaders import shards
from yt8m_distill.dataloaders import skipped
from yt8m_distill.utils import cli

_PAYLOADS = [bytes([65 + i]) * (5 + 3 * i) for i in range(20)]


def _write(path, payloads=tuple(_PAYLOADS)):
  return records_lib.write(path, payloads)


def _offset(index):
  return sum(16 + len(payload) for payload in _PAYLOADS[:index])


def _flip(path, position):
  with open(path, 'r+b') as f:
    f.seek(position)
    byte = f.read(1)[0]
    f.seek(position)
    f.write(bytes([byte ^ 0xFF]))


def _read(path, skip_corrupt=False):
  [size] = shards.sizes([path])
  records = shards.read(tf.constant(path), tf.constant(size, tf.int64), skip_corrupt)
  return [
    (index, serialized)
    for name, index, serialized in records.as_numpy_iterator()
    if name.decode() == path
  ]


def _numbered(indices):
  return [(i, _PAYLOADS[i]) for i in indices]


def test_find_sorts_and_accepts_every_form(tmp_path):
  names = [_write(tmp_path / f'{name}.tfrecord') for name in 'cab']
  pattern = str(tmp_path / '*.tfrecord')
  for given in (pattern, ', '.join(names), names, [pattern, names[0]]):
    assert shards.find(given) == sorted(names)


def test_find_without_match_names_pattern(tmp_path):
  pattern = str(tmp_path / 'nothing*.tfrecord')
  with pytest.raises(ValueError, match=r'nothing\*.tfrecord.*no file matches'):
    shards.find(pattern)
  with pytest.raises(ValueError, match='input_path is empty'):
    shards.find('')
  with pytest.raises(ValueError, match='absent.*no such file'):
    shards.sizes([str(tmp_path / 'absent')])


def test_count_records(tmp_path):
  paths = [_write(tmp_path / 'a'), _write(tmp_path / 'b', _PAYLOADS[:3])]
  assert shards.count_records(paths) == 23


@pytest.mark.parametrize('keep', [_offset(7) + 4, _offset(7) + 14])
def test_count_records_names_truncated_file(tmp_path, keep):
  path = _write(tmp_path / 'cut')
  with open(path, 'r+b') as f:
    f.truncate(keep)
  with pytest.raises(ValueError, match=rf'cut: .*byte {_offset(7)} of {keep}'):
    shards.count_records([path])
  assert shards.count_records([path], skip_corrupt=True) == 7


def test_read_whole_file(tmp_path):
  path = _write(tmp_path / 'a')
  assert _read(path) == _numbered(range(20))
  before = skipped.total()
  assert _read(path, skip_corrupt=True) == _numbered(range(20))
  assert skipped.total() == before


@pytest.mark.parametrize('count', [1, 7, 8, 9, 16])
def test_read_any_number_of_records(tmp_path, count):
  path = _write(tmp_path / 'a', _PAYLOADS[:count])
  assert _read(path) == _numbered(range(count))


def test_read_keeps_records_without_payload(tmp_path):
  path = _write(tmp_path / 'a', [b'', b'x', b''])
  assert _read(path) == [(0, b''), (1, b'x'), (2, b'')]


def _break(path, how):
  """Returns which records are left, and (records, tails) that are lost."""
  if how == 'payload':
    _flip(path, _offset(9) + 13)
    return [*range(9), *range(10, 20)], (1, 0)
  if how == 'two payloads and a length':
    _flip(path, _offset(0) + 13)
    _flip(path, _offset(1) + 13)
    _flip(path, _offset(12) + 1)
    return range(2, 12), (2, 1)
  if how == 'last payload':
    _flip(path, _offset(19) + 13)
    return range(19), (1, 0)
  if how == 'length':
    _flip(path, _offset(9) + 1)
    return range(9), (0, 1)
  keep = {'in a payload': _offset(9) + 14, 'in a header': _offset(9) + 4, 'empty': 0}[
    how
  ]
  with open(path, 'r+b') as f:
    f.truncate(keep)
  return range(9 if keep else 0), (0, 1)


_BREAKS = [
  'payload',
  'two payloads and a length',
  'last payload',
  'length',
  'in a payload',
  'in a header',
  'empty',
]


@pytest.mark.parametrize('how', _BREAKS)
def test_skip_corrupt_leaves_out_as_little_as_possible(tmp_path, caplog, how):
  path = _write(tmp_path / 'broken')
  left, (records, tails) = _break(path, how)
  before = skipped.total()
  with caplog.at_level('WARNING', 'absl'):
    assert _read(path, skip_corrupt=True) == _numbered(left)
  after = skipped.total()
  assert after.records - before.records == records
  assert after.shard_tails - before.shard_tails == tails
  lines = [line for line in caplog.messages if path in line]
  assert len(lines) == records + tails
  if how != 'empty':
    lost = min(set(range(20)) - set(left))
    assert f'at byte {_offset(lost)}' in lines[0]


@pytest.mark.parametrize('how', _BREAKS)
def test_strict_reading_names_file_and_byte(tmp_path, how):
  path = _write(tmp_path / 'broken')
  left, _ = _break(path, how)
  lost = min(set(range(20)) - set(left))
  with pytest.raises(
    tf.errors.InvalidArgumentError,
    match=f'{path}: unreadable from byte {_offset(lost)} of '
    '.*skip_corrupt_records to True',
  ):
    _read(path)


def test_length_beyond_the_file_with_good_checksum_ends_it(tmp_path):
  path = _write(tmp_path / 'a')
  with open(path, 'r+b') as f:  # As if the tail had been lost in a transfer.
    f.seek(_offset(19))
    header = f.read(12)
    f.truncate(_offset(19) + 12)
  assert struct.unpack('<Q', header[:8])[0] == len(_PAYLOADS[19])
  assert _read(path, skip_corrupt=True) == _numbered(range(19))


def test_first_record_skips_bad_payloads_and_files(tmp_path):
  empty, path = str(tmp_path / 'a'), _write(tmp_path / 'b')
  (tmp_path / 'a').touch()
  _flip(path, _offset(0) + 13)
  paths = [empty, path]
  assert shards.first_record(paths, shards.sizes(paths)) == (path, 1, _PAYLOADS[1])
  assert shards.first_record(paths[:1], [0]) is None


def _gzip(path):
  path.write_bytes(gzip.compress(b'12345'))


@pytest.mark.parametrize(
  'write, message',
  [
    (lambda path: path.touch(), 'byte 0 of 0: it is empty. Fetch it again'),
    (_gzip, 'byte 0 of 25: it is compressed with gzip. Decompress it'),
    (
      lambda path: records_lib.write(path, _PAYLOADS[:2], compression='GZIP'),
      'byte 0 of .*: it is compressed with gzip. Decompress it',
    ),
    (
      lambda path: path.write_text('Id,Labels\n\u00e9\u00e8,1'),
      r'byte 0 of 16: it is a text file, which begins with "Id,Labels\\n\\xc3.*write @',
    ),
    (
      lambda path: path.write_bytes(bytes(30)),
      'byte 0 of 30: it is truncated, corrupt',
    ),
  ],
)
def test_what_is_no_tfrecord_file_is_told(tmp_path, write, message):
  write(tmp_path / 'x')
  path = str(tmp_path / 'x')
  with pytest.raises(tf.errors.InvalidArgumentError) as error:
    _read(path)
  assert re.match(f'{path}: .*{message}', cli.message(error.value))
  with pytest.raises(ValueError, match=f'{path}: .*{message}') as error:
    shards.count_records([path])
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'form', ['{}', '{}/', '{}/*', '{}/../a.tfrecord,{}', '@{}/list']
)
def test_folders_are_told(tmp_path, form):
  _write(tmp_path / 'a.tfrecord')
  folder = tmp_path / 'records'
  (folder / 'more').mkdir(parents=True)
  (folder / 'list').write_text(f'{folder}/more\n')
  named = f'{folder}/more' if form[-1] in '*t' else str(folder)
  with pytest.raises(
    ValueError, match=f'^{named}/?: a folder.*: {named}/\\*.tfrecord$'
  ):
    shards.sizes(shards.find(form.format(folder, folder)))


def test_files_without_permission_are_told(tmp_path, monkeypatch):
  path = _write(tmp_path / 'a')
  # The tests may run as root, who may read everything.
  monkeypatch.setattr(shards.os, 'access', lambda path, mode: False)
  with pytest.raises(ValueError, match=f'{path}: you have no permission to read'):
    shards.sizes([path])
