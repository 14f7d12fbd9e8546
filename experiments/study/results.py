"""Collects the scores of finished runs; summarizes them over the seeds."""

from collections.abc import Sequence
import os

import numpy as np
import pandas as pd
import tensorflow as tf

from experiments.study import runner
from experiments.study import study_file
from yt8m_distill.checkpoints import run_dir
from yt8m_distill.configs import model as model_config
from yt8m_distill.evaluation import report as evaluation_report
from yt8m_distill.evaluation import results as results_lib
from yt8m_distill.utils import files

# The column of a run without the study's column axis.
NO_COLUMN = ''
_TEACHER = 'teacher'


def collect(study: study_file.Study, output_dir: str) -> pd.DataFrame:
  """Returns one row per finished run and network, and answer of a nested network.

  Columns: name, group, label, column (the value of the study's column axis; of answers
  of a nested network, their numbers of frames), one column per axis, seed, network, the
  scores, flops (per video), parameters, num_frames, seconds (of the run's last process)
  and steps.
  """
  axes = list(dict.fromkeys(axis for run in study.runs for axis in run.axes))
  rows = []
  for run in study.runs:
    place = runner.folder(output_dir, run.name)
    end = runner.finished(place)
    if not end:
      continue
    results = run_dir.require_evaluation(place)
    networks = results_lib.networks(results)
    is_nested = len(networks.keys() - {_TEACHER}) > 1
    for network, values in networks.items():
      column = run.axes.get(study.columns, NO_COLUMN)
      if is_nested and network != _TEACHER:
        column = str(values['frames'])
      rows.append(
        {
          'name': run.name,
          'group': run.group,
          'label': run.label,
          'column': column,
          **{axis: run.axes.get(axis, '') for axis in axes},
          'seed': run.seed,
          'network': network,
          **{key: values[key] for key in (*results_lib.SCORES, 'flops', 'parameters')},
          'num_frames': values['frames'],
          'seconds': end['seconds'],
          'steps': results['step'],
        }
      )
  return pd.DataFrame(rows)


def learners(runs: pd.DataFrame) -> pd.DataFrame:
  """Returns the rows of collect() that are compared: all but teachers."""
  return runs[runs['network'] != _TEACHER]


def summarize(runs: pd.DataFrame) -> pd.DataFrame:
  """Returns one row per label, column and network, in the order of the runs.

  Columns: group, label, column, network, flops, parameters, num_frames, n
  (the number of seeds), seconds (their mean) and, for each score, KEY_mean, KEY_std
  (divided by n - 1; NaN for one seed), KEY_min and KEY_max.
  """
  spread = {
    f'{key}_{kind}': (key, kind)
    for key in results_lib.SCORES
    for kind in ('mean', 'std', 'min', 'max')
  }
  return (
    runs.groupby(['group', 'label', 'column', 'network'], sort=False)
    .agg(
      flops=('flops', 'first'),
      parameters=('parameters', 'first'),
      num_frames=('num_frames', 'first'),
      n=('seed', 'count'),
      **spread,
      seconds=('seconds', 'mean'),
    )
    .reset_index()
  )


def columns(runs: pd.DataFrame) -> Sequence[str]:
  """Returns the column axis' values: numbers sorted, then the rest, NO_COLUMN last."""

  def order(value):
    number = pd.to_numeric(value, errors='coerce')
    return value == NO_COLUMN, np.nan_to_num(number, nan=np.inf)

  return sorted(runs['column'].unique(), key=order)


def curves(runs: pd.DataFrame, output_dir: str) -> dict[tuple[str, str], pd.Series]:
  """Returns GAP on validation data by step, the mean over the seeds.

  Args:
    runs: from learners().
    output_dir: folder of the study.

  Returns:
    A curve for each label and column, in the order of the runs.
  """
  means = {}
  for place, rows in runs.groupby(['label', 'column'], sort=False):
    seeds = []
    for row in rows.itertuples():
      steps, values = evaluation_report.read_curves(
        os.path.join(runner.folder(output_dir, row.name), 'validation')
      ).get(f'{model_config.key_prefix(row.network)}gap', ([], []))
      seeds.append(pd.Series(values, steps))
    means[place] = pd.concat(seeds).groupby(level=0).mean()
  return means


def per_class(runs: pd.DataFrame, output_dir: str) -> pd.DataFrame:
  """Returns each class' positives and average_precision, the mean over runs.

  Args:
    runs: rows of collect() with the same label and column.
    output_dir: folder of the study.
  """
  tables = []
  for row in runs.itertuples():
    path = os.path.join(runner.folder(output_dir, row.name), 'per_class.csv')
    with tf.io.gfile.GFile(path) as file:
      table = pd.read_csv(file, keep_default_na=False)
    tables.append(
      pd.DataFrame(
        {
          'positives': table['positives'],
          'average_precision': table[
            f'{model_config.key_prefix(row.network)}average_precision'
          ],
        }
      )
    )
  return pd.concat(tables).groupby(level=0).mean()


def reference(study: study_file.Study) -> pd.DataFrame:
  """Returns the published gap and map, indexed by label and column.

  Lines of the file that begin with # are comments.

  Raises:
    ValueError: the file lacks a column, a score is not a number, or a label and
      column have two lines.
  """
  names = ['label', *filter(None, [study.columns]), 'gap', 'map']
  if not study.reference:
    table = pd.DataFrame(columns=names)
  else:
    with tf.io.gfile.GFile(study.reference) as file:
      table = pd.read_csv(
        file,
        comment='#',
        keep_default_na=False,
        dtype={'label': str, study.columns: str},
      )
    if not set(names) <= set(table.columns):
      raise ValueError(
        f'{study.reference} has the columns {list(table.columns)}: it needs '
        f'{", ".join(names)}. Add what is missing.'
      )
  for key in ('gap', 'map'):
    numbers = pd.to_numeric(table[key], errors='coerce')
    for row in table[numbers.isna()].to_dict('records'):
      raise ValueError(
        f'{study.reference}: {key} of {row["label"]!r} is {row[key]!r}: give a number.'
      )
    table[key] = numbers
  if study.columns:
    table = table.rename(columns={study.columns: 'column'})
  else:
    table['column'] = NO_COLUMN
  table = table.set_index(['label', 'column'])[['gap', 'map']]
  for place in table.index[table.index.duplicated()]:
    raise ValueError(
      f'{study.reference} has two lines of {" ".join(filter(None, place))!r}: keep one.'
    )
  return table


def write(tables: dict[str, pd.DataFrame], output_dir: str):
  """Writes each table to NAME.csv and NAME.parquet."""
  for name, table in tables.items():
    path = os.path.join(output_dir, name)
    files.write_text(f'{path}.csv', table.to_csv(index=False))
    with files.whole_file(f'{path}.parquet') as partial:
      table.to_parquet(partial, index=False)
