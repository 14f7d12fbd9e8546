"""Malformed records: refused by name, skipped if told, and never large in memory."""

import resource

from absl import logging
import frame_readers
import fuzz_records
import numpy as np
import pytest
import records as records_lib
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import record_errors
from yt8m_distill.dataloaders import skip_flags
from yt8m_distill.dataloaders import skipped
from yt8m_distill.dataloaders import thin
from yt8m_distill.utils import cli

pytestmark = pytest.mark.faults
_FAULTS = {
  'garbage': (lambda: b'\xff\xff nonsense', 'not a tf.train.SequenceExample'),
  'empty': (lambda: b'', "no frame-level feature 'rgb'"),
  'label': (lambda: frame_readers.record(labels=[50]), 'labels are 50'),
  'no labels': (lambda: frame_readers.record(labels=None), 'no `labels`'),
  'kind': (
    lambda: frame_readers.record(context={'video_id': [1]}),
    'video_id is stored as int64_list',
  ),
  'size': (
    lambda: frame_readers.record(features={'rgb': 11, 'audio': 4}),
    'rgb has frames of 11 bytes',
  ),
  'no frames': (lambda: frame_readers.record(0), 'have 0, 0 frames'),
}


@pytest.mark.parametrize('name', fuzz_records.CASES)
def test_mutated_records_are_read_plainly_or_refused_by_name(name):
  """The short form of `python tests/fuzz_records.py`."""
  for mutation, outcome, serialized in fuzz_records.run(name, 15, seed=1):
    assert outcome in fuzz_records.OUTCOMES, (mutation, serialized)


def _good(number):
  return frame_readers.record(context={'id': b'good %d' % number}, seed=number)


@pytest.fixture(name='mixed', scope='module')
def _mixed(tmp_path_factory):
  """Two files: a malformed record of each kind before each of the good ones."""
  folder = tmp_path_factory.mktemp('mixed')
  bad = [make() for make, _ in _FAULTS.values()]
  together = [r for i, b in enumerate(bad) for r in (b, _good(i), _good(100 + i))]
  records_lib.write(folder / 'a.tfrecord', together)
  records_lib.write(folder / 'b.tfrecord', [*map(_good, range(200, 220)), *bad])
  return str(folder / '*.tfrecord')


_GOOD = 2 * len(_FAULTS) + 20


def _ids(path, count=None, start=0, **fields):
  """Returns the ids of each batch."""
  params = data.VideoData(
    input_path=path, skip_malformed_records=True, global_batch_size=4, **fields
  )
  reader = frame_readers.reader(with_ids=True, with_seeds=True)
  batches = pipeline.build(params, reader, start_step=start).take(count or -1)
  return [
    (inputs['id'].tolist(), inputs['seed'].tolist())
    for inputs, _ in batches.as_numpy_iterator()
  ]


def test_malformed_records_are_left_out_logged_and_counted(mixed, monkeypatch):
  lines = []
  monkeypatch.setattr(logging, 'warning', lambda text, *args: lines.append(text % args))
  before = skipped.total()
  ids = [name for batch, _ in _ids(mixed, drop_remainder=False) for name in batch]
  assert len(ids) == len(set(ids)) == _GOOD
  assert skipped.total() - before == skipped.Skipped(malformed=2 * len(_FAULTS))
  for number, (_, fault) in enumerate(_FAULTS.values()):
    for name, index in ('a', 3 * number), ('b', 20 + number):
      [line] = [line for line in lines if f'{name}.tfrecord, record {index}' in line]
      assert fault in line and line.endswith('It is skipped.')


def test_training_resumes_exactly(mixed):
  fields = dict(is_training=True, shuffle_buffer_size=5, cycle_length=2)
  whole = _ids(mixed, 11, **fields)
  assert _GOOD < 4 * 9  # The second start is in the second epoch.
  for start in (1, 9):
    assert _ids(mixed, 2, start, **fields) == whole[start : start + 2]


def test_a_set_without_valid_records_is_refused(tmp_path):
  records_lib.write(tmp_path / 'a.tfrecord', [frame_readers.record(labels=[50])] * 3)
  with pytest.raises(
    ValueError, match='none of its 1 files .*a.tfrecord, record 0 .*50'
  ):
    _ids(str(tmp_path / 'a.tfrecord'))


@pytest.mark.parametrize('fault', _FAULTS)
def test_without_skipping_training_stops_at_the_record(tmp_path, fault):
  make, message = _FAULTS[fault]
  records_lib.write(tmp_path / 'a.tfrecord', [_good(0), make()])
  params = data.VideoData(input_path=str(tmp_path / 'a.tfrecord'), global_batch_size=2)
  with pytest.raises(tf.errors.InvalidArgumentError) as error:
    list(pipeline.build(params, frame_readers.reader()))
  text = cli.message(error.value)
  assert text.startswith(f'{params.input_path}, record 1') and message in text


def test_rewriting_skips_and_counts(tmp_path, capsys):
  source, out = tmp_path / 'a.tfrecord', tmp_path / 'out'
  records_lib.write(source, [_good(0), b'\xff', _good(1), frame_readers.record(0)])
  with pytest.raises(record_errors.RecordError, match='a.tfrecord, record 1: '):
    thin.thin(str(source), str(tmp_path / 'no'), 2, workers=1)
  thin.thin(str(source), str(out), 2, skip_malformed_records=True, workers=1)
  assert 'Skipped 2 malformed records' in capsys.readouterr().out
  left = [record_errors.parse('x', r) for r in records_lib.read(out / 'a.tfrecord')]
  ids = [r.context.feature['id'].bytes_list.value[0] for r in left]
  assert ids == [b'good 0', b'good 1']


def test_jobs_name_only_the_flags_that_are_given():
  """So that those of versions without a flag resume."""
  given = skip_flags.given(skip_corrupt_records=False, skip_malformed_records=True)
  assert given == {'skip_malformed_records': True}


def _many_frames():
  """A record of 1 MB: 100,000 frames of 0 bytes."""
  frame = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b'']))
  record = frame_readers.record(1)
  for name in ('rgb', 'audio'):
    record.feature_lists.feature_list[name].feature.extend([frame] * 100_000)
  return record


@pytest.mark.parametrize(
  'make',
  [
    _many_frames,
    lambda: frame_readers.record(labels=np.arange(300_000)),
    lambda: frame_readers.record(
      context={'every_n': [2], 'every_n/num_frames': [2**40]}
    ),
    lambda: b'\n\xff\xff\xff\xff\x7f' + bytes(1000),
    lambda: b'\n\xff\xff\xff\x7f' + bytes(1000),
    lambda: b'\x12\xff\xff\xff\xff\x07' + bytes(1000),
  ],
)
@pytest.mark.parametrize('selection', [frame_readers.ALL, frame_readers.every(2)])
def test_a_record_takes_memory_in_proportion_to_its_bytes(make, selection):
  # A batch padded to the longest record would take 100,000 x 128 x 24 bytes.
  batch = [_good(0)] * 127 + [make()]
  reader = frame_readers.reader(selection=selection)
  frame_readers.read(reader, *batch[:127])
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  with pytest.raises(tf.errors.InvalidArgumentError):
    frame_readers.read(reader, *batch)
  grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
  assert grown < 200_000  # KB
