"""Tests of training on a bag of files."""

import collections

from absl import logging
import numpy as np
import pytest
import records
import tensorflow as tf
import tiny

from yt8m_distill.configs import data
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import reader as reader_lib
from yt8m_distill.evaluation import baseline

pytestmark = pytest.mark.end_to_end

_COUNTS = (2, 3, 1, 2, 4)  # videos of each file
_SEED = 3


def _model():
  return tiny.experiment(experiment='yt8m_distill_single').task.model


@pytest.fixture(name='path', scope='module')
def _path(tmp_path_factory):
  """Videos without id, which are named <file>:<index>."""
  folder = tmp_path_factory.mktemp('shards')
  for shard, count in enumerate(_COUNTS):
    tiny.write_records(folder / 'plain', count, seed=shard)
    records.edit(
      folder / 'plain',
      folder / f'{shard}.tfrecord',
      lambda _, video: video.context.feature.pop('id'),
    )
  (folder / 'plain').unlink()
  return str(folder / '*.tfrecord')


def _params(path, training=True, **kwargs):
  return data.VideoData(
    **{
      'input_path': path,
      'is_training': training,
      'global_batch_size': 1,
      'drop_remainder': training,
      'shuffle_buffer_size': 3,
      'bagging_seed': _SEED,
      **kwargs,
    }
  )


def _ids(params, count, context=None, start_step=0):
  model = _model()
  reader = reader_lib.FrameReader(
    model.features,
    model.max_frames,
    model.num_classes,
    model.network.frames,
    with_ids=True,
  )
  dataset = pipeline.build(params, reader, context, start_step).take(count)
  return [
    name.decode() for inputs, _ in dataset.as_numpy_iterator() for name in inputs['id']
  ]


def _bag(seed, counts=_COUNTS):
  """Returns how often each video is in a bag."""
  drawn = np.random.default_rng(seed).integers(len(counts), size=len(counts))
  return collections.Counter(
    f'{file}.tfrecord:{i}' for file in drawn for i in range(counts[file])
  )


def test_each_epoch_holds_the_drawn_files_as_often_as_drawn(path):
  bag = _bag(_SEED)
  length = sum(bag.values())
  assert max(bag.values()) > 1 and len(bag) < sum(_COUNTS)
  ids = _ids(_params(path), 2 * length)
  first, second = ids[:length], ids[length:]
  assert collections.Counter(first) == collections.Counter(second) == bag
  assert first != second
  other = _bag(_SEED + 1)
  assert other != bag
  assert (
    collections.Counter(
      _ids(_params(path, bagging_seed=_SEED + 1), sum(other.values()))
    )
    == other
  )


def test_all_workers_share_one_bag(path):
  both = [
    set(
      _ids(_params(path, global_batch_size=2), 60, tf.distribute.InputContext(2, i, 2))
    )
    for i in range(2)
  ]
  assert both[0] == both[1] == set(_bag(_SEED))


def test_a_bag_of_the_only_file_is_that_file(path):
  ids = _ids(_params(path.replace('*', '1')), 3)
  assert sorted(ids) == [f'1.tfrecord:{i}' for i in range(3)]


@pytest.mark.parametrize('num_examples', [0, sum(_COUNTS)])
def test_resumed_training_continues_where_it_stopped(path, num_examples):
  params = _params(path, global_batch_size=4, num_examples=num_examples)
  assert sum(_bag(_SEED).values()) != sum(_COUNTS)
  whole = _ids(params, 9)
  assert _ids(params, 2, start_step=7) == whole[28:]


def test_log_says_how_much_of_the_set_is_in_the_bag(path, monkeypatch):
  lines = []
  monkeypatch.setattr(
    logging, 'info', lambda text, *values: lines.append(text % values)
  )
  _ids(_params(path), 1)
  files = {name.split(':')[0] for name in _bag(_SEED)}
  assert (
    f'bagging_seed {_SEED} draws 5 files, {len(files)} of them distinct '
    f'({len(files) * 20}.0%).'
  ) in lines


def test_baseline_counts_the_whole_set(path):
  task = tiny.experiment(
    {
      'task': {
        'train_data': {'input_path': path, 'bagging_seed': _SEED},
        'validation_data': {'input_path': path},
      }
    }
  ).task
  assert baseline.class_frequency(task)['train_videos'] == sum(_COUNTS)
