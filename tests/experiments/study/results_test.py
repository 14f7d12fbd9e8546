"""Tables and claims of a study, from fabricated runs."""

import dataclasses

import fabricated_studies
import numpy as np
import pandas as pd
import pytest

from experiments.study import claims
from experiments.study import plots
from experiments.study import results
from experiments.study import study_file

# By label and k; each seed adds a little.
_GAPS = {
  ('skyline', None): 0.8,
  ('serial', '6'): 0.6,
  ('serial', '30'): 0.7,
  ('uniform-k', '6'): 0.5,
  ('uniform-k', '30'): 0.65,
  ('last-k', '6'): 0.2,
  ('last-k', '30'): 0.1,
}


def _gap(run):
  return _GAPS[run.label, run.axes.get('k')] + 0.01 * run.seed


@pytest.fixture(name='study')
def _study(tmp_path):
  study = study_file.parse(
    fabricated_studies.study(
      order=['skyline > serial > uniform-k', 'last-k > serial'],
      rises=['serial', 'last-k'],
    )
  )
  for run in study.runs:
    fabricated_studies.finish(run, tmp_path, _gap(run), curve=False)
  return study


def test_one_row_per_run_and_network(study, tmp_path):
  runs = results.collect(study, str(tmp_path))
  assert len(runs) == 3 + 2 * 6 + 12
  row = runs[
    (runs['name'] == 'serial-k=6-seed=2') & (runs['network'] == 'student')
  ].iloc[0]
  assert row['gap'] == pytest.approx(0.62)
  assert dict(
    row[
      [
        'label',
        'column',
        'k',
        'frames',
        'seed',
        'num_frames',
        'flops',
        'parameters',
        'seconds',
        'steps',
      ]
    ]
  ) == {
    'label': 'serial',
    'column': '6',
    'k': '6',
    'frames': '',
    'seed': 2,
    'num_frames': 6,
    'flops': 6000000,
    'parameters': 1234,
    'seconds': 12.5,
    'steps': 7,
  }
  assert set(results.learners(runs)['network']) == {'student', 'network'}
  assert set(runs) == {*study_file.COLUMNS, 'k', 'frames'}


def test_unfinished_runs_are_left_out(study, tmp_path):
  (tmp_path / 'serial-k=6-seed=2' / 'finished.json').unlink()
  runs = results.collect(study, str(tmp_path))
  assert 'serial-k=6-seed=2' not in set(runs['name'])
  summary = results.summarize(results.learners(runs)).set_index(['label', 'column'])
  assert summary.loc[('serial', '6'), 'n'] == 2


def test_summary_is_mean_and_spread_over_seeds(study, tmp_path):
  summary = results.summarize(results.collect(study, str(tmp_path)))
  row = summary.set_index(['label', 'column', 'network']).loc[
    'uniform-k', '30', 'network'
  ]
  values = np.array([0.65, 0.66, 0.67])
  assert row['gap_mean'] == pytest.approx(values.mean())
  assert row['gap_std'] == pytest.approx(
    np.sqrt(((values - values.mean()) ** 2).sum() / 2)
  )
  assert (row['gap_min'], row['gap_max']) == (0.65, 0.67)
  assert row['map_mean'] == pytest.approx(0.33)
  assert row['n'] == 3


def test_written_tables_are_read_back(study, tmp_path):
  runs = results.collect(study, str(tmp_path))
  results.write({'runs': runs}, str(tmp_path))
  pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / 'runs.parquet'), runs)
  assert pd.read_csv(tmp_path / 'runs.csv')['gap'].tolist() == pytest.approx(
    runs['gap'].tolist()
  )
  assert not list(tmp_path.glob('*.partial'))


def test_columns_are_in_the_order_of_numbers():
  runs = pd.DataFrame({'column': ['30', 'b', '', '6', '15', 'a']})
  assert results.columns(runs) == ['6', '15', '30', 'b', 'a', '']


def test_class_table_is_the_mean_over_seeds(study, tmp_path):
  runs = results.learners(results.collect(study, str(tmp_path)))
  rows = runs[(runs['label'] == 'serial') & (runs['column'] == '6')]
  table = results.per_class(rows, str(tmp_path))
  files = [pd.read_csv(tmp_path / name / 'per_class.csv') for name in rows['name']]
  assert len(files) == 3
  np.testing.assert_allclose(
    table['average_precision'],
    np.mean([f['student/average_precision'] for f in files], axis=0),
  )
  assert table['positives'].tolist() == list(range(fabricated_studies.CLASSES))


def test_reference_by_label_and_column(tmp_path):
  path = tmp_path / 'published.csv'
  path.write_text('# Table 1\nlabel,k,gap,map\nskyline,,0.8,0.4\nlast-k,6,0.2,0.1\n')
  study = dataclasses.replace(
    study_file.parse(fabricated_studies.study()), reference=str(path)
  )
  table = results.reference(study)
  assert table.loc[('skyline', ''), 'gap'] == 0.8
  assert table.loc[('last-k', '6'), 'map'] == 0.1
  path.write_text('label,gap\n')
  with pytest.raises(ValueError, match='it needs label, k, gap, map'):
    results.reference(study)


@pytest.mark.parametrize(
  'lines, message',
  [
    ('last-k,6,0.2,0.1\nlast-k,6,0.3,0.1\n', "two lines of 'last-k 6'"),
    ('last-k,6,0.2,0.1\nlast-k,30,0.3,?\n', r"map of 'last-k' is '\?'"),
    ('last-k,6,,0.1\n', "gap of 'last-k' is ''"),
  ],
)
def test_reference_that_cannot_be_compared(tmp_path, lines, message):
  path = tmp_path / 'published.csv'
  path.write_text(f'label,k,gap,map\n{lines}')
  study = dataclasses.replace(
    study_file.parse(fabricated_studies.study()), reference=str(path)
  )
  with pytest.raises(ValueError, match=f'published.csv.* {message}'):
    results.reference(study)


def test_claims_that_overlap_are_checked_once(study, tmp_path):
  runs = results.learners(results.collect(study, str(tmp_path)))
  study = dataclasses.replace(
    study,
    order=['skyline > serial', 'skyline > serial > uniform-k'],
    rises=['serial', 'serial'],
    per_class='serial > uniform-k',
  )
  assert [claim for claim, _, _ in claims.pairs(study, runs)] == [
    'skyline > serial, k=6',
    'skyline > serial, k=30',
    'serial > uniform-k, k=6',
    'serial > uniform-k, k=30',
    'serial: k=30 > k=6',
  ]
  table = claims.check(study, runs, results.reference(study))
  assert not table.duplicated(['claim', 'score']).any()


def test_claim_of_the_class_table_is_checked_too(study, tmp_path):
  runs = results.learners(results.collect(study, str(tmp_path)))
  study = dataclasses.replace(study, order=[], rises=[], per_class='skyline > last-k')
  assert [claim for claim, _, _ in claims.pairs(study, runs)] == [
    'skyline > last-k, k=6',
    'skyline > last-k, k=30',
  ]


def test_classes_are_drawn_where_one_side_has_no_column(study, tmp_path, monkeypatch):
  runs = results.learners(results.collect(study, str(tmp_path)))
  titles = []
  monkeypatch.setattr(
    plots.report,
    'save',
    lambda figure, path: titles.extend(
      axes.get_title().split(':')[0] for axes in figure.axes
    ),
  )
  study = dataclasses.replace(study, per_class='skyline > last-k')
  assert plots.per_class(study, runs, str(tmp_path), 'a.png')
  assert titles == ['k=6', 'k=30']


def test_class_table_that_is_not_drawn_is_told(study, tmp_path, caplog):
  runs = results.learners(results.collect(study, str(tmp_path)))
  study = dataclasses.replace(study, per_class='skyline > last-k')
  assert not plots.per_class(
    study, runs[runs['label'] != 'last-k'], str(tmp_path), 'a.png'
  )
  assert 'skyline > last-k has no column' in caplog.text


@pytest.mark.parametrize(
  'differences, expected',
  [
    ([0.1, 0.12, 0.11], 'holds'),
    ([-0.1, -0.12, -0.11], 'does not hold'),
    ([0.1, -0.1, 0.05], 'undecided'),
    # t = 2.5 and 3.5 by hand: the quantile of 2 degrees of freedom is 2.920.
    ([2.5 - 3**0.5, 2.5, 2.5 + 3**0.5], 'undecided'),
    ([3.5 - 3**0.5, 3.5, 3.5 + 3**0.5], 'holds'),
    ([0.1], 'undecided'),
    ([], 'undecided'),
    ([0.0, 0.0], 'undecided'),
    ([0.1, 0.1], 'holds'),
  ],
)
def test_verdict(differences, expected):
  assert claims.verdict(differences) == expected


def test_claims_compare_the_same_seed_in_each_column(study, tmp_path):
  # A seed that only one side has is left out.
  (tmp_path / 'serial-k=6-seed=0' / 'finished.json').unlink()
  runs = results.learners(results.collect(study, str(tmp_path)))
  reference = pd.DataFrame(
    {'gap': [0.8, 0.6], 'map': [0.5, 0.5]},
    pd.MultiIndex.from_tuples([('skyline', ''), ('serial', '6')]),
  )
  table = claims.check(study, runs, reference)
  gap = table[table['score'] == 'gap'].set_index('claim')
  assert list(gap.index) == [
    'skyline > serial, k=6',
    'skyline > serial, k=30',
    'serial > uniform-k, k=6',
    'serial > uniform-k, k=30',
    'last-k > serial, k=6',
    'last-k > serial, k=30',
    'serial: k=30 > k=6',
    'last-k: k=30 > k=6',
  ]
  np.testing.assert_allclose(
    gap['difference'], [0.2, 0.1, 0.1, 0.05, -0.4, -0.6, 0.1, -0.1]
  )
  np.testing.assert_allclose(gap['std'], 0, atol=1e-12)
  assert gap['n'].tolist() == [2, 3, 2, 3, 2, 3, 2, 3]
  assert gap['verdict'].tolist() == ['holds'] * 4 + ['does not hold'] * 2 + [
    'holds',
    'does not hold',
  ]
  assert gap['published'].iloc[0] == pytest.approx(0.2)
  assert gap['published'].iloc[1:].isna().all()
  np.testing.assert_allclose(
    table[table['score'] == 'map']['difference'], gap['difference'] / 2
  )
