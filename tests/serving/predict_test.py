"""predict writes what the networks predict."""

import functools
import operator
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet
import pytest
import records
import serving_cases
import tiny

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import reader
from yt8m_distill.serving import export as export_lib
from yt8m_distill.serving import tables

pytestmark = pytest.mark.end_to_end


def _expected(run, data, network='student'):
  """Ids, predictions and representations, by way of evaluation's input."""
  trained = trained_network.Network(run, network)
  params = trained.params.task.validation_data
  params = params.replace(
    input_path=f'{data}/*.tfrecord',
    global_batch_size=3,
    drop_remainder=False,
    is_training=False,
  )
  model = trained.model
  dataset = pipeline.build(
    params,
    reader.FrameReader(
      model.features,
      model.max_frames,
      model.num_classes,
      model.network.frames,
      with_ids=True,
    ),
  )
  results = [
    (
      inputs['id'],
      *(trained.network(inputs)[key] for key in ('predictions', 'representation')),
    )
    for inputs, _ in dataset
  ]
  return [np.concatenate(values) for values in zip(*results)]


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
  path = tmp_path_factory.mktemp('vocabulary') / 'vocabulary.csv'
  pd.DataFrame(
    {'Index': range(tiny.CLASSES), 'Name': [f'name {i}' for i in range(tiny.CLASSES)]}
  ).to_csv(path, index=False)
  return str(path)


@pytest.mark.parametrize('batch_size', [1, 64])
def test_csv_holds_the_best_classes_of_every_video_in_order(
  runs, data, tmp_path, batch_size
):
  out = serving_cases.predict(runs, data, tmp_path / 'out', batch_size=batch_size)
  ids, predictions, _ = _expected(runs[0], data)
  rows = serving_cases.rows(out / 'predictions.csv')
  assert [row[0] for row in rows] == [name.decode() for name in ids]
  best = np.argsort(-predictions, 1)[:, : serving_cases.TOP_K]
  np.testing.assert_array_equal([row[1] for row in rows], best)
  np.testing.assert_allclose(
    [row[2] for row in rows], np.take_along_axis(predictions, best, 1), atol=1e-6
  )
  parts = [
    serving_cases.rows(out / f'test{i}.csv') for i in range(len(serving_cases.COUNTS))
  ]
  assert [len(part) for part in parts] == list(serving_cases.COUNTS)
  assert functools.reduce(operator.iadd, parts, []) == rows


def test_parquet_holds_names_and_the_representation(runs, data, vocabulary, tmp_path):
  out = serving_cases.predict(
    runs, data, tmp_path / 'out', format='parquet', vocabulary=vocabulary
  )
  assert sorted(serving_cases.contents(out)) == [
    f'test{i}.parquet' for i in range(len(serving_cases.COUNTS))
  ]
  table = pa.concat_tables(
    [parquet.read_table(out / name) for name in sorted(serving_cases.contents(out))]
  )
  assert table.schema.equals(
    pa.schema(
      {
        'id': pa.string(),
        'class_indices': pa.list_(pa.int32()),
        'probabilities': pa.list_(pa.float32()),
        'class_names': pa.list_(pa.string()),
        'embedding': pa.list_(pa.float32()),
      }
    )
  )
  ids, predictions, representation = _expected(runs[0], data)
  columns = table.to_pydict()
  assert columns['id'] == [name.decode() for name in ids]
  best = np.argsort(-predictions, 1)[:, : serving_cases.TOP_K]
  np.testing.assert_array_equal(columns['class_indices'], best)
  np.testing.assert_allclose(
    columns['probabilities'], np.take_along_axis(predictions, best, 1), rtol=1e-5
  )
  assert columns['class_names'] == [[f'name {i}' for i in row] for row in best.tolist()]
  np.testing.assert_allclose(columns['embedding'], representation, rtol=1e-4, atol=1e-6)


def test_parquet_without_a_vocabulary_has_no_names(runs, data, tmp_path):
  out = serving_cases.predict(runs, data, tmp_path / 'out', format='parquet')
  assert 'class_names' not in parquet.read_schema(out / 'test0.parquet').names


def test_parquet_keeps_rows_beyond_one_group(tmp_path, monkeypatch):
  monkeypatch.setattr(tables, '_ROW_GROUP', 4)
  path = tmp_path / 'x.parquet'
  with open(path, 'wb') as file:
    table = tables.Parquet(file, (), extras=())
    for start in range(0, 9, 3):
      rows = np.arange(start, start + 3)
      table.write(
        {
          'id': [b'%d' % row for row in rows],
          'class_indices': rows[:, None],
          'probabilities': rows[:, None] / 10,
        }
      )
    table.close()
  assert parquet.ParquetFile(path).num_row_groups == 2
  assert parquet.read_table(path)['id'].to_pylist() == [*'012345678']


def test_records_without_labels_are_predicted_alike(runs, data, tmp_path):
  bare = tmp_path / 'bare'
  bare.mkdir()
  for path in data.iterdir():
    records.edit(
      path, bare / path.name, lambda _, video: video.context.feature.pop('labels')
    )
  out = serving_cases.predict(runs, bare, tmp_path / 'out')
  labelled = serving_cases.predict(runs, data, tmp_path / 'labelled')
  assert serving_cases.contents(out) == serving_cases.contents(labelled)


def test_records_without_id_are_named_by_shard_and_position(runs, data, tmp_path):
  bare = tmp_path / 'bare'
  bare.mkdir()
  records.edit(
    data / 'test0.tfrecord',
    bare / 'x.tfrecord',
    lambda _, video: video.context.feature.pop('id'),
  )
  rows = serving_cases.rows(
    serving_cases.predict(runs, bare, tmp_path / 'out') / 'x.csv'
  )
  assert [row[0] for row in rows] == [f'x.tfrecord:{i}' for i in range(5)]


def test_an_id_that_is_no_utf8_or_holds_a_comma_stays_in_its_column(
  runs, data, tmp_path
):
  odd = tmp_path / 'odd'
  odd.mkdir()
  records.edit(
    data / 'test1.tfrecord',
    odd / 'x.tfrecord',
    lambda _, video: video.context.feature['id'].bytes_list.value.__setitem__(
      0, b'a,\xff'
    ),
  )
  table = pd.read_csv(serving_cases.predict(runs, odd, tmp_path / 'out') / 'x.csv')
  assert table['VideoId'].tolist() == ['a,\\xff']


def test_several_networks_are_averaged(runs, data, tmp_path):
  out = serving_cases.predict(
    runs, data, tmp_path / 'out', model=runs, format='parquet', top_k=tiny.CLASSES
  )
  assert 'embedding' not in parquet.read_schema(out / 'test0.parquet').names
  mean = np.mean([_expected(run, data)[1] for run in runs], 0)
  table = parquet.read_table(out / 'test0.parquet').to_pydict()
  for row, classes, probabilities in zip(
    mean, table['class_indices'], table['probabilities']
  ):
    np.testing.assert_allclose(row[classes], probabilities, rtol=1e-5)
    assert sorted(probabilities, reverse=True) == probabilities
    assert sorted(classes) == list(range(tiny.CLASSES))


def test_the_teacher_is_predicted_with_where_asked_for(runs, data, tmp_path):
  out = serving_cases.predict(runs, data, tmp_path / 'out', network='teacher')
  _, predictions, _ = _expected(runs[0], data, 'teacher')
  rows = serving_cases.rows(out / 'predictions.csv')
  np.testing.assert_allclose([row[2][0] for row in rows], predictions.max(1), atol=1e-6)


@pytest.fixture(scope='module')
def export(runs, vocabulary, tmp_path_factory):
  path = tmp_path_factory.mktemp('export') / 'out'
  export_lib.export(runs[0], str(path), top_k=2, vocabulary=vocabulary)
  return str(path)


def test_an_export_and_its_run_give_equal_files(runs, data, export, tmp_path):
  a = serving_cases.predict(runs, data, tmp_path / 'a')
  b = serving_cases.predict(runs, data, tmp_path / 'b', model=[export])
  assert serving_cases.contents(a) == serving_cases.contents(b)


def test_an_export_knows_its_names_and_can_be_averaged_with_a_run(
  runs, data, export, tmp_path
):
  def best(name, models):
    out = serving_cases.predict(
      runs, data, tmp_path / name, model=models, format='parquet', top_k=tiny.CLASSES
    )
    return parquet.read_table(out / 'test0.parquet').to_pydict()

  mixed = best('mixed', [export, runs[1]])
  assert mixed['class_names'][0][0] == f'name {mixed["class_indices"][0][0]}'
  assert mixed['probabilities'] == best('runs', runs)['probabilities']


def test_workers_change_nothing(runs, data, tmp_path):
  one = serving_cases.predict(runs, data, tmp_path / 'one', workers=1)
  three = serving_cases.predict(runs, data, tmp_path / 'three', workers=3)
  assert serving_cases.contents(one) == serving_cases.contents(three)


@pytest.mark.parametrize('format', ['csv', 'parquet'])
def test_shards_read_together_are_predicted_as_each_alone(runs, data, tmp_path, format):
  expected = {}
  for path in data.iterdir():
    out = serving_cases.predict(
      runs, data, tmp_path / path.stem, format=format, input_path=str(path)
    )
    name = f'{path.stem}.{format}'
    expected[name] = serving_cases.contents(out)[name]
  copies = 20  # more shards than two workers open one by one
  many = tmp_path / 'many'
  many.mkdir()
  for path in data.iterdir():
    for copy in range(copies):
      shutil.copy(path, many / f'{copy:02d}{path.name}')
  out = serving_cases.predict(runs, many, tmp_path / 'out', format=format, workers=2)
  contents = serving_cases.contents(out)
  contents.pop('predictions.csv', None)
  assert contents == {
    f'{copy:02d}{name}': content
    for copy in range(copies)
    for name, content in expected.items()
  }


def test_corrupt_records_are_left_out_where_asked_for(runs, data, tmp_path):
  cut = tmp_path / 'cut'
  shutil.copytree(data, cut)
  path = cut / 'test0.tfrecord'
  path.write_bytes(path.read_bytes()[:-1])
  out = serving_cases.predict(runs, cut, tmp_path / 'out', skip_corrupt_records=True)
  ids = [name.decode() for name in _expected(runs[0], data)[0]]
  assert [row[0] for row in serving_cases.rows(out / 'predictions.csv')] == (
    ids[:4] + ids[5:]
  )
