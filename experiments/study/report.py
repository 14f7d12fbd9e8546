"""Writes a study's report: a table like the paper's, claims, costs and plots."""

from collections.abc import Sequence
import os

import pandas as pd

from experiments.study import claims
from experiments.study import plots
from experiments.study import results
from experiments.study import runner
from experiments.study import study_file
from yt8m_distill.checkpoints import run_dir
from yt8m_distill.evaluation import baseline
from yt8m_distill.evaluation import report
from yt8m_distill.evaluation import results as results_lib
from yt8m_distill.utils import files

_TITLES = {key: results_lib.TITLES[key] for key in ('gap', 'map')}


def spread(mean: float, std: float, sign: str = '') -> str:
  """Formats a mean and, unless it is NaN, its standard deviation."""
  return f'{mean:{sign}.4f}' + ('' if pd.isna(std) else f' ± {std:.4f}')


def table(
  study: study_file.Study, summary: pd.DataFrame, reference: pd.DataFrame
) -> list[list[str]]:
  """Returns a row per label, with GAP and mAP for each column of the study.

  Args:
    study: the study.
    summary: from results.summarize(), without teachers.
    reference: from results.reference(), shown in brackets.
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
          cell = spread(*group.loc[column, [f'{key}_mean', f'{key}_std']])
          if (label, column) in reference.index:
            cell += f' [{reference.loc[(label, column), key]:.3f}]'
        row.append(cell)
    rows.append(row)
  return rows


def _validation_path(runs: pd.DataFrame, output_dir: str) -> str:
  """Returns the records that the first run was evaluated on."""
  place = runner.folder(output_dir, runs['name'].iloc[0])
  return run_dir.require_evaluation(place)['input_path']


def _class_frequency(runs: pd.DataFrame, output_dir: str) -> str:
  """Returns a line about the baseline that sees no frame, or why it is missing."""
  place = runner.folder(output_dir, runs['name'].iloc[0])
  task = run_dir.read_params(run_dir.params_path(os.path.join(place, ''))).task
  scores, reason = baseline.of_run_or_reason(place, task)
  if not scores:
    return reason
  return (
    f'Class-frequency baseline, which sees no frame: GAP '
    f'{scores["gap"]:.4f}, mAP {scores["map"]:.4f}.'
  )


def _place(label: str, column: str) -> str:
  return f'{label} ({column})' if column else label


def _costs(summary: pd.DataFrame) -> list[list[str]]:
  """Returns a row per network: the cost of a video, and seconds of a run."""
  return [
    ['', 'frames', 'GFLOPs per video', 'parameters', 'seconds of the last process'],
    *(
      [
        _place(row.label, row.column),
        str(row.num_frames),
        f'{row.flops / 1e9:.4f}',
        f'{row.parameters:,}',
        f'{row.seconds:.0f}',
      ]
      for row in summary.itertuples()
    ),
  ]


def _lengths(curves: dict[tuple[str, str], pd.Series]) -> list[list[str]]:
  """Returns a row per curve of results.curves(): when GAP was highest."""
  rows = [['', 'steps', 'GAP at the end', 'highest GAP', 'at step']]
  for (label, column), curve in curves.items():
    if len(curve):
      rows.append(
        [
          _place(label, column),
          f'{curve.index[-1]:.0f}',
          f'{curve.iloc[-1]:.4f}',
          f'{curve.max():.4f}',
          f'{curve.idxmax():.0f}',
        ]
      )
  return rows


def _claims(checked: pd.DataFrame) -> list[list[str]]:
  """Returns a row per claim with the verdicts on both scores."""
  header = ['claim', 'seeds']
  for title in _TITLES.values():
    header += [f'{title} difference', 'published', 'verdict']
  rows = [header]
  for claim, group in checked.groupby('claim', sort=False):
    row, group = [claim], group.set_index('score')
    row.append(str(group['n'].iloc[0]))
    for key in _TITLES:
      value = group.loc[key]
      row += [
        spread(value['difference'], value['std'], '+'),
        '' if pd.isna(value['published']) else f'{value["published"]:+.3f}',
        value['verdict'],
      ]
    rows.append(row)
  return rows


def write(study: study_file.Study, output_dir: str, failed: Sequence[str] = ()) -> str:
  """Writes tables, plots and report.md.

  Args:
    study: the study.
    output_dir: its folder.
    failed: lines about runs that failed.

  Returns:
    The text of report.md.

  Raises:
    ValueError: no run is finished.
  """
  runs = results.collect(study, output_dir)
  if runs.empty:
    raise ValueError(
      f"{output_dir} holds no finished run of the study: the file log in a run's "
      'folder says why. Correct that and run the study again.'
    )
  results.write({'runs': runs, 'summary': results.summarize(runs)}, output_dir)
  learners = results.learners(runs)
  summary = results.summarize(learners)
  reference = results.reference(study)
  curves = results.curves(learners, output_dir)
  checked = claims.check(study, learners, reference)
  seeds = sorted(runs['seed'].unique())
  parts = [
    f'# Study: {os.path.basename(os.path.abspath(output_dir))}',
    f'{runs["name"].nunique()} of {len(study.runs)} runs are finished. Values are the '
    f'mean ± standard deviation over the seeds {", ".join(map(str, seeds))}'
    + ('; published values are in brackets.' if len(reference) else '.')
    + f' Validation records: {_validation_path(runs, output_dir)}.',
    report.markdown(table(study, summary, reference)).rstrip(),
    _class_frequency(runs, output_dir),
  ]
  if len(checked):
    counts = checked.loc[checked['score'] == 'gap', 'verdict'].value_counts()
    parts += [
      '## Does the order hold?',
      'Claims about GAP: '
      + ', '.join(f'{count} {name}' for name, count in counts.items())
      + '. Differences are between runs of the same seed. A claim holds if a '
      'one-sided t-test at 5% confirms it, does not hold if the test confirms '
      'the opposite, and is undecided otherwise.',
      report.markdown(_claims(checked)).rstrip(),
    ]
  parts += [
    '## Length of training',
    'GAP on the validation records during training, the mean over the seeds.',
    report.markdown(_lengths(curves)).rstrip(),
    '## Cost',
    report.markdown(_costs(summary)).rstrip(),
    *(
      f'![{os.path.splitext(plot)[0]}]({plot})'
      for plot in plots.draw(study, learners, summary, curves, output_dir)
    ),
  ]
  if failed:
    parts += ['## Failed', '\n'.join(f'- {line}' for line in failed)]
  text = '\n\n'.join(parts) + '\n'
  files.write_text(os.path.join(output_dir, 'report.md'), text)
  return text
