"""A study's report and pictures, from fabricated runs of the shipped study."""

import types

import fabricated_studies
from matplotlib.collections import PathCollection
import numpy as np
from official.modeling import hyperparams
import paths
import pytest
import tensorflow as tf
import tiny

from experiments.study import __main__ as command
from experiments.study import plots
from experiments.study import report
from experiments.study import results
from experiments.study import study_file
from yt8m_distill.evaluation import baseline

_PNG = b'\x89PNG'


def _cells(text, start):
  """The row of a Markdown table that starts with a cell."""
  line = next(line for line in text.splitlines() if line.startswith(f'| {start} '))
  return [cell.strip() for cell in line.split('|')[1:-1]]


@pytest.fixture(autouse=True)
def _baseline(monkeypatch):
  monkeypatch.setattr(
    baseline, 'of_run', lambda run, task: {'gap': 0.125, 'map': 0.0625}
  )


def _finish(study, output_dir, gap):
  for run in study.runs:
    fabricated_studies.finish(run, output_dir, gap(run))
    hyperparams.save_params_dict_to_yaml(
      tiny.experiment(), str(output_dir / run.name / 'params.yaml')
    )


def test_report_of_the_papers_study(tmp_path):
  study = study_file.read(str(paths.ROOT / 'experiments/study/paper.yaml'))
  study.runs[:] = [
    run
    for run in study.runs
    if run.label in ('teacher-skyline', 'uniform-k', 'serial L_REP+L_PRED+L_CE')
  ]
  _finish(
    study,
    tmp_path,
    lambda run: (
      0.4
      + 0.002 * run.seed
      + (0.1 if run.label == 'uniform-k' else 0.2)
      + int(run.axes.get('k', 60)) / 1000
    ),
  )
  text = report.write(study, str(tmp_path), ['a: bad'])
  assert (tmp_path / 'report.md').read_text() == text
  assert _cells(text, 'uniform-k') == [
    'uniform-k',
    '0.5080 ± 0.0020 [0.715]',
    '0.2540 ± 0.0010 [0.266]',
    '0.5170 ± 0.0020 [0.777]',
    '0.2585 ± 0.0010 [0.350]',
    '0.5320 ± 0.0020 [0.795]',
    '0.2660 ± 0.0010 [0.378]',
    '',
    '',
  ]
  assert _cells(text, 'teacher-skyline')[-2:] == [
    '0.6620 ± 0.0020 [0.811]',
    '0.3310 ± 0.0010 [0.414]',
  ]
  assert _cells(text, 'serial L_REP+L_PRED+L_CE > uniform-k, k=6') == [
    'serial L_REP+L_PRED+L_CE > uniform-k, k=6',
    '3',
    '+0.1000 ± 0.0000',
    '+0.016',
    'holds',
    '+0.0500 ± 0.0000',
    '+0.031',
    'holds',
  ]
  assert 'GAP 0.1250, mAP 0.0625' in text
  assert '- a: bad' in text
  assert 'Validation records: validate.' in text
  for name in ('quality', 'rises', 'curves', 'per_class'):
    assert f']({name}.png)' in text
    assert (tmp_path / f'{name}.png').read_bytes().startswith(_PNG)
  for name in ('runs', 'summary'):
    assert (tmp_path / f'{name}.csv').exists()
    assert (tmp_path / f'{name}.parquet').exists()


def test_study_of_one_seed_without_columns_and_claims(tmp_path):
  study = study_file.parse(
    {'seeds': [0], 'groups': [{'name': 'alone', 'experiment': 'yt8m_distill_single'}]}
  )
  _finish(study, tmp_path, lambda run: 0.5)
  text = report.write(study, str(tmp_path))
  assert _cells(text, 'alone') == ['alone', '0.5000', '0.2500']
  assert 'Does the order hold' not in text
  assert 'per_class.png' not in text and 'rises.png' not in text


def test_report_says_when_gap_was_highest(tmp_path):
  study = study_file.parse(
    {
      'seeds': [0, 1],
      'groups': [{'name': 'alone', 'experiment': 'yt8m_distill_single'}],
    }
  )
  _finish(study, tmp_path, lambda run: 0.5 + 0.1 * run.seed)
  for run, gap in zip(study.runs, (0.6, 0.8)):
    writer = tf.summary.create_file_writer(str(tmp_path / run.name / 'validation'))
    with writer.as_default():
      tf.summary.scalar('gap', gap, step=5)
    writer.close()
  text = report.write(study, str(tmp_path))
  section = text[text.index('## Length of training') :]
  assert _cells(section, 'alone') == ['alone', '7', '0.5500', '0.7000', '5']


def test_study_without_a_finished_run(tmp_path):
  study = study_file.parse(fabricated_studies.study())
  with pytest.raises(ValueError, match='holds no finished run of the study'):
    report.write(study, str(tmp_path))


@pytest.mark.parametrize(
  'setting, output_dir, message',
  [
    ('num_cells', 'gs://bucket/study', '--output_dir is gs://bucket/study'),
    ('num_cell', 'out', "set sets 'num_cell': give a setting"),
  ],
)
def test_what_cannot_run_is_refused_before_any_run(
  tmp_path, monkeypatch, setting, output_dir, message
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'study.yaml').write_text(
    f'gin_file: train.gin\nset: {{{setting}: 3}}\nseeds: [0]\n'
    'groups: [{name: a, experiment: yt8m_distill}]'
  )
  monkeypatch.setattr(
    command.flags,
    'FLAGS',
    types.SimpleNamespace(
      config='study.yaml', gin_params=[], output_dir=output_dir, workers=1
    ),
  )
  with pytest.raises(ValueError, match=message):
    command.main(None)
  assert [path.name for path in tmp_path.iterdir()] == ['study.yaml']


def test_scores_over_frames(tmp_path, monkeypatch):
  study = study_file.parse(fabricated_studies.study(rises=['uniform-k', 'serial']))
  _finish(study, tmp_path, lambda run: int(run.axes.get('k', 60)) / 100 + run.seed)
  summary = results.summarize(results.learners(results.collect(study, str(tmp_path))))
  figures = []
  monkeypatch.setattr(plots.report, 'save', lambda figure, path: figures.append(figure))
  plots.rises(study, summary, 'a.png')
  for axes, factor in zip(figures[0].axes, (1, 0.5)):
    lines, labels = axes.get_legend_handles_labels()
    assert sorted(labels) == ['serial', 'skyline', 'uniform-k']
    drawn = dict(zip(labels, lines))
    for label in ('serial', 'uniform-k'):
      line = drawn[label].lines[0]
      np.testing.assert_allclose(np.array(line.get_xdata(), float), [6, 30])
      np.testing.assert_allclose(
        np.array(line.get_ydata(), float), [1.06 * factor, 1.3 * factor]
      )
    assert drawn['skyline'].get_ydata()[0] == pytest.approx(1.6 * factor)
    assert drawn['skyline'].get_linestyle() == '--'


def test_points_stand_at_their_scores(tmp_path, monkeypatch):
  """Runs of equal cost are drawn in rows of their own, none is moved."""
  study = study_file.parse(fabricated_studies.study())
  _finish(study, tmp_path, lambda run: 0.5 + 0.01 * run.seed)
  summary = results.summarize(results.learners(results.collect(study, str(tmp_path))))
  figures = []
  monkeypatch.setattr(plots.report, 'save', lambda figure, path: figures.append(figure))
  plots.quality(study, summary, 'a.png')
  gap, mean_precision, _ = figures[0].axes
  for axes, score in ((gap, 0.51), (mean_precision, 0.255)):
    points = np.concatenate(
      [
        points.get_offsets()
        for points in axes.collections
        if isinstance(points, PathCollection)
      ]
    )
    np.testing.assert_allclose(points[:, 0], score)
  assert [label.get_text() for label in gap.get_yticklabels()] == list(
    summary['label'].unique()
  )
