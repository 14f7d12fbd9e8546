"""A study's report in Markdown, with a table in the form of the paper's."""

from collections.abc import Sequence
import os

import pandas as pd

from experiments.study import config
from experiments.study import results
from experiments.study import runner
from yt8m_distill.checkpoints import run_dir
from yt8m_distill.evaluation import baseline
from yt8m_distill.evaluation import report

_TITLES = {'gap': 'GAP', 'map': 'mAP'}


def _spread(mean: float, std: float, sign: str = '') -> str:
  """The mean, and ± the standard deviation where there is one."""
  return f'{mean:{sign}.4f}' + ('' if pd.isna(std) else f' ± {std:.4f}')


def table(
  study: config.Study, summary: pd.DataFrame, reference: pd.DataFrame
) -> list[list[str]]:
  """Returns rows of labels and columns of k, GAP and mAP each.

  Args:
    study: the study.
    summary: of results.summarize(), without teachers.
    reference: of results.reference(): it stands in brackets.
  """
  columns = results.columns(summary)
  header = ['']
  for column in columns:
    header += [
      f'{study.columns}={column} {title}' if column else title
      for title in _TITLES.values()
    ]
  rows = [header]
  for label, group in summary.groupby('label', sort=False):
    row, group = [label], group.set_index('column')
    for column in columns:
      for key in _TITLES:
        cell = ''
        if column in group.index:
          cell = _spread(*group.loc[column, [f'{key}_mean', f'{key}_std']])
          if (label, column) in reference.index:
            cell += f' [{reference.loc[(label, column), key]:.3f}]'
        row.append(cell)
    rows.append(row)
  return rows


def _class_frequency(runs: pd.DataFrame, output_dir: str) -> str:
  """A line about the baseline that looks at no frame, or why there is none."""
  place = runner.folder(output_dir, runs['name'].iloc[0])
  task = run_dir.read_params(run_dir.params_path(os.path.join(place, ''))).task
  try:
    scores = baseline.of_run(place, task)
  except ValueError as error:  # Records may have moved since.
    return f'Without the class-frequency baseline: {error}'
  return (
    f'Class frequency, without a look at any frame: GAP '
    f'{scores["gap"]:.4f}, mAP {scores["map"]:.4f}.'
  )


def _costs(summary: pd.DataFrame) -> list[list[str]]:
  """What a video costs, and what a run took since it was last started."""
  return [
    ['', 'frames', 'GFLOPs per video', 'parameters', 'seconds from the last start'],
    *(
      [
        f'{row.label}{f" ({row.column})" if row.column else ""}',
        str(row.num_frames),
        f'{row.flops / 1e9:.4f}',
        f'{row.parameters:,}',
        f'{row.seconds:.0f}',
      ]
      for row in summary.itertuples()
    ),
  ]


def _claims(claims: pd.DataFrame) -> list[list[str]]:
  """One row per claim, the verdicts on both scores side by side."""
  header = ['claim', 'seeds']
  for title in _TITLES.values():
    header += [f'{title} difference', 'published', 'verdict']
  rows = [header]
  for claim, group in claims.groupby('claim', sort=False):
    row, group = [claim], group.set_index('score')
    row.append(str(group['n'].iloc[0]))
    for key in _TITLES:
      value = group.loc[key]
      row += [
        _spread(value['difference'], value['std'], '+'),
        '' if pd.isna(value['published']) else f'{value["published"]:+.3f}',
        value['verdict'],
      ]
    rows.append(row)
  return rows


def text(
  study: config.Study,
  output_dir: str,
  runs: pd.DataFrame,
  claims: pd.DataFrame,
  plots: Sequence[str],
  failed: Sequence[str],
) -> str:
  """Returns report.md.

  Args:
    study: the study.
    output_dir: its folder.
    runs: of results.collect().
    claims: of claims.check().
    plots: file names of the pictures.
    failed: lines about runs that failed.
  """
  summary = results.summarize(results.learners(runs))
  reference = results.reference(study)
  seeds = sorted(runs['seed'].unique())
  parts = [
    '# Study',
    f'{runs["name"].nunique()} of {len(study.runs)} runs, seeds '
    f'{", ".join(map(str, seeds))}: mean ± standard deviation over the seeds'
    + (', published values in brackets.' if len(reference) else '.'),
    report.markdown(table(study, summary, reference)).rstrip(),
    _class_frequency(runs, output_dir),
  ]
  if len(claims):
    counts = claims.loc[claims['score'] == 'gap', 'verdict'].value_counts()
    parts += [
      '## Does the order hold?',
      'Of GAP: ' + ', '.join(f'{count} {name}' for name, count in counts.items()) + '. '
      'Differences between runs of the same seed. A claim holds where a '
      'one-sided t-test at 5% says so, does not hold where one says the '
      'opposite, and is undecided else.',
      report.markdown(_claims(claims)).rstrip(),
    ]
  parts += [
    '## Cost',
    report.markdown(_costs(summary)).rstrip(),
    *(f'![{os.path.splitext(plot)[0]}]({plot})' for plot in plots),
  ]
  if failed:
    parts += ['## Failed', '\n'.join(f'- {line}' for line in failed)]
  return '\n\n'.join(parts) + '\n'
