"""experiments/own_features.sh: features, labels and names of one's own, to the end."""

import os
import subprocess

import numpy as np
import pandas as pd
import paths
import pytest
import tensorflow as tf
import tiny

from experiments.scripts import own_features
from yt8m_distill.evaluation import report
from yt8m_distill.serving import export
from yt8m_distill.serving import predict

pytestmark = [pytest.mark.end_to_end, pytest.mark.long]

# Tells a version, and notes the arguments of each module that it should run.
_PYTHON = """#!/usr/bin/env bash
case "$1" in
  -m) printf '%s\\n' "${{@:2}}" '' >>{notes} ;;
  *) case "$2" in *version_info*) echo 3.11 ;; esac ;;
esac
"""
_SMALLER = [
  f'--gin_params=yt8m_distill.{name}={value}'
  for name, value in (('num_cells', 4), ('num_layers', 1), ('batch_size', 4))
]


def _commands(folder, run):
  """Returns the modules that the script runs and their arguments, without running."""
  python = folder / 'venv' / 'bin' / 'python'
  python.parent.mkdir(parents=True)
  python.write_text(_PYTHON.format(notes=folder / 'notes'))
  python.chmod(0o755)
  texts = [paths.ROOT / 'constraints' / 'tf216.txt', paths.ROOT / 'setup.cfg']
  complete = '\n'.join(path.read_text().rstrip('\n') for path in texts)
  (folder / 'venv' / '.complete').write_text(f'{complete}\n')
  subprocess.run(
    ['bash', paths.ROOT / 'experiments' / 'own_features.sh', run],
    env={
      **os.environ,
      'PYTHON': str(python),
      'VENV': str(folder / 'venv'),
      'TF_SET': 'tf216',
    },
    check=True,
  )
  blocks = (folder / 'notes').read_text().strip().split('\n\n')
  return {module: rest for module, *rest in map(str.splitlines, blocks)}


def _flags(arguments):
  return dict(item.removeprefix('--').split('=', 1) for item in arguments)


def test_every_command_of_the_script_and_an_export(tmp_path, monkeypatch):
  run = tmp_path / 'run'
  commands = _commands(tmp_path, run)
  assert list(commands) == [
    'experiments.scripts.own_features',
    'yt8m_distill.train',
    'yt8m_distill.evaluation.report',
    'yt8m_distill.serving.predict',
  ]
  monkeypatch.chdir(paths.ROOT)
  monkeypatch.setattr(own_features, '_SPLITS', {'train': 8, 'validate': 5})
  monkeypatch.setattr(own_features, '_VIDEOS_PER_FILE', 4)
  own_features.main(commands['experiments.scripts.own_features'])
  vocabulary = pd.read_csv(run / 'data' / 'vocabulary.csv')
  names = vocabulary.Name.tolist()
  assert len(set(names)) == 20

  arguments = commands['yt8m_distill.train']
  flags = _flags(item for item in arguments if 'gin' not in item)
  with tiny.eagerly():
    tiny.run_driver(
      flags['mode'],
      flags['model_dir'],
      *arguments,
      *_SMALLER,
      '--gin_params=yt8m_distill.train_steps=2',
      sized=False,
    )
  scores = pd.read_csv(run / 'per_class.csv')
  assert scores.name.tolist() == names
  report.main(commands['yt8m_distill.evaluation.report'])
  assert '| student' in (run / 'report.md').read_text()

  flags = _flags(commands['yt8m_distill.serving.predict'])
  predict.predict(**{**flags, 'model': [flags['model']], 'top_k': int(flags['top_k'])})
  rows = pd.concat(
    map(pd.read_parquet, sorted((run / 'predictions').glob('*.parquet')))
  )
  assert rows.id.tolist() == [f'validate-{number}' for number in range(5)]
  for indices, chosen in zip(rows.class_indices, rows.class_names):
    assert chosen.tolist() == [names[index] for index in indices]

  export.export(str(run / 'best_ckpt'), str(tmp_path / 'out'), top_k=3)
  pd.testing.assert_frame_equal(
    pd.read_csv(tmp_path / 'out' / 'labels.csv'), vocabulary
  )
  video = next(own_features.videos('validate'))
  frames = np.concatenate(list(video.features.values()), axis=1, dtype=np.float32)
  outputs = tf.saved_model.load(str(tmp_path / 'out')).signatures['features'](
    features=tf.constant(frames[None]), num_frames=tf.constant([len(frames)])
  )
  expected = rows.iloc[0]
  assert outputs['class_names'].numpy()[0].astype(str).tolist() == list(
    expected.class_names
  )
  np.testing.assert_allclose(
    outputs['probabilities'][0], expected.probabilities, atol=1e-6
  )
