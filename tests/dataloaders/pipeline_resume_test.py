"""Tests of several pipelines, and of pipelines that resume."""

import itertools

from absl import logging
import pytest
import records
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import shards

pytestmark = pytest.mark.end_to_end

_COUNTS = (3, 7, 1, 5, 2, 4, 6)  # records of each file
_TOTAL = sum(_COUNTS)


class _Reader:
  """Returns records and their epoch keys; building it takes no time."""

  def __init__(self, with_seeds):
    self.with_seeds = with_seeds

  def check(self, *_):
    """Accepts any record."""

  def read_explained(self, paths, indices, serialized, epoch_keys=None):
    return serialized, paths if epoch_keys is None else epoch_keys


def _write(folder, counts):
  return records.write_shards(folder, counts, lambda number: b'%d' % number)


@pytest.fixture(name='path', scope='module')
def _path(tmp_path_factory):
  return _write(tmp_path_factory.mktemp('shards'), _COUNTS)


def _params(path, **kwargs):
  return data.VideoData(
    **{
      'input_path': path,
      'is_training': True,
      'global_batch_size': 6,
      'drop_remainder': True,
      'shuffle_buffer_size': 5,
      'cycle_length': 2,
      'seed': 1,
      **kwargs,
    }
  )


def _batches(params, count, pipelines=1, number=0, start_step=0):
  """[[(record, its epoch key, or path if cached)] of each batch]."""
  dataset = pipeline.build(
    params,
    _Reader(not params.cache),
    tf.distribute.InputContext(pipelines, number, pipelines),
    start_step,
  )
  return [list(zip(*batch)) for batch in dataset.take(count).as_numpy_iterator()]


def _begun(monkeypatch):
  """Returns a list to which the logged (epoch, records to skip) are added."""
  told = []
  monkeypatch.setattr(
    logging,
    'info',
    lambda text, *values: told.append(values) if 'resumes in epoch' in text else None,
  )
  return told


@pytest.mark.parametrize('pipelines', [2, 3])
@pytest.mark.parametrize('cache', [False, True])
@pytest.mark.parametrize('known', [0, _TOTAL])
def test_without_sharding_batches_are_together_those_of_one_pipeline(
  path, pipelines, cache, known
):
  params = _params(path, sharding=False, cache=cache, num_examples=known)
  whole = _batches(params, 16)
  middle = 12  # 72 of 28 records: in epoch 2.
  for start in (0, middle):
    parts = [_batches(params, 4, pipelines, i, start) for i in range(pipelines)]
    for batch, shares in zip(whole[start:], zip(*parts)):
      assert {len(share) for share in shares} == {6 // pipelines}
      assert sorted(itertools.chain(*shares)) == sorted(batch)


@pytest.mark.parametrize('pipelines', [2, 3])
@pytest.mark.parametrize(
  'fields',
  [
    {},
    {'num_examples': _TOTAL},
    {'bagging_seed': 3},
    {'cache': True},
    {'bagging_seed': 3, 'cache': True},
    {'bagging_seed': 3, 'sharding': False},
  ],
  ids=str,
)
def test_pipelines_of_whole_files_resume(path, monkeypatch, pipelines, fields):
  params = _params(path, global_batch_size=12, **fields)
  for number in range(pipelines):
    whole = _batches(params, 32, pipelines, number)
    begun = _begun(monkeypatch)
    for start in (1, 4, 14, 28):
      assert _batches(params, 4, pipelines, number, start) == (whole[start : start + 4])
    epochs = [epoch for epoch, _ in begun]
    assert epochs[0] <= 1 and epochs == sorted(epochs) and epochs[-1] >= 4


def test_whole_epochs_are_skipped(tmp_path, monkeypatch):
  path = _write(tmp_path, (3,) * 4)
  begun = _begun(monkeypatch)
  for fields, pipelines in (
    ({}, 2),
    ({}, 1),
    ({'bagging_seed': 0}, 1),
    ({'sharding': False}, 2),
    ({'cache': True}, 2),
  ):
    _batches(_params(path, **fields), 1, pipelines, 0, 1001)
    by_record = 'sharding' in fields
    assert begun.pop() == divmod(
      6006 // (1 if by_record else pipelines), 12 // (1 if by_record else pipelines)
    )


def test_records_are_counted_only_if_necessary(path, monkeypatch):
  def count(*_):
    raise AssertionError('counted')

  monkeypatch.setattr(shards, 'count_by_file', count)
  known = {'num_examples': _TOTAL}
  for fields, pipelines, start in (
    ({}, 2, 0),
    ({'bagging_seed': 3}, 1, 0),
    (known, 1, 9),
    ({**known, 'sharding': False}, 2, 9),
    ({'skip_corrupt_records': True}, 2, 2),
  ):
    assert _batches(_params(path, **fields), 1, pipelines, 0, start)
  with pytest.raises(AssertionError, match='counted'):
    _batches(_params(path, **known), 1, 2, 0, 9)


@pytest.mark.parametrize('pipelines', [1, 2])
@pytest.mark.parametrize('bag', [-1, 3])
def test_corrupt_records_are_left_out_before_and_after_resuming(
  tmp_path, pipelines, bag
):
  path = _write(tmp_path, _COUNTS)
  for shard in (0, 3, 6):
    file = tmp_path / f'{shard}.tfrecord'
    content = bytearray(file.read_bytes())
    content[20] ^= 0xFF
    file.write_bytes(content)
  params = _params(path, skip_corrupt_records=True, bagging_seed=bag)
  whole = _batches(params, 20, pipelines)
  for start in (1, 16):
    assert _batches(params, 4, pipelines, 0, start) == whole[start : start + 4]


def test_only_consumed_files_are_counted(tmp_path, monkeypatch):
  path = _write(tmp_path, (3,) * 8)
  counted, count = [], shards.count_by_file
  monkeypatch.setattr(pipeline, '_COUNT_BATCH', 1)
  monkeypatch.setattr(
    shards,
    'count_by_file',
    lambda paths: (counted.extend(paths), list(count(paths)))[1],
  )
  # A pipeline has 4 files an epoch, and has consumed 3 of 12 records.
  _batches(_params(path), 1, 2, 0, 1)
  assert len(set(counted)) == len(counted) == 2
  counted.clear()
  _batches(_params(path), 1, 2, 0, 1001)
  assert sorted(counted) == shards.find(path)  # Each once.


def test_dividing_records_needs_an_order(path):
  fields = dict(sharding=False, deterministic=False)
  with pytest.raises(
    ValueError,
    match='deterministic is False: 2 input pipelines .* divide the records of 7 files',
  ):
    _batches(_params(path, **fields), 1, 2)
  assert _batches(_params(path, **fields), 1)


def test_files_that_cannot_be_counted_are_named(tmp_path):
  path = _write(tmp_path, _COUNTS)
  broken = tmp_path / '2.tfrecord'
  broken.write_bytes(broken.read_bytes()[:-1])
  with pytest.raises(ValueError, match=f'{broken}: unreadable from byte 0 of'):
    _batches(_params(path), 1, 2, 0, 9)


def test_counts_of_files(path):
  assert tuple(shards.count_by_file(shards.find(path))) == _COUNTS
  assert shards.count_records(shards.find(path)) == _TOTAL
