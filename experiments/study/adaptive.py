r"""Calibrates the nested networks of a study and compares them with its fixed ones.

  python -m experiments.study.adaptive --config=experiments/study/adaptive.yaml \
    --output_dir=OUT --calibration_path=... --evaluation_path=... [--gin_params=...]

Takes a finished study. A claim `A > B` in its `order` names networks with
nested frames, A, and networks that were trained for one number of frames each, B. For
each number of B, adaptive inference with A may see half as many on average: the
threshold is calibrated on other videos than it is scored on. A paired test over the
seeds says whether it then scores higher or lower than B, or leaves it undecided.

Writes adaptive.csv, adaptive.md and adaptive.png to the study's folder.
"""

from collections.abc import Iterator
import itertools
import os

from absl import flags
import matplotlib
import pandas as pd

from experiments.study import claims
from experiments.study import report as study_report
from experiments.study import results
from experiments.study import runner
from experiments.study import study_file
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.evaluation import adaptive
from yt8m_distill.evaluation import report
from yt8m_distill.modeling import adaptive as inference
from yt8m_distill.serving import adapt
from yt8m_distill.utils import cli
from yt8m_distill.utils import files

matplotlib.use('Agg')
from matplotlib import pyplot as plt

FLAGS = flags.FLAGS
_PLACE = ['label', 'fixed_label', 'fixed_frames']
_COSTS = {'frames': ('mean frames', 1), 'flops': ('mean GFLOPs', 1e9)}


def compare(
  study: study_file.Study, output_dir: str, calibration_path: str, evaluation_path: str
) -> pd.DataFrame:
  """Calibrates and scores every nested run of the study.

  Args:
    study: the study.
    output_dir: its folder.
    calibration_path: records to choose thresholds on.
    evaluation_path: records that the study was evaluated on.

  Returns:
    A row for each nested run and number of frames that is halved: label, fixed_label,
    seed, fixed_frames, counts, measure, threshold; of adaptive inference frames, flops,
    gap, map, and gain_at_frames and gain_at_flops over the fixed networks of the seed;
    of the fixed network fixed_flops, fixed_gap, fixed_map.

  Raises:
    ValueError: the study has no finished run of a claim's labels, or not a nested one.
  """
  runs = results.collect(study, output_dir)
  runs = results.learners(runs) if len(runs) else runs
  rows = []
  for label, fixed_label in _pairs(study) if len(runs) else ():
    for name, nested in runs[runs['label'] == label].groupby('name', sort=False):
      seed = nested['seed'].iloc[0]
      fixed = runs[(runs['label'] == fixed_label) & (runs['seed'] == seed)]
      fixed = fixed.sort_values('num_frames').reset_index(drop=True)
      counts = fixed.rename(columns={'num_frames': 'frames'})
      network = trained_network.Network(runner.folder(output_dir, name))
      answers = adapt.answers_of(network, calibration_path)
      points = adaptive.rules(answers, list(inference.MEASURES))
      fixed_counts = adaptive.fixed(answers)
      answers = adapt.answers_of(network, evaluation_path)
      smallest = nested['num_frames'].min()
      for place in counts[counts['frames'] >= 2 * smallest].to_dict('records'):
        rule = adaptive.calibrate(points, fixed_counts, place['frames'] / 2)
        rule = {key: rule[key] for key in inference.Rule._fields}
        part = answers.of(rule['counts'])
        chosen = {**rule, **part.adaptive(rule['measure'], rule['threshold'])}
        gains = adaptive.gains(pd.DataFrame([chosen]), counts).iloc[0]
        rows.append(
          {
            'label': label,
            'fixed_label': fixed_label,
            'seed': seed,
            'fixed_frames': place['frames'],
            **rule,
            **{key: chosen[key] for key in ('frames', 'flops', 'gap', 'map')},
            **gains,
            **{f'fixed_{key}': place[key] for key in ('flops', 'gap', 'map')},
          }
        )
  if not rows:
    raise ValueError(
      f'{output_dir} holds no finished runs for the claims {study.order}: run the '
      'study first.'
    )
  return pd.DataFrame(rows)


def _pairs(study: study_file.Study) -> Iterator[tuple[str, str]]:
  for claim in study.order:
    yield from itertools.pairwise(claim.split(' > '))


def _table(found: pd.DataFrame) -> str:
  """Returns what half the frames give, by label and number of frames, as Markdown."""
  table = [
    (
      'networks',
      'fixed frames',
      'GAP',
      'GFLOPs',
      'adaptive frames',
      'GAP',
      'GFLOPs',
      'difference',
      'verdict',
      'gain at equal frames',
      'at equal GFLOPs',
    )
  ]
  for (label, fixed_label, frames), rows in found.groupby(_PLACE, sort=False):
    differences = rows['gap'] - rows['fixed_gap']
    table.append(
      (
        f'{label}, beside {fixed_label}',
        f'{frames}',
        study_report.spread(rows['fixed_gap'].mean(), rows['fixed_gap'].std()),
        f'{rows["fixed_flops"].mean() / 1e9:.4f}',
        f'{rows["frames"].mean():.2f}',
        study_report.spread(rows['gap'].mean(), rows['gap'].std()),
        f'{rows["flops"].mean() / 1e9:.4f}',
        f'{differences.mean():+.4f}',
        {'holds': 'higher', 'does not hold': 'lower'}.get(
          claims.verdict(differences), 'undecided'
        ),
        f'{rows["gain_at_frames"].mean():+.4f}',
        f'{rows["gain_at_flops"].mean():+.4f}',
      )
    )
  return report.markdown(table)


def _plot(runs: pd.DataFrame, found: pd.DataFrame, path: str):
  """Draws GAP over mean frames and GFLOPs; a row for each pair of labels."""
  pairs = found[['label', 'fixed_label']].drop_duplicates().to_numpy()
  figure, grid = plt.subplots(
    len(pairs), 2, figsize=(12, 4 * len(pairs)), squeeze=False, sharey='row'
  )
  for row, (label, fixed_label) in zip(grid, pairs):
    for axes, (cost, (title, scale)) in zip(row, _COSTS.items()):
      own = 'num_frames' if cost == 'frames' else cost
      for name, color in ((fixed_label, 'black'), (label, 'C0')):
        rows = runs[runs['label'] == name].groupby('num_frames')
        axes.errorbar(
          rows[own].mean() / scale,
          rows['gap'].mean(),
          rows['gap'].std(),
          fmt='o-',
          color=color,
          capsize=3,
          label=name,
        )
      rows = found[(found['label'] == label) & (found['fixed_label'] == fixed_label)]
      rows = rows.groupby('fixed_frames')
      axes.errorbar(
        rows[cost].mean() / scale,
        rows['gap'].mean(),
        rows['gap'].std(),
        fmt='*-',
        color='C3',
        markersize=12,
        capsize=3,
        label=f'{label}, adaptive',
      )
      axes.set(xlabel=f'{title} of a video', ylabel='GAP@20')
      axes.grid(alpha=0.3)
    row[0].legend(loc='lower right')
  report.save(figure, path)


def write(
  study: study_file.Study, output_dir: str, calibration_path: str, evaluation_path: str
) -> str:
  """Compares, writes the files and returns the table; see compare()."""
  found = compare(study, output_dir, calibration_path, evaluation_path)
  files.write_text(os.path.join(output_dir, 'adaptive.csv'), found.to_csv(index=False))
  runs = results.learners(results.collect(study, output_dir))
  _plot(runs, found, os.path.join(output_dir, 'adaptive.png'))
  text = _table(found)
  files.write_text(os.path.join(output_dir, 'adaptive.md'), text)
  return text


def main(_):
  """Runs the command."""
  study = study_file.read(FLAGS.config, FLAGS.gin_params)
  output_dir = os.path.abspath(FLAGS.output_dir)
  print(write(study, output_dir, FLAGS.calibration_path, FLAGS.evaluation_path))


def _define_flags():
  study_file.define_flags()
  flags.DEFINE_string(
    'calibration_path', None, 'Records to choose thresholds on.', required=True
  )
  flags.DEFINE_string(
    'evaluation_path',
    None,
    'The records that the study was evaluated on.',
    required=True,
  )


if __name__ == '__main__':
  _define_flags()
  cli.run(main)
