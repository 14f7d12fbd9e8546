"""predict says what to correct."""

import json
import os
import shutil

import pandas as pd
import pytest
import records
import serving_cases
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import extract_student
from yt8m_distill.dataloaders import record_errors
from yt8m_distill.serving import export
from yt8m_distill.utils import cli

pytestmark = pytest.mark.end_to_end


def test_shards_that_would_share_a_file_are_refused(runs, data, tmp_path):
  other = tmp_path / 'other'
  shutil.copytree(data, other)
  with pytest.raises(
    ValueError, match='test0.tfrecord and .*test0.tfrecord would both be test0.csv'
  ):
    serving_cases.predict(
      runs, data, tmp_path / 'out', input_path=f'{data}/test*,{other}/test0*'
    )
  (other / 'test0.tfrecord').rename(other / 'predictions.tfrecord')
  with pytest.raises(
    ValueError, match='the file of all shards would both be predictions.csv'
  ):
    serving_cases.predict(runs, other, tmp_path / 'out')


def _spoilt(data, tmp_path, change):
  where = tmp_path / 'spoilt'
  where.mkdir()
  records.edit(data / 'test0.tfrecord', where / 'x.tfrecord', change)
  return where


def test_a_record_without_the_feature_is_named(runs, data, tmp_path):
  where = _spoilt(
    data,
    tmp_path,
    lambda i, video: i == 3 and video.feature_lists.feature_list.pop('audio'),
  )
  with pytest.raises(
    record_errors.RecordError,
    match="x.tfrecord, record 3: no frame-level feature 'audio'",
  ):
    serving_cases.predict(runs, where, tmp_path / 'out')
  assert os.listdir(tmp_path / 'out') == ['predict.json']
  serving_cases.predict(runs, data, tmp_path / 'out')  # The corrected job.


def test_a_record_of_garbage_is_named(runs, data, tmp_path):
  where = tmp_path / 'spoilt'
  where.mkdir()
  whole = records.read(data / 'test0.tfrecord')[0]
  records.write(where / 'x.tfrecord', [whole, b'garbage'])
  with pytest.raises(
    record_errors.RecordError, match='x.tfrecord, record 1: not a'
  ) as error:
    serving_cases.predict(runs, where, tmp_path / 'out')
  message = cli.message(error.value)
  assert '\n' not in message and 'x.tfrecord, record 1: ' in message


def test_messages_of_checks_in_the_graph_stand_alone(runs, data, tmp_path):
  where = tmp_path / 'spoilt'
  where.mkdir()
  (where / 'x.tfrecord').write_bytes(b'')
  with pytest.raises(tf.errors.InvalidArgumentError) as error:
    serving_cases.predict(runs, where, tmp_path / 'out')
  message = cli.message(error.value)
  assert message.startswith(f'{where}/x.tfrecord: unreadable from byte 0 of 0')
  assert message.endswith(
    'it is empty. Fetch it again, remove it, or set skip_corrupt_records to True.'
  )


@pytest.fixture(scope='module')
def wider(tmp_path_factory):
  return serving_cases.write_run(
    tmp_path_factory.mktemp('wider') / 'run', {'task': {'model': {'num_classes': 20}}}
  )


def test_networks_of_different_classes_are_not_averaged(runs, wider, data, tmp_path):
  with pytest.raises(ValueError, match=f'{runs[0]} predicts 12 classes and {wider} 20'):
    serving_cases.predict(runs, data, tmp_path / 'out', model=[runs[0], wider])


def test_the_teacher_of_one_network_is_refused(runs, data, tmp_path):
  student, saved = str(tmp_path / 'student'), str(tmp_path / 'saved')
  extract_student.extract(runs[0], student)
  tf.saved_model.save(tf.Module(), saved)
  for source in (student, saved):
    with pytest.raises(ValueError, match=f'^{source} has one network: leave out --net'):
      serving_cases.predict(
        runs, data, tmp_path / 'out', model=[source], network='teacher'
      )
  with pytest.raises(ValueError, match=f'^{student} has one network: leave out --net'):
    export.export(student, str(tmp_path / 'out'), name='teacher')
  assert not (tmp_path / 'out').exists()
  serving_cases.predict(runs, data, tmp_path / 'out', model=[student])


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'input_path': '{tmp}/none*'}, 'none.*no file matches'),
    ({'model': ['{tmp}/none']}, 'none is neither an export .* no checkpoint'),
    ({'model': ['{data}']}, '{data} is neither an export .*without a checkpoint'),
    ({'model': ['{tmp}/foreign']}, 'foreign is a SavedModel without.*records'),
    ({'top_k': 0}, 'top_k is 0'),
    ({'batch_size': 0}, 'batch_size is 0'),
    ({'workers': 0}, 'workers is 0'),
    ({'vocabulary': '{tmp}/other.csv'}, "other.csv', which has indices from 40 to 40"),
    ({'model': []}, 'model is empty'),
    ({'model': ['a', '']}, 'model is a,, which has an empty item'),
    ({'vocabulary': '{tmp}'}, 'cannot be read as CSV .*Is a directory'),
    ({'output_dir': ''}, "output folder is '': name one"),
    (
      {'output_dir': '{tmp}/other.csv/out'},
      'other.csv/out cannot be written.*Name a writable',
    ),
  ],
)
def test_errors_name_what_to_correct(runs, data, tmp_path, arguments, message):
  if arguments.get('model') == ['{tmp}/foreign']:
    tf.saved_model.save(tf.Module(), str(tmp_path / 'foreign'))
  pd.DataFrame({'Index': [40], 'Name': ['x']}).to_csv(
    tmp_path / 'other.csv', index=False
  )
  filled = json.loads(
    json.dumps(arguments).replace('{tmp}', str(tmp_path)).replace('{data}', str(data))
  )
  with pytest.raises(ValueError, match=message.replace('{data}', str(data))):
    serving_cases.predict(runs, data, tmp_path / 'out', **filled)
  assert not (tmp_path / 'out').exists()


@pytest.fixture(scope='module')
def diverged(tmp_path_factory):
  """A run whose weights are NaN."""
  folder = tmp_path_factory.mktemp('runs') / 'diverged'
  return serving_cases.write_run(folder, tiny.AVERAGES, scale=float('nan'))


@pytest.mark.parametrize(
  'arguments', [{}, {'segments': 5}, {'format': 'html'}, {'format': 'parquet'}]
)
def test_a_network_whose_training_diverged(diverged, data, tmp_path, arguments):
  with pytest.raises(
    tf.errors.InvalidArgumentError, match='diverged predicts values that are not finite'
  ) as error:
    serving_cases.predict([diverged], data, tmp_path / 'out', **arguments)
  message = cli.message(error.value)
  assert message.startswith(diverged) and 'name an earlier checkpoint' in message
  assert {path.name for path in (tmp_path / 'out').iterdir()} <= {'predict.json'}
