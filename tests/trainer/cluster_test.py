"""Several workers: processes of their own, of this machine.

One network of 2 workers is killed and goes on with 3. What it ends with is held
against one process that never stopped. Then the same 3 train on rated windows: as a
script, this file is what they run.
"""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from unittest import mock

import fork_server
import numpy as np
import pandas as pd
import paths
import processes
import pytest
import tensorflow as tf
import tiny

from yt8m_distill.evaluation import report
from yt8m_distill.trainer import cluster
from yt8m_distill.utils import workers as workers_lib

pytestmark = pytest.mark.end_to_end

_LIMIT = 900  # seconds; a process may take a minute to start
_STEPS, _INTERVAL = 12, 4
_WINDOWS_STEPS = 4
_SINGLE, _SEGMENTS = 'yt8m_distill_single', 'yt8m_distill_segments'
# Rounding: sums over a batch are added up in another order.
_TOLERANCE = {'rtol': 2e-5, 'atol': 2e-6}
_TF_CONFIG = json.dumps(
  {
    'cluster': {'worker': ['127.0.0.1:1', '127.0.0.1:2']},
    'task': {'type': 'worker', 'index': 0},
  }
)


def _flags(folder, **values):
  """Of the driver, but for mode and folder; batches of 6 are for 1 to 3."""
  return [
    tiny.override(
      **{
        'task__model__network__backbone__type': 'yt8m_average',
        'task__model__network__head__type': 'logistic',
        'task__model__network__frames__type': 'all',
        'task__train_data__input_path': folder / 'train.tfrecord',
        'task__train_data__global_batch_size': 6,
        'task__train_data__shuffle_buffer_size': 5,
        'task__validation_data__input_path': f"'{folder}/validate?.tfrecord'",
        'task__validation_data__global_batch_size': 6,
        'task__validation_data__skip_corrupt_records': True,
        'trainer__train_steps': _STEPS,
        'trainer__validation_interval': _INTERVAL,
        'trainer__checkpoint_interval': 2,
        'trainer__steps_per_loop': 1,
        'trainer__summary_interval': 1,
        'trainer__continuous_eval_timeout': 60,
        # Else Adam would blow up differences of rounding.
        'trainer__optimizer_config__optimizer__adam__epsilon': 0.01,
        **values,
      }
    )
  ]


def _windows_flags(folder):
  """The same for rated windows, of which there are more than K; starts from run/."""
  return _flags(
    folder,
    task__train_data__input_path=folder / 'windows.tfrecord',
    task__validation_data__input_path=f"'{folder}/rated?.tfrecord'",
    task__init_checkpoint=folder / 'run',
    task__losses__weak_negatives=0.1,
    task__evaluation__max_windows=5,
    trainer__train_steps=_WINDOWS_STEPS,
    trainer__validation_interval=_WINDOWS_STEPS,
  )


def _command(workers, folder, *flags, program=('-m', 'experiments.cluster.loopback')):
  return [
    sys.executable,
    *program,
    f'--workers={workers}',
    f'--logs={folder / "logs"}',
    *map(str, flags),
  ]


def _start(workers, folder, *flags):
  """Starts a cluster; returns its process, whose lines can be read."""
  return subprocess.Popen(
    _command(workers, folder, *flags),
    cwd=paths.ROOT,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    env={**os.environ, 'PYTHONPATH': str(paths.ROOT), 'TF_CPP_MIN_LOG_LEVEL': '2'},
  )


def _pids(process, workers):
  """Process ids of the workers, as the command tells them."""
  lines = [process.stdout.readline() for _ in range(workers)]
  return [
    int(re.fullmatch(r'Worker \d: process (\d+), log .*\n', line)[1]) for line in lines
  ]


def _gone(pid):
  """Whether a process has ended."""
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return True
  return False


@pytest.fixture(name='folder', scope='module')
def _folder(tmp_path_factory):
  """Records: of the 13 to train on 6 is no divisor, one to score is broken."""
  folder = tmp_path_factory.mktemp('cluster')
  tiny.write_records(folder / 'train.tfrecord', 13)
  tiny.write_records(folder / 'validate0.tfrecord', 8, seed=1)
  tiny.write_records(folder / 'validate1.tfrecord', 1, seed=2)
  tiny.write_windows(folder / 'windows.tfrecord', 13)
  tiny.write_windows(folder / 'rated0.tfrecord', 19, seed=1)
  tiny.write_windows(folder / 'rated1.tfrecord', 1, seed=2)
  with (folder / 'validate0.tfrecord').open('r+b') as file:
    file.seek(12)  # The payload of the first.
    byte = file.read(1)[0]
    file.seek(12)
    file.write(bytes([byte ^ 0xFF]))
  return folder


@pytest.fixture(name='drive', scope='module')
def _drive(folder):
  """Runs the driver in this process."""

  def drive(mode, run, flags=_flags, experiment=_SINGLE):
    with tiny.eagerly():
      tiny.run_driver(mode, run, *flags(folder), experiment=experiment)
    return run

  return drive


@pytest.fixture(name='one', scope='module')
def _one(drive, folder):
  """The folder of a run of one process."""
  return drive('train_and_eval', folder / 'one')


@pytest.fixture(name='killed', scope='module')
def _killed(folder):
  """How 2 workers end of which one is killed, and the folder of their run."""
  run = folder / 'run'
  flags = [
    f'--experiment={_SINGLE}',
    '--mode=train_and_eval',
    f'--config_file={tiny.sizes_file(folder, _SINGLE)}',
    f'--model_dir={run}',
    *_flags(folder),
  ]
  process = _start(2, folder, *flags)
  pids = _pids(process, 2)
  deadline = time.monotonic() + _LIMIT
  while not (run / f'ckpt-{_INTERVAL + 1}.index').exists():
    if process.poll() is not None or time.monotonic() > deadline:
      process.terminate()  # It stops its workers.
      pytest.fail(f'No checkpoint came: {process.communicate(timeout=60)}')
    time.sleep(0.01)
  os.kill(pids[1], signal.SIGKILL)
  _, told = process.communicate(timeout=_LIMIT)
  return run, process.returncode, told, pids, flags


@pytest.fixture(name='many', scope='module')
def _many(killed, folder):
  """The folder of the run, which 3 workers have gone on with; windows/ is beside it."""
  run, *_, flags = killed
  windows = [
    f'--experiment={_SEGMENTS}',
    '--mode=train_and_eval',
    f'--config_file={tiny.sizes_file(folder, _SEGMENTS)}',
    f'--model_dir={folder}/windows',
    *_windows_flags(folder),
  ]
  program = (
    'import sys; from experiments.cluster import loopback; '
    f'loopback._PROGRAM = [{fork_server.__file__!r}, {__file__!r}]; '
    'sys.exit(loopback.main())'
  )
  done = subprocess.run(
    _command(
      3, folder, f'--runs={json.dumps([flags, windows])}', program=['-c', program]
    ),
    cwd=paths.ROOT,
    capture_output=True,
    text=True,
    timeout=_LIMIT,
    check=False,
    env={**os.environ, 'FORK_SERVER': processes.server_address()},
  )
  assert done.returncode == 0, done.stderr
  return run


def _scalars(run, part):
  """{name: {step: value}} of a run's summaries."""
  return {
    name: dict(zip(*curve))
    for name, curve in report.read_curves(str(run / part)).items()
  }


@pytest.mark.long
class TestKilledAndResumed:
  def test_others_are_stopped_and_the_end_is_told(self, killed, folder):
    _, status, told, pids, _ = killed
    assert status == 128 + signal.SIGKILL
    assert re.search(
      'Worker 1 ended with SIGKILL; the others were stopped. '
      f'The last line of {folder}/logs/worker-1.log: .',
      told,
    )
    assert all(map(_gone, pids))

  def test_losses_and_weights_are_those_of_one_process(self, many, one):
    losses, wanted = (_scalars(run, 'train')['training_loss'] for run in (many, one))
    assert sorted(losses) == list(range(1, _STEPS + 1))
    np.testing.assert_allclose(
      [losses[step] for step in wanted], list(wanted.values()), **_TOLERANCE
    )
    assert wanted[1] != wanted[_STEPS]
    values, wanted = (
      tiny.checkpoint_values(run / f'ckpt-{_STEPS}') for run in (many, one)
    )
    assert values.keys() == wanted.keys()
    for name, value in wanted.items():
      np.testing.assert_allclose(values[name], value, **_TOLERANCE, err_msg=name)

  def test_evaluation_is_that_of_one_process(self, many, one):
    evaluated, wanted = (_scalars(run, 'validation') for run in (many, one))
    assert evaluated.keys() == wanted.keys()
    # By whole files of 2 workers, and by records of 3; one has none at last.
    assert sorted(wanted['gap']) == [_INTERVAL, 2 * _INTERVAL, _STEPS]
    for name, values in wanted.items():
      assert sorted(evaluated[name]) == sorted(values), name
      np.testing.assert_allclose(
        [evaluated[name][step] for step in values],
        list(values.values()),
        **_TOLERANCE,
        err_msg=name,
      )
    result, wanted = (
      json.loads((run / 'evaluation.json').read_text()) for run in (many, one)
    )
    assert wanted['videos'] == 8
    assert wanted['skipped'] == {'records': 1, 'shard_tails': 0, 'malformed': 0}
    for name in wanted.keys() - {'metrics'}:
      assert result[name] == wanted[name]
    for name, value in wanted['metrics'].items():
      np.testing.assert_allclose(result['metrics'][name], value, **_TOLERANCE)
    table, wanted = (pd.read_csv(run / 'per_class.csv') for run in (many, one))
    pd.testing.assert_frame_equal(table, wanted)

  def test_files_are_those_of_one_process(self, many, one):
    files, wanted = (
      {
        path.relative_to(run).as_posix()
        for path in run.rglob('*')
        if path.is_file()
        and path.parent.name != 'logs'  # Only a command logs to a file.
        and 'tfevents' not in path.name
        and not path.name.startswith('ckpt-')
      }
      for run in (many, one)
    )
    assert files == wanted
    # Two writers, of training and of progress, each time it was started.
    assert len(list((many / 'train').iterdir())) == 4
    best, wanted = (
      json.loads((run / 'best_ckpt/info.json').read_text()) for run in (many, one)
    )
    assert best['best_ckpt_global_step'] == wanted['best_ckpt_global_step']

  def test_one_process_evaluates_it_continuously(self, many, drive, tmp_path):
    run = tmp_path / 'run'
    run.mkdir()
    for path in [
      many / 'params.yaml',
      many / 'checkpoint',
      *many.glob(f'ckpt-{_STEPS}.*'),
    ]:
      shutil.copy(path, run)
    drive('continuous_eval', run)
    result, wanted = (
      json.loads((folder / 'evaluation.json').read_text()) for folder in (run, many)
    )
    np.testing.assert_allclose(
      list(result['metrics'].values()), list(wanted['metrics'].values()), **_TOLERANCE
    )


@pytest.mark.long
def test_rated_windows_of_3_workers_are_those_of_one_process(many, drive, folder):
  one = drive('train_and_eval', folder / 'one_windows', _windows_flags, _SEGMENTS)
  many = folder / 'windows'
  losses, wanted = (_scalars(run, 'train')['training_loss'] for run in (many, one))
  assert list(wanted) == list(range(1, _WINDOWS_STEPS + 1))
  assert losses.keys() == wanted.keys()
  np.testing.assert_allclose(list(losses.values()), list(wanted.values()), **_TOLERANCE)
  result, wanted = (
    json.loads((run / 'evaluation.json').read_text()) for run in (many, one)
  )
  assert wanted['videos'] == 20 and wanted['max_windows'] == 5
  assert 0 < wanted['metrics']['map_at_k'] < 1
  assert result['metrics']['map_at_k'] == wanted['metrics']['map_at_k']
  for name in wanted.keys() - {'metrics'}:
    assert result[name] == wanted[name]
  np.testing.assert_allclose(
    result['metrics']['label_loss'], wanted['metrics']['label_loss'], **_TOLERANCE
  )
  table, wanted = (pd.read_csv(run / 'per_class.csv') for run in (many, one))
  pd.testing.assert_frame_equal(table, wanted, check_exact=True)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_all_workers(tmp_path, number):
  process = _start(2, tmp_path)
  pids = _pids(process, 2)
  process.send_signal(number)
  assert process.wait(_LIMIT) == 128 + number
  assert all(map(_gone, pids))


def test_no_workers_is_an_error(tmp_path):
  done = subprocess.run(
    _command(0, tmp_path), cwd=paths.ROOT, text=True, capture_output=True, check=False
  )
  assert done.returncode == 2
  assert '--workers is 0: it must be at least 1' in done.stderr


@pytest.mark.parametrize(
  'mode, strategy, tf_config, message',
  [
    ('train', 'mirrored', _TF_CONFIG, "names 2 processes.*'mirrored', which uses one"),
    (
      'continuous_eval',
      'multi_worker_mirrored',
      _TF_CONFIG,
      'names 2 processes, but --mode=continuous_eval uses one: unset',
    ),
    ('train', 'multi_worker_mirrored', '{', "TF_CONFIG is '{'"),
  ],
)
def test_what_no_cluster_can_run_is_an_error(
  tmp_path, monkeypatch, mode, strategy, tf_config, message
):
  monkeypatch.setenv('TF_CONFIG', tf_config)
  with pytest.raises(ValueError, match=message):
    tiny.run_driver(
      mode,
      tmp_path / 'run',
      tiny.override(
        task__train_data__input_path='unread',
        task__validation_data__input_path='unread',
        runtime__distribution_strategy=strategy,
      ),
    )
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  'flags, runtime, message',
  [
    ((), {'distribution_strategy': 'mirror'}, "is 'mirror': choose one of mirrored, "),
    (
      (),
      {'distribution_strategy': 'one_device', 'all_reduce_alg': 'nccl'},
      "is 'nccl': with the distribution_strategy one_device, choose one of null",
    ),
    ((), {'all_reduce_alg': 'ring'}, 'choose one of nccl, hierarchical_copy, null'),
    ((), {'num_gpus': -1}, 'num_gpus is -1: it must be'),
    (
      ('--tpu=local',),
      {'distribution_strategy': 'tpu'},
      r"is 'tpu', but --tpu=local leads to none \(\w.*\)\. On a TPU VM",
    ),
    ((), {'distribution_strategy': 'tpu'}, 'but --tpu= leads to none'),
    (
      ('--tpu=local',),
      {},
      "--tpu is local, but runtime.distribution_strategy is 'mirrored': add --config",
    ),
    (
      ('--tf_data_service=grpc://host:1',),
      {},
      '--tf_data_service is grpc://host:1, but '
      'task.train_data.enable_tf_data_service is False: set it to true',
    ),
  ],
)
def test_devices_that_cannot_be_had_or_are_not_used_are_an_error(
  tmp_path, flags, runtime, message
):
  if 'tpu' in runtime.values() and tf.config.list_logical_devices('TPU'):
    pytest.skip('has a TPU')
  with pytest.raises(ValueError, match=message) as error:
    tiny.run_driver(
      'train',
      tmp_path / 'run',
      *flags,
      tiny.override(
        task__train_data__input_path='unread',
        **{f'runtime__{name}': value for name, value in runtime.items()},
      ),
    )
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('name', ['off', 'one_device', 'multi_worker_mirrored'])
def test_other_strategies_of_one_process_train(folder, tmp_path, name):
  with tiny.eagerly():
    tiny.run_driver(
      'train',
      tmp_path / 'run',
      *_flags(
        folder, trainer__train_steps=2, runtime__distribution_strategy=f"'{name}'"
      ),
      experiment=_SINGLE,
    )
  assert (tmp_path / 'run' / 'ckpt-2.index').exists()


def test_more_gpus_than_there_are_is_an_error(tmp_path):
  present = len(tf.config.list_physical_devices('GPU'))
  with pytest.raises(
    ValueError, match=f'num_gpus is 99, but TensorFlow sees {present}'
  ):
    tiny.run_driver(
      'train',
      tmp_path / 'run',
      tiny.override(task__train_data__input_path='unread', runtime__num_gpus=99),
    )
  assert not (tmp_path / 'run').exists()


def test_folder_that_is_not_shared_is_an_error(folder, tmp_path, monkeypatch):
  monkeypatch.setattr(workers_lib, 'gather_objects', lambda value: [value, value + 4])
  with (
    tiny.eagerly(),
    pytest.raises(
      ValueError, match=r'at the steps \[0, 4\].*--model_dir=.*Name a folder'
    ),
  ):
    tiny.run_driver(
      'train',
      tmp_path / 'run',
      *_flags(folder, runtime__distribution_strategy='multi_worker_mirrored'),
      experiment=_SINGLE,
    )


@pytest.mark.long
def test_tf_data_service_with_two_workers_feeds_a_run(folder, tmp_path):
  start = runpy.run_path(str(paths.ROOT / 'experiments/cluster/data_service.py'))[
    'start'
  ]
  dispatcher = start(0, '')
  address = dispatcher.target.split('://')[1]
  workers = [start(0, address) for _ in range(2)]
  run = tmp_path / 'run'
  with tiny.eagerly():
    tiny.run_driver(
      'train',
      run,
      f'--tf_data_service={dispatcher.target}',
      *_flags(
        folder, trainer__train_steps=4, task__train_data__enable_tf_data_service=True
      ),
      experiment=_SINGLE,
    )
  assert len(_scalars(run, 'train')['training_loss']) == 4
  # Not from here: the workers have done the reading.
  assert all(worker._num_tasks() for worker in workers)


def _work(config, runs):
  """What a worker runs: the driver, in one cluster for all runs."""
  strategy = []  # It must be a process' first use of TensorFlow.
  create = cluster.create_strategy

  def create_once(*arguments):
    strategy[:] = strategy or [create(*arguments)]
    return strategy[0]

  with mock.patch.object(cluster, 'create_strategy', create_once):
    for line in json.loads(runs.removeprefix('--runs=')):
      tiny.run_line(config, *line)
  with strategy[0].scope():
    order = workers_lib.gather_objects(workers_lib.index())
  assert order == list(range(len(order)))


if __name__ == '__main__':
  _work(*sys.argv[1:])
