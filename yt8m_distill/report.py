"""Table and learning curves of a finished run.

  python -m yt8m_distill.report RUN

prints, and writes beside the run's checkpoints, report.md (both networks and
the class-frequency baseline) and curves.png (losses and GAP over steps).
"""

import json
import os
import sys
from typing import Dict, List, Sequence, Tuple

import matplotlib
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

from official.core import exp_factory
from official.modeling import hyperparams
from yt8m_distill import baseline
from yt8m_distill.tasks import evaluation

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # pylint: disable=wrong-import-position

_COLUMNS = ('gap', 'map', 'hit_at_one', 'perr')
_HEADER = ('network', 'frames', 'GFLOPs per video', 'parameters', 'GAP', 'mAP',
           'Hit@1', 'PERR')


def read_params(run: str):
  """Rebuilds a run's configuration from its params.yaml.

  Raises:
    ValueError: the folder holds no run.
  """
  path = os.path.join(run, 'params.yaml')
  if not tf.io.gfile.exists(path):
    raise ValueError(f'{run} holds no params.yaml: name the --model_dir of a '
                     'run.')
  return hyperparams.override_params_dict(
      exp_factory.get_exp_config('yt8m_distill'), path, is_strict=True)


def table(run: str) -> str:
  """Returns the networks of a run and the baseline as a Markdown table.

  Raises:
    ValueError: the run was not evaluated.
  """
  path = os.path.join(run, 'evaluation.json')
  if not tf.io.gfile.exists(path):
    raise ValueError(f'{run} holds no evaluation.json: evaluate it first, with '
                     '--mode=eval.')
  with tf.io.gfile.GFile(path) as file:
    results = json.load(file)
  rows = [_HEADER]
  for name, cost in results['networks'].items():
    values = [results['metrics'][f'{name}/{key}'] for key in _COLUMNS]
    rows.append((name, str(cost['frames']), f'{cost["flops"] / 1e9:.3f}',
                 f'{cost["parameters"]:,}', *_numbers(values)))
  scores = baseline.class_frequency(read_params(run).task)
  rows.append(('class frequency', '0', '0', '0',
               *_numbers(scores[key] for key in _COLUMNS)))
  return _markdown(rows)


def _numbers(values) -> List[str]:
  return [f'{value:.4f}' for value in values]


def _markdown(rows: Sequence[Sequence[str]]) -> str:
  widths = [max(map(len, column)) for column in zip(*rows)]
  lines = ['| ' + ' | '.join(cell.ljust(width) for cell, width in zip(
      row, widths)) + ' |' for row in rows]
  rule = '|' + '|'.join('-' * (width + 2) for width in widths) + '|'
  return '\n'.join([lines[0], rule, *lines[1:]]) + '\n'


Curves = Dict[str, Tuple[List[int], List[float]]]


def read_curves(folder: str) -> Curves:
  """Reads the scalars of a folder of TensorBoard summaries: steps, values."""
  events = event_accumulator.EventAccumulator(
      folder, size_guidance={event_accumulator.TENSORS: 0},
      purge_orphaned_data=False)
  events.Reload()
  curves = {}
  for tag in events.Tags()['tensors']:
    points = sorted((e.step, float(tf.make_ndarray(e.tensor_proto)))
                    for e in events.Tensors(tag))
    curves[tag] = tuple(map(list, zip(*points)))
  return curves


def plot(run: str, path: str):
  """Draws losses and GAP of a run over its steps into a PNG."""
  train = read_curves(os.path.join(run, 'train'))
  validation = read_curves(os.path.join(run, 'validation'))
  figure, (losses, gap) = plt.subplots(1, 2, figsize=(12, 4.5))
  for tag, label, style in (
      ('teacher/label_loss', 'teacher L_CE', 'C0-'),
      ('student/label_loss', 'student L_CE', 'C1-'),
      ('student/representation_loss', 'L_REP', 'C2--'),
      ('student/prediction_loss', 'L_PRED', 'C3--')):
    if tag in train:
      losses.plot(*train[tag], style, label=label)
  losses.set(xlabel='step', ylabel='loss per video', yscale='log',
             title='training losses')
  for name, color in (('teacher', 'C0'), ('student', 'C1')):
    for curves, label, style in ((train, 'training batches', ':'),
                                 (validation, 'validation', 'o-')):
      if f'{name}/gap' in curves:
        gap.plot(*curves[f'{name}/gap'], style, color=color,
                 label=f'{name}, {label}')
  gap.set(xlabel='step', ylabel='GAP@20', ylim=(0, 1), title='GAP')
  for axes in (losses, gap):
    axes.grid(alpha=0.3)
    axes.legend()
  figure.tight_layout()
  partial = f'{path}.partial.png'
  figure.savefig(partial, dpi=120)
  plt.close(figure)
  tf.io.gfile.rename(partial, path, overwrite=True)


def main(argv: Sequence[str]):
  if len(argv) != 2:
    sys.exit('usage: python -m yt8m_distill.report RUN')
  run = argv[1]
  text = table(run)
  evaluation.write_text(os.path.join(run, 'report.md'), text)
  picture = os.path.join(run, 'curves.png')
  plot(run, picture)
  print(text)
  print(f'Learning curves: {picture}')


if __name__ == '__main__':
  main(sys.argv)
