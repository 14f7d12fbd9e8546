"""Tests of the seeds of videos, from records to the frames that networks see.

Frame i of a video begins with the byte i, so that frames tell which were
chosen.
"""

import numpy as np
import pytest
import records
import tensorflow as tf
import tiny

from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import reader as reader_lib
from yt8m_distill.modeling import distiller

pytestmark = pytest.mark.end_to_end

_COUNTS = (4, 1, 6)  # videos of each shard
_TOTAL = sum(_COUNTS)
_T, _K = 30, 4
_FEATURES = [data.Feature(name='rgb', size=2)]
_ALL = model_config.FrameSelection()
_RANDOM = model_config.FrameSelection(
  type='random', random=model_config.SomeFrames(k=_K)
)


def _record(number):
  length = 2 if number == 3 else 20 + number
  return records.frame_level(
    {'rgb': [[i, 255 - 8 * i] for i in range(length)]}, [0], id=b'%d' % number
  )


@pytest.fixture(name='path', scope='module')
def _path(tmp_path_factory):
  return records.write_shards(tmp_path_factory.mktemp('shards'), _COUNTS, _record)


def _params(path, training, **kwargs):
  return data.VideoData(
    **{
      'input_path': path,
      'is_training': training,
      'seed': 1,
      'global_batch_size': 4,
      'drop_remainder': training,
      'shuffle_buffer_size': 5,
      'cycle_length': 2,
      **kwargs,
    }
  )


def _reader(frames=_RANDOM, **kwargs):
  return reader_lib.FrameReader(_FEATURES, _T, 3, frames, with_ids=True, **kwargs)


def _batches(params, count=-1, start_step=0, reader=None):
  return list(
    pipeline.build(params, reader or _reader(), start_step=start_step)
    .take(count)
    .as_numpy_iterator()
  )


def _read(reader, numbers, epoch_keys=None):
  """Reads one batch of the videos with these numbers, without a pipeline."""
  return reader(
    tf.fill([len(numbers)], 'other'),
    tf.range(len(numbers), dtype=tf.int64),
    tf.constant(records.serialize(map(_record, numbers))),
    epoch_keys,
  )


def _seen(batches):
  """Returns (id, selected frames) of each video."""
  videos = []
  for inputs, _ in batches:
    for name, frames, count in zip(
      *(np.asarray(inputs[key]) for key in ('id', 'frames', 'num_frames'))
    ):
      assert not frames[count:].any()
      videos.append((int(name), tuple(frames[:count, 0].tolist())))
  return videos


@pytest.fixture(name='evaluated', scope='module')
def _evaluated(path):
  return _seen(_batches(_params(path, False)))


def test_in_evaluation_draws_depend_on_the_id_only(path, evaluated):
  seen = evaluated
  assert [name for name, _ in seen] == list(range(_TOTAL))
  for number, frames in seen:
    assert len(frames) == (2 if number == 3 else _K)
    assert sorted(set(frames)) == list(frames) and max(frames) < 20 + number
  assert len({frames for _, frames in seen}) == _TOTAL
  assert (
    _seen(_batches(_params(path, False, global_batch_size=3, seed=7, cache=True)))
    == seen
  )
  # Draws do not depend on the position of a record.
  order = np.random.default_rng(0).permutation(_TOTAL)
  assert _seen([_read(_reader(), order)]) == [seen[i] for i in order]


@pytest.fixture(name='whole', scope='module')
def _whole(path):
  """More than three epochs of training."""
  return _seen(_batches(_params(path, True), 9))


def test_training_draws_differently_in_each_epoch(evaluated, whole):
  epochs = [dict(whole[i * _TOTAL : (i + 1) * _TOTAL]) for i in range(3)]
  for number in range(_TOTAL):
    draws = {epoch[number] for epoch in (*epochs, dict(evaluated))}
    assert len(draws) == (1 if number == 3 else 4)


def test_training_repeats_and_follows_the_seed(path, whole):
  # With another batch size.
  again = _seen(_batches(_params(path, True, global_batch_size=_TOTAL), 1))
  assert again == whole[:_TOTAL]
  other = dict(
    _seen(_batches(_params(path, True, global_batch_size=_TOTAL, seed=2), 1))
  )
  assert all(frames != other[number] for number, frames in again if number != 3)


@pytest.mark.parametrize('num_examples', [0, _TOTAL])
def test_resumed_training_draws_as_if_never_stopped(path, whole, num_examples):
  params = _params(path, True, num_examples=num_examples)
  for start in (2, 7):  # In the first epoch and in the third.
    assert _seen(_batches(params, 2, start)) == whole[4 * start : 4 * start + 8]


_FEWER = model_config.FrameSelection(type='random', random=model_config.SomeFrames(k=2))


@pytest.fixture(name='pair', scope='module')
def _pair():
  """A teacher that sees some frames, and a student fewer of them."""

  def network(frames):
    return model_config.Network(
      frames=frames,
      backbone=model_config.Backbone(
        hierarchical_lstm=model_config.HierarchicalLstm(
          chunks=2, num_cells=2, num_layers=1
        )
      ),
    )

  pair = distiller.build(
    model_config.DistillerModel(
      features=_FEATURES,
      max_frames=_T,
      num_classes=3,
      teacher=network(_RANDOM),
      student=network(_FEWER),
    )
  )
  tiny.scatter_weights(pair)
  return pair


@pytest.mark.parametrize('epoch_keys', [None, ['1', '2', '1', '2']])
def test_distiller_selects_the_same_frames_as_the_reader(pair, epoch_keys):
  every, teachers, students = (
    _read(reader, (0, 5, 6, 9), epoch_keys)[0]
    for reader in (_reader(_ALL, with_seeds=True), _reader(), _reader(_FEWER))
  )
  np.testing.assert_array_equal(every['seed'], teachers['seed'])
  every.pop('id')
  outputs = pair(every)
  for network, chosen in ((pair.teacher, teachers), (pair.student, students)):
    expected = network({k: chosen[k] for k in ('frames', 'num_frames')})
    actual = outputs[network.name]
    np.testing.assert_array_equal(actual['predictions'], expected['predictions'])
    assert len(np.unique(actual['predictions'], axis=0)) == 4
  for many, few in zip(_seen([(teachers, 0)]), _seen([(students, 0)])):
    assert set(few[1]) <= set(many[1])


def test_distiller_without_seeds_says_so(pair):
  with pytest.raises(ValueError, match='needs a seed for each video. Give inputs'):
    pair({'frames': tf.zeros([1, _T, 2], tf.uint8), 'num_frames': tf.constant([9])})


def test_seeds_are_added_only_if_requested():
  last = model_config.FrameSelection(type='last')
  assert not _reader(last).with_seeds and _reader().with_seeds
  for epoch_keys in (None, ['1'] * 4):
    assert 'seed' not in _read(_reader(last), range(4), epoch_keys)[0]
    seeds = _read(_reader(last, with_seeds=True), range(4), epoch_keys)[0]['seed']
    assert seeds.dtype == np.int32 and seeds.shape == [4]
    assert (seeds.numpy() >= 0).all()


def test_a_file_that_is_twice_in_the_bag_is_drawn_from_twice(path):
  """Seed 0 draws the files 2, 1, 1."""
  params = _params(
    path, True, bagging_seed=0, global_batch_size=8, shuffle_buffer_size=1
  )
  seen = _seen(_batches(params, 1))
  twice = [frames for number, frames in seen if number == 4]
  assert len(seen) == 8 and len(twice) == 2 and twice[0] != twice[1]


def test_training_refuses_to_cache_what_is_drawn(path):
  for reader in (_reader(), _reader(_ALL, with_seeds=True)):
    with pytest.raises(ValueError, match='cache is True.*False in train_data'):
      pipeline.build(_params(path, True, cache=True), reader)


def test_tf_data_service_draws_differently_in_each_epoch(path, data_service):
  seen = _seen(
    _batches(
      _params(
        path,
        True,
        enable_tf_data_service=True,
        global_batch_size=_TOTAL,
        tf_data_service_address=data_service,
      ),
      2,
    )
  )
  first, second = dict(seen[:_TOTAL]), dict(seen[_TOTAL:])
  assert len(first) == len(second) == _TOTAL
  # The order in which the worker sees the videos is random, and so are draws.
  assert sum(first[i] != second[i] for i in first) > _TOTAL // 2
