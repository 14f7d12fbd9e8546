"""Tests of expanding input_path."""

import pytest

from yt8m_distill.dataloaders import file_patterns
from yt8m_distill.dataloaders import shards


@pytest.mark.parametrize(
  'item, count, first, last',
  [
    (
      '/d/train{0000..3843}.tfrecord',
      3844,
      '/d/train0000.tfrecord',
      '/d/train3843.tfrecord',
    ),
    ('x{00..zz}', 3844, 'x00', 'xzz'),
    ('{a..z}', 26, 'a', 'z'),
    ('{A..z}', 52, 'A', 'z'),
    ('{0z..11}', 3, '0z', '11'),
    ('{8..11}', 4, '8', '11'),
    ('{0..0}', 1, '0', '0'),
    ('{a..b}/{01..03}.x', 6, 'a/01.x', 'b/03.x'),
    ('{a}.{b..}x', 1, None, None),
  ],
)
def test_ranges(item, count, first, last):
  if first is None:
    with pytest.raises(ValueError, match='b\\.\\.'):
      file_patterns.expand(item)
    return
  names = file_patterns.expand(item)
  assert len(names) == count == len(set(names))
  assert (names[0], names[-1]) == (first, last)
  if item != '{8..11}':
    assert names == sorted(names)


def test_order_of_characters():
  names = file_patterns.expand('{00..zz}')
  assert names[9:12] == ['09', '0A', '0B']
  assert names[35:38] == ['0Z', '0a', '0b']
  assert names[61:64] == ['0z', '10', '11']
  assert file_patterns.expand('{98..a1}')[:3] == ['98', '99', '9A']


@pytest.mark.parametrize(
  'item, problem',
  [
    ('{00..100}', 'same number of characters'),
    ('{a..zz}', 'same number of characters'),
    ('{3..1}', 'first end must not come after'),
    ('{b..a}', 'first end must not come after'),
    ('{a..Z}', 'first end must not come after'),
    ('{..3}', 'digits and letters'),
    ('{-1..3}', 'digits and letters'),
    ('{é..ü}', 'digits and letters'),
  ],
)
def test_bad_ranges_are_named(item, problem):
  with pytest.raises(ValueError, match=rf"'/d/x\{item}': .*{problem}"):
    file_patterns.expand(f'/d/x{item}')


def test_every_file_of_a_range_must_exist(tmp_path):
  for number in (0, 1, 3):
    (tmp_path / f'{number}.tfrecord').write_bytes(bytes(number))
  assert shards.sizes(shards.find(f'{tmp_path}/{{0..1}}.tfrecord')) == [0, 1]
  with pytest.raises(ValueError, match='/2.tfrecord: no such file'):
    shards.sizes(shards.find(f'{tmp_path}/{{0..3}}.tfrecord'))


def test_range_and_pattern_together(tmp_path):
  for name in ('a1', 'a2', 'b1', 'c1'):
    (tmp_path / name).touch()
  found = shards.find(f'{tmp_path}/{{a..b}}*')
  assert found == [f'{tmp_path}/{name}' for name in ('a1', 'a2', 'b1')]
  with pytest.raises(ValueError, match=r'd\*.: no file matches'):
    shards.find(f'{tmp_path}/{{c..d}}*')


def test_paths_in_lists_are_not_expanded(tmp_path):
  paths = tmp_path / 'paths.txt'
  paths.write_text('/d/b,c.tfrecord\n\n  /d/a?*.tfrecord\n/d/{0..1}\n')
  expected = ['/d/a?*.tfrecord', '/d/b,c.tfrecord', '/d/{0..1}']
  assert shards.find(f'@{paths}') == expected
  assert shards.find([f'@{paths}', '/d/a']) == ['/d/a', *expected]


def test_bad_lists_are_named(tmp_path):
  (tmp_path / 'none').write_text('\n \n')
  with pytest.raises(ValueError, match='none is empty'):
    shards.find(f'@{tmp_path}/none')
  with pytest.raises(ValueError, match='absent: no such file'):
    shards.find(f'@{tmp_path}/absent')
  (tmp_path / 'binary').write_bytes(bytes(range(256)))
  with pytest.raises(ValueError, match='@.*binary: not a text file'):
    shards.find(f'@{tmp_path}/binary')


@pytest.mark.parametrize('value', [7, [7], {'a': 'b'}])
def test_values_other_than_strings_are_refused(value):
  with pytest.raises(ValueError, match='input_path is .*must be a string or a list'):
    shards.find(value)
