"""Pictures of a study: quality against cost, learning curves, gain by class."""

from collections.abc import Sequence
import dataclasses
import os
from typing import Any

from absl import logging
import matplotlib
import numpy as np
import pandas as pd

from experiments.study import claims
from experiments.study import config
from experiments.study import results
from experiments.study import runner
from yt8m_distill.evaluation import report
from yt8m_distill.evaluation import results as results_lib

matplotlib.use('Agg')
from matplotlib import pyplot as plt

_TITLES = {'gap': 'GAP@20', 'map': 'mAP'}


def _styles(labels: list[str]) -> dict[str, dict[str, Any]]:
  """A color and a marker for each label, the same in all pictures."""
  colors = plt.get_cmap('tab20').colors
  return {
    label: {
      'color': colors[index % len(colors)],
      'marker': 'osD^v'[index // len(colors) % 5],
    }
    for index, label in enumerate(labels)
  }


def _name(study: config.Study, column: str) -> str:
  return f'{study.columns}={column}' if column else ''


def _legend(panels: Sequence[plt.Axes]):
  """One legend of all panels, right of the last."""
  handles = {
    label: handle
    for axes in panels
    for handle, label in zip(*axes.get_legend_handles_labels())
  }
  panels[-1].legend(
    handles.values(),
    handles,
    loc='upper left',
    bbox_to_anchor=(1.02, 1),
    fontsize='small',
    frameon=False,
  )


def quality(summary: pd.DataFrame, path: str):
  """GAP and mAP against FLOPs; what has no column is a line across.

  What costs the same is drawn side by side, so that error bars can be seen.

  Args:
    summary: of results.summarize(), without teachers.
    path: of the PNG.
  """
  styles = _styles(list(summary['label'].unique()))
  asides = dict(zip(styles, 1.015 ** (np.arange(len(styles)) - (len(styles) - 1) / 2)))
  figure, panels = plt.subplots(1, 2, figsize=(15, 6))
  for axes, (key, title) in zip(panels, _TITLES.items()):
    for label, rows in summary.groupby('label', sort=False):
      rows = rows.sort_values('flops')
      axes.errorbar(
        rows['flops'] / 1e9 * asides[label],
        rows[f'{key}_mean'],
        rows[f'{key}_std'].fillna(0),
        label=label,
        capsize=3,
        markersize=5,
        linewidth=1,
        **styles[label],
      )
      # Nothing is a skyline where nothing has a column.
      if not rows['column'].any() and summary['column'].any():
        axes.axhline(
          rows[f'{key}_mean'].iloc[0],
          linestyle='--',
          linewidth=1,
          color=styles[label]['color'],
        )
    axes.set(
      xscale='log',
      xlabel='GFLOPs per video',
      ylabel=title,
      title=f'{title}, mean and standard deviation over seeds',
    )
    axes.grid(alpha=0.3, which='both')
  _legend(panels)
  report.save(figure, path)


def _curve(runs: pd.DataFrame, output_dir: str) -> pd.Series:
  """GAP on validation data by step, mean over runs of one network."""
  tag = results_lib.key_prefix(runs['network'].iloc[0]) + 'gap'
  curves = []
  for name in runs['name']:
    steps, values = report.read_curves(
      os.path.join(runner.folder(output_dir, name), 'validation')
    ).get(tag, ([], []))
    curves.append(pd.Series(values, steps))
  return pd.concat(curves).groupby(level=0).mean()


def curves(study: config.Study, runs: pd.DataFrame, output_dir: str, path: str):
  """GAP over steps, a panel per column; what has no column is in each.

  Args:
    study: the study.
    runs: of results.learners().
    output_dir: of the study.
    path: of the PNG.
  """
  columns = [
    column for column in results.columns(runs) if column != results.NO_COLUMN
  ] or [results.NO_COLUMN]
  styles = _styles(list(runs['label'].unique()))
  figure, panels = plt.subplots(
    1, len(columns), sharey=True, squeeze=False, figsize=(4 + 4 * len(columns), 6)
  )
  for (label, column), rows in runs.groupby(['label', 'column'], sort=False):
    curve = _curve(rows, output_dir)
    for axes, name in zip(panels[0], columns):
      if column in (name, results.NO_COLUMN):
        axes.plot(curve, label=label, markersize=4, linewidth=1, **styles[label])
  for axes, name in zip(panels[0], columns):
    axes.set(xlabel='step', title=_name(study, name))
    axes.grid(alpha=0.3)
  _legend(panels[0])
  panels[0][0].set_ylabel('GAP@20, validation, mean over seeds')
  report.save(figure, path)


def per_class(
  study: config.Study, runs: pd.DataFrame, output_dir: str, path: str
) -> bool:
  """What `study.per_class` gains in each class, against its positives.

  Args:
    study: the study.
    runs: of results.learners().
    output_dir: of the study.
    path: of the PNG.

  Returns:
    Whether there was anything to draw: a column where both have runs.
  """
  pairs = list(claims.pairs(dataclasses.replace(study, order=[], rises=[]), runs))
  if not pairs:
    logging.warning(
      'per_class.png is not drawn: %s has no column in which both have a finished run.',
      study.per_class,
    )
    return False
  places = runs.groupby(['label', 'column'])
  figure, panels = plt.subplots(
    1, len(pairs), sharey=True, squeeze=False, figsize=(1 + 5.5 * len(pairs), 5)
  )
  for axes, (_, high, low) in zip(panels[0], pairs):
    after, before = (
      results.per_class(places.get_group(place), output_dir) for place in (high, low)
    )
    known = after['positives'] > 0
    positives = after['positives'][known]
    gain = (after['average_precision'] - before['average_precision'])[known]
    axes.scatter(
      positives, gain, s=6, alpha=0.3, color='C0', linewidths=0, label='a class'
    )
    # Classes grouped by powers of 2 of their positives.
    group = 2.0 ** np.floor(np.log2(positives))
    mean = gain.groupby(group).agg(['mean', 'sem'])
    axes.errorbar(
      positives.groupby(group).mean(),
      mean['mean'],
      mean['sem'].fillna(0),
      color='C1',
      marker='o',
      capsize=3,
      label='mean ± standard error',
    )
    axes.axhline(0, color='black', linewidth=0.8)
    axes.set(
      xscale='log',
      xlabel='positives of the class',
      title=': '.join(
        filter(
          None,
          [
            _name(study, high[1] or low[1]),
            f'{(gain > 0).sum()} classes gain, {(gain < 0).sum()} lose',
          ],
        )
      ),
    )
    axes.grid(alpha=0.3)
    axes.legend()
  panels[0][0].set_ylabel('gain of average precision')
  figure.suptitle(study.per_class)
  report.save(figure, path)
  return True


def draw(study: config.Study, runs: pd.DataFrame, output_dir: str) -> list[str]:
  """Draws all pictures; returns the names of the files in output_dir."""
  runs = results.learners(runs)
  names = ['quality.png', 'curves.png']
  quality(results.summarize(runs), os.path.join(output_dir, names[0]))
  curves(study, runs, output_dir, os.path.join(output_dir, names[1]))
  if study.per_class and per_class(
    study, runs, output_dir, os.path.join(output_dir, 'per_class.png')
  ):
    names.append('per_class.png')
  return names
