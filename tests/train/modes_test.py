"""When the driver evaluates, and when it stops."""

import itertools
import json
import pathlib
import re
import shutil
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
import tiny

from yt8m_distill.evaluation import report
from yt8m_distill.modeling import distiller

pytestmark = pytest.mark.end_to_end

_STEPS = 7
_INTERVAL = 2
_LEARNING_RATE = (
  'trainer__optimizer_config__learning_rate__exponential__initial_learning_rate'
)


@pytest.fixture(autouse=True, scope='module')
def _eagerly():
  """Spares the tracing of a graph for each run."""
  tf.config.run_functions_eagerly(True)
  yield
  tf.config.run_functions_eagerly(False)


@pytest.fixture(name='drive', scope='module')
def _drive(tmp_path_factory):
  """Runs the driver on fixed records from fixed weights."""
  folder = tmp_path_factory.mktemp('records')
  tiny.write_records(folder / 'train.tfrecord', 12)
  tiny.write_records(folder / 'validate.tfrecord', 9, seed=1)
  model = distiller.build(tiny.experiment(tiny.AVERAGES).task.model)
  tf.train.Checkpoint(model=model).write(str(folder / 'first'))

  averages = folder / 'averages.yaml'
  averages.write_text(json.dumps(tiny.AVERAGES))

  def drive(mode, run, train_steps=_STEPS, **overrides):
    return tiny.run_driver(
      mode,
      run,
      f'--config_file={averages}',
      tiny.override(
        **{
          'task__train_data__input_path': folder / 'train.tfrecord',
          'task__train_data__global_batch_size': 5,
          'task__validation_data__input_path': folder / 'validate.tfrecord',
          'task__validation_data__global_batch_size': 9,
          'task__init_checkpoint': folder / 'first',
          'trainer__train_steps': train_steps,
          'trainer__validation_interval': _INTERVAL,
          'trainer__checkpoint_interval': 3,
          'trainer__steps_per_loop': 4,
          'trainer__summary_interval': 4,
          _LEARNING_RATE: 0.05,
          'trainer__continuous_eval_timeout': 600,
          **overrides,
        }
      ),
    )

  return drive


@pytest.fixture(name='whole', scope='module')
def _whole(drive, tmp_path_factory):
  """The folder of a run that never stopped."""
  run = tmp_path_factory.mktemp('whole') / 'run'
  drive('train_and_eval', run)
  return run


@pytest.fixture(name='run')
def _run(whole, tmp_path):
  """A copy of that folder."""
  return pathlib.Path(shutil.copytree(whole, tmp_path / 'run'))


def _evaluated(run):
  """{step: the student's GAP} of all evaluations of a run."""
  return dict(zip(*report.read_curves(str(run / 'validation'))['student/gap']))


def _last(run):
  return json.loads((run / 'evaluation.json').read_text())


def _let_clock_jump(monkeypatch):
  """Sets the clock forth and back by hours, each time that it is read."""
  clock, hours = time.time, itertools.cycle([0, 9, -5, 30, -20])
  monkeypatch.setattr(time, 'time', lambda: clock() + 3600 * next(hours))


def test_a_clock_that_jumps_changes_nothing(drive, whole, tmp_path, monkeypatch):
  _let_clock_jump(monkeypatch)
  run = tmp_path / 'run'
  drive('train', run, 3)
  drive('train_and_eval', run)
  assert _last(run) == _last(whole)
  for found, expected in zip(
    *(tiny.checkpoint_values(r / f'ckpt-{_STEPS}').items() for r in (run, whole))
  ):
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1], expected[1])
  assert not set(_evaluated(run)) - set(_evaluated(whole))


@pytest.mark.parametrize(
  'stop,steps,expected',
  [
    (3, 7, [4, 6, 7]),
    (4, 6, [4, 6]),  # Stopped between a step and its evaluation.
    (3, 3, [3]),  # The same at the last step.
  ],
)
def test_resumed_run_is_evaluated_where_one_without_a_stop_is(
  drive, whole, tmp_path, stop, steps, expected
):
  run = tmp_path / 'run'
  drive('train', run, stop)
  drive('train_and_eval', run, steps)
  evaluated = _evaluated(run)
  assert sorted(evaluated) == expected
  reference = _evaluated(whole)
  assert sorted(reference) == [2, 4, 6, 7]
  for step, gap in evaluated.items():
    assert gap == reference.get(step, gap)
  assert _last(run)['step'] == steps
  assert tf.train.latest_checkpoint(str(run)).endswith(f'ckpt-{steps}')
  # max() takes the first of equals, as the best checkpoint does.
  best = json.loads((run / 'best_ckpt' / 'info.json').read_text())
  assert best['best_ckpt_global_step'] == max(evaluated, key=evaluated.get)


def test_finished_run_is_evaluated_again_only_where_that_is_missing(drive, run, capsys):
  before = _last(run)
  (run / 'evaluation.json').unlink()
  drive('train_and_eval', run)
  assert _last(run) == before
  mark = {**before, 'metrics': {'student/gap': 0.0}}
  (run / 'evaluation.json').write_text(json.dumps(mark))
  drive('train_and_eval', run)
  assert _last(run) == mark
  assert 'step 7/7' not in capsys.readouterr().out


def test_continuous_evaluation_of_a_finished_run_ends(drive, run, monkeypatch):
  shutil.rmtree(run / 'validation')
  shutil.rmtree(run / 'best_ckpt')
  expected = _last(run)
  (run / 'evaluation.json').unlink()
  # Who waited for one behind the last would be told that none came in time.
  drive('continuous_eval', run, trainer__continuous_eval_timeout=1)
  assert _last(run) == expected
  assert list(_evaluated(run)) == [_STEPS]
  assert list((run / 'best_ckpt').glob('best_ckpt-*.index'))


def _copy_checkpoint(source, run, step):
  for path in source.glob(f'ckpt-{step}.*'):
    shutil.copy(path, run)
  tf.compat.v1.train.update_checkpoint_state(str(run), str(run / f'ckpt-{step}'))


def test_continuous_evaluation_takes_checkpoints_as_they_come(
  drive, whole, tmp_path, monkeypatch
):
  run = tmp_path / 'run'

  def train():
    _copy_checkpoint(whole, run, 6)
    while not (run / 'evaluation.json').exists():
      time.sleep(0.1)
    _copy_checkpoint(whole, run, 7)

  training = threading.Thread(target=train, daemon=True)

  def wait(seconds):  # For the first checkpoint, and for each other one.
    if not training.ident:
      assert not tf.train.latest_checkpoint(str(run))
      training.start()
    sleep(seconds / 10)

  sleep = time.sleep
  monkeypatch.setattr(time, 'sleep', wait)
  _let_clock_jump(monkeypatch)
  # Weights of its own, which are not those of the checkpoint.
  drive('continuous_eval', run, task__init_checkpoint='')
  training.join()
  reference = _evaluated(whole)
  assert _evaluated(run) == {step: reference[step] for step in (6, 7)}
  assert _last(run) == _last(whole)


def test_continuous_evaluation_without_a_checkpoint_is_an_error(drive, tmp_path):
  run = tmp_path / 'run'
  with pytest.raises(
    TimeoutError,
    match=f'No checkpoint after step 0 of 7 came to {run} '
    'within 1 seconds. Train in this folder',
  ):
    drive('continuous_eval', run, trainer__continuous_eval_timeout=1)
  assert not (run / 'evaluation.json').exists()


def test_continuous_evaluation_of_a_run_that_stopped_says_where(drive, run):
  with pytest.raises(TimeoutError, match='No checkpoint after step 7 of 9'):
    drive('continuous_eval', run, 9, trainer__continuous_eval_timeout=1)
  assert _last(run)['step'] == 7


def test_loss_that_is_not_finite_stops_the_run(drive, tmp_path):
  run = tmp_path / 'run'
  # The first step leaves weights near the largest float.
  with pytest.raises(tf.errors.InvalidArgumentError) as error:
    drive(
      'train',
      run,
      trainer__steps_per_loop=1,
      trainer__summary_interval=1,
      trainer__checkpoint_interval=1,
      **{_LEARNING_RATE: 1e38},
    )
  assert re.search(
    r'The loss is not finite at step\W+2\W.*Lower the learning '
    'rate',
    error.value.message,
    re.DOTALL,
  )
  latest = tf.train.latest_checkpoint(str(run))
  assert latest.endswith('ckpt-1')
  for name, value in tiny.checkpoint_values(latest).items():
    assert np.isfinite(value).all(), name
