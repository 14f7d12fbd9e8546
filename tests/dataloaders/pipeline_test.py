"""Tests of the order, completeness and resumption of the input pipeline."""

import itertools

import numpy as np
import paths
import pytest
import records
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.configs import model
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import reader as reader_lib
from yt8m_distill.dataloaders import skipped

_COUNTS = (3, 7, 1, 5)  # Records of each shard.
_TOTAL = sum(_COUNTS)


def _record(number, label=0):
  frames = [bytes([number]) * 2] * (1 + number % 3)
  return records.frame_level({'rgb': frames}, [label], id=b'%d' % number)


def _write(folder, counts=_COUNTS):
  return records.write_shards(folder, counts, _record)


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
  """Returns the ids of the records of each batch."""
  dataset = pipeline.build(params, _reader(), context, start_step)
  if count is not None:
    dataset = dataset.take(count)
  batches = []
  for inputs, labels in dataset.as_numpy_iterator():
    ids = [int(video_id) for video_id in inputs['id']]
    assert inputs['frames'].shape == (len(ids), 3, 2)
    assert labels.shape == (len(ids), 4) and labels[:, 0].all()
    # Frames and labels belong to the id.
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


@pytest.mark.end_to_end
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


@pytest.mark.end_to_end
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


@pytest.mark.end_to_end
@pytest.mark.parametrize('cache', [False, True])
def test_divided_batches_are_together_those_of_one_pipeline(path, cache):
  params = _params(path, True, 10, cache=cache)  # Batches do not divide an epoch.
  whole = _batches(params, 12)
  for start in (0, 7):
    parts = [_batches(params, 5, _context(5, i), start) for i in range(5)]
    for batch, shares in zip(whole[start:], zip(*parts)):
      assert sorted(_flat(shares)) == sorted(batch)


@pytest.mark.end_to_end
@pytest.mark.parametrize('pipelines', [2, 5])
def test_pipelines_share_each_training_epoch(path, pipelines):
  params = _params(path, True, pipelines, shuffle_buffer_size=3)
  # Batches of 1, enough for more than an epoch of each pipeline.
  parts = [
    _flat(_batches(params, 3 * _TOTAL, _context(pipelines, i)))
    for i in range(pipelines)
  ]
  if pipelines > len(_COUNTS):  # Records are divided, so shares are known.
    parts = [part[: len(range(i, _TOTAL, pipelines))] for i, part in enumerate(parts)]
    assert sorted(_flat(parts)) == list(range(_TOTAL))
  else:  # Files are divided, differently in each epoch.
    for part in parts:
      assert set(part) == set(range(_TOTAL))


@pytest.mark.end_to_end
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
def test_resumed_training_continues_where_it_stopped(path, batch, known, cache):
  params = _params(path, True, batch, num_examples=known, cache=cache)
  whole = _batches(params, 14)  # More than three epochs.
  for start in (3, 9):  # Within the first epoch, and in a later one.
    assert _batches(params, 4, None, start) == whole[start : start + 4]


@pytest.mark.end_to_end
@pytest.mark.parametrize('pipelines, known', [(2, _TOTAL), (5, 0), (5, _TOTAL)])
def test_each_resumed_pipeline_continues(path, pipelines, known):
  params = _params(path, True, 2 * pipelines, num_examples=known)
  for i in (0, pipelines - 1):
    context = _context(pipelines, i)
    whole = _batches(params, 12, context)
    assert _batches(params, 4, context, 7) == whole[7:11]


def test_known_length_spares_whole_epochs(path):
  params = _params(path, True, num_examples=_TOTAL)
  files = pipeline._find_files(params, _reader())

  def position(params):
    source = pipeline._RecordSource(params, files, _context(), 1001, False)
    return source._start_epoch, source._skip

  assert position(params) == divmod(1001 * 4, _TOTAL)
  assert position(params.replace(skip_corrupt_records=True)) == (0, 1001 * 4)


@pytest.fixture(name='service')
def _service(data_service):
  """Fields that use a tf.data service of one worker."""
  return {'enable_tf_data_service': True, 'tf_data_service_address': data_service}


def test_tf_data_service_delivers_every_record(path, service):
  ids = _flat(_batches(_params(path, True, **service), 8))
  assert sorted(ids[:_TOTAL]) == list(range(_TOTAL))
  assert sorted(ids[_TOTAL:]) == list(range(_TOTAL))
  assert ids[:_TOTAL] != ids[_TOTAL:]


@pytest.mark.parametrize('before_batching', [False, True])
def test_trainers_can_share_the_work_of_a_tf_data_service(
  path, service, before_batching
):
  fields = {
    **service,
    'enable_shared_tf_data_service_between_parallel_trainers': True,
    'apply_tf_data_service_before_batching': before_batching,
    'cache': before_batching,
  }
  one, other = (_batches(_params(path, True, trainer_id=t, **fields), 8) for t in 'ab')
  assert one == other
  assert set(_flat(one)) == set(range(_TOTAL))


@pytest.mark.parametrize('training', [False, True])
def test_tf_data_options_are_set(path, training):
  params = _params(
    path,
    training,
    deterministic=False,
    ram_budget=1,
    prefetch_buffer_size=2,
    autotune_algorithm='HILL_CLIMB',
    block_length=2,
  )
  options = pipeline.build(params, _reader()).options()
  assert options.deterministic is False
  assert options.autotune.autotune_algorithm.name == 'HILL_CLIMB'
  assert options.autotune.ram_budget == 1 << 30
  assert set(_flat(_batches(params, 8))) == set(range(_TOTAL))
  assert pipeline.build(_params(path, training), _reader()).options().deterministic


@pytest.mark.end_to_end
@pytest.mark.parametrize('how', ['length', 'payload'])
def test_corrupt_shard(tmp_path, how):
  path = _write(tmp_path, (4, 4))
  broken = tmp_path / '0.tfrecord'
  content = bytearray(broken.read_bytes())
  offset = sum(16 + _record(i).ByteSize() for i in range(2))
  content[offset + {'length': 1, 'payload': 20}[how]] ^= 0xFF
  broken.write_bytes(bytes(content))
  for training in (False, True):
    with pytest.raises(
      tf.errors.InvalidArgumentError,
      match=f'{broken}: unreadable from byte {offset} of',
    ):
      _batches(_params(path, training, 1), 8)
  left = {'length': [0, 1, 4, 5, 6, 7], 'payload': [0, 1, 3, 4, 5, 6, 7]}[how]
  before = skipped.total()
  lenient = _params(path, False, 1, skip_corrupt_records=True)
  assert _flat(_batches(lenient)) == left
  after = skipped.total()
  assert (after.records - before.records, after.shard_tails - before.shard_tails) == {
    'length': (0, 1),
    'payload': (1, 0),
  }[how]
  lenient = _params(path, True, 1, skip_corrupt_records=True)
  epochs = _flat(_batches(lenient, 2 * len(left)))
  assert sorted(epochs) == sorted(2 * left)


@pytest.mark.end_to_end
@pytest.mark.parametrize('pipelines', [2, 3])
def test_skipped_records_count_once_among_pipelines(tmp_path, pipelines):
  path = _write(tmp_path, (4, 4))
  broken = tmp_path / '0.tfrecord'
  content = bytearray(broken.read_bytes())
  content[20] ^= 0xFF
  broken.write_bytes(bytes(content))
  before = skipped.total()
  params = _params(path, False, 6, skip_corrupt_records=True)
  parts = [_batches(params, None, _context(pipelines, i)) for i in range(pipelines)]
  assert sorted(_flat(map(_flat, parts))) == list(range(1, 8))
  assert before + skipped.Skipped(records=1) == skipped.total()


def test_empty_shard(tmp_path):
  path = _write(tmp_path, (2,))
  (tmp_path / 'empty.tfrecord').touch()
  with pytest.raises(ValueError, match='empty.tfrecord: the file is empty'):
    _batches(_params(path, False))
  lenient = _params(path, False, skip_corrupt_records=True)
  assert _batches(lenient) == [[0, 1]]


def test_files_without_readable_record(tmp_path):
  (tmp_path / 'text.tfrecord').write_text('These are no records at all.')
  for skip in (False, True):
    with pytest.raises(
      ValueError,
      match='input_path is .* 1 files.* readable record.*text.tfrecord: .* a text file',
    ):
      _batches(_params(str(tmp_path / '*'), False, skip_corrupt_records=skip))


def test_bad_record_is_named(tmp_path):
  records.write(tmp_path / 'a.tfrecord', [_record(0), _record(1, label=9)])
  with pytest.raises(
    tf.errors.InvalidArgumentError, match=r'a.tfrecord, record 1 \(id 1\): labels are 9'
  ):
    _batches(_params(str(tmp_path / '*'), False))


@pytest.mark.parametrize(
  'path, message',
  [
    (paths.REAL / 'float_features.tfrecord', "'rgb' is stored as float_list"),
    (paths.VIDEO_LEVEL[0], 'video-level'),
  ],
)
def test_other_formats_are_explained_when_building(path, message):
  with pytest.raises(ValueError, match=message):
    pipeline.build(_params(str(path), True), _reader())


@pytest.mark.parametrize(
  'input_path, message',
  [('', 'input_path is empty'), ('/absent/x*', 'no file matches')],
)
def test_paths_that_name_no_file(path, input_path, message):
  with pytest.raises(ValueError, match=message):
    pipeline.build(_params(path, False).replace(input_path=input_path), _reader())


def test_invalid_contexts(path):
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
