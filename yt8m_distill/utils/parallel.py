"""Writes the output of each shard in parallel, under one progress bar.

Workers are threads or processes of this machine, or processes of a Ray cluster.
"""

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent import futures
from concurrent.futures import process
import contextlib
import functools
import itertools
import multiprocessing
from multiprocessing import sharedctypes
import os
import signal
import threading
from typing import Any
from typing import NamedTuple

import tensorflow as tf

from yt8m_distill.utils import cli
from yt8m_distill.utils import cores
from yt8m_distill.utils import files
from yt8m_distill.utils import process_exit
from yt8m_distill.utils import progress_bar
from yt8m_distill.utils import ray_jobs

_REFRESH = 0.2  # seconds between updates of the progress bar
# Groups of shards for each worker: few, because starting one takes time, but enough
# that all workers finish at about the same time.
_GROUPS = 8
_FINISHED = -1  # in _State.pids


class Shard(NamedTuple):
  """One unit of work.

  Attributes:
    source: what to read, for the worker's own use.
    size: how much work it is, in the unit of the progress bar.
    output: file to write. It marks the shard as finished.
    returned: what the Writer returned for it; None before.
  """

  source: Any
  size: int
  output: str
  returned: Any = None


# Opens consecutive shards together; returns what to write each of them from.
Opener = Callable[[Sequence[Shard]], Iterable[Any]]
# Writes the output of a shard, from what the Opener returned for it, to a temporary
# path; yields how much of the shard's size is done since the last value. May return
# something picklable, such as how much it left out.
Writer = Callable[[Any, str], Iterator[int]]


class _State(NamedTuple):
  """What all workers share. No locks: a killed worker would never release one.

  Attributes:
    open: opens a group of shards.
    write: writes one of them.
    stop: value 1 after another shard failed or the user interrupted.
    done: per shard, how much of its size is done.
    pids: per shard, the process that works on it; 0 before, _FINISHED after.
  """

  open: Opener
  write: Writer
  stop: Any
  done: Any
  pids: Any


_worker = threading.local()  # Its `state` is set when a worker starts.


class _Stopped(Exception):
  """Another shard failed, or the user interrupted."""


def write_shards(
  write: Writer,
  shards: Sequence[Shard],
  description: str,
  unit: str,
  workers: int | None = None,
  threads: bool = False,
  open: Opener = iter,
  ray_address: str | None = None,
) -> list[Shard]:
  """Writes all outputs that do not exist yet; each appears whole.

  Repeating a call after an error, an interrupt or a kill resumes it.

  Args:
    write: see Writer; must be picklable unless `threads`, like `open`. On a Ray cluster
      both must be, and all files on storage that its nodes share.
    shards: in the order in which to start them.
    description: title of the progress bar.
    unit: its unit.
    workers: shards written at the same time, on a Ray cluster on each node; one per
      core by default.
    threads: whether workers are threads of this process, and may use a GPU. Otherwise
      they are processes, except for a single worker.
    open: see Opener. By default, `write` gets the shards themselves.
    ray_address: cluster whose processes are the workers, see `ray_jobs.Executor`; None
      for this machine.

  Returns:
    The shards that were missing and are now written.

  Raises:
    ChildProcessError: a worker process died; names the shard it worked on.
    Exception: what `write` raises, the first one. Other shards then stop. From a
      worker process a tf.errors.OpError arrives as a ValueError.
  """
  left = [shard for shard in shards if not tf.io.gfile.exists(shard.output)]
  if not left:
    return left
  state = _new_state(open, write, len(left))
  count = len(left)
  pool: futures.Executor
  task: Callable[[int, Sequence[Shard]], list[Any]]
  if ray_address:
    pool = ray_jobs.Executor(ray_address, workers, gpus=threads)
    task = functools.partial(_write_on_node, open, write)
  else:
    workers = min(workers or cores.count(), count)
    count = min(count, _GROUPS * workers)
    pool, task = _local_pool(workers, threads, state)
  with progress_bar.start(description, sum(s.size for s in left), unit) as bar, pool:
    bounds = [len(left) * i // count for i in range(count + 1)]
    pending = {
      pool.submit(task, start, left[start:end]): (start, end)
      for start, end in itertools.pairwise(bounds)
    }
    children = multiprocessing.active_children()
    try:
      return _wait(pool, pending, left, len(shards), bar, state)
    except process.BrokenProcessPool as error:
      pool.shutdown()  # Sets the exit codes.
      raise ChildProcessError(_death(children, state, left)) from error
    except BaseException:  # Interrupts too.
      state.stop.value = 1
      pool.shutdown(cancel_futures=True)
      raise


def _new_state(open: Opener, write: Writer, count: int) -> _State:
  """Returns the state of `count` shards before any is started."""
  arrays = (sharedctypes.RawArray('q', count) for _ in range(2))
  return _State(open, write, sharedctypes.RawValue('b'), *arrays)


def _local_pool(
  workers: int, threads: bool, state: _State
) -> tuple[futures.Executor, Callable[[int, Sequence[Shard]], list[Any]]]:
  """Returns workers of this machine, and what one does with a group of shards."""
  if threads or workers == 1:
    return futures.ThreadPoolExecutor(workers, '', _start_thread, (state,)), _write
  # Forking a process that runs TensorFlow is unsafe, and spawning imports TensorFlow
  # in every process. A fork server imports it only once.
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload(['yt8m_distill'])
  pool = futures.ProcessPoolExecutor(workers, context, _start_process, (state,))
  return pool, _write_in_process


def summary(folder: str, shards: int, written: int, amount: int, unit: str) -> str:
  """Returns a job's result as a line: 'out: 3 shards, 45 videos.' for example.

  Args:
    folder: where the outputs are.
    shards: number of all shards.
    written: number of those that this call of `write_shards` wrote.
    amount: what they hold.
    unit: its unit, in the singular.
  """
  parts = [_count(shards, 'shard')]
  if 0 < written < shards:
    parts.append(f'{written:,} of them written now')
  parts.append(_count(amount, unit) if written else 'already complete')
  return f'{folder}: {", ".join(parts)}.'


def _count(number: int, unit: str) -> str:
  return f'{number:,} {unit}{"s" * (number != 1)}'


def _wait(
  pool: futures.Executor,
  pending: Mapping[futures.Future, tuple[int, int]],
  shards: Sequence[Shard],
  total: int,
  bar: progress_bar.Bar,
  state: _State,
) -> list[Shard]:
  """Waits for all groups and updates the progress bar; raises their errors.

  Args:
    pool: what runs them.
    pending: the groups, as the indices of their first shard and of the next group's.
    shards: those to write.
    total: number of these and of the shards that existed.
    bar: see write_shards().
    state: of `shards`.

  Returns:
    The shards, with what the Writer returned.
  """
  left, written = set(pending), list(shards)
  while left:
    finished, left = futures.wait(left, _REFRESH, futures.FIRST_EXCEPTION)
    if isinstance(pool, ray_jobs.Executor):
      pool.slots()
    for future in finished:
      start, end = pending[future]
      try:
        results = future.result()
      except ray_jobs.Died as error:
        raise ChildProcessError(f'{shards[start].output}: {error}') from error
      for index, returned in zip(range(start, end), results):
        written[index] = shards[index]._replace(returned=returned)
        # Workers of this machine have noted it.
        state.done[index], state.pids[index] = shards[index].size, _FINISHED
    finished_shards = total - len(shards) + state.pids[:].count(_FINISHED)
    bar.set_postfix_str(f'{finished_shards}/{total} shards', refresh=False)
    bar.update(sum(state.done) - bar.n)
  return written


def _start_thread(state: _State):
  _worker.state = state


def _start_process(state: _State):
  # The parent handles Ctrl-C, and stops the workers.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  process_exit.exit_with_parent()
  _start_thread(state)


def _write_in_process(first: int, shards: Sequence[Shard]) -> list[Any]:
  try:
    return _write(first, shards)
  except tf.errors.OpError as error:
    # An OpError cannot be pickled.
    raise ValueError(cli.message(error)) from None


def _write_on_node(
  open: Opener, write: Writer, first: int, shards: Sequence[Shard]
) -> list[Any]:
  """Writes a group of shards on a node of a cluster, where there are no others."""
  del first
  for shard in shards:
    ray_jobs.check_folder(os.path.dirname(shard.output))
  _start_thread(_new_state(open, write, len(shards)))
  return _write(0, shards)


def _write(first: int, shards: Sequence[Shard]) -> list[Any]:
  """Writes a group of shards in a worker; returns what the Writer does for each.

  Args:
    first: index of the first one in the worker's state.
    shards: the group.
  """
  state = _worker.state
  returned: list[Any] = []
  for index, (shard, source) in enumerate(zip(shards, state.open(shards)), first):
    state.pids[index] = os.getpid()
    with (
      files.whole_file(shard.output) as partial,
      contextlib.closing(_keep(returned, state.write(source, partial))) as amounts,
    ):
      for amount in amounts:
        if state.stop.value:
          raise _Stopped
        state.done[index] += amount
    state.done[index] = shard.size  # Includes what was skipped as corrupt.
    state.pids[index] = _FINISHED
  return returned


def _keep(returned: list[Any], amounts: Any) -> Generator[int, None, None]:
  """Yields what a Writer yields, and appends what it returns."""
  returned.append((yield from amounts))


def _death(children, state: _State, shards: Sequence[Shard]) -> str:
  """Says which shard a worker process worked on when it died."""
  # The pool itself terminates the other processes.
  codes = {
    child.pid: child.exitcode
    for child in children
    if child.exitcode not in (0, -signal.SIGTERM)
  }
  died = [
    f'{shard.output} (exit status {codes[pid]})'
    for pid, shard in zip(state.pids, shards)
    if pid in codes
  ]
  return (
    f'A worker process died while it wrote {", ".join(died) or "a shard"}. '
    'Status -9 often means that the system ran out of memory. Finished shards '
    'are kept: free memory and repeat the command to continue.'
  )
