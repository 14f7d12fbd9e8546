"""A tiny trained run, videos for it, and jobs that predict with it."""

import pathlib
import re
from unittest import mock

import numpy as np
import records
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.modeling import distiller
from yt8m_distill.serving import ensemble
from yt8m_distill.serving import predict as predict_lib

STEP = 7
# One frame, around the student's stride, full, and cut.
LENGTHS = (1, tiny.EVERY_N, tiny.EVERY_N + 1, tiny.MAX_FRAMES, tiny.MAX_FRAMES + 4)
TOP_K = 4
COUNTS = (5, 1, 7)  # videos of the shards
_ENSEMBLE = ensemble.Ensemble
_kept = {}


def write_run(path, *overrides, scale=1.0):
  """A distillation run with random weights, evaluated at STEP.

  Args:
    path: of the run.
    *overrides: of its configuration.
    scale: of the weights. At 1 no two predictions are alike; a larger network
      then amplifies every rounding.
  """
  params = tiny.experiment(*overrides)
  model = distiller.build(params.task.model)
  tiny.scatter_weights(model)
  for variable in model.trainable_variables:
    variable.assign(scale * variable)
  names = ('teacher', 'student')
  trained_network.write(
    str(path),
    model,
    params,
    STEP,
    {
      'step': STEP,
      'videos': 9,
      'input_path': 'validate.tfrecord',
      'metrics': {f'{name}/gap': 0.5 + 0.25 * (name == 'student') for name in names},
      'networks': {name: {'frames': 4, 'flops': 5, 'parameters': 6} for name in names},
    },
  )
  return str(path)


def videos(features, lengths=LENGTHS, seed=0):
  """Random videos.

  Args:
    features: of the model's configuration.
    lengths: frames of each video.
    seed: of their content.

  Returns:
    {'frames': uint8 [B, T, D], 'num_frames': int32 [B]} and the same as
    serialized SequenceExamples [B].
  """
  rng = np.random.default_rng(seed)
  size = sum(feature.size for feature in features)
  frames = np.zeros([len(lengths), max(lengths), size], np.uint8)
  ends = np.cumsum([feature.size for feature in features])[:-1]
  serialized = []
  for video, length in zip(frames, lengths):
    video[:length] = rng.integers(0, 256, [length, size])
    parts = np.split(video[:length], ends, axis=1)
    record = records.frame_level(
      {feature.name: part for feature, part in zip(features, parts)}, labels=[0]
    )
    serialized.append(record.SerializeToString())
  return {
    'frames': tf.constant(frames),
    'num_frames': tf.constant(lengths, tf.int32),
  }, tf.constant(serialized)


def predict(runs, data, out, **arguments):
  """Predicts `data` with the first run into `out`, which is returned."""
  with mock.patch.object(ensemble, 'Ensemble', read):
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


def read(sources, *arguments, **named):
  """Reads networks, the same ones once for all tests of a process."""
  key = (*sources, str(arguments), str(named))
  if key not in _kept:
    _kept[key] = _ENSEMBLE(sources, *arguments, **named)
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


def nested(counts):
  """Overrides of a network."""
  return {'frames': {'type': 'nested', 'nested': {'counts': counts}}}


def write_nested_run(folder, counts):
  """Writes a run of one network with nested frames; returns its path."""
  task, model = tiny.single_task(**nested(counts))
  params = tiny.experiment(experiment='yt8m_distill_single')
  params.task = task.task_config
  path = str(pathlib.Path(folder) / 'run')
  trained_network.write(path, model, params, STEP)
  return path
