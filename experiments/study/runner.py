"""Runs the jobs of a study, several in parallel.

Each job is a process of its own, on this machine or on a node of a Ray cluster. Besides
its own files its folder holds study.json (the settings), log (all output) and, once the
job is complete, finished.json. A stopped job resumes where it can: a run of the driver,
from its latest checkpoint.
"""

import abc
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent import futures
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
from yt8m_distill.utils import cores
from yt8m_distill.utils import files
from yt8m_distill.utils import process_exit
from yt8m_distill.utils import ray_jobs

# Forking a process that runs TensorFlow is unsafe, and spawning imports it once
# per process. A fork server imports it once and never runs it.
_context = multiprocessing.get_context('forkserver')
_context.set_forkserver_preload(['experiments.study.jobs'])

_REFRESH = 10.0  # seconds between updates of the progress bar
_POLL = 0.1  # seconds between checks whether a job on a node shall stop


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


class _Machine:
  """Executes jobs in processes of this machine.

  Attributes:
    threads: of TensorFlow in each job.
  """

  def __init__(self, workers: int):
    self._workers = workers
    self.threads = max(1, cores.count() // workers)

  def slots(self) -> int:
    """Returns how many jobs can run at the same time."""
    return self._workers

  def start(self, *args) -> Any:
    """Starts a job, given the arguments of `_work`; returns what stands for it."""
    process = _context.Process(target=_work, args=(*args, {**os.environ}))
    process.start()
    return process

  def wait(self, running: Collection[Any]) -> list[Any]:
    """Returns those that are done, after a while at most."""
    done = connection.wait([process.sentinel for process in running], _REFRESH)
    return [process for process in running if process.sentinel in done]

  def status(self, process: Any) -> int:
    """Returns the exit status of one that is done."""
    process.join()
    return process.exitcode

  def stop(self, running: Collection[Any]):
    """Ends what still runs."""
    for process in running:
      process.terminate()
    for process in running:
      process.join()


class _Cluster:
  """Executes jobs as `_Machine` does, on the nodes of a Ray cluster."""

  def __init__(self, ray_address: str, workers: int):
    self._pool = ray_jobs.Executor(ray_address, workers)
    self.slots = self._pool.slots
    self.threads = max(1, int(self._pool.num_cpus))

  def start(self, *args) -> Any:
    """See _Machine."""
    return self._pool.submit(_run_on_node, *args)

  def wait(self, running: Collection[Any]) -> list[Any]:
    """See _Machine."""
    return [*futures.wait(running, _REFRESH, futures.FIRST_COMPLETED).done]

  def status(self, future: Any) -> int:
    """See _Machine; raises one of `cli.REPORTED` if a node could not execute it."""
    return future.result()

  def stop(self, running: Collection[Any]):
    """See _Machine."""
    del running
    self._pool.shutdown(cancel_futures=True)


def _run_on_node(job: Job, output_dir: str, *args) -> int:
  """Executes a job on a node; returns its exit status."""
  ray_jobs.check_folder(folder(output_dir, job.name))
  machine = _Machine(1)
  process = machine.start(job, output_dir, *args)
  try:
    # Ray interrupts only between short calls.
    while process.exitcode is None:
      process.join(_POLL)
  finally:
    machine.stop([process])
  return process.exitcode


def _work(
  job: Job,
  output_dir: str,
  threads: int,
  modules: Sequence[str],
  environment: Mapping[str, str],
):
  """Executes a job in this process, which serves nothing else."""
  # The fork server has that of its start, but Ray assigns other GPUs to each job.
  os.environ.update(environment)
  place = folder(output_dir, job.name)
  with open(os.path.join(place, 'log'), 'a', encoding='utf-8') as log:
    for stream in (sys.stdout, sys.stderr):
      stream.flush()
      os.dup2(log.fileno(), stream.fileno())
  process_exit.exit_with_parent()
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
  ray_address: str | None = None,
) -> dict[str, str]:
  """Executes all unfinished jobs in their order, those that others need first.

  Args:
    jobs: all jobs of a study.
    output_dir: folder of the jobs' folders.
    workers: how many jobs to run in parallel, on a Ray cluster on each node.
    modules: modules of other projects that each job imports first.
    ray_address: cluster that executes the jobs, see `ray_jobs.Executor`; None for this
      machine.

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
  place = _Cluster(ray_address, workers) if ray_address else _Machine(workers)
  failed: dict[str, str] = {}
  running: dict[Any, Job] = {}
  with tqdm.tqdm(
    total=len(jobs), initial=len(jobs) - len(left), unit='job', smoothing=0
  ) as bar:
    try:
      while left or running:
        ready = [job for job in left if done.issuperset(job.needs)]
        for job in ready[: max(0, place.slots() - len(running))]:
          running[place.start(job, output_dir, place.threads, modules)] = job
          left.remove(job)
        bar.set_postfix_str(', '.join(job.name for job in running.values()))
        for handle in place.wait(running):
          job, reason = running.pop(handle), ''
          try:
            if status := place.status(handle):
              reason = _reason(folder(output_dir, job.name), status)
          except cli.REPORTED as error:
            reason = cli.message(error)
          if reason:
            failed[job.name] = reason
            bar.write(f'{job.name} failed: {reason}')
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
      place.stop(running)
  return failed
