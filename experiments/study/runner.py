"""Runs the jobs of a study, several in parallel.

Each job is a process of its own. Besides its own files its folder holds study.json (the
settings), log (all output) and, once the job is complete, finished.json. A stopped job
resumes where it can: a run of the driver, from its latest checkpoint.
"""

import abc
from collections.abc import Sequence
import dataclasses
import multiprocessing
from multiprocessing import connection
import os
import sys
import time
import traceback
from typing import Any
from typing import ClassVar

import tensorflow as tf
import tqdm

from yt8m_distill.utils import cli
from yt8m_distill.utils import files
from yt8m_distill.utils import parallel

# Forking a process that runs TensorFlow is unsafe, and spawning imports it once
# per process. A fork server imports it once and never runs it.
_context = multiprocessing.get_context('forkserver')
_context.set_forkserver_preload(['experiments.study.jobs'])

_REFRESH = 10.0  # seconds between updates of the progress bar


@dataclasses.dataclass(frozen=True)
class Job(abc.ABC):
  """What a process of its own does, in a folder of its own.

  Attributes:
    name: name of its folder.
    serves_others: whether it is done only for jobs that need it. Once these are
      finished, its folder may be removed.
  """

  name: str
  serves_others: ClassVar[bool] = False

  @property
  @abc.abstractmethod
  def needs(self) -> tuple[str, ...]:
    """Names of the jobs that must be finished before it starts."""

  @abc.abstractmethod
  def specification(self) -> dict[str, Any]:
    """Returns everything that its results depend on."""

  @abc.abstractmethod
  def execute(self, output_dir: str):
    """Does the job, or what is left of it.

    Args:
      output_dir: folder of the jobs' folders.
    """


def folder(output_dir: str, name: str) -> str:
  """Returns the folder of a job."""
  return os.path.join(output_dir, name)


def finished(place: str) -> dict[str, Any] | None:
  """Returns finished.json of a job's folder: its seconds; None if incomplete."""
  return files.read_json(os.path.join(place, 'finished.json'), seconds=int | float)


def prepare(jobs: Sequence[Job], output_dir: str):
  """Claims the folder of each job, with a study.json.

  Raises:
    ValueError: folders hold jobs with other settings; then nothing is written.
  """
  claims = {
    os.path.join(folder(output_dir, job.name), 'study.json'): job.specification()
    for job in jobs
  }
  changed = [
    f'{path}: {difference}'
    for path, claim in claims.items()
    if (difference := files.job_difference(path, claim))
  ]
  if changed:
    raise ValueError(
      f'{len(changed)} runs in {output_dir} were started with other settings: '
      'name another --output_dir, or delete their folders. The changes are\n'
      + '\n'.join(changed)
    )
  for path, claim in claims.items():
    files.claim_folder(path, claim)


def _work(job: Job, output_dir: str, threads: int, modules: Sequence[str]):
  """Executes a job in its own process."""
  place = folder(output_dir, job.name)
  with open(os.path.join(place, 'log'), 'a', encoding='utf-8') as log:
    for stream in (sys.stdout, sys.stderr):
      stream.flush()
      os.dup2(log.fileno(), stream.fileno())
  parallel.exit_with_parent()
  # Several jobs may share a GPU.
  os.environ.setdefault('TF_FORCE_GPU_ALLOW_GROWTH', 'true')
  tf.config.threading.set_intra_op_parallelism_threads(threads)
  tf.config.threading.set_inter_op_parallelism_threads(threads)
  start = time.monotonic()
  try:
    cli.import_modules(modules)
    job.execute(output_dir)
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
  """Returns why a job failed: the last line of its log, or the signal."""
  if exit_code < 0:
    return f'ended by signal {-exit_code}'
  if not os.path.exists(os.path.join(place, 'log')):  # It did not start.
    return f'ended with status {exit_code}'
  with open(os.path.join(place, 'log'), encoding='utf-8', errors='replace') as log:
    lines = [line.strip() for line in log if line.strip()]
  return lines[-1] if lines else f'ended with status {exit_code}'


def execute(
  jobs: Sequence[Job],
  output_dir: str,
  workers: int,
  modules: Sequence[str] = (),
) -> dict[str, str]:
  """Executes all unfinished jobs in their order, those that others need first.

  Args:
    jobs: all jobs of a study.
    output_dir: folder of the jobs' folders.
    workers: how many jobs to run in parallel.
    modules: modules of other projects that each job imports first.

  Returns:
    {name: reason} of the jobs that failed, and of the jobs that need them.

  Raises:
    ValueError: `workers` is invalid, or folders hold jobs with other settings.
  """
  if workers < 1:
    raise ValueError(f'--workers is {workers}: it must be at least 1. Increase it.')
  prepare(jobs, output_dir)
  done = {job.name for job in jobs if finished(folder(output_dir, job.name))}
  left = [job for job in jobs if job.name not in done]
  needed = {name for job in left for name in job.needs}
  left = [job for job in left if job.name in needed or not job.serves_others]
  # Jobs that others wait for come first.
  left.sort(key=lambda job: job.name not in needed)
  threads = max(1, parallel.cores() // workers)
  failed: dict[str, str] = {}
  running: dict[int, tuple[Job, multiprocessing.context.ForkServerProcess]] = {}
  with tqdm.tqdm(
    total=len(jobs), initial=len(jobs) - len(left), unit='job', smoothing=0
  ) as bar:
    try:
      while left or running:
        ready = [job for job in left if done.issuperset(job.needs)]
        for job in ready[: workers - len(running)]:
          process = _context.Process(
            target=_work, args=(job, output_dir, threads, modules)
          )
          process.start()
          running[process.sentinel] = job, process
          left.remove(job)
        bar.set_postfix_str(', '.join(job.name for job, _ in running.values()))
        for sentinel in running.keys() & connection.wait(list(running), _REFRESH):
          job, process = running.pop(sentinel)
          process.join()
          place = folder(output_dir, job.name)
          if process.exitcode:
            failed[job.name] = _reason(place, process.exitcode)
            bar.write(f'{job.name} failed: {failed[job.name]}')
          else:
            done.add(job.name)
          bar.update()
        while blocked := [job for job in left if failed.keys() & job.needs]:
          for job in blocked:
            cause = next(name for name in job.needs if name in failed)
            failed[job.name] = f'needs {cause}, which failed'
            left.remove(job)
            bar.update()
    finally:
      for _, process in running.values():
        process.terminate()
      for _, process in running.values():
        process.join()
  return failed
