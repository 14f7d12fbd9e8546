"""Tests of the order, completeness and resumption of the input pipeline."""

import itertools

import golden_cases
import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.configs import model
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import reader as reader_lib
from yt8m_distill.dataloaders import shards

_COUNTS = (3, 7, 1, 5)  # Records of each shard.
_TOTAL = sum(_COUNTS)


def _record(number, size=2, label=0):
  record = tf.train.SequenceExample()
  record.context.feature['id'].bytes_list.value.append(b'%d' % number)
  record.context.feature['labels'].int64_list.value.append(label)
  frames = record.feature_lists.feature_list['rgb'].feature
  for _ in range(1 + number % 3):
    frames.add().bytes_list.value.append(bytes([number]) * size)
  return record.SerializeToString()


def _write(folder, counts=_COUNTS):
  number = 0
  for shard, count in enumerate(counts):
    with tf.io.TFRecordWriter(str(folder / f'{shard}.tfrecord')) as writer:
      for _ in range(count):
        writer.write(_record(number))
        number += 1
  return str(folder / '*.tfrecord')


@pytest.fixture(scope='module', name='path')
def _path(tmp_path_factory):
  return _write(tmp_path_factory.mktemp('shards'))


def _params(path, training, batch=4, **kwargs):
  kwargs = {
    'drop_remainder': training,
    'shuffle_buffer_size': 5,
    'seed': 1,
    'cycle_length': 3,
    **kwargs,
  }
  return data.VideoData(
    input_path=path, is_training=training, global_batch_size=batch, **kwargs
  )


def _reader(size=2):
  return reader_lib.FrameReader(
    [data.Feature(name='rgb', size=size)], 3, 4, model.FrameSelection(), with_ids=True
  )


def _context(pipelines=1, number=0, replicas=None):
  return tf.distribute.InputContext(pipelines, number, replicas or pipelines)


def _batches(params, count=None, context=None, start_step=0):
  """Ids of the records, batch by batch."""
  dataset = pipeline.build(params, _reader(), context, start_step)
  if count is not None:
    dataset = dataset.take(count)
  batches = []
  for inputs, labels in dataset.as_numpy_iterator():
    ids = [int(video_id) for video_id in inputs['id']]
    assert inputs['frames'].shape == (len(ids), 3, 2)
    assert labels.shape == (len(ids), 4) and labels[:, 0].all()
    # The example belongs to its id: nothing is shuffled apart.
    assert [f.max() for f in inputs['frames']] == ids
    assert list(inputs['num_frames']) == [1 + i % 3 for i in ids]
    batches.append(ids)
  return batches


def _flat(batches):
  return list(itertools.chain.from_iterable(batches))


@pytest.mark.parametrize('cache', [False, True])
@pytest.mark.parametrize('batch', [1, 5, 16])
def test_evaluation_is_in_order_and_complete(path, batch, cache):
  batches = _batches(_params(path, False, batch, cache=cache))
  assert _flat(batches) == list(range(_TOTAL))
  assert [len(b) for b in batches[:-1]] == [batch] * (len(batches) - 1)


@pytest.mark.parametrize('pipelines, batch', [(2, 6), (2, 40), (5, 10)])
def test_pipelines_share_the_evaluation(path, pipelines, batch):
  parts = [
    _batches(_params(path, False, batch), None, _context(pipelines, i))
    for i in range(pipelines)
  ]
  assert sorted(_flat(map(_flat, parts))) == list(range(_TOTAL))
  for part in parts:
    assert _flat(part) == sorted(_flat(part))
    assert all(len(b) <= batch // pipelines for b in part)


def test_replicas_share_a_batch(path):
  batches = _batches(_params(path, False, 8), None, _context(1, 0, 4))
  assert [len(b) for b in batches] == [2] * 8


@pytest.mark.parametrize('cache', [False, True])
def test_training_order_is_a_function_of_seed_and_epoch(path, cache):
  def epochs(seed):
    order = _flat(_batches(_params(path, True, seed=seed, cache=cache), 12))
    return [order[i * _TOTAL : (i + 1) * _TOTAL] for i in range(3)]

  first = epochs(1)
  for epoch in first:
    assert sorted(epoch) == list(range(_TOTAL))
  assert first[0] != first[1] != first[2] != first[0]
  assert epochs(1) == first
  assert epochs(2)[0] != first[0]


@pytest.mark.parametrize('cache', [False, True])
def test_dealt_batches_are_together_those_of_one_pipeline(path, cache):
  params = _params(path, True, 10, cache=cache)  # No epoch is whole batches.
  whole = _batches(params, 12)
  for start in (0, 7):
    parts = [_batches(params, 5, _context(5, i), start) for i in range(5)]
    for batch, shares in zip(whole[start:], zip(*parts)):
      assert sorted(_flat(shares)) == sorted(batch)


@pytest.mark.parametrize('pipelines', [2, 5])
def test_pipelines_share_each_training_epoch(path, pipelines):
  params = _params(path, True, pipelines, shuffle_buffer_size=3)
  # Batches of 1: as many as the pipelines' shares of one epoch, at least.
  parts = [
    _flat(_batches(params, 3 * _TOTAL, _context(pipelines, i)))
    for i in range(pipelines)
  ]
  if pipelines > len(_COUNTS):  # Records are dealt: shares are known.
    parts = [part[: len(range(i, _TOTAL, pipelines))] for i, part in enumerate(parts)]
    assert sorted(_flat(parts)) == list(range(_TOTAL))
  else:  # Files are dealt, anew in each epoch.
    for part in parts:
      assert set(part) == set(range(_TOTAL))


@pytest.mark.parametrize(
  'batch, known, cache',
  [
    (4, _TOTAL, False),  # 4 divides an epoch, 7 does not.
    (7, _TOTAL, False),
    (7, 0, False),
    (4, 0, True),
    (7, _TOTAL, True),
  ],
)
def test_resumed_training_goes_on_where_it_stopped(path, batch, known, cache):
  params = _params(path, True, batch, num_examples=known, cache=cache)
  whole = _batches(params, 14)  # More than three epochs.
  for start in (3, 9):  # Within the first epoch, and in a later one.
    assert _batches(params, 4, None, start) == whole[start : start + 4]


@pytest.mark.parametrize('pipelines, known', [(2, _TOTAL), (5, 0), (5, _TOTAL)])
def test_each_resumed_pipeline_goes_on(path, pipelines, known):
  params = _params(path, True, 2 * pipelines, num_examples=known)
  for i in (0, pipelines - 1):
    context = _context(pipelines, i)
    whole = _batches(params, 12, context)
    assert _batches(params, 4, context, 7) == whole[7:11]


def test_known_length_spares_whole_epochs(path):
  params = _params(path, True, num_examples=_TOTAL)
  paths = shards.find(path)
  files = list(zip(paths, shards.sizes(paths)))
  source = pipeline._Source(params, files, _context(), 1001, False)
  assert source._start_epoch == 1001 * 4 // _TOTAL
  assert source._skip == 1001 * 4 % _TOTAL
  unsure = params.replace(skip_corrupt_records=True)
  source = pipeline._Source(unsure, files, _context(), 1001, False)
  assert source._start_epoch == 0


def test_tf_data_service_delivers_every_record(path):
  service = tf.data.experimental.service
  dispatcher = service.DispatchServer()
  worker = service.WorkerServer(
    service.WorkerConfig(dispatcher_address=dispatcher.target.split('://')[1])
  )
  params = _params(
    path, True, enable_tf_data_service=True, tf_data_service_address=dispatcher.target
  )
  ids = _flat(_batches(params, 8))
  assert sorted(ids[:_TOTAL]) == list(range(_TOTAL))
  assert sorted(ids[_TOTAL:]) == list(range(_TOTAL))
  assert ids[:_TOTAL] != ids[_TOTAL:]
  del worker


@pytest.mark.parametrize('training', [False, True])
def test_garden_fields_are_handed_on(path, training):
  params = _params(
    path,
    training,
    deterministic=False,
    ram_budget=1,
    prefetch_buffer_size=2,
    autotune_algorithm='HILL_CLIMB',
    block_length=2,
  )
  assert set(_flat(_batches(params, 8))) == set(range(_TOTAL))


@pytest.mark.parametrize('how', ['length', 'payload'])
def test_corrupt_shard(tmp_path, how):
  path = _write(tmp_path, (4, 4))
  broken = tmp_path / '0.tfrecord'
  content = bytearray(broken.read_bytes())
  offset = sum(16 + len(_record(i)) for i in range(2))
  content[offset + {'length': 1, 'payload': 20}[how]] ^= 0xFF
  broken.write_bytes(bytes(content))
  for training in (False, True):
    with pytest.raises(
      tf.errors.InvalidArgumentError,
      match=f'{broken}: unreadable from byte {offset} of',
    ):
      _batches(_params(path, training, 1), 8)
  left = {'length': [0, 1, 4, 5, 6, 7], 'payload': [0, 1, 3, 4, 5, 6, 7]}[how]
  before = shards.skipped()
  lenient = _params(path, False, 1, skip_corrupt_records=True)
  assert _flat(_batches(lenient)) == left
  after = shards.skipped()
  assert (after.records - before.records, after.shard_tails - before.shard_tails) == {
    'length': (0, 1),
    'payload': (1, 0),
  }[how]
  lenient = _params(path, True, 1, skip_corrupt_records=True)
  epochs = _flat(_batches(lenient, 2 * len(left)))
  assert sorted(epochs) == sorted(2 * left)


@pytest.mark.parametrize('pipelines', [2, 3])
def test_what_pipelines_leave_out_counts_once(tmp_path, pipelines):
  path = _write(tmp_path, (4, 4))
  broken = tmp_path / '0.tfrecord'
  content = bytearray(broken.read_bytes())
  content[20] ^= 0xFF
  broken.write_bytes(bytes(content))
  before = shards.skipped()
  params = _params(path, False, 6, skip_corrupt_records=True)
  parts = [_batches(params, None, _context(pipelines, i)) for i in range(pipelines)]
  assert sorted(_flat(map(_flat, parts))) == list(range(1, 8))
  assert before + shards.Skipped(records=1) == shards.skipped()


def test_empty_shard(tmp_path):
  path = _write(tmp_path, (2,))
  (tmp_path / 'empty.tfrecord').touch()
  with pytest.raises(ValueError, match='empty.tfrecord: empty, 0 bytes'):
    _batches(_params(path, False))
  lenient = _params(path, False, skip_corrupt_records=True)
  assert _batches(lenient) == [[0, 1]]


def test_nothing_readable(tmp_path):
  (tmp_path / 'text.tfrecord').write_text('These are no records at all.')
  for skip in (False, True):
    with pytest.raises(ValueError, match='text.tfrecord.* no record can'):
      _batches(_params(str(tmp_path / '*'), False, skip_corrupt_records=skip))


def test_bad_record_is_named(tmp_path):
  with tf.io.TFRecordWriter(str(tmp_path / 'a.tfrecord')) as writer:
    writer.write(_record(0))
    writer.write(_record(1, label=9))
  with pytest.raises(
    tf.errors.InvalidArgumentError, match=r'a.tfrecord, record 1 \(id 1\): labels are 9'
  ):
    _batches(_params(str(tmp_path / '*'), False))


@golden_cases.needs_shared
@pytest.mark.parametrize(
  'name, message',
  [
    ('malformed/float_features', "'rgb' is a float_list"),
    ('2/video/validate/validate0000', 'video-level'),
  ],
)
def test_other_formats_are_told_at_once(name, message):
  path = golden_cases.SHARED / 'data/yt8m' / f'{name}.tfrecord'
  with pytest.raises(ValueError, match=message):
    pipeline.build(_params(str(path), True), _reader())


@pytest.mark.parametrize(
  'input_path, message',
  [('', 'input_path is empty'), ('/absent/x*', 'no file matches')],
)
def test_paths_that_name_no_file(path, input_path, message):
  with pytest.raises(ValueError, match=message):
    pipeline.build(_params(path, False).replace(input_path=input_path), _reader())


def test_contexts_that_cannot_be_honoured(path):
  with pytest.raises(ValueError, match='3 replicas cannot share'):
    pipeline.build(_params(path, True), _reader(), _context(1, 0, 3))
  with pytest.raises(ValueError, match='sharding is False'):
    pipeline.build(_params(path, False, sharding=False), _reader(), _context(2))
  with pytest.raises(ValueError, match='start_step is 2'):
    pipeline.build(_params(path, False), _reader(), start_step=2)
  with pytest.raises(ValueError, match='start_step is -1'):
    pipeline.build(_params(path, True), _reader(), start_step=-1)


def test_padding_is_zero(path):
  [(inputs, _)] = pipeline.build(
    _params(path, False, 100), _reader()
  ).as_numpy_iterator()
  padding = np.arange(3) >= inputs['num_frames'][:, np.newaxis]
  assert padding.any() and not inputs['frames'][padding].any()
