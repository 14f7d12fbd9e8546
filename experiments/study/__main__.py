"""Runs a study and writes its report.

  python -m experiments.study --config=study.yaml --output_dir=runs/study \
    --workers=2 --gin_params="yt8m_distill.train_path='train*.tfrecord'" \
    --gin_params="yt8m_distill.validation_path='validate*.tfrecord'"

experiments/study/README.md describes the file. Each run gets a folder in
--output_dir, which also gets report.md, its plots, and runs.csv and summary.csv
(and both as .parquet). After an interruption, the same command skips finished
runs and resumes stopped ones.
"""

import os
import sys

from absl import flags
from absl import logging

from experiments.study import jobs
from experiments.study import report
from experiments.study import results
from experiments.study import runner
from experiments.study import study_file
from yt8m_distill.utils import cli
from yt8m_distill.utils import files
from yt8m_distill.utils import ray_jobs


def _define_flags():
  study_file.define_flags()
  flags.DEFINE_integer(
    'workers',
    1,
    'Runs in parallel, with --ray_address on each node; they share its cores and GPUs.',
  )
  ray_jobs.define_flags()


def main(_):
  """Checks the study, runs what is unfinished and prints the report."""
  values = flags.FLAGS
  if files.is_remote(values.output_dir):
    raise ValueError(
      f'--output_dir is {values.output_dir}: it must be a local folder. Name one.'
    )
  output_dir = os.path.abspath(values.output_dir)
  study = study_file.read(values.config, values.gin_params)
  # Errors in the study end the command before any run starts.
  results.reference(study)
  plan = jobs.plan(study.runs)
  failed = runner.execute(
    plan, output_dir, values.workers, values['import'].value, values.ray_address
  )
  logging.set_verbosity(logging.WARNING)  # TensorBoard's reader logs a lot.
  lines = [f'{name}: {reason}' for name, reason in failed.items()]
  try:
    print(report.write(study, output_dir, lines))
  finally:
    for line in lines:
      print(f'Failed: {line}', file=sys.stderr)
  if failed:
    sys.exit(1)


if __name__ == '__main__':
  _define_flags()
  cli.run(main)
