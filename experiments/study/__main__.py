"""Runs a study and reports it.

  python -m experiments.study --config=study.yaml --output_dir=runs/study \
    --workers=2 --gin_params="yt8m_distill.train_path='train*.tfrecord'" \
    --gin_params="yt8m_distill.validation_path='validate*.tfrecord'"

`study.config` says what the file holds. Each run gets a folder in --output_dir;
one that is finished is not run again, one that was stopped goes on where it
was. Beside them are left runs.csv and summary.csv (and .parquet), report.md,
quality.png, curves.png and per_class.png.
"""

import os
import sys

from absl import flags
from absl import logging

from experiments.study import claims
from experiments.study import config
from experiments.study import experiments
from experiments.study import plots
from experiments.study import report
from experiments.study import results
from experiments.study import runner
from yt8m_distill.utils import cli
from yt8m_distill.utils import files


def _define_flags():
  # Not on import: other commands share names.
  flags.DEFINE_string('config', None, 'YAML file of the study.', required=True)
  flags.DEFINE_string(
    'output_dir', None, 'Folder of the runs and of the report.', required=True
  )
  flags.DEFINE_integer('workers', 1, 'Runs at once; they share the cores.')
  flags.DEFINE_multi_string(
    'gin_params', [], 'Gin bindings for all runs, behind their own.'
  )


def write_report(study: config.Study, output_dir: str, failed=()) -> str:
  """Writes tables, plots and report.md; returns the text.

  Raises:
    ValueError: no run is finished.
  """
  runs = results.collect(study, output_dir)
  if runs.empty:
    raise ValueError(
      f'No run of the study in {output_dir} is finished: the '
      'file log in its folder says why.'
    )
  results.write({'runs': runs, 'summary': results.summarize(runs)}, output_dir)
  checked = claims.check(study, results.learners(runs), results.reference(study))
  text = report.text(
    study, output_dir, runs, checked, plots.draw(study, runs, output_dir), failed
  )
  files.write_text(os.path.join(output_dir, 'report.md'), text)
  return text


def main(_):
  """Runs the command."""
  values = flags.FLAGS
  if '://' in values.output_dir:
    raise ValueError(
      f'--output_dir is {values.output_dir}: the runs need a folder of this machine.'
    )
  output_dir = os.path.abspath(values.output_dir)
  study = config.read(values.config, values.gin_params)
  # What is wrong is told before the runs.
  results.reference(study)
  experiments.check(study.runs)
  failed = runner.execute(study.runs, output_dir, values.workers)
  logging.set_verbosity(logging.WARNING)  # TensorBoard's reader tells a lot.
  lines = [f'{name}: {reason}' for name, reason in failed.items()]
  try:
    print(write_report(study, output_dir, lines))
  finally:
    for line in lines:
      print(f'Failed: {line}', file=sys.stderr)
  if failed:
    sys.exit(1)


if __name__ == '__main__':
  _define_flags()
  cli.run(main)
