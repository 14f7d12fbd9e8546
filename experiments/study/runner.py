"""Checks the runs of a study and runs the driver for each, several in parallel.

Each run is a process of its own. Besides the driver's files its folder holds
study.json (the settings), log (all output) and, once the run is complete,
finished.json. A stopped run resumes from its latest checkpoint.
"""

from collections.abc import Sequence
import dataclasses
import json
import multiprocessing
from multiprocessing import connection
import os
import sys
import time
import traceback
from typing import Any

from absl import flags
from absl import logging
from official.core import config_definitions as cfg
from official.core import exp_factory
import tensorflow as tf
import tqdm

from experiments.study import study_file
import gin
from yt8m_distill import train
from yt8m_distill.configs import settings
from yt8m_distill.utils import cli
from yt8m_distill.utils import files
from yt8m_distill.utils import parallel

# Forking a process that runs TensorFlow is unsafe, and spawning imports it once
# per process. A fork server imports it once and never runs it.
_context = multiprocessing.get_context('forkserver')
_context.set_forkserver_preload([__name__])

_REFRESH = 10.0  # seconds between updates of the progress bar


def folder(output_dir: str, run_name: str) -> str:
  """Returns the folder of a run."""
  return os.path.join(output_dir, run_name)


def finished(run_folder: str) -> dict[str, Any] | None:
  """Returns a run's finished.json, which holds its seconds; None if incomplete."""
  return files.read_json(os.path.join(run_folder, 'finished.json'))


def _specification(run: study_file.Run) -> dict[str, Any]:
  """Returns everything that a run's results depend on."""
  values = dataclasses.asdict(run)
  for name in ('label', 'axes', 'group', 'name'):
    del values[name]
  return values


def prepare(runs: Sequence[study_file.Run], output_dir: str):
  """Claims the folder of each run, with a study.json.

  Raises:
    ValueError: folders hold runs with other settings; then nothing is written.
  """
  jobs = {
    os.path.join(folder(output_dir, run.name), 'study.json'): _specification(run)
    for run in runs
  }
  changed = [
    f'{path}: {difference}'
    for path, job in jobs.items()
    if (difference := files.job_difference(path, job))
  ]
  if changed:
    raise ValueError(
      f'{len(changed)} runs in {output_dir} were started with other settings: '
      'name another --output_dir, or delete their folders. The changes are\n'
      + '\n'.join(changed)
    )
  for path, job in jobs.items():
    files.claim_folder(path, job)


def arguments(run: study_file.Run, output_dir: str) -> list[str]:
  """Returns the driver's flags for a run."""
  gin_params = list(run.gin_params)
  if run.needs:
    gin_params.append(
      f'yt8m_distill.teacher_checkpoint={folder(output_dir, run.needs)!r}'
    )
  return [
    f'--experiment={run.experiment}',
    '--mode=train_and_eval',
    f'--model_dir={folder(output_dir, run.name)}',
    *(f'--gin_file={path}' for path in run.gin_file),
    *(f'--gin_params={binding}' for binding in gin_params),
    f'--params_override={json.dumps(run.overrides)}',
  ]


def configuration(run: study_file.Run) -> cfg.ExperimentConfig:
  """Returns the configuration that the driver will build for a run.

  Afterwards gin holds no bindings.

  Raises:
    ValueError: the experiment, a setting or a field that the run names does not
      exist.
    OSError: a gin file cannot be read.
  """
  with gin.unlock_config():
    gin.clear_config()
    try:
      settings.parse_gin(run.gin_file, run.gin_params)
      params = exp_factory.get_exp_config(run.experiment)
      params.override(run.overrides, is_strict=True)
      params.validate()
    # Unknown experiments and fields raise LookupError.
    except (ValueError, LookupError) as error:
      # str() of a KeyError puts quotes around the text.
      reason = error.args[0] if isinstance(error, LookupError) else error
      raise ValueError(f'Run {run.name} of {run.experiment}: {reason}') from error
    finally:
      gin.clear_config()
  return params


def check(runs: Sequence[study_file.Run]):
  """Builds the configurations of one seed's runs; raises like configuration()."""
  for run in runs:
    if run.seed == runs[0].seed:
      task = configuration(run).task
      if run.needs and not hasattr(task, 'teacher_checkpoint'):
        raise ValueError(
          f'Run {run.name} needs {run.needs}, but its experiment {run.experiment} has '
          'no teacher. Remove needs from its group.'
        )


def _train(driver_arguments: Sequence[str]):
  """Runs the driver as from a command line."""
  train.define_flags()
  flags.FLAGS(['study', *driver_arguments])
  logging.set_verbosity(logging.INFO)
  train.run(flags.FLAGS)


def _work(run: study_file.Run, output_dir: str, threads: int, modules: Sequence[str]):
  """Executes a run in its own process."""
  place = folder(output_dir, run.name)
  with open(os.path.join(place, 'log'), 'a', encoding='utf-8') as log:
    for stream in (sys.stdout, sys.stderr):
      stream.flush()
      os.dup2(log.fileno(), stream.fileno())
  parallel.exit_with_parent()
  # Several runs may share a GPU.
  os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')
  tf.config.threading.set_intra_op_parallelism_threads(threads)
  tf.config.threading.set_inter_op_parallelism_threads(threads)
  start = time.monotonic()
  try:
    cli.import_modules(modules)
    _train(arguments(run, output_dir))
  except Exception as error:
    traceback.print_exc()
    print(
      f'{type(error).__name__}: {" ".join(cli.message(error).split())}', file=sys.stderr
    )
    sys.exit(1)
  files.write_json(
    os.path.join(place, 'finished.json'), {'seconds': time.monotonic() - start}
  )


def _reason(place: str, exit_code: int) -> str:
  """Returns why a run failed: the last line of its log, or the signal."""
  if exit_code < 0:
    return f'ended by signal {-exit_code}'
  if not os.path.exists(os.path.join(place, 'log')):  # It did not start.
    return f'ended with status {exit_code}'
  with open(os.path.join(place, 'log'), encoding='utf-8', errors='replace') as log:
    lines = [line.strip() for line in log if line.strip()]
  return lines[-1] if lines else f'ended with status {exit_code}'


def execute(
  runs: Sequence[study_file.Run],
  output_dir: str,
  workers: int,
  modules: Sequence[str] = (),
) -> dict[str, str]:
  """Executes all unfinished runs in their order, those that others need first.

  Args:
    runs: all runs of a study.
    output_dir: folder of the runs' folders.
    workers: how many runs to run in parallel.
    modules: modules of other projects that each run imports first.

  Returns:
    {name: reason} of the runs that failed, and of the runs that need them.

  Raises:
    ValueError: `workers` is invalid, or folders hold runs with other settings.
  """
  if workers < 1:
    raise ValueError(f'--workers is {workers}: it must be at least 1. Increase it.')
  prepare(runs, output_dir)
  done = {run.name for run in runs if finished(folder(output_dir, run.name))}
  left = [run for run in runs if run.name not in done]
  # Runs that others wait for come first.
  needed = {run.needs for run in left}
  left.sort(key=lambda run: run.name not in needed)
  threads = max(1, parallel.cores() // workers)
  failed: dict[str, str] = {}
  running: dict[
    int, tuple[study_file.Run, multiprocessing.context.ForkServerProcess]
  ] = {}
  with tqdm.tqdm(total=len(runs), initial=len(done), unit='run', smoothing=0) as bar:
    try:
      while left or running:
        ready = [run for run in left if not run.needs or run.needs in done]
        for run in ready[: workers - len(running)]:
          process = _context.Process(
            target=_work, args=(run, output_dir, threads, modules)
          )
          process.start()
          running[process.sentinel] = run, process
          left.remove(run)
        bar.set_postfix_str(', '.join(run.name for run, _ in running.values()))
        for sentinel in running.keys() & connection.wait(list(running), _REFRESH):
          run, process = running.pop(sentinel)
          process.join()
          place = folder(output_dir, run.name)
          if process.exitcode:
            failed[run.name] = _reason(place, process.exitcode)
            bar.write(f'{run.name} failed: {failed[run.name]}')
          else:
            done.add(run.name)
          bar.update()
        for run in [run for run in left if run.needs in failed]:
          failed[run.name] = f'needs {run.needs}, which failed'
          left.remove(run)
          bar.update()
    finally:
      for _, process in running.values():
        process.terminate()
      for _, process in running.values():
        process.join()
  return failed
