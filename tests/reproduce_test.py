"""experiments/reproduce.sh: killed in its fourth stage, it goes on there."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
import tiny

from yt8m_distill.checkpoints import student

_STEPS = 60
_SIZES = {
    'task': {'model': {'features': [{'name': 'rgb', 'size': 8},
                                    {'name': 'audio', 'size': 4}]}},
    'trainer': {'steps_per_loop': 2, 'summary_interval': 2,
                'checkpoint_interval': 2},
}
_MACROS = dict(EVERY_N=5, STUDENT_CHUNKS=2, TEACHER_CHUNKS=5, NUM_CELLS=4,
               NUM_LAYERS=1, MAX_FRAMES=20, NUM_CLASSES=12, BATCH_SIZE=5,
               TRAIN_STEPS=_STEPS)


def _start(folder, *flags):
  sizes = folder / 'sizes.yaml'
  sizes.write_text(json.dumps(_SIZES))
  return subprocess.Popen(
      ['bash', tiny.ROOT / 'experiments' / 'reproduce.sh', folder / 'out',
       f'--config_file={sizes}',
       *(f'--gin_params={name}={value}' for name, value in _MACROS.items()),
       *flags],
      env={**tiny.script_environment(), 'DATA': str(folder)},
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
      start_new_session=True)


def _starts(folder):
  """Steps at which the driver began to train, per stage that trained."""
  log = (folder / 'out' / 'log').read_text()
  return [int(step) for step in re.findall(
      r'train \| step: +(\d+) \| training until', log)]


@pytest.mark.slow
@pytest.mark.skipif(
    not (pathlib.Path(sys.prefix) / '.complete').exists(),
    reason='not in an environment of experiments/environment.sh')
def test_killed_stage_goes_on_where_it_was(tmp_path):
  tiny.write_records(tmp_path / 'train.tfrecord', 20)
  tiny.write_records(tmp_path / 'validate.tfrecord', 9, seed=1)
  # The first three stages, without a process for each.
  out = tmp_path / 'out'
  tiny.drive('train_and_eval', out / 'distilled', tmp_path / 'train.tfrecord')
  student.extract(str(out / 'distilled'), str(out / 'student'))
  for stage in ('train', 'validate', 'convert'):
    (out / f'{stage}.complete').touch()
  first = _start(tmp_path)
  # With the next one begun, ckpt-4 is known as the latest.
  while not (out / 'finetuned' / 'ckpt-6.index').exists():
    assert first.poll() is None, first.stdout.read()
    time.sleep(0.05)
  os.killpg(first.pid, signal.SIGKILL)
  first.communicate()
  assert not (out / 'finetune.complete').exists()
  before = len(_starts(tmp_path))

  second = _start(tmp_path)
  text, _ = second.communicate()
  assert second.returncode == 0, text
  for line in ('1/5 Training teacher and student: complete',
               '2/5 Validating both: complete',
               '3/5 Taking the student out: complete'):
    assert line in text.splitlines()
  resumed = _starts(tmp_path)[before]
  assert 4 <= resumed < _STEPS
  rows = [line.split('|')[1].strip() for line in text.splitlines()
          if line.startswith('| ')]
  assert rows == ['network', 'distilled: teacher', 'distilled: student',
                  'finetuned', 'alone', 'class frequency']

  other = _start(tmp_path, '--gin_params=LEARNING_RATE=1')
  assert 'name another OUT' in other.communicate()[0]
  assert other.returncode == 2
