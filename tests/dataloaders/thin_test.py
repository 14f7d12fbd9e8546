"""Tests of thinned records: what they hold, and how they are read."""

import os

import frame_readers
import numpy as np
import paths
import processes
import pytest
import records as records_lib
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.configs import model
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import reader as reader_lib
from yt8m_distill.dataloaders import thin

_LENGTHS = (1, 2, 9, 10, 11, 20, 57, 299, 300, 301, 350)


def _videos(lengths=_LENGTHS):
  return [
    frame_readers.record(n, labels=(n % 50, 3), seed=n, context={'id': b'video %d' % n})
    for n in lengths
  ]


def _thinned(video, every_n=10, max_frames=300):
  return thin.thin_record(video.SerializeToString(), every_n, max_frames, 'x')


def _assert_equal(one, other):
  assert one.keys() == other.keys()
  for key, values in one.items():
    assert values.dtype == other[key].dtype
    np.testing.assert_array_equal(values, other[key])


@pytest.mark.parametrize(
  'selection',
  [
    frame_readers.every(10),
    frame_readers.every(10, 'original'),
    frame_readers.every(30),
    frame_readers.every(20, 'original'),
    frame_readers.every(300),
  ],
)
def test_a_student_gets_the_same_from_thinned_records(selection):
  reader = frame_readers.reader(selection=selection, with_ids=True, with_seeds=True)
  full = _videos()
  inputs, labels = frame_readers.read(reader, *full)
  assert inputs['num_frames'].max() == -(-300 // selection.uniform.every_n)
  thinned = [_thinned(video) for video in full]
  for records in (thinned, thinned[:5] + full[5:]):  # All or some of them.
    again, labels_again = frame_readers.read(reader, *records)
    _assert_equal(inputs, again)
    np.testing.assert_array_equal(labels, labels_again)


def test_a_shorter_student_reads_records_of_a_longer_one():
  reader = frame_readers.reader(
    max_frames=60, selection=frame_readers.every(10), with_lengths=True
  )
  full = _videos()
  _assert_equal(
    frame_readers.read(reader, *full)[0],
    frame_readers.read(reader, *map(_thinned, full))[0],
  )


@pytest.mark.parametrize('form', ['floats', 'float32_bytes'])
def test_float_features_are_thinned(form):
  features = [data.Feature(name='rgb', size=3, format=form)]
  frames = [np.array([n, n + 0.5, -n], '<f4') for n in range(25)]
  if form == 'float32_bytes':
    frames = [frame.tobytes() for frame in frames]
  video = records_lib.frame_level({'rgb': frames})
  reader = reader_lib.FrameReader(
    features, 300, 50, frame_readers.every(10), with_labels=False
  )
  inputs, _ = frame_readers.read(reader, video)
  assert list(inputs['num_frames']) == [3]
  _assert_equal(inputs, frame_readers.read(reader, _thinned(video))[0])


def test_everything_else_is_unchanged():
  video = frame_readers.record(
    57, labels=(7, 300, 7), context={'id': b'abcd', 'other': bytes(range(256))}
  )
  thinned = tf.train.SequenceExample.FromString(_thinned(video))
  context = thinned.context.feature
  assert list(context['every_n'].int64_list.value) == [10]
  assert list(context['every_n/num_frames'].int64_list.value) == [57]
  for name in frame_readers.FEATURES:
    assert list(thinned.feature_lists.feature_list[name].feature) == list(
      video.feature_lists.feature_list[name].feature[::10]
    )
  del context['every_n'], context['every_n/num_frames']
  assert thinned.context.SerializeToString(
    deterministic=True
  ) == video.context.SerializeToString(deterministic=True)


def _first(kind, k):
  frames = model.FrameSelection(type=kind)
  frames.uniform.every_n = 0
  frames.get().k = k
  return frames


@pytest.mark.parametrize(
  'selection, wanted',
  [
    (frame_readers.ALL, 'type all'),
    (frame_readers.every(1), 'every_n=1'),
    (
      frame_readers.every(5),
      'every_n=5. Set input_path to the full records, or to '
      'records thinned with --every_n=5',
    ),
    (frame_readers.every(15), 'every_n=15'),
    (_first('uniform', 30), 'type uniform with k=30'),
    (_first('random', 5), 'type random with k=5'),
    (_first('first', 1), 'type first with k=1'),
  ],
)
def test_any_other_selection_is_refused(selection, wanted):
  with pytest.raises(
    tf.errors.InvalidArgumentError,
    match=(
      r'/data/train07.tfrecord, record 1 \(id video 57\): thinned with '
      f'every_n=10, but .*{wanted}'
    ),
  ):
    frame_readers.read(
      frame_readers.reader(selection=selection),
      frame_readers.record(20),
      _thinned(_videos([57])[0]),
    )


def test_records_cut_too_early_are_refused():
  reader = frame_readers.reader(selection=frame_readers.every(10))
  short, long = (_thinned(video, max_frames=200) for video in _videos([90, 250]))
  assert frame_readers.read(reader, short)[0]['num_frames'] == [9]
  with pytest.raises(
    tf.errors.InvalidArgumentError,
    match=(
      'id video 250.: thinned with every_n=10 to 20 frames of 250, too few for '
      'max_frames=300. Thin .* --max_frames=300'
    ),
  ):
    frame_readers.read(reader, long)


@pytest.fixture(name='source')
def _source(tmp_path):
  """Three shards; returns their pattern."""
  (tmp_path / 'full').mkdir()
  for shard in range(3):
    records_lib.write(
      tmp_path / 'full' / f'train{shard}.tfrecord', _videos(range(20 + shard, 60, 3))
    )
  return f'{tmp_path}/full/train*.tfrecord'


def _contents(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def _batches(path):
  params = data.VideoData(
    input_path=path, is_training=False, global_batch_size=16, drop_remainder=False
  )
  return list(
    pipeline.build(
      params, frame_readers.reader(selection=frame_readers.every(10), with_ids=True)
    ).as_numpy_iterator()
  )


@pytest.mark.end_to_end
def test_the_command_and_the_batches(source, tmp_path):
  out = tmp_path / 'out'
  done = processes.forked(
    *('-m', 'yt8m_distill.dataloaders.thin'),
    f'--input_path={source}',
    f'--output_dir={out}',
  )
  names = [f'train{shard}.tfrecord' for shard in range(3)]
  assert sorted(os.listdir(out)) == ['thin.json', *names]
  size = sum(os.path.getsize(out / name) for name in names)
  assert done.stdout == f'{out}: 3 shards, {size:,} bytes.\n'
  assert 'Thinning: 100%' in done.stderr
  assert size < 0.3 * sum(os.path.getsize(f'{tmp_path}/full/{name}') for name in names)
  # The number of processes changes nothing.
  alone = tmp_path / 'alone'
  thin.thin(source, str(alone), workers=1)
  assert _contents(alone) == _contents(out)
  batches = _batches(source), _batches(f'{out}/*.tfrecord')
  assert len(batches[0]) == len(batches[1]) == 3
  for one, other in zip(*batches):
    _assert_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])


def test_resumes_where_it_stopped_and_refuses_other_settings(source, tmp_path):
  out = tmp_path / 'out'
  paths = thin.thin(source, str(out), workers=1)
  whole = _contents(out)
  os.remove(paths[1])
  (out / 'train0.tfrecord').write_bytes(b'kept')
  (out / 'train1.tfrecord.0123abcd.partial').write_bytes(b'cut off')
  assert thin.thin(source, str(out), workers=1) == paths
  assert _contents(out) == {**whole, 'train0.tfrecord': b'kept'}
  for change in (
    dict(every_n=5),
    dict(max_frames=200),
    dict(skip_corrupt_records=True),
  ):
    [name] = change
    with pytest.raises(ValueError, match=f'thin.json records another job: {name} is '):
      thin.thin(source, str(out), **change)
  (out / 'thin.json').unlink()
  with pytest.raises(ValueError, match='train0.tfrecord exists, but no '):
    thin.thin(source, str(out))


@pytest.mark.end_to_end
def test_corrupt_shards(source, tmp_path):
  path = tmp_path / 'full' / 'train1.tfrecord'
  content = bytearray(path.read_bytes())
  content[20] ^= 0xFF
  path.write_bytes(content)
  out = tmp_path / 'out'
  with pytest.raises(
    ValueError,
    match='train1.tfrecord: unreadable from byte 0 of .*skip_corrupt_records',
  ) as error:
    thin.thin(source, str(out), workers=2)
  assert '\n' not in str(error.value)
  assert not (out / 'train1.tfrecord').exists()
  paths = thin.thin(
    source, str(tmp_path / 'left'), skip_corrupt_records=True, workers=1
  )
  counts = [len(records_lib.read(p)) for p in paths]
  assert counts == [14, 12, 13]


def _uneven():
  video = frame_readers.record(5)
  del video.feature_lists.feature_list['rgb'].feature[0]
  return video


@pytest.mark.parametrize(
  'make, message',
  [
    (lambda: _thinned(frame_readers.record(30)), 'every_n, so it was thinned before'),
    (_uneven, "{'audio': 5, 'rgb': 4} frames"),
    (lambda: frame_readers.record(0), 'frames, but must have the same number'),
    (
      lambda: tf.train.SequenceExample(context=frame_readers.record().context),
      'no frame-level features',
    ),
    (lambda: b'\xff\xff nonsense', 'not a tf.train.SequenceExample'),
  ],
)
def test_records_that_cannot_be_thinned_are_named(tmp_path, make, message):
  path = records_lib.write(tmp_path / 'x.tfrecord', [frame_readers.record(), make()])
  with pytest.raises(ValueError, match=f'{path}, record 1: .*{message}'):
    thin.thin(path, str(tmp_path / 'out'))
  assert not (tmp_path / 'out' / 'x.tfrecord').exists()


def test_real_video_level_records_are_refused(tmp_path):
  path = paths.VIDEO_LEVEL[0]
  with pytest.raises(
    ValueError, match='validate0000.tfrecord, record 0: no frame-level features'
  ):
    thin.thin(str(path), str(tmp_path / 'out'))


def test_real_record(tmp_path):
  path = str(paths.FRAME_LEVEL)
  [thinned] = thin.thin(path, str(tmp_path / 'out'))
  assert 9 < os.path.getsize(path) / os.path.getsize(thinned) < 11
  reader = frame_readers.reader(
    {'rgb': 1024, 'audio': 128},
    num_classes=3862,
    selection=frame_readers.every(10, 'original'),
  )
  (full, _), (again, _) = (
    frame_readers.read(reader, *records_lib.read(p)) for p in (path, thinned)
  )
  assert full['num_frames'] == [17]
  _assert_equal(full, again)


@pytest.mark.parametrize(
  'arguments, message',
  [
    (dict(every_n=1), 'every_n is 1: it must be between 2 and max_frames'),
    (dict(every_n=11, max_frames=10), 'every_n is 11'),
    (dict(input_path='/absent*'), 'no file matches'),
  ],
)
def test_bad_arguments(source, tmp_path, arguments, message):
  with pytest.raises(ValueError, match=message):
    thin.thin(
      **{'input_path': source, 'output_dir': str(tmp_path / 'out'), **arguments}
    )
  assert not (tmp_path / 'out').exists()


def test_shards_of_one_name_are_refused(source, tmp_path):
  other = records_lib.write(tmp_path / 'train1.tfrecord', [])
  with pytest.raises(ValueError, match='have the same name'):
    thin.thin(f'{source},{other}', str(tmp_path / 'out'))
