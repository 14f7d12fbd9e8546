"""Shards read one after another through one pipeline."""

import pathlib

import pytest
import records
import tensorflow as tf

from yt8m_distill.dataloaders import shard_batches
from yt8m_distill.utils import parallel

_COUNTS = (5, 1, 4)  # records of the shards
_BATCH = 2


@pytest.fixture
def group(tmp_path):
  """Shards of records that hold the number of the shard and their own."""
  group = []
  for shard, count in enumerate(_COUNTS):
    path = records.write(
      tmp_path / f'{shard}.tfrecord', [b'%d-%d' % (shard, i) for i in range(count)]
    )
    group.append(parallel.Shard(path, pathlib.Path(path).stat().st_size, ''))
  return group


def _batches(group, skip_corrupt=False):
  return [
    [[values.numpy().tolist() for values in batch] for batch in batches]
    for batches in shard_batches.of_shards(_BATCH, skip_corrupt, group)
  ]


def _cut(shard):
  """Cuts the last record of a shard."""
  path = pathlib.Path(shard.source)
  path.write_bytes(path.read_bytes()[:-1])
  return shard._replace(size=shard.size - 1)


def test_each_shard_has_its_own_batches_in_order(group):
  expected = [
    [
      [
        [shard.source.encode()] * len(indices),
        indices,
        [b'%d-%d' % (number, index) for index in indices],
      ]
      for indices in (
        list(range(start, min(start + _BATCH, count)))
        for start in range(0, count, _BATCH)
      )
    ]
    for number, (shard, count) in enumerate(zip(group, _COUNTS))
  ]
  assert _batches(group) == expected
  # Alone, a shard has the same batches.
  assert [_batches([shard])[0] for shard in group] == expected


def test_a_shard_is_complete_before_the_next_one_is_an_error(group):
  group[1] = _cut(group[1])
  shards = shard_batches.of_shards(_BATCH, False, group)
  assert len(list(next(shards))) == 3
  with pytest.raises(
    tf.errors.InvalidArgumentError, match=r'1\.tfrecord: unreadable from byte 0 of 18'
  ):
    list(next(shards))


def test_a_shard_without_readable_records_has_no_batches(group):
  group[1] = _cut(group[1])
  assert [len(batches) for batches in _batches(group, skip_corrupt=True)] == [3, 0, 2]
