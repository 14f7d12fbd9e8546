"""Everything that the driver shows, mostly in processes of its own."""

import json
import os
import re
import subprocess
import sys

import paths
import processes
import pytest
import tiny

pytestmark = pytest.mark.end_to_end

_LIMIT = 300  # seconds
_NUMBER = r'[\d.e+-]+'
_LOOP = (
  rf'(?: \| {_NUMBER} videos/s \| 0:00:\d\d left)? \| student/gap {_NUMBER}'
  rf' \| teacher/gap {_NUMBER} \| training_loss {_NUMBER}'
)
_METRICS = (
  rf' \| student/gap {_NUMBER} \| student/map {_NUMBER}'
  rf' \| teacher/gap {_NUMBER} \| teacher/map {_NUMBER}'
)
_LOSS = rf' \| validation_loss {_NUMBER}'
_COST = rf'{_NUMBER} GFLOPs per video, [\d,]+ parameters'


def _run(mode, run, folder, *arguments, **values):
  """Runs the driver as a user would, without settings of the tests' environment."""
  own = ('TF_CPP_MIN_LOG_LEVEL', 'PYTHONWARNINGS', 'CUDA_VISIBLE_DEVICES')
  averages = folder / 'averages.yaml'
  averages.write_text(json.dumps(tiny.AVERAGES))
  return subprocess.run(
    [
      *(sys.executable, '-m', 'yt8m_distill.train', '--experiment=yt8m_distill'),
      *(f'--mode={mode}', f'--model_dir={run}', '--gin_file=train.gin'),
      f'--config_file={tiny.sizes_file(folder)}',
      f'--config_file={averages}',
      tiny.override(
        **{
          'task__train_data__input_path': folder / 'train.tfrecord',
          'task__train_data__global_batch_size': 4,
          'task__validation_data__input_path': folder / 'validate.tfrecord',
          'task__validation_data__global_batch_size': 4,
          'trainer__train_steps': 4,
          'trainer__steps_per_loop': 2,
          'trainer__validation_interval': 4,
          'trainer__checkpoint_interval': 2,
          'runtime__run_eagerly': True,  # Spares the tracing of graphs.
          **values,
        }
      ),
      *arguments,
    ],
    cwd=paths.ROOT,
    env={k: v for k, v in os.environ.items() if k not in own}
    | {'PYTHONPATH': str(paths.ROOT)},
    capture_output=True,
    text=True,
    check=False,
    timeout=_LIMIT,
  )


@pytest.fixture(name='folder', scope='module')
def _folder(tmp_path_factory):
  """Records to train on, to evaluate, and one with a broken byte."""
  folder = tmp_path_factory.mktemp('records')
  tiny.write_records(folder / 'train.tfrecord', 12)
  tiny.write_records(folder / 'validate.tfrecord', 9, seed=1)
  content = bytearray((folder / 'train.tfrecord').read_bytes())
  content[len(content) // 2] ^= 255
  (folder / 'broken.tfrecord').write_bytes(content)
  return folder


@pytest.fixture(name='trained', scope='module')
def _trained(folder):
  """The folder of a run, and the process that trained it."""
  run = folder / 'run'
  return run, _run('train_and_eval', run, folder)


def _header(folder, run, mode, train=True, validate=True):
  return [
    f'Run: {run}',
    f'Log: {run}/logs/{mode}.INFO',
    f'Experiment: yt8m_distill, {mode} on CPU',
    *([f'Training records: {folder}/train.tfrecord, 4 a batch'] if train else []),
    *(
      [f'Validation records: {folder}/validate.tfrecord, 4 a batch'] if validate else []
    ),
    f'Teacher: 20 frames, {_COST}',
    f'Student: 4 frames, {_COST}',
  ]


def _assert_shows(done, *patterns):
  lines = done.stdout.splitlines()
  assert len(lines) == len(patterns), done.stdout
  for line, pattern in zip(lines, patterns):
    assert re.fullmatch(pattern, line), (line, pattern)


def _end(run):
  return (
    rf'Best checkpoint: {run}/best_ckpt, step 4, student/gap {_NUMBER}',
    f'Next: yt8m-distill report {run}',
  )


def test_good_run_shows_what_it_does_and_nothing_else(trained, folder):
  run, done = trained
  assert (done.returncode, done.stderr) == (0, '')
  _assert_shows(
    done,
    *_header(folder, run, 'train_and_eval'),
    'New run, to step 4',
    f'step 2/4{_LOOP}',
    f'step 4/4{_LOOP}',
    f'evaluation of step 4{_METRICS}{_LOSS}',
    *_end(run),
  )
  log = (run / 'logs' / 'train_and_eval.INFO').read_text()
  assert log.count('Configuration:') == 1
  for logged in ('teacher/', 'saved checkpoint', 'student/label_loss'):
    assert logged in log


def test_finished_run_says_so_and_evaluation_shows_its_result(trained, folder):
  run, _ = trained
  done = _run('train_and_eval', run, folder)
  assert (done.returncode, done.stderr) == (0, '')
  _assert_shows(
    done,
    *_header(folder, run, 'train_and_eval'),
    r'Already trained to step 4 of 4: to train further, increase trainer.train_steps '
    r'\(yt8m_distill.train_steps in gin\), or choose another --model_dir.',
    f'evaluation of step 4{_METRICS}',
    *_end(run),
  )
  done = _run('eval', run, folder, '--verbosity=0')
  assert done.returncode == 0
  assert 'Configuration:' in done.stderr
  assert 'could not be found' not in done.stderr
  _assert_shows(
    done,
    *_header(folder, run, 'eval', train=False),
    f'evaluation of step 4{_METRICS}{_LOSS}',
    *_end(run),
  )


def test_failed_run_ends_with_one_line(trained, folder):
  # Resumes: what it restores but does not use must not be listed after the error.
  run, _ = trained
  broken = folder / 'broken.tfrecord'
  done = _run(
    'train',
    run,
    folder,
    task__train_data__input_path=broken,
    trainer__train_steps=6,
  )
  assert done.returncode == 1
  [line] = done.stderr.splitlines()
  assert line.startswith(f'Error: {broken}: unreadable from byte ')
  *_, resumes, changes = done.stdout.splitlines()
  assert resumes == 'Resumes at step 4 of 6'
  assert changes.endswith(f'-> {broken}; trainer.train_steps 4 -> 6')


def test_help_shows_the_driver_s_own_flags():
  done = processes.forked('-m', 'yt8m_distill.train', '--help')
  assert (done.returncode, done.stderr) == (0, '')
  lines = done.stdout.splitlines()
  assert lines[2].startswith('  yt8m-distill train --experiment=yt8m_distill')
  flags = re.findall(r'^  --(?:\[no\])?(\w+):', done.stdout, re.MULTILINE)
  assert flags == [
    'config_file',
    'experiment',
    'gin_file',
    'gin_params',
    'import',
    'log_dir',
    'mode',
    'model_dir',
    'params_override',
    'tf_data_service',
    'tpu',
    'verbosity',
  ]
