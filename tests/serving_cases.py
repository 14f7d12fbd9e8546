"""Tiny jobs of prediction, and what they wrote."""

import re
from unittest import mock

import tensorflow as tf

from yt8m_distill.serving import ensemble
from yt8m_distill.serving import predict as predict_lib

TOP_K = 4
COUNTS = (5, 1, 7)  # videos of the shards
_ENSEMBLE = ensemble.Ensemble
_kept = {}


def edit(source, target, change):
  """Copies a shard; `change(number, video)` edits its videos."""
  with tf.io.TFRecordWriter(str(target)) as writer:
    for number, record in enumerate(tf.data.TFRecordDataset(str(source))):
      video = tf.train.SequenceExample.FromString(record.numpy())
      change(number, video)
      writer.write(video.SerializeToString())


def predict(runs, data, out, **arguments):
  """Predicts `data` with the first run into `out`, which is returned."""
  with mock.patch.object(ensemble, 'Ensemble', _read):
    predict_lib.predict(
      **{
        'model': runs[:1],
        'input_path': f'{data}/*.tfrecord',
        'output_dir': str(out),
        'top_k': TOP_K,
        **arguments,
      }
    )
  return out


def _read(sources, *arguments):
  """Reads networks, the same ones once for all tests of a process."""
  key = (*sources, str(arguments))
  if key not in _kept:
    _kept[key] = _ENSEMBLE(sources, *arguments)
  return _kept[key]


def contents(out):
  """Name and bytes of every file of predictions."""
  return {
    path.name: path.read_bytes()
    for path in sorted(out.iterdir())
    if path.name != 'predict.json'
  }


def rows(path):
  """(id, classes, probabilities) of each row of a CSV."""
  lines = path.read_text().splitlines()
  assert lines[0] == 'VideoId,LabelConfidencePairs'
  parsed = []
  for line in lines[1:]:
    name, pairs = line.split(',')
    assert re.fullmatch(r'(\d+ [01]\.\d{6}( |$))+', pairs)
    values = pairs.split(' ')
    parsed.append(
      (name, [int(v) for v in values[::2]], [float(v) for v in values[1::2]])
    )
  return parsed
