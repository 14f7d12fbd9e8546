"""Evaluation by the driver against plain numpy on all predictions at once."""

import csv
import json
import shutil

import numpy as np
import pandas as pd
import paths
import pytest
import tensorflow as tf
import tiny

from yt8m_distill.evaluation import results as results_lib
from yt8m_distill.tasks import distillation

_TOP_K = 5
_NAMES = {3: 'Guitar', 0: 'Game', 11: 'Food, "hot"'}


def _average_precision(pairs, positives):
  """Sum of the precision at every hit, over all positives."""
  hits = total = 0
  for place, (_, hit) in enumerate(sorted(pairs, reverse=True), 1):
    if hit:
      hits += 1
      total += hits / place
  return total / positives if positives else 0.0


def _metrics(scores, labels):
  """Metrics of one network: a loop over videos and classes, no library."""
  order = np.argsort(-scores, axis=1)
  perr, pooled, by_class = [], [], [[] for _ in range(tiny.CLASSES)]
  for video, (ranked, positive) in enumerate(zip(order, labels)):
    perr.append(positive[ranked[: positive.sum()]].mean())
    for label in ranked[:_TOP_K]:
      pair = scores[video, label], positive[label]
      pooled.append(pair)
      by_class[label].append(pair)
  precisions = [
    _average_precision(pairs, count) for pairs, count in zip(by_class, labels.sum(0))
  ]
  return {
    'hit_at_one': np.mean(labels[np.arange(len(labels)), order[:, 0]]),
    'perr': np.mean(perr),
    'gap': _average_precision(pooled, labels.sum()),
    'map': np.mean(precisions),
    'label_loss': -np.mean(
      np.sum(np.where(labels, np.log(scores + 1e-5), np.log(1 - scores + 1e-5)), 1)
    ),
  }, precisions


class _Run:
  """A folder with records and a checkpoint."""

  def __init__(self, folder):
    self.folder = folder / 'run'
    self.labels = np.concatenate(
      [
        tiny.write_records(folder / 'validate0.tfrecord', 5, seed=1),
        tiny.write_records(folder / 'validate1.tfrecord', 4, seed=2),
      ]
    )
    self.pattern = folder / 'validate?.tfrecord'
    self.vocabulary = folder / 'vocabulary.csv'
    pd.DataFrame({'Index': _NAMES.keys(), 'Name': _NAMES.values()}).to_csv(
      self.vocabulary, index=False
    )
    params = tiny.experiment(
      {
        'task': {
          'validation_data': {'input_path': str(self.pattern), 'global_batch_size': 9}
        }
      }
    )
    self.task = distillation.DistillationTask(params.task)
    self.model = self.task.create_model()
    tiny.scatter_weights(self.model)
    tf.train.CheckpointManager(
      tf.train.Checkpoint(
        model=self.model, global_step=tf.Variable(40, dtype=tf.int64)
      ),
      str(self.folder),
      1,
    ).save(40)
    inputs, _ = next(iter(self.task.build_inputs(params.task.validation_data)))
    self.outputs = tf.nest.map_structure(np.float64, self.model(inputs))

  def evaluate(self, batch_size, **overrides):
    """Runs the driver; returns the metrics written and per_class.csv."""
    tiny.run_driver(
      'eval',
      self.folder,
      tiny.override(
        **{
          'task__validation_data__input_path': self.pattern,
          'task__validation_data__global_batch_size': batch_size,
          **overrides,
        }
      ),
    )
    self.written = json.loads((self.folder / 'evaluation.json').read_text())
    return (self.written['metrics'], pd.read_csv(self.folder / 'per_class.csv'))

  def expected(self):
    """All metrics, and the average precisions by network."""
    results, precisions = {}, {}
    for name, outputs in self.outputs.items():
      scores, precisions[name] = _metrics(outputs['predictions'], self.labels)
      results.update({f'{name}/{k}': v for k, v in scores.items()})
    teacher, student = self.outputs['teacher'], self.outputs['student']
    results['student/representation_loss'] = np.mean(
      np.sum((teacher['representation'] - student['representation']) ** 2, 1)
    )
    p, q = (
      outputs['predictions'] / outputs['predictions'].sum(1)[:, None]
      for outputs in (teacher, student)
    )
    results['student/prediction_loss'] = np.mean(np.sum(p * np.log(p / q), 1))
    tops = [
      np.argsort(-outputs['predictions'])[:, :_TOP_K] for outputs in (teacher, student)
    ]
    results['agreement/top1'] = np.mean(tops[0][:, 0] == tops[1][:, 0])
    results['agreement/overlap'] = np.mean(
      [len(set(a) & set(b)) / _TOP_K for a, b in zip(*tops)]
    )
    return results, precisions


@pytest.fixture(name='run', scope='module')
def _run(tmp_path_factory):
  return _Run(tmp_path_factory.mktemp('eval'))


@pytest.fixture(name='eagerly')
def _eagerly():
  """Spares the tracing of a graph."""
  tf.config.run_functions_eagerly(True)
  yield
  tf.config.run_functions_eagerly(False)


@pytest.mark.end_to_end
def test_metrics_equal_numpy_on_all_predictions_at_once(run):
  results, table = run.evaluate(4)
  expected, precisions = run.expected()
  assert results.keys() == expected.keys()
  # Besides these, the trainer knows its own and that of skipped records.
  names = run.task.task_config.metric_names()
  assert {*names} == {*results, 'skipped', 'validation_loss'}
  for name, value in expected.items():
    np.testing.assert_allclose(results[name], value, rtol=1e-5, err_msg=name)
  assert run.written['step'] == 40
  for name, network, frames in (
    ('teacher', run.model.teacher, 20),
    ('student', run.model.student, 4),
  ):
    assert run.written['networks'][name] == {
      'frames': frames,
      'flops': network.flops(),
      'parameters': network.count_params(),
    }
  # The two networks differ, so none stands in for the other.
  assert abs(results['student/gap'] - results['teacher/gap']) > 1e-3
  assert 0.0 < results['agreement/overlap'] < 1.0

  assert list(table) == [
    'index',
    'positives',
    'teacher/average_precision',
    'student/average_precision',
  ]
  np.testing.assert_array_equal(table['index'], np.arange(tiny.CLASSES))
  np.testing.assert_array_equal(table['positives'], run.labels.sum(0))
  for name, values in precisions.items():
    np.testing.assert_allclose(table[f'{name}/average_precision'], values, rtol=1e-6)


@pytest.mark.end_to_end
@pytest.mark.usefixtures('eagerly')
@pytest.mark.parametrize('batch_size', [2, 9, 20])
def test_batch_size_does_not_matter(run, batch_size):
  results, _ = run.evaluate(batch_size)
  for name, value in run.expected()[0].items():
    np.testing.assert_allclose(results[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.end_to_end
@pytest.mark.usefixtures('eagerly')
def test_classes_are_named_by_the_index_of_the_vocabulary(run):
  _, table = run.evaluate(9, task__evaluation__vocabulary=run.vocabulary)
  assert list(table)[:3] == ['index', 'name', 'positives']
  assert table['name'].fillna('').tolist() == [
    _NAMES.get(index, '') for index in range(tiny.CLASSES)
  ]


@pytest.mark.end_to_end
@pytest.mark.usefixtures('eagerly')
def test_classes_without_positives_may_be_left_out(run):
  results, table = run.evaluate(9, task__evaluation__empty_classes='skip')
  present = table['positives'] > 0
  assert 0 < present.sum() < tiny.CLASSES
  assert run.written['num_classes'] == tiny.CLASSES
  assert run.written['classes_with_positives'] == present.sum()
  assert run.written['empty_classes'] == 'skip'
  np.testing.assert_allclose(
    results['student/map'],
    table['student/average_precision'][present].mean(),
    rtol=1e-6,
  )


@pytest.mark.end_to_end
@pytest.mark.usefixtures('eagerly')
def test_what_is_left_out_as_corrupt_is_counted(run, tmp_path, caplog):
  run.evaluate(9)
  assert run.written['skipped'] == {'records': 0, 'shard_tails': 0, 'malformed': 0}
  first, second = (tmp_path / f'broken{n}.tfrecord' for n in range(2))
  for path in (first, second):
    shutil.copy(run.folder.parent / path.name.replace('broken', 'validate'), path)
  with first.open('r+b') as file:  # The payload of the first record.
    file.seek(12)
    byte = file.read(1)[0]
    file.seek(12)
    file.write(bytes([byte ^ 0xFF]))
  with second.open('r+b') as file:  # The checksum of the last.
    file.truncate(second.stat().st_size - 2)
  for _ in range(2):  # Each evaluation counts its own.
    with caplog.at_level('WARNING', 'absl'):
      run.evaluate(
        2,
        task__validation_data__input_path=(tmp_path / 'broken?.tfrecord'),
        task__validation_data__skip_corrupt_records=True,
      )
    assert run.written['skipped'] == {'records': 1, 'shard_tails': 1, 'malformed': 0}
    assert run.written['videos'] == 7
    assert (
      'Evaluation at step 40 skipped 1 corrupt records, 1 ends of shards.'
    ) in caplog.messages
    caplog.clear()


@pytest.mark.parametrize('num_classes', [10, 14])
def test_vocabulary_of_another_release_is_an_error(run, num_classes):
  with pytest.raises(
    ValueError, match=rf'has indices from 0 to 11: .*num_classes \({num_classes}\)'
  ):
    results_lib.read_vocabulary(str(run.vocabulary), num_classes)


@pytest.mark.parametrize('index', ['1.5', 'x', '-1', ''])
def test_vocabulary_with_a_bad_index_is_an_error(tmp_path, index):
  path = tmp_path / 'vocabulary.csv'
  path.write_text(f'Index,Name\n{index},Game\n2,NA\n')
  with pytest.raises(ValueError, match="vocabulary.csv', which has indices from"):
    results_lib.read_vocabulary(str(path), 3)


def test_vocabulary_may_have_gaps_and_odd_names(tmp_path):
  path = tmp_path / 'vocabulary.csv'
  path.write_text('Index,Name\n2,NA\n0,\n')
  assert results_lib.read_vocabulary(str(path), 3) == ['', '', 'NA']


def test_vocabulary_without_its_columns_is_an_error(tmp_path):
  path = tmp_path / 'vocabulary.csv'
  path.write_text('id,Name\n0,Game\n')
  with pytest.raises(ValueError, match="columns.*'id'.*must have Index and Name"):
    results_lib.read_vocabulary(str(path), 12)


def test_official_vocabulary_is_read_by_its_index_column():
  path = paths.REAL / 'vocabulary.csv'
  names = results_lib.read_vocabulary(str(path), 3862)
  with open(path, newline='', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  assert [int(row['Index']) for row in rows] != list(range(len(rows)))
  assert names[0] == 'Game' and len(names) == 3862
  for row in rows:
    assert names[int(row['Index'])] == row['Name']
