"""Tests of the reader: goldens, selection of frames, and invalid records."""

import re

import frame_readers
import numpy as np
import paths
import pytest
import records as records_lib
import tensorflow as tf

from yt8m_distill.configs import model
from yt8m_distill.dataloaders import record_writer
from yt8m_distill.modeling import frame_selection
from yt8m_distill.utils import cli

_KINDS = ('uniform', 'random', 'first', 'middle', 'last', 'first_middle_last')


def _some(kind):
  """Selects 9 frames."""
  frames = model.FrameSelection(type=kind)
  frames.uniform.every_n = 0
  frames.get().k = 9
  return frames


def _dequantize(frames, num_frames):
  real = np.arange(frames.shape[1]) < num_frames[:, np.newaxis]
  return np.where(real[..., np.newaxis], records_lib.dequantize(frames), 0)


@pytest.mark.golden
@pytest.mark.parametrize(
  'name, features, num_classes',
  [
    ('reader_small', frame_readers.FEATURES, 50),
    ('reader_full', {'rgb': 1024, 'audio': 128}, 4716),
  ],
)
def test_golden(name, features, num_classes):
  expected = np.load(paths.GOLDEN / 'reader_golden.npz')
  inputs, labels = frame_readers.read(
    frame_readers.reader(features, num_classes=num_classes, with_ids=True),
    *records_lib.read(paths.GOLDEN / f'{name}.tfrecord'),
  )
  assert list(inputs['id']) == list(expected[f'{name}/video_id'])
  np.testing.assert_array_equal(inputs['num_frames'], expected[f'{name}/num_frames'])
  np.testing.assert_array_equal(labels, expected[f'{name}/labels'])
  # The golden is float32: half a unit in the last place of 2.
  np.testing.assert_allclose(
    _dequantize(inputs['frames'], inputs['num_frames']),
    expected[f'{name}/matrix'],
    rtol=0,
    atol=3e-7,
  )


@pytest.mark.golden
@pytest.mark.parametrize(
  'name, message',
  [
    ('mismatch', 'rgb, audio have 10, 8 frames'),
    ('mismatch300', 'rgb, audio have 8, 10 frames'),
    ('zero', 'rgb, audio have 0, 0 frames'),
    ('label', 'labels are 50, but must be between 0 and 49'),
    ('neglabel', 'labels are -1, but must be between 0 and 49'),
    ('size', 'rgb has frames of 13 bytes, not 12'),
  ],
)
def test_invalid_records_are_named(name, message):
  records = records_lib.read(paths.GOLDEN / f'reader_odd_{name}.tfrecord')
  with pytest.raises(
    tf.errors.InvalidArgumentError,
    match=rf'/data/train07.tfrecord, record 1 \(id [a-z0-9]+\): {message}',
  ):
    frame_readers.read(frame_readers.reader(), frame_readers.record(), *records)


def test_real_record():
  inputs, labels = frame_readers.read(
    frame_readers.reader({'rgb': 1024, 'audio': 128}, num_classes=3862, with_ids=True),
    *records_lib.read(paths.FRAME_LEVEL),
  )
  assert inputs['frames'].shape == (1, 300, 1152)
  assert inputs['frames'].dtype == np.uint8
  assert inputs['num_frames'] == [170] and inputs['id'] == [b'SjJ3']
  assert list(np.flatnonzero(labels[0])) == [11]
  values = _dequantize(inputs['frames'], inputs['num_frames'])[0, :170]
  assert 0.9 < values.std(0).mean() < 1.1
  assert not inputs['frames'][0, 170:].any()


def test_real_record_with_float_features():
  path = paths.REAL / 'float_features.tfrecord'
  reader = frame_readers.reader({'rgb': 1024, 'audio': 128}, num_classes=3862)
  with pytest.raises(
    ValueError,
    match='float_features.tfrecord, record 0: '
    "feature 'rgb' is stored as float_list, but its format 'bytes'.*"
    'quantized_floats',
  ):
    reader.check(str(path), 0, records_lib.read(path)[0])
  with pytest.raises(
    tf.errors.InvalidArgumentError,
    match="train07.tfrecord, record 0: feature 'rgb' is stored as float_list, but ",
  ):
    frame_readers.read(reader, records_lib.read(path)[0])


def test_video_level_record_is_explained():
  path = paths.VIDEO_LEVEL[0]
  with pytest.raises(
    ValueError, match="no frame-level feature 'rgb'.*mean_rgb.*video-level"
  ):
    frame_readers.reader().check(str(path), 0, records_lib.read(path)[0])


@pytest.mark.parametrize(
  'selection',
  [
    frame_readers.ALL,
    frame_readers.every(1),
    frame_readers.every(3),
    frame_readers.every(10),
    frame_readers.every(1, 'original'),
    frame_readers.every(10, 'original'),
    *map(_some, _KINDS),
  ],
)
def test_selecting_before_decoding_equals_selecting_after(selection):
  records = [frame_readers.record(n, seed=n) for n in (1, 2, 9, 10, 19, 20, 27)]
  every = frame_readers.read(
    frame_readers.reader(max_frames=20, with_seeds=True), *records
  )[0]
  chosen = frame_readers.read(
    frame_readers.reader(max_frames=20, selection=selection, with_lengths=True),
    *records,
  )[0]
  indices, count = frame_selection.frame_indices(
    tf.constant(every['num_frames']), selection, 20, every['seed']
  )
  np.testing.assert_array_equal(chosen['num_frames'], count)
  np.testing.assert_array_equal(chosen['length'], every['num_frames'])
  expected = tf.gather(every['frames'], indices, batch_dims=1).numpy()
  real = np.arange(expected.shape[1]) < count.numpy()[:, np.newaxis]
  if selection.type != 'all':
    expected[~real] = 0
  np.testing.assert_array_equal(chosen['frames'], expected)
  assert real.any()


def test_frames_are_joined_in_the_order_of_the_features():
  record = frame_readers.record(2)
  lists = record.feature_lists.feature_list
  inputs, _ = frame_readers.read(frame_readers.reader({'audio': 4, 'rgb': 12}), record)
  joined = (
    lists['audio'].feature[1].bytes_list.value[0]
    + lists['rgb'].feature[1].bytes_list.value[0]
  )
  assert inputs['frames'][0, 1].tobytes() == joined


def test_other_features_and_lengths():
  features = {'flow': 5}
  records = [frame_readers.record(n, features=features, seed=n) for n in (1, 4, 7)]
  inputs, _ = frame_readers.read(frame_readers.reader(features, max_frames=4), *records)
  assert inputs['frames'].shape == (3, 4, 5)
  assert list(inputs['num_frames']) == [1, 4, 4]
  cut = records[2].feature_lists.feature_list['flow'].feature
  for i in range(4):
    assert inputs['frames'][2, i].tobytes() == cut[i].bytes_list.value[0]
  assert not inputs['frames'][0, 1:].any()


def test_ids():
  inputs, _ = frame_readers.read(
    frame_readers.reader(with_ids=True),
    frame_readers.record(context={'id': b'new'}),
    frame_readers.record(context={'video_id': b'old'}),
    frame_readers.record(),
    frame_readers.record(context={'id': b'new', 'video_id': b'old'}),
  )
  assert list(inputs['id']) == [b'new', b'old', b'train07.tfrecord:2', b'new']
  assert (
    'id' not in frame_readers.read(frame_readers.reader(), frame_readers.record())[0]
  )


def test_labels():
  _, labels = frame_readers.read(
    frame_readers.reader(),
    frame_readers.record(labels=(3, 3, 49)),
    frame_readers.record(labels=()),
  )
  assert labels.dtype == bool and labels.shape == (2, 50)
  assert list(np.flatnonzero(labels[0])) == [3, 49] and not labels[1].any()


@pytest.mark.parametrize('context', [{'id': b'a'}, {}])
def test_record_without_labels(context):
  records = [frame_readers.record(), frame_readers.record(labels=None, context=context)]
  with pytest.raises(tf.errors.InvalidArgumentError, match='record 1 .*: no `labels`'):
    frame_readers.read(frame_readers.reader(), *records)
  # Labels are not even checked.
  _, labels = frame_readers.read(
    frame_readers.reader(with_labels=False),
    *records,
    frame_readers.record(labels=(99,)),
  )
  assert labels.shape == (3, 50) and not labels.any()


def test_all_problems_of_a_record_are_named():
  record = frame_readers.record(2, labels=(99,), features={'rgb': 11, 'audio': 5})
  with pytest.raises(
    tf.errors.InvalidArgumentError,
    match='labels are 99.*rgb has frames of 11 bytes.*audio has frames of 5 bytes',
  ):
    frame_readers.read(frame_readers.reader(), record)


def test_missing_feature_is_named_with_existing_ones():
  with pytest.raises(
    ValueError,
    match=r'x, record 4: no frame-level feature '
    r"'audio'. Its frame-level features are \['rgb'\].*task.model.features",
  ):
    frame_readers.reader().check(
      'x', 4, frame_readers.record(features={'rgb': 12}).SerializeToString()
    )


def test_record_that_is_no_protobuf():
  with pytest.raises(ValueError, match='x, record 0: not a tf.train.Sequence'):
    frame_readers.reader().check('x', 0, b'\xff\xff nonsense')


def _message(record, **kwargs):
  """Returns the message about a record that is refused in a graph."""
  # Each of many frames would be an operation of the graph.
  reader = frame_readers.reader(max_frames=20, **kwargs)
  records = tf.constant(records_lib.serialize([frame_readers.record(), record]))
  dataset = tf.data.Dataset.from_tensors(
    (tf.fill([2], '/data/train07.tfrecord'), tf.range(2, dtype=tf.int64), records)
  )
  with pytest.raises(tf.errors.InvalidArgumentError) as error:
    list(dataset.map(reader.read_explained))
  return cli.message(error.value)


def _several(*values):
  return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _with(**context):
  """A record with further features in its context; others are changed."""
  record = frame_readers.record()
  for key, value in context.items():
    value = (
      value if isinstance(value, tf.train.Feature) else record_writer.feature(value)
    )
    record.context.feature[key].CopyFrom(value)
  return record


def _rgb_in_context():
  record = _with(rgb=bytes(12))
  del record.feature_lists.feature_list['rgb']
  return record


@pytest.mark.parametrize('selection', [frame_readers.ALL, frame_readers.every(2)])
@pytest.mark.parametrize(
  'record, message',
  [
    (
      _with(id=_several(b'a', b'b', b'c')),
      r' \(id a\): id has 3 values, but must have',
    ),
    (_with(video_id=_several(b'a', b'b')), r' \(id a\): video_id has 2 values, but '),
    (
      _with(id=_several(b'a', b'b'), video_id=_several(b'c', b'd'), labels=[50]),
      r' \(id a\): labels are 50.* id has 2 values.* video_id has 2 values',
    ),
    (_with(every_n=[2, 2]), r' \(id .*\): every_n has 2 values, but must have one'),
    (
      _with(every_n=[-2]),
      r' \(id .*\): thinned with every_n=-2, but .* network sees ',
    ),
    (
      _with(every_n=[2**40]),
      f'.*: thinned with every_n={2**40}, but .* network sees ',
    ),
    (
      _with(id=[1]),
      ': id is stored as int64_list, but must be stored as bytes_list. Remove',
    ),
    (
      _with(id=[1.0]),
      ': id is stored as float_list, but must be stored as bytes_list. Remove',
    ),
    (
      _with(labels=b'1'),
      ': labels is stored as bytes_list, but must be stored as int64_list. Remove',
    ),
    (
      _with(labels=[1.0]),
      ': labels is stored as float_list, but must be stored as int64_list.',
    ),
    (
      _with(labels=np.arange(40, 90)),
      r'.*: labels are 50, 51, .* 59, \.\.\., but must',
    ),
    (
      _rgb_in_context(),
      r": no frame-level feature 'rgb'. Its frame-level features are \['audio'\], its "
      r"video-level ones \['labels', 'rgb'\]",
    ),
    (b'\xff\xff nonsense', ': not a tf.train.SequenceExample or Example.'),
    # The context lacks its end.
    (b'\n\x30' + _with().SerializeToString()[2:], ': not a tf.train.SequenceExample'),
    (
      _with(id=b'\xff\n\\"\xc3', labels=[50]),
      re.escape(r' (id \xff\n\\"\xc3): labels are 50'),
    ),
    (
      _with(id=b'x' * 1000, labels=[50]),
      rf' \(id x{{{100}}}\): labels are 50',
    ),
  ],
)
def test_messages_are_a_line_with_file_and_record(selection, record, message):
  text = _message(record, selection=selection)
  assert re.search(f'/data/train07.tfrecord, record 1{message}', text), text
  assert text.isprintable()


def test_damaged_labels_are_not_taken_for_none():
  """They are read as empty, but `labels` may only be empty on purpose."""
  record = frame_readers.record(labels=(1,)).SerializeToString()
  entry = tf.train.Features(feature={'labels': record_writer.feature([1])})
  entry = entry.SerializeToString()
  damaged = entry.replace(b'labels', b'Labels')
  assert ': no `labels`' in _message(record.replace(entry, damaged))


def test_an_id_without_value_is_none():
  inputs, _ = frame_readers.read(
    frame_readers.reader(with_ids=True),
    _with(id=_several()),
    _with(id=_several(), video_id=b'old'),
    _with(id=tf.train.Feature()),
    _with(id=b''),
  )
  name = b'train07.tfrecord:%d'
  assert list(inputs['id']) == [name % 0, b'old', name % 2, name % 3]


def test_a_number_of_frames_that_overflows_is_cut():
  record = _with(every_n=[2], **{'every_n/num_frames': [2**40]})
  inputs, _ = frame_readers.read(
    frame_readers.reader(max_frames=6, selection=frame_readers.every(2)), record
  )
  assert inputs['num_frames'] == [3]
