"""Tests of the reader: goldens, choices before decoding, and bad records."""

import golden
import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill import selection as selection_lib
from yt8m_distill.configs import data
from yt8m_distill.configs import model
from yt8m_distill.dataloaders import layout
from yt8m_distill.dataloaders import reader as reader_lib

_FEATURES = {'rgb': 12, 'audio': 4}
_ALL = model.FrameSelection()


def _every(n, length='ceil'):
  return model.FrameSelection(
      type='uniform', uniform=model.UniformFrames(every_n=n, length=length))


_KINDS = ('uniform', 'random', 'first', 'middle', 'last', 'first_middle_last')


def _some(kind):
  """9 frames."""
  frames = model.FrameSelection(type=kind)
  frames.uniform.every_n = 0
  frames.get().k = 9
  return frames


def _reader(features=None, max_frames=300, num_classes=50, selection=_ALL,
            **kwargs):
  features = [data.Feature(name=name, size=size)
              for name, size in (features or _FEATURES).items()]
  return reader_lib.FrameReader(features, max_frames, num_classes, selection,
                                **kwargs)


def _record(frames=3, labels=(1,), features=None, context=None, seed=0):
  rng = np.random.default_rng(seed)
  record = tf.train.SequenceExample()
  if labels is not None:
    record.context.feature['labels'].int64_list.value.extend(labels)
  for key, value in (context or {}).items():
    record.context.feature[key].bytes_list.value.append(value)
  for name, size in (features or _FEATURES).items():
    steps = record.feature_lists.feature_list[name].feature
    for _ in range(frames):
      steps.add().bytes_list.value.append(rng.bytes(size))
  return record


def _read(reader, *records):
  """Reads serialized or other records as one batch."""
  serialized = [r if isinstance(r, bytes) else r.SerializeToString()
                for r in records]
  inputs, labels = reader(
      tf.fill([len(serialized)], '/data/train07.tfrecord'),
      tf.range(len(serialized), dtype=tf.int64), tf.constant(serialized))
  return {key: value.numpy() for key, value in inputs.items()}, labels.numpy()


def _file(path):
  return [r.numpy() for r in tf.data.TFRecordDataset(str(path))]


def _dequantise(frames, num_frames):
  values = frames * (4 / 255) + (4 / 512 - 2)
  real = np.arange(frames.shape[1]) < num_frames[:, np.newaxis]
  return np.where(real[..., np.newaxis], values, 0)


@golden.needs_shared
@pytest.mark.parametrize('name, features, num_classes', [
    ('reader_small', _FEATURES, 50),
    ('reader_full', {'rgb': 1024, 'audio': 128}, 4716)])
def test_golden(name, features, num_classes):
  expected = np.load(golden.GOLDEN / 'reader_golden.npz')
  inputs, labels = _read(
      _reader(features, num_classes=num_classes, with_ids=True),
      *_file(golden.GOLDEN / f'{name}.tfrecord'))
  assert list(inputs['id']) == list(expected[f'{name}/video_id'])
  np.testing.assert_array_equal(inputs['num_frames'],
                                expected[f'{name}/num_frames'])
  np.testing.assert_array_equal(labels, expected[f'{name}/labels'])
  # The golden is float32: half a unit in the last place of 2.
  np.testing.assert_allclose(
      _dequantise(inputs['frames'], inputs['num_frames']),
      expected[f'{name}/matrix'], rtol=0, atol=3e-7)


@golden.needs_shared
@pytest.mark.parametrize('name, message', [
    ('mismatch', 'rgb, audio have 10, 8 frames'),
    ('mismatch300', 'rgb, audio have 8, 10 frames'),
    ('zero', 'rgb, audio have 0, 0 frames'),
    ('noaudio', 'rgb, audio have [0-9]+, 0 frames'),
    ('label', 'labels are 50, but must lie between 0 and 49'),
    ('neglabel', 'labels are -1, 2, but must lie between 0 and 49'),
    ('size', 'rgb has frames of 13 bytes, not 12')])
def test_odd_records_are_named(name, message):
  records = _file(golden.GOLDEN / f'reader_odd_{name}.tfrecord')
  with pytest.raises(
      tf.errors.InvalidArgumentError,
      match=rf'/data/train07.tfrecord, record 1 \(id [a-z0-9]+\): {message}'):
    _read(_reader(), _record(), *records)


@golden.needs_shared
def test_real_record():
  inputs, labels = _read(
      _reader({'rgb': 1024, 'audio': 128}, num_classes=3862, with_ids=True),
      *_file(golden.SHARED / 'data/yt8m/2/frame/food_SjJ3.tfrecord'))
  assert inputs['frames'].shape == (1, 300, 1152)
  assert inputs['frames'].dtype == np.uint8
  assert inputs['num_frames'] == [170] and inputs['id'] == [b'SjJ3']
  assert list(np.flatnonzero(labels[0])) == [11]
  values = _dequantise(inputs['frames'], inputs['num_frames'])[0, :170]
  assert 0.9 < values.std(0).mean() < 1.1
  assert not inputs['frames'][0, 170:].any()


@golden.needs_shared
def test_real_record_with_float_features():
  path = golden.SHARED / 'data/yt8m/malformed/float_features.tfrecord'
  reader = _reader({'rgb': 1024, 'audio': 128}, num_classes=3862)
  with pytest.raises(ValueError, match='float_features.tfrecord, record 0: '
                     "feature 'rgb' is a float_list, but its format 'bytes'.*"
                     'quantized_floats'):
    reader.check_format(str(path), 0, _file(path)[0])
  with pytest.raises(tf.errors.InvalidArgumentError,
                     match='(?s)train07.tfrecord, record 0.*as task.model.'
                     'features,.*Feature list: (rgb|audio)'):
    _read(reader, _file(path)[0])


@golden.needs_shared
def test_video_level_record_is_explained():
  path = golden.SHARED / 'data/yt8m/2/video/validate/validate0000.tfrecord'
  with pytest.raises(ValueError, match="no frame-level feature 'rgb'.*mean_rgb"
                     '.*video-level'):
    _reader().check_format(str(path), 0, _file(path)[0])


@pytest.mark.parametrize('selection', [
    _ALL, _every(1), _every(3), _every(10), _every(1, 'original'),
    _every(10, 'original'), *map(_some, _KINDS)])
def test_choosing_before_decoding_equals_choosing_after(selection):
  records = [_record(n, seed=n) for n in (1, 2, 9, 10, 19, 20, 27)]
  every = _read(_reader(max_frames=20, with_seeds=True), *records)[0]
  chosen = _read(_reader(max_frames=20, selection=selection), *records)[0]
  indices, count = selection_lib.frame_indices(
      tf.constant(every['num_frames']), selection, 20, every['seed'])
  np.testing.assert_array_equal(chosen['num_frames'], count)
  expected = tf.gather(every['frames'], indices, batch_dims=1).numpy()
  real = np.arange(expected.shape[1]) < count.numpy()[:, np.newaxis]
  if selection.type != 'all':
    expected[~real] = 0
  np.testing.assert_array_equal(chosen['frames'], expected)
  assert real.any()


def _field(tag, content):
  return layout._header(tag, len(content)) + content


def _lists(record, swap=False, entry=b''):
  """The feature lists in a chosen order, with `entry` added to each."""
  names = sorted(record.feature_lists.feature_list, reverse=swap)
  entries = []
  for name in names:
    frames = record.feature_lists.feature_list[name].SerializeToString()
    entries.append(_field(0x0A, _field(0x0A, name.encode()) + _field(
        0x12, frames) + entry))
  return _field(0x12, b''.join(entries))


def _serialize(record, how):
  context = _field(0x0A, record.context.SerializeToString())
  lists, unknown = _lists(record), _field(0x7A, b'unknown')
  swapped = _lists(record, True)
  if how == 'frames of other lengths':  # As many bytes in all.
    rgb = record.feature_lists.feature_list['rgb'].feature
    for i, size in enumerate((13, 11)):
      rgb[i].bytes_list.value[0] = bytes(size)
    return context + _lists(record)
  return {
      'as written': context + lists,
      'map reversed': context + swapped,
      'context behind': lists + context,
      'context twice': context + context + lists,
      'no context': lists,
      'unknown field before': unknown + context + lists,
      'unknown field between': context + unknown + lists,
      'unknown field behind': context + lists + unknown,
      'unknown field in the map': context + _lists(record, entry=unknown),
      'one list after the other': context + b''.join(_lists(
          _record(4, features={name: size})) for name, size
                                                     in _FEATURES.items()),
      'truncated': (context + lists)[:-1],
      'garbage': bytes(range(255, 0, -1)),
      'garbage in the context': _field(0x0A, b'\xff' * 9) + lists,
      'length without end': b'\x0a\xff\xff\xff\xff\xff' + lists,
      'length beyond the end': b'\x0a\xff\x7f' + lists,
      'nothing': b'',
      'no frames': context,
      'empty frames': _record(
          4, features={'rgb': 0, 'audio': 0}).SerializeToString(),
      'more frames than the layout knows': _record(600).SerializeToString(),
  }[how]


_REGULAR = ('as written', 'map reversed', 'garbage in the context')


@pytest.mark.parametrize('how', [
    *_REGULAR, 'context behind', 'context twice', 'no context',
    'unknown field before', 'unknown field between', 'unknown field behind',
    'unknown field in the map', 'one list after the other',
    'frames of other lengths', 'truncated', 'garbage', 'length without end',
    'length beyond the end', 'nothing', 'no frames', 'empty frames',
    'more frames than the layout knows'])
def test_any_layout_is_read_as_the_parser_does(monkeypatch, how):
  records = [_record(7), _serialize(_record(4, context={'id': b'a'}), how)]

  def outcome():
    reader = _reader(max_frames=9, with_ids=True, with_labels=False)
    try:
      inputs, labels = _read(reader, *records)
    except tf.errors.InvalidArgumentError as e:
      message = str(e)
      return message[message.index('/data/'):].splitlines()[0]
    return [*(inputs[key].tolist() for key in sorted(inputs)), labels.tolist()]

  regular, *_ = layout.Layout(list(_FEATURES.items())).read(
      tf.constant([records[0].SerializeToString(), records[1]]), 1)
  assert bool(regular) == (how in _REGULAR)
  got = outcome()
  monkeypatch.setattr(reader_lib.FrameReader, '_read_regular',
                      reader_lib.FrameReader._read_any)
  assert got == outcome()


def test_the_layout_of_the_releases_is_regular():
  features = {'rgb': 1024, 'audio': 128}
  # An id so long that the context's length takes two bytes.
  record = _record(300, features=features, context={'id': b'i' * 200})
  regular, contexts, num_frames, frames = layout.Layout(
      list(features.items())).read(
          tf.constant([record.SerializeToString()]), 301)
  assert regular and num_frames.numpy() == [300]
  context = tf.train.SequenceExample.FromString(contexts[0].numpy())
  assert context == tf.train.SequenceExample(context=record.context)
  for values, name in zip(frames, features):
    steps = record.feature_lists.feature_list[name].feature
    assert values[0, :300].numpy().tobytes() == b''.join(
        step.bytes_list.value[0] for step in steps)
    assert not values[0, 300:].numpy().any()


def test_frames_are_joined_in_the_order_of_the_features():
  record = _record(2)
  lists = record.feature_lists.feature_list
  inputs, _ = _read(_reader({'audio': 4, 'rgb': 12}), record)
  joined = (lists['audio'].feature[1].bytes_list.value[0] +
            lists['rgb'].feature[1].bytes_list.value[0])
  assert inputs['frames'][0, 1].tobytes() == joined


def test_other_features_and_lengths():
  features = {'flow': 5}
  records = [_record(n, features=features, seed=n) for n in (1, 4, 7)]
  inputs, _ = _read(_reader(features, max_frames=4), *records)
  assert inputs['frames'].shape == (3, 4, 5)
  assert list(inputs['num_frames']) == [1, 4, 4]
  cut = records[2].feature_lists.feature_list['flow'].feature
  for i in range(4):
    assert inputs['frames'][2, i].tobytes() == cut[i].bytes_list.value[0]
  assert not inputs['frames'][0, 1:].any()


def test_ids():
  inputs, _ = _read(
      _reader(with_ids=True), _record(context={'id': b'new'}),
      _record(context={'video_id': b'old'}), _record(),
      _record(context={'id': b'new', 'video_id': b'old'}))
  assert list(inputs['id']) == [b'new', b'old', b'train07.tfrecord:2', b'new']
  assert 'id' not in _read(_reader(), _record())[0]


def test_labels():
  _, labels = _read(_reader(), _record(labels=(3, 3, 49)), _record(labels=()))
  assert labels.dtype == bool and labels.shape == (2, 50)
  assert list(np.flatnonzero(labels[0])) == [3, 49] and not labels[1].any()


@pytest.mark.parametrize('context', [{'id': b'a'}, {}])
def test_record_without_labels(context):
  records = [_record(), _record(labels=None, context=context)]
  with pytest.raises(tf.errors.InvalidArgumentError,
                     match='record 1 .*: no `labels`'):
    _read(_reader(), *records)
  # Nor is it read whether they are in range.
  _, labels = _read(_reader(with_labels=False), *records, _record(labels=(99,)))
  assert labels.shape == (3, 50) and not labels.any()


def test_all_faults_of_a_record_are_told():
  record = _record(2, labels=(99,), features={'rgb': 11, 'audio': 5})
  with pytest.raises(tf.errors.InvalidArgumentError, match='labels are 99.*rgb '
                     'has frames of 11 bytes.*audio has frames of 5 bytes'):
    _read(_reader(), record)


def test_missing_feature_is_listed_with_those_there():
  with pytest.raises(ValueError, match=r"x, record 4: no frame-level feature "
                     r"'audio', but \['rgb'\].*task.model.features"):
    _reader().check_format(
        'x', 4, _record(features={'rgb': 12}).SerializeToString())


def test_no_example_at_all():
  with pytest.raises(ValueError, match='x, record 0: no tf.train.Sequence'):
    _reader().check_format('x', 0, b'\xff\xff nonsense')


@pytest.mark.parametrize('arguments, message', [
    (dict(features={'rgb': 0}), r"\('rgb', 0\)"),
    (dict(features={'': 4}), r"\('', 4\)"),
    (dict(max_frames=0), 'max_frames is 0'),
    (dict(num_classes=0), 'num_classes is 0'),
    (dict(selection=_every(301)), 'every_n is 301')])
def test_bad_arguments(arguments, message):
  with pytest.raises(ValueError, match=message):
    _reader(**arguments)


_FLOATS = {'RGB/feature/floats': 12, 'AUDIO/feature/floats': 4}


def _float_reader(form, **kwargs):
  features = [data.Feature(name=name, size=size, format=form)
              for name, size in _FLOATS.items()]
  return reader_lib.FrameReader(features, 9, 50, **{
      'selection': _ALL, 'with_labels': False, **kwargs})


def _float_record(values, sizes=None, context=None):
  """`values`: float32 [frames, 16]."""
  record = tf.train.SequenceExample()
  for key, value in (context or {}).items():
    record.context.feature[key].bytes_list.value.append(value)
  start = 0
  for name, size in (sizes or _FLOATS).items():
    steps = record.feature_lists.feature_list[name].feature
    for frame in values:
      steps.add().float_list.value.extend(frame[start:start + size])
    start += size
  return record


def test_float_features_are_kept_as_they_are():
  rng = np.random.default_rng(0)
  videos = [rng.normal(0, 3, [n, 16]).astype(np.float32) for n in (4, 12, 1)]
  records = [_float_record(v) for v in videos]
  inputs, _ = _read(_float_reader('floats'), *records)
  assert inputs['frames'].dtype == np.float32
  assert inputs['num_frames'].tolist() == [4, 9, 1]
  for row, video in zip(inputs['frames'], videos):
    count = min(9, len(video))
    np.testing.assert_array_equal(row[:count], video[:count])
    assert not row[count:].any()
  chosen, _ = _read(_float_reader('floats', selection=_every(4)), *records)
  assert chosen['num_frames'].tolist() == [1, 3, 1]
  np.testing.assert_array_equal(chosen['frames'][1], videos[1][[0, 4, 8]])
  assert not chosen['frames'][0, 1:].any()


def test_floats_are_quantised_as_the_releases_are():
  """Bytes come back from their own dequantised values; the rest is clipped."""
  rng = np.random.default_rng(0)
  stored = rng.integers(0, 256, [5, 16])
  values = (stored * (4 / 255) + (4 / 512 - 2)).astype(np.float32)
  values[0, :2] = 3.7, -9.0
  stored[0, :2] = 255, 0
  inputs, _ = _read(_float_reader('quantized_floats'), _float_record(values))
  assert inputs['frames'].dtype == np.uint8
  np.testing.assert_array_equal(inputs['frames'][0, :5], stored)


def test_stored_bytes_and_quantised_floats_join():
  features = [data.Feature(name='rgb', size=12), data.Feature(
      name='AUDIO/feature/floats', size=4, format='quantized_floats')]
  record = _record(3, features={'rgb': 12})
  record.MergeFrom(_float_record(
      np.zeros([3, 4], np.float32), {'AUDIO/feature/floats': 4}))
  inputs, _ = _read(reader_lib.FrameReader(features, 9, 50, _ALL), record)
  rgb = [frame.bytes_list.value[0]
         for frame in record.feature_lists.feature_list['rgb'].feature]
  assert inputs['frames'][0, :3, :12].tobytes() == b''.join(rgb)
  assert (inputs['frames'][0, :3, 12:] == 127).all()


def test_path_of_mediapipe_is_an_id():
  values = np.zeros([2, 16], np.float32)
  reader = _float_reader('floats', with_ids=True)
  inputs, _ = _read(
      reader, _float_record(values, context={'clip/data_path': b'/my/dog.mp4'}),
      _float_record(values))
  assert inputs['id'].tolist() == [b'/my/dog.mp4', b'train07.tfrecord:1']


@pytest.mark.parametrize('values,words', [
    (np.full([2, 16], np.nan), 'RGB/feature/floats holds NaN or infinity: '
     'AUDIO/feature/floats holds NaN'),
    (np.zeros([2, 14]), '(?s)record 0.*as task.model.features,.*values'),
])
def test_bad_floats_are_named(values, words):
  with pytest.raises(tf.errors.InvalidArgumentError,
                     match=words.replace(': AUDIO', '.*AUDIO')):
    _read(_float_reader('floats'), _float_record(values.astype(np.float32)))


@pytest.mark.parametrize('forms,words', [
    (('floats', 'bytes'), 'cannot be joined; make it quantized_floats'),
    (('text', 'bytes'), "formats of features are .*'text'.*choose of bytes"),
])
def test_bad_formats_are_an_error(forms, words):
  features = [data.Feature(name=name, size=size, format=form)
              for (name, size), form in zip(_FLOATS.items(), forms)]
  with pytest.raises(ValueError, match=words):
    reader_lib.FrameReader(features, 9, 50, _ALL)


def test_bytes_where_floats_are_expected_are_explained():
  record = _record(2, features=_FLOATS)
  with pytest.raises(ValueError, match='is a bytes_list, but its format '
                     "'floats' is a float_list. Set its format .* to bytes"):
    _float_reader('floats').check_format('a', 0, record.SerializeToString())
