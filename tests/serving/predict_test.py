"""predict: files of predictions, restarts, and clear errors."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet
import pytest
import served
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import folder
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import reader
from yt8m_distill.serving import ensemble
from yt8m_distill.serving import export as export_lib
from yt8m_distill.serving import predict as predict_lib
from yt8m_distill.serving import tables

_TOP_K = 4
_COUNTS = (5, 1, 7)  # videos of the shards
_kept = {}  # networks that were read


def _edit(source, target, change):
  """Copies a shard; `change(number, video)` edits its videos."""
  with tf.io.TFRecordWriter(str(target)) as writer:
    for number, record in enumerate(tf.data.TFRecordDataset(str(source))):
      video = tf.train.SequenceExample.FromString(record.numpy())
      change(number, video)
      writer.write(video.SerializeToString())


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Two runs; the students see different frames."""
  where = tmp_path_factory.mktemp('runs')
  every_second = {'task': {'model': {'student': {
      **tiny.sizes()['task']['model']['student'],
      'frames': {'uniform': {'every_n': 2}}}}}}
  return [served.write_run(where / 'a'),
          served.write_run(where / 'b', every_second)]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  where = tmp_path_factory.mktemp('data')
  for number, count in enumerate(_COUNTS):
    plain = where / 'plain'
    tiny.write_records(plain, count, seed=number)
    _edit(plain, where / f'test{number}.tfrecord', lambda i, video: video.context
          .feature['id'].bytes_list.value.__setitem__(0, b'%d-%d' % (number, i)))
    plain.unlink()
  return where


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
  path = tmp_path_factory.mktemp('vocabulary') / 'vocabulary.csv'
  pd.DataFrame({'Index': range(tiny.CLASSES), 'Name': [
      f'name {i}' for i in range(tiny.CLASSES)]}).to_csv(path, index=False)
  return str(path)


@pytest.fixture(autouse=True)
def kept_networks(monkeypatch):
  """Reads the same networks once for all tests."""
  read = ensemble.Ensemble
  monkeypatch.setattr(ensemble, 'Ensemble', lambda sources, *rest: (
      _kept.get((*sources, *rest))
      or _kept.setdefault((*sources, *rest), read(sources, *rest))))


def _predict(runs, data, out, **arguments):
  predict_lib.predict(**{
      'model': runs[:1], 'input_path': f'{data}/*.tfrecord',
      'output_dir': str(out), 'top_k': _TOP_K, **arguments})
  return out


def _contents(out):
  return {path.name: path.read_bytes() for path in sorted(out.iterdir())
          if path.name != 'predict.json'}


def _rows(path):
  """(id, classes, probabilities) of each row of a CSV."""
  lines = path.read_text().splitlines()
  assert lines[0] == 'VideoId,LabelConfidencePairs'
  rows = []
  for line in lines[1:]:
    name, pairs = line.split(',')
    assert re.fullmatch(r'(\d+ [01]\.\d{6}( |$))+', pairs)
    values = pairs.split(' ')
    rows.append((name, [int(v) for v in values[::2]],
                 [float(v) for v in values[1::2]]))
  return rows


def _expected(run, data, network='student'):
  """Ids, predictions and representations, by way of evaluation's input."""
  trained = folder.Network(run, network)
  params = trained.params.task.validation_data
  params = params.replace(input_path=f'{data}/*.tfrecord', global_batch_size=3,
                          drop_remainder=False, is_training=False)
  model = trained.model
  dataset = pipeline.build(params, reader.FrameReader(
      model.features, model.max_frames, model.num_classes,
      model.network.frames, with_ids=True))
  results = [(inputs['id'], *(trained.network(inputs)[key] for key in (
      'predictions', 'representation'))) for inputs, _ in dataset]
  return [np.concatenate(values) for values in zip(*results)]


@pytest.mark.parametrize('batch_size', [1, 64])
def test_csv_holds_the_best_classes_of_every_video_in_order(
    runs, data, tmp_path, batch_size):
  out = _predict(runs, data, tmp_path / 'out', batch_size=batch_size)
  ids, predictions, _ = _expected(runs[0], data)
  rows = _rows(out / 'predictions.csv')
  assert [row[0] for row in rows] == [name.decode() for name in ids]
  best = np.argsort(-predictions, 1)[:, :_TOP_K]
  np.testing.assert_array_equal([row[1] for row in rows], best)
  np.testing.assert_allclose(
      [row[2] for row in rows], np.take_along_axis(predictions, best, 1),
      atol=1e-6)
  parts = [_rows(out / f'test{i}.csv') for i in range(len(_COUNTS))]
  assert [len(part) for part in parts] == list(_COUNTS)
  assert sum(parts, []) == rows


def test_parquet_holds_names_and_the_representation(
    runs, data, vocabulary, tmp_path):
  out = _predict(runs, data, tmp_path / 'out', format='parquet',
                 vocabulary=vocabulary)
  assert sorted(_contents(out)) == [
      f'test{i}.parquet' for i in range(len(_COUNTS))]
  table = pa.concat_tables(
      [parquet.read_table(out / name) for name in sorted(_contents(out))])
  assert table.schema.equals(pa.schema({
      'id': pa.string(), 'class_indices': pa.list_(pa.int32()),
      'probabilities': pa.list_(pa.float32()),
      'class_names': pa.list_(pa.string()),
      'embedding': pa.list_(pa.float32())}))
  ids, predictions, representation = _expected(runs[0], data)
  columns = table.to_pydict()
  assert columns['id'] == [name.decode() for name in ids]
  best = np.argsort(-predictions, 1)[:, :_TOP_K]
  np.testing.assert_array_equal(columns['class_indices'], best)
  np.testing.assert_allclose(columns['probabilities'], np.take_along_axis(
      predictions, best, 1), rtol=1e-5)
  assert columns['class_names'] == [
      [f'name {i}' for i in row] for row in best.tolist()]
  np.testing.assert_allclose(columns['embedding'], representation, rtol=1e-4,
                             atol=1e-6)


def test_parquet_without_a_vocabulary_has_no_names(runs, data, tmp_path):
  out = _predict(runs, data, tmp_path / 'out', format='parquet')
  assert 'class_names' not in parquet.read_schema(
      out / 'test0.parquet').names


def test_parquet_keeps_rows_beyond_one_group(tmp_path, monkeypatch):
  monkeypatch.setattr(tables, '_ROW_GROUP', 4)
  path = tmp_path / 'x.parquet'
  with tables.whole_file(str(path)) as file:
    table = tables.Parquet(file, (), embedding=False)
    for start in range(0, 9, 3):
      rows = np.arange(start, start + 3)
      table.write({'id': [b'%d' % row for row in rows],
                   'class_indices': rows[:, None],
                   'probabilities': rows[:, None] / 10})
    table.close()
  assert parquet.ParquetFile(path).num_row_groups == 2
  assert parquet.read_table(path)['id'].to_pylist() == [*'012345678']


def test_records_without_labels_are_predicted_alike(runs, data, tmp_path):
  bare = tmp_path / 'bare'
  bare.mkdir()
  for path in data.iterdir():
    _edit(path, bare / path.name,
          lambda _, video: video.context.feature.pop('labels'))
  assert _contents(_predict(runs, bare, tmp_path / 'out')) == _contents(
      _predict(runs, data, tmp_path / 'labelled'))


def test_records_without_id_are_named_by_shard_and_position(
    runs, data, tmp_path):
  bare = tmp_path / 'bare'
  bare.mkdir()
  _edit(data / 'test0.tfrecord', bare / 'x.tfrecord',
        lambda _, video: video.context.feature.pop('id'))
  rows = _rows(_predict(runs, bare, tmp_path / 'out') / 'x.csv')
  assert [row[0] for row in rows] == [f'x.tfrecord:{i}' for i in range(5)]


def test_an_id_that_is_no_utf8_or_holds_a_comma_stays_in_its_column(
    runs, data, tmp_path):
  odd = tmp_path / 'odd'
  odd.mkdir()
  _edit(data / 'test1.tfrecord', odd / 'x.tfrecord', lambda _, video: video
        .context.feature['id'].bytes_list.value.__setitem__(0, b'a,\xff'))
  table = pd.read_csv(_predict(runs, odd, tmp_path / 'out') / 'x.csv')
  assert table['VideoId'].tolist() == ['a,\\xff']


def test_several_networks_are_averaged(runs, data, tmp_path):
  out = _predict(runs, data, tmp_path / 'out', model=runs, format='parquet',
                 top_k=tiny.CLASSES)
  assert 'embedding' not in parquet.read_schema(out / 'test0.parquet').names
  mean = np.mean([_expected(run, data)[1] for run in runs], 0)
  table = parquet.read_table(out / 'test0.parquet').to_pydict()
  for row, classes, probabilities in zip(
      mean, table['class_indices'], table['probabilities']):
    np.testing.assert_allclose(row[classes], probabilities, rtol=1e-5)
    assert sorted(probabilities, reverse=True) == probabilities
    assert sorted(classes) == list(range(tiny.CLASSES))


def test_the_teacher_is_predicted_with_where_asked_for(runs, data, tmp_path):
  out = _predict(runs, data, tmp_path / 'out', network='teacher')
  _, predictions, _ = _expected(runs[0], data, 'teacher')
  rows = _rows(out / 'predictions.csv')
  np.testing.assert_allclose([row[2][0] for row in rows], predictions.max(1),
                             atol=1e-6)


@pytest.fixture(scope='module')
def export(runs, vocabulary, tmp_path_factory):
  path = tmp_path_factory.mktemp('export') / 'out'
  export_lib.export(runs[0], str(path), top_k=2, vocabulary=vocabulary)
  return str(path)


def test_an_export_and_its_run_give_equal_files(runs, data, export, tmp_path):
  assert _contents(_predict(runs, data, tmp_path / 'a')) == _contents(
      _predict(runs, data, tmp_path / 'b', model=[export]))


def test_an_export_knows_its_names_and_can_be_averaged_with_a_run(
    runs, data, export, tmp_path):
  def best(name, models):
    out = _predict(runs, data, tmp_path / name, model=models, format='parquet',
                   top_k=tiny.CLASSES)
    return parquet.read_table(out / 'test0.parquet').to_pydict()

  mixed = best('mixed', [export, runs[1]])
  assert mixed['class_names'][0][0] == f'name {mixed["class_indices"][0][0]}'
  assert mixed['probabilities'] == best('runs', runs)['probabilities']


def test_workers_change_nothing(runs, data, tmp_path):
  assert _contents(_predict(runs, data, tmp_path / 'a', workers=1)) == (
      _contents(_predict(runs, data, tmp_path / 'b', workers=3)))


def _times(out):
  return {path.name: path.stat().st_mtime_ns for path in out.glob('test*.csv')}


def test_a_corrupt_shard_stops_the_job_which_goes_on_once_it_is_whole(
    runs, data, tmp_path):
  mended, out = tmp_path / 'mended', tmp_path / 'out'
  shutil.copytree(data, mended)
  last = mended / f'test{len(_COUNTS) - 1}.tfrecord'
  last.write_bytes(last.read_bytes()[:-1])
  with pytest.raises(tf.errors.InvalidArgumentError,
                     match=rf'{last.name}: unreadable from byte \d+ of \d+'):
    _predict(runs, mended, out, workers=1)
  finished = _times(out)
  assert set(finished) == {'test0.csv', 'test1.csv'}
  assert set(os.listdir(out)) == {*finished, 'predict.json'}

  shutil.copy(data / last.name, last)
  _predict(runs, mended, out)
  assert finished.items() <= _times(out).items()
  assert _contents(out) == _contents(_predict(runs, data, tmp_path / 'whole'))


def test_an_interrupt_leaves_whole_files_only(
    runs, data, tmp_path, monkeypatch):
  write, calls = tables.Csv.write, []

  def interrupt(self, outputs):
    calls.append(None)
    if len(calls) == 3:  # In the second shard or the third.
      signal.raise_signal(signal.SIGINT)
      time.sleep(0.2)
    write(self, outputs)

  monkeypatch.setattr(tables.Csv, 'write', interrupt)
  out = tmp_path / 'out'
  with pytest.raises(KeyboardInterrupt):
    _predict(runs, data, out, workers=1, batch_size=4)
  monkeypatch.undo()
  whole = _contents(_predict(runs, data, tmp_path / 'whole', batch_size=4))
  left = _contents(out)
  assert left and left.items() < whole.items()
  _predict(runs, data, out, batch_size=4)
  assert _contents(out) == whole


def test_corrupt_records_are_left_out_where_asked_for(runs, data, tmp_path):
  cut = tmp_path / 'cut'
  shutil.copytree(data, cut)
  path = cut / 'test0.tfrecord'
  path.write_bytes(path.read_bytes()[:-1])
  out = _predict(runs, cut, tmp_path / 'out', skip_corrupt_records=True)
  ids = [name.decode() for name in _expected(runs[0], data)[0]]
  assert [row[0] for row in _rows(out / 'predictions.csv')] == (
      ids[:4] + ids[5:])


@pytest.mark.parametrize('change', [
    {'top_k': 3}, {'format': 'parquet'}, {'network': 'teacher'},
    {'input_path': '{data}/test0.tfrecord'}, {'model': '{runs[1]}'}])
def test_a_folder_of_another_job_is_refused(runs, data, tmp_path, change):
  out = _predict(runs, data, tmp_path / 'out')
  before = _contents(out)
  change = {key: value.format(data=data, runs=runs)
            if isinstance(value, str) else value
            for key, value in change.items()}
  if 'model' in change:
    change['model'] = [change['model']]
  with pytest.raises(ValueError, match='is of another job: .*'
                     f'{next(iter(change))} is .*, and was .*output_dir'):
    _predict(runs, data, out, **change)
  assert _contents(out) == before


def test_files_that_no_job_made_are_not_taken_for_finished(
    runs, data, tmp_path):
  (tmp_path / 'test1.csv').write_text('mine')
  with pytest.raises(ValueError, match='test1.csv is there, but no .*predict'):
    _predict(runs, data, tmp_path)
  assert (tmp_path / 'test1.csv').read_text() == 'mine'


def test_shards_that_would_share_a_file_are_refused(runs, data, tmp_path):
  other = tmp_path / 'other'
  shutil.copytree(data, other)
  with pytest.raises(ValueError, match='test0.tfrecord and .*test0.tfrecord '
                     'would both be test0.csv'):
    _predict(runs, data, tmp_path / 'out',
             input_path=f'{data}/test*,{other}/test0*')
  (other / 'test0.tfrecord').rename(other / 'predictions.tfrecord')
  with pytest.raises(ValueError, match='the file of all shards would both be '
                     'predictions.csv'):
    _predict(runs, other, tmp_path / 'out')


def _spoilt(data, tmp_path, change):
  where = tmp_path / 'spoilt'
  where.mkdir()
  _edit(data / 'test0.tfrecord', where / 'x.tfrecord', change)
  return where


def test_a_record_without_the_feature_is_named(runs, data, tmp_path):
  where = _spoilt(data, tmp_path, lambda i, video: i == 3 and
                  video.feature_lists.feature_list.pop('audio'))
  with pytest.raises(tf.errors.InvalidArgumentError,
                     match=r'x.tfrecord, record 3 \(id 0-3\): rgb, audio have'):
    _predict(runs, where, tmp_path / 'out')
  assert os.listdir(tmp_path / 'out') == ['predict.json']


def test_a_record_of_garbage_is_named(runs, data, tmp_path):
  where = tmp_path / 'spoilt'
  where.mkdir()
  with tf.io.TFRecordWriter(str(where / 'x.tfrecord')) as writer:
    writer.write(next(iter(tf.data.TFRecordDataset(
        str(data / 'test0.tfrecord')))).numpy())
    writer.write(b'garbage')
  with pytest.raises(tf.errors.InvalidArgumentError,
                     match='x.tfrecord, record 1 ') as error:
    _predict(runs, where, tmp_path / 'out')
  message = predict_lib._plain(error.value)
  assert '\n' not in message and 'x.tfrecord, record 1 ' in message


def test_messages_of_checks_in_the_graph_stand_alone(runs, data, tmp_path):
  where = tmp_path / 'spoilt'
  where.mkdir()
  (where / 'x.tfrecord').write_bytes(b'')
  with pytest.raises(tf.errors.InvalidArgumentError) as error:
    _predict(runs, where, tmp_path / 'out')
  message = predict_lib._plain(error.value)
  assert message.startswith(f'{where}/x.tfrecord: unreadable from byte 0 of 0')
  assert message.endswith('without what is lost.')


@pytest.fixture(scope='module')
def wider(tmp_path_factory):
  return served.write_run(tmp_path_factory.mktemp('wider') / 'run',
                          {'task': {'model': {'num_classes': 20}}})


def test_networks_of_different_classes_are_not_averaged(
    runs, wider, data, tmp_path):
  with pytest.raises(ValueError, match=f'{runs[0]} predicts 12 classes and '
                     f'{wider} 20'):
    _predict(runs, data, tmp_path / 'out', model=[runs[0], wider])


@pytest.mark.parametrize('arguments, message', [
    ({'input_path': '{tmp}/none*'}, 'none.*no file matches'),
    ({'model': ['{tmp}/none']}, 'none is no export.*no checkpoint'),
    ({'model': ['{data}']}, '{data} is no export.*without a checkpoint'),
    ({'model': ['{tmp}/foreign']}, 'foreign is a SavedModel without.*records'),
    ({'top_k': 13}, 'top_k is 13: .* between 1 and .*12'),
    ({'top_k': 0}, 'top_k is 0'),
    ({'batch_size': 0}, 'batch_size is 0'),
    ({'workers': 0}, 'workers is 0'),
    ({'vocabulary': '{tmp}/other.csv'}, 'other.csv names class 40'),
    ({'output_dir': '{tmp}/other.csv/out'}, 'other.csv/out, which cannot be '
     'written.*Name a folder'),
])
def test_errors_name_what_to_correct(runs, data, tmp_path, arguments, message):
  if arguments.get('model') == ['{tmp}/foreign']:
    tf.saved_model.save(tf.Module(), str(tmp_path / 'foreign'))
  pd.DataFrame({'Index': [40], 'Name': ['x']}).to_csv(
      tmp_path / 'other.csv', index=False)
  filled = json.loads(json.dumps(arguments).replace(
      '{tmp}', str(tmp_path)).replace('{data}', str(data)))
  with pytest.raises(ValueError, match=message.replace('{data}', str(data))):
    _predict(runs, data, tmp_path / 'out', **filled)
  assert not (tmp_path / 'out').exists()


def _command(run, data, out):
  return [sys.executable, '-m', 'yt8m_distill.serving.predict',
          f'--model={run}', f'--input_path={data}/*.tfrecord',
          f'--output_dir={out}', f'--top_k={_TOP_K}', '--workers=1']


@pytest.mark.slow
def test_a_killed_command_goes_on_and_ends_like_one_undisturbed(
    runs, data, tmp_path):
  many = tmp_path / 'many'
  many.mkdir()
  for number in range(40):
    shutil.copy(data / 'test2.tfrecord', many / f'{number:02}.tfrecord')
  command, out = _command(runs[0], many, tmp_path / 'out'), tmp_path / 'out'
  with subprocess.Popen(
      command, cwd=tiny.ROOT, stderr=subprocess.DEVNULL,
      env={**os.environ, 'PYTHONPATH': str(tiny.ROOT)}) as process:
    while not (out / '02.csv').exists():
      assert process.poll() is None
      time.sleep(0.01)
    process.kill()
  finished = {path.name: path.stat().st_mtime_ns for path in out.glob('*.csv')}
  assert len(finished) < 40
  tiny.python(*command[1:])
  whole = _predict(runs, many, tmp_path / 'whole')
  assert _contents(out) == _contents(whole)
  assert all((out / name).stat().st_mtime_ns == when
             for name, when in finished.items())


@pytest.mark.slow
def test_a_command_that_fails_says_why_in_one_line(runs, data, tmp_path):
  cut = tmp_path / 'cut'
  shutil.copytree(data, cut)
  path = cut / 'test2.tfrecord'
  path.write_bytes(path.read_bytes()[:-1])
  done = tiny.python(*_command(runs[0], cut, tmp_path / 'out')[1:], check=False)
  assert done.returncode == 1
  assert 'Traceback' not in done.stderr
  assert re.match(rf'Error: {path}: unreadable from byte \d+ of \d+ on: .*',
                  done.stderr.splitlines()[-1])
