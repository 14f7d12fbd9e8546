"""A student on thinned records: the same numbers, from fewer bytes."""

import json

import pytest
import tensorflow as tf
import tiny

from yt8m_distill.dataloaders import thin
from yt8m_distill.evaluation import baseline
from yt8m_distill.serving import predict

pytestmark = pytest.mark.end_to_end

_EVALUATION = 'evaluation.json'


def _results(run):
  results = json.loads((run / _EVALUATION).read_text())
  del results['input_path']
  return results


@pytest.fixture(name='records')
def _records(tmp_path):
  """Full records and the same thinned, as paths."""
  full = tmp_path / 'full.tfrecord'
  tiny.write_records(full, 9)
  [thinned] = thin.thin(
    str(full), str(tmp_path / 'thinned'), tiny.EVERY_N, tiny.MAX_FRAMES
  )
  return full, thinned


def test_training_and_evaluation_are_the_same(records, tmp_path):
  runs = [tmp_path / name / 'run' for name in ('one', 'other')]
  for run, path in zip(runs, records):
    tiny.drive('train_and_eval', run, path, 'yt8m_distill_single')
  assert _results(runs[0]) == _results(runs[1])
  one, other = (
    tiny.checkpoint_values(tf.train.latest_checkpoint(str(run))) for run in runs
  )
  assert one.keys() == other.keys()
  for name, value in one.items():
    assert (value == other[name]).all(), name
  predictions = []
  for path in records:
    output = tmp_path / f'predicted-{len(predictions)}'
    predict.predict([str(runs[0])], str(path), str(output))
    predictions.append((output / 'predictions.csv').read_text())
  assert predictions[0] == predictions[1]


def test_a_teacher_refuses_them(records, tmp_path):
  with pytest.raises(
    ValueError,
    match='thinned with every_n=5, but a network sees frames of type all',
  ):
    tiny.drive('train', tmp_path / 'run', records[1])


def test_the_baseline_needs_no_frames(records):
  scores = []
  for path in records:
    data = {'input_path': str(path), 'global_batch_size': 4}
    task = tiny.experiment({'task': {'train_data': data, 'validation_data': data}}).task
    scores.append(baseline.class_frequency(task))
  assert scores[0] == scores[1]
