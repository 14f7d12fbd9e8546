"""Adaptive inference of a study's nested networks, beside its fixed ones."""

import json
import shutil

import fabricated_studies
import pandas as pd
import pytest
import serving_cases
import tiny

from experiments.study import adaptive
from experiments.study import claims
from experiments.study import results
from experiments.study import study_file
from yt8m_distill.serving import adapt

pytestmark = pytest.mark.end_to_end

_STUDY = {
  'seeds': [0, 1],
  'gin_file': 'train.gin',
  'groups': [
    {
      'name': 'nested',
      'experiment': 'yt8m_distill_single',
      'gin_file': ['train.gin', 'nested.gin'],
      'label': 'nested',
    },
    {
      'name': 'fixed',
      'experiment': 'yt8m_distill',
      'label': 'fixed',
      'grid': {'k': [2, 4]},
    },
  ],
  'columns': 'k',
  'order': ['nested > fixed'],
}
_FIXED = {'2': 0.2, '4': 0.3}  # GAP by k


@pytest.fixture(name='study')
def _study():
  return study_file.parse(_STUDY)


@pytest.fixture(name='out')
def _out(study, tmp_path):
  """The folder of the study; all nested runs are the same network."""
  run = serving_cases.write_nested_run(tmp_path, [2, 4])
  for one in study.runs:
    if one.group == 'fixed':
      fabricated_studies.finish(one, tmp_path / 'out', _FIXED[one.axes['k']], False)
      continue
    fabricated_studies.finish(one, tmp_path / 'out', 0.25 + 0.01 * one.seed, False)
    place = tmp_path / 'out' / one.name
    evaluation = json.loads((place / 'evaluation.json').read_text())
    shutil.copytree(run, place, dirs_exist_ok=True)
    for name, frames in (('network', 4), ('at_2', 2)):
      evaluation['networks'][name] = {
        'frames': frames,
        'flops': 1000000 * frames,
        'parameters': 1,
      }
    for key in ('gap', 'map', 'hit_at_one', 'perr'):
      evaluation['metrics'][f'at_2/{key}'] = 0.1
    (place / 'evaluation.json').write_text(json.dumps(evaluation))
  for seed, name in enumerate(('calibrate', 'evaluate')):
    tiny.write_records(tmp_path / f'{name}.tfrecord', 30, seed)
  return tmp_path / 'out'


def test_answers_are_columns_of_the_study(study, out):
  runs = results.collect(study, str(out))
  nested = runs[runs['label'] == 'nested']
  assert nested['column'].tolist() == ['4', '2'] * 2
  found = {claim: (high, low) for claim, high, low in claims.pairs(study, runs)}
  assert found['nested > fixed, k=2'] == (('nested', '2'), ('fixed', '2'))
  assert found['nested > fixed, k=4'] == (('nested', '4'), ('fixed', '4'))


def test_half_of_the_frames(study, out, tmp_path):
  paths = [str(tmp_path / f'{name}.tfrecord') for name in ('calibrate', 'evaluate')]
  text = adaptive.write(study, str(out), *paths)
  found = pd.read_csv(out / 'adaptive.csv')
  assert found[['seed', 'fixed_frames']].to_numpy().tolist() == [[0, 4], [1, 4]]
  wanted = adapt.adapt(
    str(out / 'nested-seed=0'),
    paths[0],
    str(tmp_path / 'adapted'),
    paths[1],
    mean_frames=2,
  )
  wanted['counts'] = str(wanted['counts'])
  for row in found.to_dict('records'):
    assert {key: row[key] for key in wanted if key in row} == {
      key: value if isinstance(value, str) else pytest.approx(value)
      for key, value in wanted.items()
      if key in row
    }
    assert row['fixed_gap'] == _FIXED['4']
    # Fixed GAP is 0.2 at 2 frames and 0.3 at 4.
    fixed = _FIXED['2'] + 0.05 * max(row['frames'] - 2, 0)
    assert row['gain_at_frames'] == pytest.approx(row['gap'] - fixed)
  assert (out / 'adaptive.md').read_text() == text
  assert '| nested, beside fixed | 4 ' in text
  assert (out / 'adaptive.png').stat().st_size > 10_000


@pytest.mark.parametrize('finished', [0, 1])
def test_study_without_runs(study, tmp_path, finished):
  for one in study.runs[-1:] * finished:
    fabricated_studies.finish(one, tmp_path, 0.5, False)
  with pytest.raises(ValueError, match=r"holds no finished runs for the claims \['nes"):
    adaptive.compare(study, str(tmp_path), '', '')
