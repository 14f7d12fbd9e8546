"""Work on many files in several processes, under one progress bar."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent import futures
import itertools
import multiprocessing
import os
from typing import Any

import tqdm

# A worker process's own: set by `_start_worker`.
_worker = {}


def cores() -> int:
  """Returns how many cores this process may use."""
  return (
    len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
  )


def _start_worker(work, done) -> None:
  """Gives a worker process its work and the counter of all."""
  _worker.update(work=work, done=done)


def _work(item) -> None:
  """Does one item in a worker process."""
  done = _worker['done']
  for count in _worker['work'](item):
    with done.get_lock():
      done.value += count


def run(
  work: Callable[[Any], Iterator[int]],
  items: Sequence[Any],
  bar: tqdm.tqdm,
  processes: int | None = None,
) -> None:
  """Does all items, each in one process.

  Args:
    work: takes an item and yields how much was done since it last did; it can
      be sent to another process.
    items: in any order.
    bar: shows how much is done.
    processes: how many work at the same time; by default one per core.

  Raises:
    Exception: what `work` raises; what has not begun then never does.
  """
  processes = min(processes or cores(), len(items))
  if processes > 1:
    _run_in_parallel(work, items, bar, processes)
  else:
    for count in itertools.chain.from_iterable(map(work, items)):
      bar.update(count)


def _run_in_parallel(work, items, bar, processes) -> None:
  # Forking a process that runs TensorFlow is unsafe, and spawning imports it
  # once per process; a fork server imports it once and never runs it.
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload(['yt8m_distill.dataloaders.shards'])
  done = context.Value('q', 0)
  with futures.ProcessPoolExecutor(
    processes, context, _start_worker, (work, done)
  ) as executor:
    left = [executor.submit(_work, item) for item in items]
    try:
      while left:
        finished, left = futures.wait(left, 0.2, futures.FIRST_EXCEPTION)
        bar.update(done.value - bar.n)
        for future in finished:
          future.result()
    except BaseException:
      executor.shutdown(cancel_futures=True)
      raise
