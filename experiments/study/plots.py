"""Plots of a study: scores and cost, learning curves, gain by class."""

import dataclasses
import math
import os

from absl import logging
import matplotlib
import numpy as np
import pandas as pd

from experiments.study import claims
from experiments.study import results
from experiments.study import study_file
from yt8m_distill.evaluation import report

matplotlib.use('Agg')
from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib import ticker

_TITLES = {'gap': 'GAP@20', 'map': 'mAP'}
_MARKERS = 'osD^vP*X<>hp'
_PLAIN = ticker.FuncFormatter(lambda value, _: f'{value:g}')


def _name(study: study_file.Study, column: str) -> str:
  return f'{study.columns}={column}' if column else ''


def quality(study: study_file.Study, summary: pd.DataFrame, path: str):
  """Draws the scores: a row per label, a marker per column, the cost as color.

  A label without a column, such as a skyline, is also a line across all rows.

  Args:
    study: the study.
    summary: from results.summarize(), without teachers. A score that it lacks
      gets no panel.
    path: path of the PNG.
  """
  labels = list(summary['label'].unique())
  columns = results.columns(summary)
  titles = {
    key: title for key, title in _TITLES.items() if f'{key}_mean' in summary.columns
  }
  norm = colors.LogNorm(summary['flops'].min() / 1e9, summary['flops'].max() / 1e9)
  figure, panels = plt.subplots(
    1,
    len(titles) + 1,
    figsize=(4 + 4.5 * len(titles), 1.6 + 0.32 * len(labels)),
    width_ratios=[*(20 for _ in titles), 1],
  )
  for axes, (key, title) in zip(panels, titles.items()):
    for column, marker in zip(columns, _MARKERS * len(columns)):
      rows = summary[summary['column'] == column]
      heights = [labels.index(label) for label in rows['label']]
      mean = rows[f'{key}_mean']
      axes.errorbar(
        mean, heights, xerr=rows[f'{key}_std'].fillna(0), fmt='none', ecolor='0.5'
      )
      points = axes.scatter(
        mean,
        heights,
        s=40,
        c=rows['flops'] / 1e9,
        norm=norm,
        cmap='viridis',
        marker=marker,
        edgecolors='black',
        linewidths=0.5,
        zorder=3,
        label=_name(study, column) or 'all',
      )
      if len(columns) > 1 and not column:
        for value in mean:
          axes.axvline(value, color='0.5', linestyle='--', linewidth=1)
    axes.set_yticks(range(len(labels)), labels if axes is panels[0] else [])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set(xlabel=f'{title}, mean and standard deviation over seeds')
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5))
    axes.grid(alpha=0.3)
  if len(columns) > 1:
    panels[0].legend(
      loc='lower left', bbox_to_anchor=(0, 1), ncols=len(columns), frameon=False
    )
  bar = figure.colorbar(
    points,
    cax=panels[-1],
    label='GFLOPs per video',
    ticks=ticker.LogLocator(subs=(1, 2, 5)),
    format=_PLAIN,
  )
  bar.minorticks_off()
  report.save(figure, path)


def rises(study: study_file.Study, summary: pd.DataFrame, path: str):
  """Draws the scores of the labels in `study.rises` over the number of frames.

  A label without a column, such as a skyline, is a dashed line.

  Args:
    study: the study.
    summary: from results.summarize(), without teachers.
    path: path of the PNG.
  """
  figure, panels = plt.subplots(1, len(_TITLES), figsize=(14, 5))
  alone = summary[summary['column'] == results.NO_COLUMN]
  lines = [label for label in study.rises if label in set(summary['label'])]
  names = [*lines, *alone['label']]
  palette = plt.get_cmap('tab10' if len(names) <= 10 else 'tab20')
  styles = dict(zip(names, map(palette, range(len(names)))))
  for axes, (key, title) in zip(panels, _TITLES.items()):
    for label in lines:
      rows = summary[summary['label'] == label].sort_values('num_frames')
      axes.errorbar(
        rows['num_frames'],
        rows[f'{key}_mean'],
        rows[f'{key}_std'].fillna(0),
        marker=_MARKERS[lines.index(label) % len(_MARKERS)],
        color=styles[label],
        capsize=3,
        label=label,
      )
    for row in alone.itertuples():
      value = getattr(row, f'{key}_mean')
      axes.axhline(value, color=styles[row.label], linestyle='--', label=row.label)
    axes.set(xlabel='frames', ylabel=f'{title}, mean and standard deviation over seeds')
    axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
  panels[-1].legend(loc='center left', bbox_to_anchor=(1, 0.5), frameon=False)
  report.save(figure, path)


def curves(
  study: study_file.Study,
  summary: pd.DataFrame,
  gaps: dict[tuple[str, str], pd.Series],
  path: str,
):
  """Draws GAP over steps: a panel per label, all other labels in gray.

  Args:
    study: the study.
    summary: from results.summarize(), without teachers.
    gaps: from results.curves().
    path: path of the PNG.
  """
  labels = list(summary['label'].unique())
  columns = results.columns(summary)
  palette = dict(
    zip(columns, plt.get_cmap('viridis')(np.linspace(0, 0.9, len(columns))))
  )
  width = min(5, math.ceil(math.sqrt(len(labels))))
  height = -(-len(labels) // width)
  figure, grid = plt.subplots(
    height,
    width,
    sharex=True,
    sharey=True,
    squeeze=False,
    figsize=(1 + 2.8 * width, 1 + 2.3 * height),
  )
  panels = dict(zip(labels, grid.flat))
  lines = {}
  for (label, column), curve in gaps.items():
    for name, axes in panels.items():
      if name == label:
        (lines[column],) = axes.plot(curve, 'o-', color=palette[column], markersize=3)
      else:
        axes.plot(curve, color='0.85', linewidth=0.8, zorder=1)
  for label, axes in panels.items():
    axes.set_title(label, fontsize='small')
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(4, integer=True))
  for axes in grid.flat[len(labels) :]:
    axes.set_axis_off()
  for axes in grid.flat[
    len(labels) - width : len(labels)
  ]:  # The lowest of each column.
    axes.tick_params(labelbottom=True)
  figure.supxlabel('step')
  figure.supylabel('GAP@20 on validation data, mean over seeds')
  if len(columns) > 1:
    figure.legend(
      [lines[column] for column in columns],
      [_name(study, column) or 'all' for column in columns],
      loc='upper right',
      ncols=len(columns),
      frameon=False,
    )
    figure.suptitle(' ')  # Keeps a line free for the legend.
  report.save(figure, path)


def per_class(
  study: study_file.Study, runs: pd.DataFrame, output_dir: str, path: str
) -> bool:
  """Draws each class' gain from `study.per_class` against its positives.

  Args:
    study: the study.
    runs: from results.learners().
    output_dir: folder of the study.
    path: path of the PNG.

  Returns:
    Whether there was anything to draw: a column in which both have runs.
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
    # Groups classes by powers of 2 of their positives.
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
    axes.set_xscale('log', base=2)
    axes.xaxis.set_major_formatter(_PLAIN)
    axes.set(
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


def draw(
  study: study_file.Study,
  runs: pd.DataFrame,
  summary: pd.DataFrame,
  gaps: dict[tuple[str, str], pd.Series],
  output_dir: str,
) -> list[str]:
  """Draws all plots.

  Args:
    study: the study.
    runs: from results.learners().
    summary: of these runs, from results.summarize().
    gaps: of these runs, from results.curves().
    output_dir: folder of the study, which gets the plots.

  Returns:
    Their file names.
  """
  names = ['quality.png', 'curves.png']
  quality(study, summary, os.path.join(output_dir, names[0]))
  curves(study, summary, gaps, os.path.join(output_dir, names[1]))
  if study.rises:
    names.append('rises.png')
    rises(study, summary, os.path.join(output_dir, names[-1]))
  if study.per_class and per_class(
    study, runs, output_dir, os.path.join(output_dir, 'per_class.png')
  ):
    names.append('per_class.png')
  return names
