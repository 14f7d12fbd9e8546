"""What `teach` writes, and that it writes the same after an interruption."""

import inspect
import json
import os
import re

import numpy as np
import processes
import pytest
import records as records_lib
import serving_cases
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.dataloaders import thin
from yt8m_distill.serving import ensemble
from yt8m_distill.serving import export
from yt8m_distill.serving import model_sources
from yt8m_distill.serving import predict as predict_lib
from yt8m_distill.serving import signatures
from yt8m_distill.serving import teach as teach_lib

pytestmark = pytest.mark.end_to_end

_SIZES = {'every_n': tiny.EVERY_N, 'max_frames': tiny.MAX_FRAMES}


@pytest.fixture(name='other', scope='module')
def _other(tmp_path_factory):
  """A run whose teacher differs from that of all `runs`."""
  return serving_cases.write_run(tmp_path_factory.mktemp('other') / 'run', scale=0.5)


def _teach(model, data, out, **arguments):
  """Teaches `data`; returns the paths."""
  return teach_lib.teach(
    model, f'{data}/*.tfrecord', str(out), **{**_SIZES, 'workers': 1, **arguments}
  )


@pytest.fixture(name='taught', scope='module')
def _taught(runs, data, tmp_path_factory):
  """The first run's answers: 3 classes in float16."""
  out = tmp_path_factory.mktemp('taught') / 'out'
  _teach(runs[:1], data, out, top_k=3)
  return out


def _answers(path):
  """The teacher's answer in each record, as arrays."""
  answers = []
  for serialized in records_lib.read(path):
    feature = tf.train.SequenceExample.FromString(serialized).context.feature
    answers.append(
      {
        name: np.frombuffer(feature[f'teacher/{name}'].bytes_list.value[0], dtype)
        for name, dtype in (
          ('classes', '<i4'),
          ('probabilities', '<f2'),
          ('representation', '<f2'),
        )
        if f'teacher/{name}' in feature
      }
      | {
        'rest': feature['teacher/rest'].float_list.value[0],
        'num_classes': feature['teacher/num_classes'].int64_list.value[0],
        'teacher': feature['teacher'].bytes_list.value[0],
      }
    )
  return answers


def _outputs(run, path):
  """Outputs of a run's teacher, which sees all frames."""
  found = trained_network.Network(run, 'teacher')
  module = signatures.ServingModule(found.network, found.model)
  serialized = records_lib.read(path)
  return module.records(
    tf.fill([len(serialized)], 'x'),
    tf.range(len(serialized), dtype=tf.int64),
    tf.constant(serialized),
  )


def test_answers_are_the_teachers(runs, data, taught):
  outputs = _outputs(runs[0], data / 'test0.tfrecord')
  predictions = outputs['predictions'].numpy()
  answers = _answers(taught / 'test0.tfrecord')
  assert len(answers) == len(predictions)
  for row, answer in enumerate(answers):
    best = np.argsort(-predictions[row])
    np.testing.assert_array_equal(answer['classes'], best[:3])
    np.testing.assert_allclose(
      answer['probabilities'], predictions[row][best[:3]], rtol=2**-11, atol=2**-24
    )
    np.testing.assert_allclose(
      answer['rest'], predictions[row][best[3:]].sum(), rtol=1e-5
    )
    np.testing.assert_allclose(
      answer['representation'],
      outputs['representation'][row],
      rtol=2**-11,
      atol=2**-24,
    )
    assert answer['num_classes'] == tiny.CLASSES
  assert len({answer['teacher'] for answer in answers}) == 1


def test_the_rest_of_a_record_is_thinned(data, taught):
  for full, record in zip(
    records_lib.read(data / 'test2.tfrecord'),
    records_lib.read(taught / 'test2.tfrecord'),
    strict=True,
  ):
    record = tf.train.SequenceExample.FromString(record)
    for key in list(record.context.feature):
      if key.startswith('teacher'):
        del record.context.feature[key]
    thinned = thin.thin_record(full, **_SIZES, name='x')
    assert record == tf.train.SequenceExample.FromString(thinned)


def test_goes_on_where_it_stopped_and_with_its_own_job_alone(
  runs, other, data, taught, tmp_path, capsys
):
  _teach(runs[:1], data, tmp_path / 'out', top_k=3)
  os.remove(tmp_path / 'out/test1.tfrecord')
  (tmp_path / 'out/test2.tfrecord').rename(tmp_path / 'out/test2.tfrecord.partial')
  capsys.readouterr()
  _teach(runs[:1], data, tmp_path / 'out', top_k=3, workers=3)
  for name in ('test0.tfrecord', 'test1.tfrecord', 'test2.tfrecord'):
    assert (tmp_path / 'out' / name).read_bytes() == (taught / name).read_bytes()
  summary, sizes = capsys.readouterr().out.splitlines()
  assert summary.endswith('3 shards, 2 of them written now, 8 videos.')
  assert sizes.startswith('Bytes per video: ')
  for change in ({'top_k': 4}, {'dtype': 'float32'}, {'every_n': 2}):
    with pytest.raises(ValueError, match=f'another job: {next(iter(change))} is'):
      _teach(runs[:1], data, tmp_path / 'out', **{'top_k': 3, **change})
  with pytest.raises(ValueError, match='another job: model is .*teacher is'):
    _teach([other], data, tmp_path / 'out', top_k=3)


@pytest.mark.parametrize('command', [teach_lib.teach, predict_lib.predict])
def test_help_lists_all_flags(command):
  done = processes.forked('-m', command.__module__, '--help')
  for name in inspect.signature(command).parameters:
    assert re.search(rf'^  --(\[no\])?{name}:', done.stdout, re.MULTILINE), name


def test_records_that_store_features_differently(runs, data, taught, tmp_path):
  names = {'rgb': 'RGB/feature/floats', 'audio': 'AUDIO/feature/floats'}

  def as_floats(_, video):
    lists = video.feature_lists.feature_list
    for name, other in names.items():
      for frame in lists.pop(name).feature:
        stored = np.frombuffer(frame.bytes_list.value[0], np.uint8)
        values = records_lib.dequantize(stored)
        lists[other].feature.add().float_list.value.extend(values)

  (tmp_path / 'floats').mkdir()
  for path in data.iterdir():
    records_lib.edit(path, tmp_path / 'floats' / path.name, as_floats)
  floats, features = (
    [f'{names["rgb"]}:8:{form}', f'{names["audio"]}:4:{form}']
    for form in ('floats', 'quantized_floats')
  )
  out = tmp_path / 'out'
  [path, *_] = _teach(runs[:1], tmp_path / 'floats', out, top_k=3, features=features)
  for answer, expected in zip(
    _answers(path), _answers(taught / 'test0.tfrecord'), strict=True
  ):
    assert answer.pop('teacher') != expected.pop('teacher')
    assert answer.keys() == expected.keys()
    for key in answer:
      np.testing.assert_array_equal(answer[key], expected[key])
  record = tf.train.SequenceExample.FromString(records_lib.read(path)[0])
  assert {*record.feature_lists.feature_list} == {*names.values()}
  assert json.loads((out / 'teach.json').read_text())['features'] == features
  assert 'features' not in json.loads((taught / 'teach.json').read_text())
  with pytest.raises(ValueError, match='another job: .*features is'):
    _teach(runs[:1], tmp_path / 'floats', out, top_k=3, features=floats)


def test_several_teach_their_mean(runs, other, data, tmp_path):
  runs = [runs[0], other]
  [path, *_] = _teach(runs, data, tmp_path / 'out', top_k=99)
  mean = np.mean([_outputs(r, data / 'test0.tfrecord')['predictions'] for r in runs], 0)
  for row, answer in enumerate(_answers(path)):
    assert 'representation' not in answer
    np.testing.assert_array_equal(answer['classes'], np.argsort(-mean[row]))
    assert answer['rest'] == 0


def test_all_frames_are_kept_without_thinning(runs, data, tmp_path):
  [path, *_] = _teach(runs[:1], data, tmp_path / 'out', every_n=1)
  for both in zip(records_lib.read(data / 'test0.tfrecord'), records_lib.read(path)):
    full, record = map(tf.train.SequenceExample.FromString, both)
    assert record.feature_lists == full.feature_lists
    assert 'every_n' not in record.context.feature


def test_an_export_is_the_same_teacher(runs, other, tmp_path):
  export.export(runs[0], str(tmp_path / 'out'), 'teacher')
  first, second, third = (
    ensemble.Ensemble([source], model_sources.TEACHERS, 1).fingerprint()
    for source in (runs[0], str(tmp_path / 'out'), other)
  )
  assert first == second != third


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'every_n': 0}, 'every_n is 0: it must be between 1 and max_frames'),
    ({'top_k': 0}, 'top_k is 0: it must be 1 or more'),
    ({'batch_size': 0}, 'batch_size is 0'),
    ({'model': []}, 'model is empty'),
    ({'features': ['rgb:7']}, r'--features have the sizes \[7\]'),
    ({'model_weights': ['1', '2']}, '2 of them for 1 networks: give one weight'),
    ({'input_path': '/absent*'}, 'no file matches'),
  ],
)
def test_bad_arguments(runs, data, tmp_path, arguments, message):
  with pytest.raises(ValueError, match=message):
    teach_lib.teach(
      **{
        'model': runs[:1],
        'input_path': f'{data}/*',
        'output_dir': str(tmp_path / 'out'),
        **arguments,
      }
    )
  assert not (tmp_path / 'out').exists()


def test_records_that_were_rewritten_are_refused(runs, data, taught, tmp_path):
  thin.thin(f'{data}/*.tfrecord', str(tmp_path / 'thinned'), **_SIZES, workers=1)
  _teach(runs[:1], data, tmp_path / 'full', every_n=1)
  for folder, done in (
    (tmp_path / 'thinned', 'thinned'),
    (taught, 'thinned'),
    (tmp_path / 'full', 'taught'),
  ):
    with pytest.raises(ValueError, match=f'record 0: .*so it was {done} before'):
      _teach(runs[:1], folder, tmp_path / f'again {done}')
  with pytest.raises(ValueError, match='so it was taught before'):
    thin.thin(f'{tmp_path}/full/*.tfrecord', str(tmp_path / 'out'), workers=1)
