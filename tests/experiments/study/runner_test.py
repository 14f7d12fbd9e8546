"""Running a study: order, restarts and failures, with a driver that is fake."""

import dataclasses
import glob
import json
import multiprocessing
from multiprocessing import connection
import os
import shutil
import signal
import time
import types

import fabricated_studies
import pytest
import tensorflow as tf

from experiments.study import jobs
from experiments.study import runner
from experiments.study import study_file


@pytest.fixture(name='runs')
def _runs(monkeypatch):
  """Jobs of the skyline and of a serial student, for two seeds."""
  # The fake driver reaches a process that is forked from this one.
  monkeypatch.setattr(runner, '_context', multiprocessing.get_context('fork'))
  monkeypatch.setattr(jobs, '_train', _drive)
  monkeypatch.setattr(runner.cores, 'count', lambda: 6)
  for name in ('inter', 'intra'):
    monkeypatch.setattr(
      tf.config.threading,
      f'set_{name}_op_parallelism_threads',
      lambda n, name=name: print(f'{name}: {n} threads'),
    )
  values = fabricated_studies.study(seeds=[0, 1])
  del values['groups'][2], values['columns']
  values['groups'][1]['grid'] = {}
  return _jobs(values)


def _jobs(values):
  return [jobs.Training(run.name, run) for run in study_file.parse(values).runs]


def _wait(condition):
  """Until it holds; 5 minutes at most, for a machine under load."""
  deadline = time.monotonic() + 300
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.01)


def _drive(arguments):
  """Notes when it ran; then does what a file in the run's folder says."""
  # A strategy of several workers, in another test of this process, takes it.
  signal.signal(signal.SIGTERM, signal.SIG_DFL)
  folder = next(a for a in arguments if 'model_dir' in a).split('=', 1)[1]
  begin = time.monotonic()  # Before the file is there, for which others wait.
  with open(os.path.join(folder, 'times'), 'a', encoding='utf-8') as file:
    file.write(f'{begin} ')
  if os.path.exists(os.path.join(folder, 'meet')):
    _wait(
      lambda: len(glob.glob(os.path.join(os.path.dirname(folder), '*', 'times'))) >= 2
    )
  if os.path.exists(os.path.join(folder, 'raise')):
    raise ValueError('bad\nvalue')
  if os.path.exists(os.path.join(folder, 'die')):
    os.kill(os.getpid(), signal.SIGKILL)
  if os.path.exists(os.path.join(folder, 'hang')):
    time.sleep(600)
  with open(os.path.join(folder, 'times'), 'a', encoding='utf-8') as file:
    file.write(f'{time.monotonic()}\n')
  print('said', arguments)


def _times(output_dir, run):
  """When a run began and ended, of its only start."""
  first, last = (output_dir / run.name / 'times').read_text().split()
  return float(first), float(last)


def _plant(output_dir, run, what):
  (output_dir / run.name).mkdir(parents=True, exist_ok=True)
  (output_dir / run.name / what).touch()


def test_runs_wait_for_those_they_need_and_no_more_run_than_workers(runs, tmp_path):
  for run in runs[:2]:  # They end when two runs have begun.
    _plant(tmp_path, run, 'meet')
  assert runner.execute(runs, str(tmp_path), workers=2) == {}
  times = {run.name: _times(tmp_path, run) for run in runs}
  for run in runs:
    for name in run.needs:
      assert times[name][1] < times[run.name][0]
  starts = [
    sum(begin <= start < end for begin, end in times.values())
    for start, _ in times.values()
  ]
  assert max(starts) == 2
  log = (tmp_path / 'serial-seed=1' / 'log').read_text()
  assert f"yt8m_distill.teacher_checkpoint='{tmp_path}/skyline-seed=1'" in log
  assert 'inter: 3 threads' in log and 'intra: 3 threads' in log
  assert fabricated_studies.finished(tmp_path) == sorted(times)


def test_finished_runs_are_kept(runs, tmp_path):
  fabricated_studies.finish(runs[0].run, tmp_path, 0.5, curve=False)
  runner.execute(runs, str(tmp_path), workers=4)
  again = [_times(tmp_path, run) for run in runs[1:]]
  runner.execute(runs, str(tmp_path), workers=4)
  assert again == [_times(tmp_path, run) for run in runs[1:]]
  assert not (tmp_path / runs[0].name / 'times').exists()


def test_failures_are_listed_and_stop_no_other_run(runs, tmp_path):
  _plant(tmp_path, runs[0], 'raise')
  _plant(tmp_path, runs[3], 'die')
  failed = runner.execute(runs, str(tmp_path), workers=2)
  assert failed == {
    'skyline-seed=0': 'ValueError: bad value',
    'serial-seed=0': 'needs skyline-seed=0, which failed',
    'serial-seed=1': 'ended by signal 9',
  }
  assert fabricated_studies.finished(tmp_path) == ['skyline-seed=1']
  assert 'Traceback' in (tmp_path / 'skyline-seed=0' / 'log').read_text()
  # Mended, only what failed runs again.
  kept = _times(tmp_path, runs[1])
  (tmp_path / runs[0].name / 'raise').unlink()
  (tmp_path / runs[3].name / 'die').unlink()
  assert runner.execute(runs, str(tmp_path), workers=2) == {}
  assert len(fabricated_studies.finished(tmp_path)) == 4
  assert kept == _times(tmp_path, runs[1])


@pytest.fixture(name='stored')
def _stored(runs, monkeypatch):
  """Jobs of the skylines, of teaching, and of a student of both."""

  def teach(model, output_dir, **_):
    _drive([f'model_dir={os.path.dirname(output_dir)}'])
    return [f'{path}.tfrecord' for path in model]

  monkeypatch.setattr(jobs.teach, 'teach', teach)
  names = tuple(job.name for job in runs[:2])
  taught = jobs.Teaching('taught', names, {'top_k': 5})
  student = dataclasses.replace(runs[2].run, name='student')
  return [*runs[:2], jobs.Training('student', student, taught), taught]


def test_student_waits_for_teaching_and_that_for_all_teachers(stored, tmp_path):
  assert runner.execute(stored, str(tmp_path), workers=2) == {}
  one, other, student, taught = (_times(tmp_path, job) for job in stored)
  assert max(one[1], other[1]) < taught[0] < taught[1] < student[0]
  assert (tmp_path / 'taught' / 'records.txt').read_text().splitlines() == [
    f'{tmp_path}/{job.name}.tfrecord' for job in stored[:2]
  ]
  claim = json.loads((tmp_path / 'taught' / 'study.json').read_text())
  assert claim == {'teachers': ['skyline-seed=0', 'skyline-seed=1'], 'top_k': 5}


@pytest.mark.parametrize(
  'which, failed',
  [
    (
      1,
      {
        'skyline-seed=1': 'ValueError: bad value',
        'taught': 'needs skyline-seed=1, which failed',
        'student': 'needs taught, which failed',
      },
    ),
    (
      3,
      {
        'taught': 'ValueError: bad value',
        'student': 'needs taught, which failed',
      },
    ),
  ],
)
def test_failure_reaches_all_that_wait(stored, tmp_path, which, failed):
  _plant(tmp_path, stored[which], 'raise')
  assert runner.execute(stored, str(tmp_path), workers=2) == failed
  (tmp_path / stored[which].name / 'raise').unlink()
  assert runner.execute(stored, str(tmp_path), workers=2) == {}


def test_records_that_no_run_needs_any_more_may_be_removed(stored, tmp_path):
  runner.execute(stored, str(tmp_path), workers=2)
  shutil.rmtree(tmp_path / 'taught')
  assert runner.execute(stored, str(tmp_path), workers=2) == {}
  assert not (tmp_path / 'taught' / 'records.txt').exists()
  shutil.rmtree(tmp_path / 'student')
  assert runner.execute(stored, str(tmp_path), workers=2) == {}
  assert (tmp_path / 'taught' / 'records.txt').exists()


def test_interrupt_ends_the_runs_and_the_next_call_goes_on(runs, tmp_path, monkeypatch):
  _plant(tmp_path, runs[0], 'hang')

  def interrupt(*_):
    _wait((tmp_path / runs[0].name / 'times').exists)
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(connection, 'wait', interrupt)
    with pytest.raises(KeyboardInterrupt):
      runner.execute(runs, str(tmp_path), workers=1)
  assert not multiprocessing.active_children()
  assert fabricated_studies.finished(tmp_path) == []
  (tmp_path / runs[0].name / 'hang').unlink()
  assert runner.execute(runs, str(tmp_path), workers=2) == {}


def test_changed_runs_are_refused_by_name_and_nothing_is_written(runs, tmp_path):
  runner.prepare(runs[2:], str(tmp_path))
  for run in runs[2:]:
    path = tmp_path / run.name / 'study.json'
    values = json.loads(path.read_text())
    values['gin_params'] = ['yt8m_distill.seed=7']
    path.write_text(json.dumps(values))
  with pytest.raises(
    ValueError,
    match=(
      r'(?s)2 runs .*serial-seed=0/study.json: gin_params is .*, was '
      r"\['yt8m_distill.seed=7'\]"
      r'.*serial-seed=1/study.json: gin_params'
    ),
  ):
    runner.execute(runs, str(tmp_path), workers=1)
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    run.name for run in runs[2:]
  ]
  assert not list(tmp_path.glob('*/times'))


def test_settings_are_compared_as_json_has_them(runs, tmp_path):
  run = dataclasses.replace(runs[0].run, overrides={'task': {3: 4}})
  for _ in range(2):
    runner.prepare([jobs.Training(run.name, run)], str(tmp_path))


def test_nothing_is_waited_for_where_nothing_runs(runs, tmp_path, monkeypatch):
  waited = []

  def wait(sentinels, timeout):
    waited.append(len(sentinels))
    return connection.wait(sentinels, timeout)

  monkeypatch.setattr(runner, 'connection', types.SimpleNamespace(wait=wait))
  for run in runs[:2]:
    _plant(tmp_path, run, 'raise')
  assert len(runner.execute(runs, str(tmp_path), workers=2)) == 4
  assert all(waited)


def test_other_name_of_the_same_run_is_no_change(runs, tmp_path):
  runner.prepare(runs, str(tmp_path))
  values = fabricated_studies.study(seeds=[0, 1])
  values['groups'] = [{**values['groups'][0], 'label': 'teacher'}]
  del values['columns']
  runner.prepare(_jobs(values), str(tmp_path))


def test_workers_are_at_least_one(runs, tmp_path):
  with pytest.raises(ValueError, match='--workers is 0'):
    runner.execute(runs, str(tmp_path), workers=0)


def test_arguments_are_the_drivers_flags(runs):
  assert runs[2].flags('/out') == [
    '--experiment=yt8m_distill',
    '--mode=train_and_eval',
    '--model_dir=/out/serial-seed=0',
    '--gin_file=serial.gin',
    '--gin_file=own.gin',
    '--gin_params=yt8m_distill.seed=0',
    "--gin_params=yt8m_distill.teacher_checkpoint='/out/skyline-seed=0'",
    '--params_override={}',
  ]
