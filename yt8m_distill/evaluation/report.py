"""Reports evaluated runs: a table and learning curves.

  yt8m-distill report RUN [RUN ...]

The table shows the networks of all runs and the class-frequency baseline. It is
printed and written to report.md in the first run's folder. Each run that was
trained gets a plot of its losses and its GAP (of segments, MAP@K), curves.png. A run
that is named twice appears once.
"""

from collections.abc import Sequence
import os
from typing import Any

import matplotlib
from tensorboard.backend.event_processing import event_accumulator
import tensorflow as tf

from yt8m_distill.checkpoints import run_dir
from yt8m_distill.evaluation import baseline
from yt8m_distill.evaluation import results as results_lib
from yt8m_distill.utils import cli
from yt8m_distill.utils import files
from yt8m_distill.utils import markdown as markdown_text

matplotlib.use('Agg')
from matplotlib import pyplot as plt
from matplotlib import ticker


def table(runs: Sequence[str]) -> str:
  """Returns the networks of runs and the baseline as a Markdown table.

  Frames and FLOPs are also given in percent of the teacher's; of several teachers, the
  one with the most FLOPs counts. Lines above the table name each run, its step, the
  records it was evaluated on, and the classes of its mAP. The baseline is that of the
  first run's data. A line below the table says if its records cannot be read.

  Args:
    runs: folders of evaluated runs.

  Raises:
    ValueError: a run is not a folder, or the folder holds no run, or one without an
      evaluation.
  """
  paths = [_params_path(run) for run in runs]
  task = run_dir.read_params(paths[0]).task
  labels: list[str] = []  # of each row
  evaluated: list[dict[str, float]] = []  # costs and scores of each row
  teachers: list[dict[str, float]] = []
  sources, inputs, units = [], [], set()
  for run, path in zip(runs, paths):
    results = _evaluation(run, os.path.dirname(path))
    inputs.append(results['input_path'])
    units.add(_unit(results))
    source = (
      f'- {run}: step {results["step"]:,}, {results["videos"]:,} {_unit(results)}s of '
      f'{results["input_path"]}'
    )
    whole_source = '; '.join(filter(None, (source, results_lib.map_classes(results))))
    sources.append(markdown_text.line(whole_source))
    folder = os.path.basename(run.rstrip('/'))
    for name, values in results_lib.networks(results).items():
      if name == 'network':
        labels.append(folder)
      else:
        labels.append(f'{folder}: {name}' if len(runs) > 1 else name)
      if name == 'teacher':
        teachers.append(values)
      evaluated.append(values)
  notes = ''
  task.validation_data.input_path = inputs[0]
  scores = None
  if task.labels == 'video':
    scores, reason = baseline.of_run_or_reason(runs[0], task)
    notes += f'\n{reason}\n' if reason else ''
  if scores:
    labels.append('class frequency')
    evaluated.append({**scores, 'frames': 0, 'flops': 0, 'parameters': 0})
    if scores['train_videos'] == baseline.MAX_TRAIN_VIDEOS:
      notes += (
        '\nClass frequencies are those of the first '
        f'{scores["train_videos"]:,} training videos.\n'
      )
  if any(records != inputs[0] for records in inputs):
    notes += (
      '\nThe runs were evaluated on different records, so their scores cannot be '
      'compared.\n'
    )
  columns = [
    key for key in results_lib.TITLES if any(key in values for values in evaluated)
  ]
  flops = f'GFLOPs per {" or ".join(sorted(units))}'
  titles = (results_lib.TITLES[key] for key in columns)
  whole = [('network', 'frames', flops, 'parameters', *titles)]
  teacher = max(teachers, key=lambda values: values['flops'], default=None)
  for label, values in zip(labels, evaluated):
    whole.append(
      (
        label,
        _cost(str(values['frames']), 'frames', values, teacher),
        _cost(f'{values["flops"] / 1e9:.3f}', 'flops', values, teacher),
        f'{values["parameters"]:,}',
        *(f'{values[key]:.4f}' if key in values else '' for key in columns),
      )
    )
  return '\n'.join(['Evaluated:', '', *sources, '', markdown(whole)]) + notes


def _unit(results: dict[str, Any]) -> str:
  """Returns what a network saw at a time in an evaluation."""
  return 'window' if 'max_windows' in results else 'video'


def _cost(
  text: str, key: str, values: dict[str, float], teacher: dict[str, float] | None
) -> str:
  """Returns a cost as text, with its share of the teacher's where they differ."""
  if not values[key]:
    return '0'
  if not teacher or values[key] == teacher[key] or not teacher[key]:
    return text
  return f'{text} ({100 * values[key] / teacher[key]:.3g}%)'


def _params_path(run: str) -> str:
  """Returns the path of a run's params.yaml, which may lie above `run`."""
  if not tf.io.gfile.isdir(run):
    raise ValueError(f'{run} is not a folder: name the --model_dir of a run.')
  path = run_dir.params_path(os.path.join(run, ''))
  if not path:
    raise ValueError(
      f'{run} is not a run: it holds no params.yaml. Name the --model_dir of a run.'
    )
  return path


def _evaluation(run: str, owner: str) -> dict[str, Any]:
  """Returns the evaluation in a folder of the run `owner`, or in the run itself."""
  results = run_dir.read_evaluation(run)
  if results:
    return results
  if owner != run.rstrip('/'):  # Such as best_ckpt.
    raise ValueError(f'{run} is a folder of the run {owner or "."}: name the run.')
  if not tf.train.latest_checkpoint(run):
    raise ValueError(
      f'{run} holds neither a checkpoint nor an evaluation: train it first, with '
      '--mode=train_and_eval, or name another run.'
    )
  return run_dir.require_evaluation(run)


def markdown(rows: Sequence[Sequence[str]]) -> str:
  """Returns rows of cells, the first a header, as a Markdown table."""
  rows = [[markdown_text.cell(cell) for cell in row] for row in rows]
  widths = [max(map(len, column)) for column in zip(*rows)]
  lines = [
    '| ' + ' | '.join(cell.ljust(width) for cell, width in zip(row, widths)) + ' |'
    for row in rows
  ]
  rule = '|' + '|'.join('-' * (width + 2) for width in widths) + '|'
  return '\n'.join([lines[0], rule, *lines[1:]]) + '\n'


Curves = dict[str, tuple[list[int], list[float]]]


def read_curves(folder: str) -> Curves:
  """Reads the scalars of a folder of TensorBoard summaries.

  Returns:
    Steps and values by tag; nothing if the folder does not exist.
  """
  if not tf.io.gfile.isdir(folder):
    return {}
  events = event_accumulator.EventAccumulator(
    folder, size_guidance={event_accumulator.TENSORS: 0}, purge_orphaned_data=False
  )
  events.Reload()
  curves: Curves = {}
  for tag in events.Tags()['tensors']:
    points = sorted(
      (e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)
    )
    steps, values = zip(*points)
    curves[tag] = list(steps), list(values)
  return curves


def plot(run: str) -> plt.Figure:
  """Draws the losses and the GAP, or MAP@K, of a run over its steps.

  Args:
    run: folder with TensorBoard summaries in train/ and validation/.

  Returns:
    The figure, which the caller closes.
  """
  train = read_curves(os.path.join(run, 'train'))
  validation = read_curves(os.path.join(run, 'validation'))
  segments = any(tag.endswith('map_at_k') for tag in validation)
  key, title = ('map_at_k', 'MAP@K') if segments else ('gap', 'GAP@20')
  figure, (losses, score) = plt.subplots(1, 2, figsize=(12, 4.5))
  for tag, label, style in (
    ('label_loss', 'L_CE', 'C1-'),
    ('teacher/label_loss', 'teacher L_CE', 'C0-'),
    ('student/label_loss', 'student L_CE', 'C1-'),
    ('student/representation_loss', 'L_REP', 'C2--'),
    ('student/prediction_loss', 'L_PRED', 'C3--'),
    ('student/intermediate_loss', 'L_INT', 'C4--'),
  ):
    if tag in train:
      losses.plot(*train[tag], style, label=label)
  losses.set(
    xlabel='step', ylabel='loss per video', yscale='log', title='Training losses'
  )
  # By default, labels of a short log axis overlap and a long one has few.
  low, high = losses.get_ylim()
  losses.yaxis.set_major_locator(
    ticker.LogLocator(subs=(1, 2, 5)) if high > 5 * low else ticker.AutoLocator()
  )
  losses.yaxis.set_major_formatter(ticker.FormatStrFormatter('%g'))
  losses.yaxis.set_minor_formatter(ticker.NullFormatter())
  for prefix, name, color in (
    ('', '', 'C1'),
    ('teacher/', 'teacher, ', 'C0'),
    ('student/', 'student, ', 'C1'),
  ):
    tag = f'{prefix}{key}'
    for curves, label, style in (
      (train, 'training batches', ':'),
      (validation, 'validation', 'o-'),
    ):
      if tag in curves:
        score.plot(*curves[tag], style, color=color, label=f'{name}{label}')
  score.set(xlabel='step', ylabel=title, ylim=(0, 1), title=title.partition('@20')[0])
  for axes in (losses, score):
    axes.grid(alpha=0.3)
    axes.legend()
    # At most 6 labels, so that steps of 7 digits fit beside each other.
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    axes.ticklabel_format(axis='x', style='plain')
  figure.suptitle(os.path.basename(run.rstrip('/')))
  return figure


def save(figure: plt.Figure, path: str):
  """Writes a figure as a whole PNG file or not at all, and closes it."""
  figure.tight_layout()
  with files.whole_file(path) as partial:
    figure.savefig(partial, dpi=120, format='png')
  plt.close(figure)


def main(runs: Sequence[str]):
  """Runs the command."""
  runs = list({os.path.realpath(run): run for run in runs}.values())
  text = table(runs)
  print(text)
  files.write_text(os.path.join(runs[0], 'report.md'), text)
  for run in runs:
    if tf.io.gfile.isdir(os.path.join(run, 'train')):
      picture = os.path.join(run, 'curves.png')
      save(plot(run), picture)
      print(f'Learning curves: {picture}')


if __name__ == '__main__':
  cli.run(main, 'RUN...')
