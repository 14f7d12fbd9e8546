"""Shows what adaptive inference saves: tables and a plot."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import pandas as pd

from yt8m_distill.evaluation import adaptive
from yt8m_distill.evaluation import report
from yt8m_distill.evaluation import results

matplotlib.use('Agg')
from matplotlib import pyplot as plt
from matplotlib import ticker

_SCORES = {key: results.TITLES[key] for key in results.SCORES}
_GAINS = {
  'gain_at_frames': 'GAP gain at equal frames',
  'gain_at_flops': 'at equal GFLOPs',
}
_NAMED_CLASSES = 10  # at either end
_FEWEST_POSITIVES = 10  # of a named class, whose mean otherwise says little


def summary(counts: pd.DataFrame, chosen: Mapping[str, Any]) -> str:
  """Returns fixed counts and adaptive inference as a Markdown table.

  Args:
    counts: from `adaptive.fixed`.
    chosen: a row of `adaptive.curve`, of the same videos.
  """
  gains = adaptive.gains(pd.DataFrame([chosen]), counts).iloc[0]
  rows = [('answer', 'frames', 'GFLOPs', *_SCORES.values(), *_GAINS.values())]
  for row in counts.to_dict('records'):
    rows.append((f'at {row["count"]} frames', *_values(row), *('' for _ in _GAINS)))
  rows.append(
    (rule(chosen), *_values(chosen), *(f'{gains[key]:+.4f}' for key in _GAINS))
  )
  return report.markdown(rows)


def rule(chosen: Mapping[str, Any]) -> str:
  """Returns the name of adaptive inference with a measure and a threshold."""
  counts = ', '.join(map(str, chosen['counts']))
  return f'adaptive, {chosen["measure"]} >= {chosen["threshold"]:.4g} at {counts}'


def _values(row: Mapping[str, Any]) -> list[str]:
  return [
    f'{row["frames"]:.2f}',
    f'{row["flops"] / 1e9:.4f}',
    *(f'{row[key]:.4f}' for key in _SCORES),
  ]


def savings(lengths: pd.DataFrame, classes: pd.DataFrame) -> str:
  """Returns for which videos and classes frames are saved, as Markdown.

  Args:
    lengths: from `adaptive.by_length`.
    classes: from `adaptive.by_class`, with a column `name` if names are known.
  """
  stops = [key for key in lengths if key.startswith('stop_at_')]
  table = [
    (
      'videos',
      'number',
      'frames seen',
      *(f'stop at {key.removeprefix("stop_at_")}' for key in stops),
      *(f'GAP, {kind}' for kind in ('smallest', 'adaptive', 'largest')),
    )
  ]
  for row in lengths.to_dict('records'):
    table.append(
      (
        f'{row["by"]}: {_span(row["from"], row["to"])}',
        f'{row["videos"]:,}',
        f'{row["seen"]:.2f}',
        *(f'{row[key]:.1%}' for key in stops),
        *(f'{row[f"gap_{kind}"]:.4f}' for kind in ('smallest', 'adaptive', 'largest')),
      )
    )
  text = f'## By length and number of labels\n\n{report.markdown(table)}'
  common = classes[classes['positives'] >= _FEWEST_POSITIVES]
  common = common.sort_values('seen', kind='stable')
  if len(common) > 2 * _NAMED_CLASSES:
    ends = [common.head(_NAMED_CLASSES), common.tail(_NAMED_CLASSES)]
    common = pd.concat(ends)
  if common.empty:
    return text
  table = [
    (
      'class',
      'videos',
      'frames seen',
      *(f'AP, {kind}' for kind in ('smallest', 'adaptive', 'largest')),
    )
  ]
  for row in common.to_dict('records'):
    table.append(
      (
        f'{row["index"]} {row.get("name", "")}'.strip(),
        f'{row["positives"]:,}',
        f'{row["seen"]:.2f}',
        *(f'{row[f"ap_{kind}"]:.4f}' for kind in ('smallest', 'adaptive', 'largest')),
      )
    )
  return (
    f'{text}\n## By class\n\nOf the classes with {_FEWEST_POSITIVES} or more videos, '
    'those whose videos see the fewest and the most frames; classes.csv lists all.\n\n'
    f'{report.markdown(table)}'
  )


def _span(first: int, last: int) -> str:
  return f'{first}' if first == last else f'{first} to {last}'


def plot(
  points: pd.DataFrame, counts: pd.DataFrame, chosen: Mapping[str, Any]
) -> plt.Figure:
  """Draws GAP and mAP over mean frames and mean GFLOPs.

  Args:
    points: from `adaptive.curve`.
    counts: from `adaptive.fixed`, of the same videos.
    chosen: the calibrated row of `points`, or one of the same columns.

  Returns:
    The figure, which the caller closes.
  """
  figure, grid = plt.subplots(2, 2, sharex='col', sharey='row', figsize=(12, 8))
  # Without early stops there is no need to answer before: it is a fixed count.
  early = points[points['threshold'] < 1]
  for column, (cost, scale, title) in zip(
    grid.T, (('frames', 1, 'mean frames'), ('flops', 1e9, 'mean GFLOPs'))
  ):
    for axes, key in zip(column, ('gap', 'map')):
      for measure, rows in early.groupby('measure', sort=False):
        axes.plot(rows[cost] / scale, rows[key], label=measure)
      costs = counts[cost] / scale
      axes.plot(
        costs, counts[key], 'o-', color='black', linewidth=0.7, label='fixed counts'
      )
      for count, x, y in zip(counts['count'], costs, counts[key]):
        axes.annotate(
          str(count), (x, y), (5, -11), textcoords='offset points', fontsize='small'
        )
      axes.plot(
        chosen[cost] / scale,
        chosen[key],
        '*',
        color='C3',
        markeredgecolor='black',
        markersize=14,
        label=rule(chosen),
      )
      axes.grid(alpha=0.3)
      axes.xaxis.set_major_locator(ticker.MaxNLocator(8))
    axes.set_xlabel(title)
  for axes, key in zip(grid[:, 0], ('gap', 'map')):
    axes.set_ylabel(_SCORES[key])
  grid[0, 0].legend(loc='lower right')
  return figure
