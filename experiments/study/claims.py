"""Tests a study's claims with a paired one-sided t-test over the seeds.

A claim 'A > B' is tested in each column that both labels have; a label without
the column axis, such as a skyline, is compared in every column. Differences are
between runs of the same seed. A claim holds if the test at 5% finds their mean
above 0, does not hold if it finds the mean below 0, and is undecided otherwise
or with fewer than two seeds.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import itertools

import numpy as np
import pandas as pd
from scipy import stats

from experiments.study import results
from experiments.study import study_file

_LEVEL = 0.05


def verdict(differences: Sequence[float]) -> str:
  """Returns 'holds', 'does not hold' or 'undecided'."""
  n = len(differences)
  mean = np.mean(differences) if n else 0.0
  if n < 2 or not mean:
    return 'undecided'
  error = np.std(differences, ddof=1) / np.sqrt(n)
  if abs(mean) <= stats.t.ppf(1 - _LEVEL, n - 1) * error:
    return 'undecided'
  return 'holds' if mean > 0 else 'does not hold'


# A label and a column.
_Place = tuple[str, str]


def pairs(
  study: study_file.Study, runs: pd.DataFrame
) -> Iterator[tuple[str, _Place, _Place]]:
  """Yields each comparison once: the claim, the higher place, the lower place."""
  columns = {label: results.columns(rows) for label, rows in runs.groupby('label')}

  def place(label, column):
    own = columns.get(label, [])
    return next(
      ((label, where) for where in (column, results.NO_COLUMN) if where in own), None
    )

  seen = set()
  for chain in study.claims:
    labels = chain.split(' > ')
    for high, low in itertools.pairwise(labels):
      for column in results.columns(runs):
        pair = place(high, column), place(low, column)
        if all(pair) and column in (pair[0][1], pair[1][1]) and pair not in seen:
          seen.add(pair)
          where = f', {study.columns}={column}' if column else ''
          yield (f'{high} > {low}{where}', *pair)
  for label in dict.fromkeys(study.rises):
    values = columns.get(label, [])
    for less, more in itertools.pairwise(values):
      yield (
        f'{label}: {study.columns}={more} > {study.columns}={less}',
        (label, more),
        (label, less),
      )


def check(
  study: study_file.Study, runs: pd.DataFrame, reference: pd.DataFrame
) -> pd.DataFrame:
  """Tests all claims of a study.

  Args:
    study: the study.
    runs: from results.learners().
    reference: from results.reference().

  Returns:
    One row per claim and score (gap, map), with the columns claim, score,
    difference (mean over seeds), std, n, verdict, and published: the difference
    in the reference, NaN if the reference lacks it.
  """
  scores = runs.set_index(['label', 'column', 'seed'])[['gap', 'map']].sort_index()
  rows = []
  for claim, high, low in pairs(study, runs):
    # Drops seeds that only one of them has.
    differences = (scores.loc[high] - scores.loc[low]).dropna()
    if differences.empty:
      continue
    for score in ('gap', 'map'):
      published = np.nan
      if high in reference.index and low in reference.index:
        published = reference.loc[high, score] - reference.loc[low, score]
      rows.append(
        {
          'claim': claim,
          'score': score,
          'difference': differences[score].mean(),
          'std': differences[score].std(),
          'n': len(differences),
          'verdict': verdict(differences[score]),
          'published': published,
        }
      )
  return pd.DataFrame(rows)
