"""experiments/reproduce.sh: killed in its fourth stage, it goes on there."""

import json
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys

import paths
import processes
import pytest
import tiny

from yt8m_distill.checkpoints import extract_student

pytestmark = [pytest.mark.end_to_end, pytest.mark.long]

_SIZES = {
  'task': {
    'model': {'features': [{'name': 'rgb', 'size': 8}, {'name': 'audio', 'size': 4}]}
  },
  'trainer': {'steps_per_loop': 2, 'summary_interval': 2, 'checkpoint_interval': 2},
  'runtime': {'run_eagerly': True},  # Spares the tracing of graphs.
}
_SETTINGS = dict(
  every_n=5,
  student_chunks=2,
  teacher_chunks=5,
  num_cells=4,
  num_layers=1,
  max_frames=20,
  num_classes=12,
  batch_size=5,
  train_steps=6,
)


def _run(folder, *flags, **environment):
  """Runs the script to its end; returns the process."""
  sizes = folder / 'sizes.yaml'
  sizes.write_text(json.dumps(_SIZES))
  return subprocess.run(
    [
      'bash',
      paths.ROOT / 'experiments' / 'reproduce.sh',
      folder / 'out',
      f'--config_file={sizes}',
      *(
        f'--gin_params=yt8m_distill.{name}={value}' for name, value in _SETTINGS.items()
      ),
      *flags,
    ],
    env={**processes.script_environment(), 'DATA': str(folder), **environment},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    check=False,
    start_new_session=True,
  )


def _killing_environment(folder, checkpoint):
  """A complete environment whose Python kills the script as it trains.

  Args:
    folder: of the environment; is made.
    checkpoint: see `processes.killed_driver`.

  Returns:
    The folder.
  """
  python = folder / 'bin' / 'python'
  python.parent.mkdir(parents=True)
  venv = pathlib.Path(processes.script_environment()['VENV'])
  # Not a fork, which would end its server's process group.
  program = shlex.quote(processes.killed_driver(checkpoint, '0'))
  python.write_text(f"""#!/usr/bin/env bash
[ "$1 $2" != '-m experiments.scripts.claim' ] || exec {venv / 'bin' / 'python'} "$@"
[ "$1 $2" = '-m yt8m_distill.train' ] || exit 1
exec {shlex.quote(sys.executable)} -c {program} "${{@:3}}"
""")
  python.chmod(0o755)
  shutil.copy(venv / '.complete', folder)
  return str(folder)


def _starts(output):
  """Steps at which the driver began to train, per stage that trained."""
  found = re.findall(r'^(?:New run|Resumes at step (\d+))', output, re.MULTILINE)
  return [int(step or 0) for step in found]


@processes.needs_script_environment
def test_killed_stage_goes_on_where_it_was(tmp_path):
  tiny.write_records(tmp_path / 'train.tfrecord', 20)
  tiny.write_records(tmp_path / 'validate.tfrecord', 9, seed=1)
  # The first three stages, without a process for each.
  out = tmp_path / 'out'
  tiny.drive('train_and_eval', out / 'distilled', tmp_path / 'train.tfrecord')
  extract_student.extract(str(out / 'distilled'), str(out / 'student'))
  for stage in ('train', 'validate', 'convert'):
    (out / f'{stage}.complete').touch()
  first = _run(
    tmp_path, VENV=_killing_environment(tmp_path / 'venv', out / 'finetuned' / 'ckpt-2')
  )
  assert first.returncode == -signal.SIGKILL, first.stdout
  assert not (out / 'finetune.complete').exists()
  assert _starts(first.stdout) == [0]

  second = _run(tmp_path)
  assert second.returncode == 0, second.stdout
  lines = second.stdout.splitlines()
  for line in (
    '1/5 Training teacher and student: complete',
    '2/5 Validating both: complete',
    '3/5 Extracting the student: complete',
  ):
    assert line in lines
  assert _starts(second.stdout) == [2, 0]  # The last is the network alone.
  rows = [line.split('|')[1].strip() for line in lines if line.startswith('| ')]
  assert rows == [
    'network',
    'distilled: teacher',
    'distilled: student',
    'finetuned',
    'alone',
    'class frequency',
  ]

  other = _run(tmp_path, '--gin_params=yt8m_distill.learning_rate=1')
  assert f'Error: {out}/settings.json records another job: flags is ' in other.stdout
  assert other.returncode == 1
