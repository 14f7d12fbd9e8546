"""An exported network: the same predictions, without this package.

B videos, V classes.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
from official.core import task_factory
import pandas as pd
import paths
import processes
import pytest
import records as records_lib
import serving_cases
import tensorflow as tf
import tf_keras
import tiny

from yt8m_distill.checkpoints import run_dir
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.serving import export
from yt8m_distill.serving import signatures

pytestmark = pytest.mark.end_to_end

_TOP_K = 5


@pytest.fixture(name='run', scope='module')
def _run(tmp_path_factory):
  return serving_cases.write_run(tmp_path_factory.mktemp('run') / 'run')


@pytest.fixture(name='vocabulary', scope='module')
def _vocabulary(tmp_path_factory):
  path = tmp_path_factory.mktemp('names') / 'vocabulary.csv'
  path.write_text(
    'Index,Name\n' + ''.join(f'{i},"class, {i}"\n' for i in range(tiny.CLASSES))
  )
  return str(path)


@pytest.fixture(name='out', scope='module')
def _out(run, vocabulary, tmp_path_factory):
  """An export under a policy of mixed precision, as made where a GPU is."""
  out = tmp_path_factory.mktemp('export') / 'student'
  tf_keras.mixed_precision.set_global_policy('mixed_bfloat16')
  try:
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(tf.test, 'is_built_with_cuda', lambda: True)
      patch.setattr(
        tf.config, 'list_logical_devices', lambda kind=None: [f'/device:{kind}:0']
      )
      assert trained_network.Network(run).network.backbone.lower.runs_on_cudnn()
      export.export(run, str(out), top_k=_TOP_K, vocabulary=vocabulary)
    assert tf_keras.mixed_precision.global_policy().name == 'mixed_bfloat16'
  finally:
    tf_keras.mixed_precision.set_global_policy('float32')
  return out


@pytest.fixture(name='loaded', scope='module')
def _loaded(out):
  return tf.saved_model.load(str(out))


def _evaluated(run, name, params_path, records):
  """What an evaluation makes of records, as the task reads and scores them."""
  task = task_factory.get_task(run_dir.read_params(str(params_path)).task)
  inputs, _ = task.build_reader()(
    tf.fill([len(records)], 'a'), tf.range(len(records), dtype=tf.int64), records
  )
  return task.inference_step(inputs, trained_network.Network(run, name).network)


def _videos(run):
  return serving_cases.videos(trained_network.Network(run).model.features)


def test_predictions_are_those_of_an_evaluation(run, out, loaded):
  _, records = _videos(run)
  expected = _evaluated(run, 'student', out / 'params.yaml', records)
  serve = loaded.signatures['serving_default']
  results = serve(examples=records)
  for key in ('predictions', 'representation'):
    np.testing.assert_allclose(results[key], expected[key], atol=1e-6)
  for row in range(len(records)):
    np.testing.assert_allclose(
      serve(examples=records[row : row + 1])['predictions'][0],
      expected['predictions'][row],
      atol=1e-6,
    )


def test_signatures_and_attribute_say_the_same(run, loaded):
  arrays, records = _videos(run)
  expected = loaded.signatures['serving_default'](examples=records)
  for results in (
    loaded.signatures['frames'](**arrays),
    loaded.signatures['features'](
      features=tf.cast(arrays['frames'], tf.float32) * (4 / 255) + 4 / 512 - 2,
      num_frames=arrays['num_frames'],
    ),
    loaded.records(
      tf.fill([len(records)], 'a'), tf.range(len(records), dtype=tf.int64), records
    ),
  ):
    np.testing.assert_allclose(
      results['predictions'], expected['predictions'], atol=1e-6
    )
    np.testing.assert_array_equal(results['class_names'], expected['class_names'])
  assert expected['class_names'].shape == [len(records), _TOP_K]
  first = int(expected['class_indices'][0, 0])
  assert expected['class_names'].numpy()[0, 0] == f'class, {first}'.encode()


@pytest.mark.parametrize(
  'signature, inputs, message',
  [
    (
      'serving_default',
      {'examples': tf.constant('')},
      'tensor examples .* expected shape',
    ),
    ('serving_default', {'examples': tf.constant(['garbage'])}, 'record 0'),
    ('serving_default', {'examples': tf.zeros([0], tf.string)}, 'no videos'),
    ('serving_default', {'examples': tf.zeros([1], tf.uint8)}, 'string tensor'),
    (
      'frames',
      {'frames': tf.zeros([3, 12], tf.uint8), 'num_frames': tf.constant([1])},
      'tensor frames .* expected shape',
    ),
    (
      'frames',
      {'frames': tf.zeros([1, 3, 9], tf.uint8), 'num_frames': tf.constant([1])},
      '8 of rgb',
    ),
    (
      'frames',
      {'frames': tf.zeros([1, 3, 12], tf.uint8), 'num_frames': tf.constant([4])},
      'from 1 to that',
    ),
    (
      'frames',
      {'frames': tf.zeros([1, 3, 12]), 'num_frames': tf.constant([1])},
      'uint8 tensor',
    ),
  ],
)
def test_bad_requests(loaded, signature, inputs, message):
  with pytest.raises(tf.errors.InvalidArgumentError, match=message):
    loaded.signatures[signature](**inputs)


_CLEAN = """
import sys
import numpy as np
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
records = [r.numpy() for r in tf.data.TFRecordDataset(sys.argv[2])]
results = model.signatures['serving_default'](examples=tf.constant(records))
np.save(sys.argv[3], results['predictions'].numpy())
for name in ('yt8m_distill', 'tf_keras', 'official'):
  assert name not in sys.modules, name
"""


def test_needs_tensorflow_alone(run, out, loaded, tmp_path):
  _, records = _videos(run)
  records_lib.write(tmp_path / 'a.tfrecord', records.numpy())
  # -I: neither the working folder nor PYTHONPATH is searched for modules.
  done = subprocess.run(
    [
      sys.executable,
      '-I',
      '-c',
      _CLEAN,
      out,
      tmp_path / 'a.tfrecord',
      tmp_path / 'predictions.npy',
    ],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
    env={**os.environ, 'CUDA_VISIBLE_DEVICES': '-1'},
  )
  assert done.returncode == 0, done.stderr[-4000:]
  np.testing.assert_allclose(
    np.load(tmp_path / 'predictions.npy'),
    loaded.signatures['serving_default'](examples=records)['predictions'],
    atol=1e-6,
  )
  assert b'keras' not in (out / 'saved_model.pb').read_bytes()


def test_describes_itself(out, vocabulary):
  params = run_dir.read_params(str(out / 'params.yaml'))
  assert params.task.model.network.frames.uniform.every_n == tiny.EVERY_N
  labels = pd.read_csv(out / 'labels.csv')
  pd.testing.assert_frame_equal(labels, pd.read_csv(vocabulary))
  assert json.loads((out / 'evaluation.json').read_text())['metrics'] == {'gap': 0.75}
  spec = json.loads((out / 'input.json').read_text())
  assert [(feature['name'], feature['size']) for feature in spec['features']] == [
    ('rgb', 8),
    ('audio', 4),
  ]
  assert spec['max_frames'] == tiny.MAX_FRAMES
  assert spec['frames_read'] == {
    'type': 'uniform',
    'every_n': tiny.EVERY_N,
    'k': 0,
    'length': 'ceil',
    'at_most': 4,
  }
  np.testing.assert_allclose(spec['dequantization']['range'], [-2, 2], atol=0.01)
  assert spec['signatures']['serving_default']['inputs'] == {
    'examples': {'dtype': 'string', 'shape': [None]}
  }
  assert spec['signatures']['frames']['inputs'] == {
    'frames': {'dtype': 'uint8', 'shape': [None, None, None]},
    'num_frames': {'dtype': 'int32', 'shape': [None]},
  }
  assert spec['signatures']['features']['outputs']['predictions'] == {
    'dtype': 'float32',
    'shape': [None, tiny.CLASSES],
  }
  card = (out / 'model_card.md').read_text()
  for words in (
    'step 7',
    '| 4 of up to 20 |',
    '8 of `rgb` and then 4 of',
    '20 frames, the model reads frames 0, 5, 10 and so on.',
    '| GAP | 0.7500 |',
  ):
    assert words in card
  assert 'YouTube-8M' not in card  # Such features are not from there.


def test_teacher(run, tmp_path):
  out = tmp_path / 'out'
  export.export(run, str(out), name='teacher', top_k=1)
  _, records = _videos(run)
  results = tf.saved_model.load(str(out)).signatures['serving_default'](
    examples=records
  )
  expected = _evaluated(run, 'teacher', out / 'params.yaml', records)
  np.testing.assert_allclose(results['predictions'], expected['predictions'], atol=1e-6)
  assert not (out / 'labels.csv').exists()
  assert 'the model reads all.' in (out / 'model_card.md').read_text()


def test_real_record(tmp_path):
  run = serving_cases.write_run(
    tmp_path / 'run',
    {
      'task': {
        'model': {
          'features': [{'name': 'rgb', 'size': 1024}, {'name': 'audio', 'size': 128}],
          'max_frames': 300,
        }
      }
    },
  )
  out = tmp_path / 'out'
  export.export(run, str(out), top_k=1)
  record = tf.constant(records_lib.read(paths.FRAME_LEVEL))
  results = tf.saved_model.load(str(out)).signatures['serving_default'](examples=record)
  assert results['id'].numpy() == [b'SjJ3']
  np.testing.assert_allclose(
    results['predictions'],
    _evaluated(run, 'student', out / 'params.yaml', record)['predictions'],
    atol=1e-6,
  )
  assert 'YouTube-8M' in (out / 'model_card.md').read_text()


def _refused(match, *args, **kwargs):
  with pytest.raises(ValueError, match=match):
    export.export(*args, **kwargs)
  assert not pathlib.Path(args[1]).exists()


def test_bad_arguments(run, tmp_path, vocabulary):
  out = str(tmp_path / 'out')
  _refused("network is 'both'", run, out, name='both')
  _refused('top_k is 0', run, out, top_k=0)
  _refused("tflite is 'int4'.*float32, dynamic, float16", run, out, kinds=['int4'])
  _refused(
    'vocabulary is nowhere.csv, which does not exist.*--vocabulary',
    run,
    out,
    vocabulary='nowhere.csv',
  )
  large = tmp_path / 'large.csv'
  large.write_text('Index,Name\n12,Thirteen\n')
  _refused(
    'has indices from 12 to 12: they must be whole numbers',
    run,
    out,
    vocabulary=str(large),
  )
  _refused('no checkpoint', str(tmp_path / 'nothing'), out, vocabulary=vocabulary)


def test_occupied_folder_stays_as_it_is(run, tmp_path):
  (tmp_path / 'mine').write_text('mine')
  with pytest.raises(ValueError, match='is not empty'):
    export.export(run, str(tmp_path))
  assert [path.name for path in tmp_path.iterdir()] == ['mine']


def test_interrupted_export_leaves_no_folder(run, tmp_path, monkeypatch):
  def interrupt(folder, *args, **kwargs):
    del args, kwargs
    (pathlib.Path(folder) / 'saved_model.pb').write_text('half')
    raise KeyboardInterrupt

  out = tmp_path / 'out'
  with monkeypatch.context() as patch:
    patch.setattr(signatures, 'save', interrupt)
    with pytest.raises(KeyboardInterrupt):
      export.export(run, str(out), top_k=1)
  assert not list(tmp_path.iterdir())


def test_folder_that_was_filled_meanwhile_stays(run, tmp_path, monkeypatch):
  def fill(folder, *args, **kwargs):
    del args, kwargs
    (out / 'other').mkdir(parents=True)
    (pathlib.Path(folder) / 'saved_model.pb').write_text('whole')

  out = tmp_path / 'out'
  monkeypatch.setattr(signatures, 'save', fill)
  with pytest.raises(ValueError, match='is not empty'):
    export.export(run, str(out), top_k=1)
  assert [path.name for path in out.iterdir()] == ['other']
  assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_command_line(run, vocabulary, tmp_path):
  done = processes.forked(
    '-m',
    'yt8m_distill.serving.export',
    run,
    run,
    tmp_path / 'out',
    '--model_weights=3,1',
    '--top_k=2',
    f'--vocabulary={vocabulary}',
    '--network=teacher',
  )
  assert f'{tmp_path}/out: ' in done.stdout and 'step 7' in done.stdout
  spec = json.loads((tmp_path / 'out' / 'input.json').read_text())
  assert [
    (network['weight'], network['frames_read']['type']) for network in spec['networks']
  ] == [(0.75, 'all'), (0.25, 'all')]
  done = processes.forked('-m', 'yt8m_distill.serving.export', run, check=False)
  assert done.returncode and 'RUN [RUN ...] OUT' in done.stderr
