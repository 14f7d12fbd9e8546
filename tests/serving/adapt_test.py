"""What `adapt` writes, that its rule is that of inference, and what it refuses."""

import json
import re

import metric_cases
import numpy as np
import pandas as pd
import pytest
import records as records_lib
import serving_cases
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.dataloaders import reader
from yt8m_distill.modeling import adaptive as inference
from yt8m_distill.serving import adapt as adapt_lib
from yt8m_distill.serving import ensemble
from yt8m_distill.serving import export as export_lib

pytestmark = pytest.mark.end_to_end

_COUNTS = [2, 4]
_TOP_K = 5
_NESTED = serving_cases.nested(_COUNTS)


@pytest.fixture(name='run', scope='module')
def _run(tmp_path_factory):
  """A nested network with random weights."""
  return serving_cases.write_nested_run(tmp_path_factory.mktemp('nested'), _COUNTS)


@pytest.fixture(name='data', scope='module')
def _data(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data')
  for seed, name in enumerate(('calibrate', 'evaluate', 'other')):
    tiny.write_records(folder / f'{name}.tfrecord', 40, seed)
  return folder


def _adapt(run, data, out, **arguments):
  """Calibrates on one file and evaluates another; returns the output folder."""
  adapt_lib.adapt(
    **{
      'model': run,
      'calibration_path': str(data / 'calibrate.tfrecord'),
      'evaluation_path': str(data / 'evaluate.tfrecord'),
      'output_dir': str(out),
      'mean_frames': 3.2,
      'batch_size': 16,
      **arguments,
    }
  )
  return out


@pytest.fixture(name='eagerly')
def _eagerly():
  """Runs functions eagerly where their graph is not what is tested."""
  with tiny.eagerly():
    yield


@pytest.fixture(name='adapted', scope='module')
def _adapted(run, data, tmp_path_factory):
  return _adapt(run, data, tmp_path_factory.mktemp('adapted') / 'out')


def _read(run, path):
  """The network, its inputs and the labels of all records of a file."""
  found = trained_network.Network(run)
  model = found.model
  read = reader.FrameReader(
    model.features, model.max_frames, model.num_classes, model.network.frames
  )
  serialized = records_lib.read(path)
  inputs, labels = read(
    tf.fill([len(serialized)], 'x'),
    tf.range(len(serialized), dtype=tf.int64),
    tf.constant(serialized),
  )
  return found.network, inputs, labels.numpy()


def test_scores_are_those_of_adaptive_inference(run, data, adapted):
  stopping = json.loads((adapted / 'stopping.json').read_text())
  curve = pd.read_csv(adapted / 'curve.csv')
  network, inputs, labels = _read(run, data / 'evaluate.tfrecord')
  rows = curve[curve['measure'] == stopping['measure']]
  thresholds = [0, *rows['threshold'].iloc[10:90:20], 1]
  for row in rows[rows['threshold'].isin(thresholds)].to_dict('records'):
    rule = inference.Rule(_COUNTS, stopping['measure'], row['threshold'])
    outputs = inference.AdaptiveClassifier(network, rule)(inputs)
    assert row['frames'] == pytest.approx(np.mean(outputs['frames_seen']))
    scores = metric_cases.evaluate(outputs['predictions'].numpy(), labels, _TOP_K)
    for key, value in scores.result().items():
      assert row[key] == pytest.approx(value, abs=1e-6)


def test_fixed_counts_are_the_network_on_as_many_frames(run, data, adapted):
  network, inputs, labels = _read(run, data / 'evaluate.tfrecord')
  rows = pd.read_csv(adapted / 'curve.csv').iloc[: len(_COUNTS)]
  assert rows['count'].tolist() == _COUNTS
  assert set(rows['measure']) == {'fixed'}
  for count, row in zip(_COUNTS, rows.to_dict('records')):
    seen = tf.minimum(inputs['num_frames'], count)
    outputs = network({'frames': inputs['frames'][:, :count], 'num_frames': seen})
    scores = metric_cases.evaluate(outputs['predictions'].numpy(), labels, _TOP_K)
    assert row['frames'] == pytest.approx(np.mean(seen))
    assert row['flops'] <= inference.flops_of(network, [count])[0]
    for key, value in scores.result().items():
      assert row[key] == pytest.approx(value, abs=1e-6)


def test_stopping_is_what_was_calibrated(run, data, adapted):
  stopping = json.loads((adapted / 'stopping.json').read_text())
  assert stopping['counts'] == _COUNTS
  assert stopping['measure'] in inference.MEASURES
  assert stopping['network'] == ensemble.Ensemble([run], 'student', 1).fingerprint()
  assert stopping['target'] == {'mean_frames': 3.2, 'gap_loss': None, 'measure': None}
  calibration = stopping['calibration']
  assert calibration['input_path'] == str(data / 'calibrate.tfrecord')
  assert calibration['videos'] == 40
  network, inputs, labels = _read(run, data / 'calibrate.tfrecord')
  rule = inference.Rule(_COUNTS, stopping['measure'], stopping['threshold'])
  outputs = inference.AdaptiveClassifier(network, rule)(inputs)
  scores = metric_cases.evaluate(outputs['predictions'].numpy(), labels, _TOP_K)
  expected = calibration['expected']
  assert expected['frames'] == pytest.approx(np.mean(outputs['frames_seen']))
  assert expected['frames'] <= 3.2
  assert expected['gap'] == pytest.approx(scores.result()['gap'], abs=1e-6)


def test_report_and_tables(adapted, data):
  text = (adapted / 'report.md').read_text()
  assert f'Evaluated on 40 videos of {data}/evaluate.tfrecord.' in text
  assert 'mAP over 12 classes' in text
  assert re.search(r'\| at 2 frames .*\n\| at 4 frames .*\n\| adaptive, \w+ >= ', text)
  lengths = pd.read_csv(adapted / 'lengths.csv')
  assert set(lengths['by']) == {'frames', 'labels'}
  # Those of the whole videos, of which the network sees 4 frames.
  assert lengths.loc[lengths['by'] == 'frames', 'to'].max() == tiny.MAX_FRAMES
  assert len(pd.read_csv(adapted / 'classes.csv')) == tiny.CLASSES
  assert (adapted / 'adaptive.png').read_bytes()[:4] == b'\x89PNG'


@pytest.mark.usefixtures('eagerly')
def test_evaluation_records_do_not_change_the_choice(run, data, tmp_path):
  outs = [
    _adapt(run, data, tmp_path / name, evaluation_path=path)
    for name, path in (
      ('other', f'{data}/other.tfrecord'),
      ('none', ''),
    )
  ]
  assert len({(out / 'stopping.json').read_bytes() for out in outs}) == 1
  assert len({(out / 'curve.csv').read_bytes() for out in outs}) == 2
  assert 'favors the chosen threshold' in (outs[-1] / 'report.md').read_text()


@pytest.mark.usefixtures('eagerly')
def test_a_forced_measure_and_a_gap_loss(run, data, tmp_path, capsys):
  target = {'mean_frames': None, 'gap_loss': 0.05, 'measure': 'margin'}
  out = _adapt(run, data, tmp_path / 'out', **target)
  stopping = json.loads((out / 'stopping.json').read_text())
  assert stopping['measure'] == 'margin'
  assert stopping['target'] == target
  curve = pd.read_csv(out / 'curve.csv')
  assert set(curve['measure']) == {'fixed', 'margin'}
  printed = capsys.readouterr().out
  assert printed.strip() in (out / 'report.md').read_text()
  with pytest.raises(ValueError, match='another job: gap_loss is 0.1, was 0.05'):
    _adapt(run, data, out, **{**target, 'gap_loss': 0.1})


@pytest.mark.usefixtures('eagerly')
def test_a_student_among_two_networks(data, tmp_path):
  run = serving_cases.write_run(
    tmp_path / 'run', {'task': {'model': {'student': _NESTED}}}
  )
  _adapt(run, data, tmp_path / 'out')


def test_networks_that_are_not_nested(run, data, tmp_path):
  plain = serving_cases.write_run(tmp_path / 'plain')
  with pytest.raises(ValueError, match=r"plain sees frames of type 'uniform': only a"):
    _adapt(plain, data, tmp_path / 'out')
  export_lib.export(run, str(tmp_path / 'export'))
  with pytest.raises(ValueError, match='export, an export: name the run'):
    _adapt(str(tmp_path / 'export'), data, tmp_path / 'out')


@pytest.mark.usefixtures('eagerly')
@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'mean_frames': None}, 'mean_frames is None and gap_loss is None'),
    ({'batch_size': 0}, 'batch_size is 0: it must be 1 or more'),
    ({'calibration_path': '/absent*'}, '--calibration_path: .* no file matches'),
    ({'evaluation_path': '/absent*'}, '--evaluation_path: .* no file matches'),
    ({'mean_frames': 1}, 'mean_frames is 1: at the smallest count, 2'),
  ],
)
def test_bad_arguments(run, data, tmp_path, arguments, message):
  with pytest.raises(ValueError, match=message):
    _adapt(run, data, tmp_path / 'out', **arguments)
  assert not (tmp_path / 'out/stopping.json').exists()


def test_sets_that_share_a_file_are_refused(run, data, tmp_path):
  (tmp_path / 'link.tfrecord').symlink_to(data / 'calibrate.tfrecord')
  for path in (data / '*', tmp_path / 'link.tfrecord', f'file://{data}/calibrate*'):
    with pytest.raises(ValueError, match='--evaluation_path names .* Name other files'):
      _adapt(run, data, tmp_path / 'out', evaluation_path=str(path))
  assert not (tmp_path / 'out').exists()


@pytest.mark.usefixtures('eagerly')
@pytest.mark.parametrize(
  'labels, message',
  [
    ([], '--calibration_path: none of its 1 videos has a label'),
    ([tiny.CLASSES], f'--calibration_path: .*labels .*{tiny.CLASSES}'),
    (None, '--calibration_path: .*labels'),
  ],
)
def test_records_without_the_labels_of_the_network(
  run, data, tmp_path, labels, message
):
  video = records_lib.random_frame_level(9, {'rgb': 8, 'audio': 4}, labels or [], 0)
  if labels is None:
    del video.context.feature['labels']
  path = tmp_path / 'one.tfrecord'
  records_lib.write(path, [video])
  with pytest.raises(ValueError, match=message):
    _adapt(run, data, tmp_path / 'out', calibration_path=str(path))
