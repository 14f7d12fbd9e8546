"""Studies whose runs were never run: folders as finished runs leave them."""

import json

import numpy as np
import pandas as pd
import tensorflow as tf

from experiments.study import runner

CLASSES = 12


def study(**values):
  """A small study, as its YAML file would hold it."""
  return {
    'seeds': [0, 1, 2],
    'gin_file': 'train.gin',
    'axes': {
      'k': {6: {'k': 6, 'student_chunks': 3}, 30: {'k': 30, 'student_chunks': 5}}
    },
    'groups': [
      {
        'name': 'skyline',
        'experiment': 'yt8m_distill_single',
        'gin_file': 'skyline.gin',
      },
      {
        'name': 'serial',
        'experiment': 'yt8m_distill',
        'needs': 'skyline',
        'gin_file': ['serial.gin', 'own.gin'],
        'grid': {'k': [6, 30]},
      },
      {
        'name': 'alone',
        'experiment': 'yt8m_distill_single',
        'label': '{frames}-k',
        'grid': {'frames': ['uniform', 'last'], 'k': [6, 30]},
      },
    ],
    'columns': 'k',
    **values,
  }


def finish(run, output_dir, gap, curve=True):
  """Leaves a finished run whose student (or single network) has this GAP."""
  folder = output_dir / run.name
  folder.mkdir(parents=True)
  (folder / 'finished.json').write_text('{"seconds": 12.5}')
  single = run.experiment == 'yt8m_distill_single'
  scores = {'': gap} if single else {'teacher/': 0.9, 'student/': gap}
  frames = int(run.axes.get('k', 300))
  cost = {'frames': frames, 'flops': frames * 1000000, 'parameters': 1234}
  names = ['network'] if single else ['teacher', 'student']
  (folder / 'evaluation.json').write_text(
    json.dumps(
      {
        'step': 7,
        'videos': 9,
        'input_path': 'validate',
        'networks': dict.fromkeys(names, cost),
        'metrics': {
          f'{prefix}{key}': value * factor
          for prefix, value in scores.items()
          for key, factor in (('gap', 1), ('map', 0.5), ('hit_at_one', 1), ('perr', 1))
        },
      }
    )
  )
  rng = np.random.default_rng(run.seed)
  pd.DataFrame(
    {
      'positives': np.arange(CLASSES),
      **{
        f'{prefix}average_precision': value + 0.1 * rng.random(CLASSES)
        for prefix, value in scores.items()
      },
    }
  ).to_csv(folder / 'per_class.csv', index=False)
  if curve:
    writer = tf.summary.create_file_writer(str(folder / 'validation'))
    with writer.as_default():
      for step in (2, 4, 7):
        for prefix, value in scores.items():
          tf.summary.scalar(f'{prefix}gap', value * step / 7, step=step)
    writer.close()


def finished(output_dir):
  """Names of the finished runs."""
  return sorted(
    folder.name for folder in output_dir.iterdir() if runner.finished(str(folder))
  )
