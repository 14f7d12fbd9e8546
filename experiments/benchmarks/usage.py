"""Measures processes: CPU time, also per video read, and peak memory."""

from collections.abc import Sequence
import dataclasses
import time

import psutil
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Cost:
  """Cost of reading videos.

  Attributes:
    rate: videos/s.
    cpu: CPU time of this process, in milliseconds per video.
    thread: the same of its busiest thread.
    helpers: the same of other processes that do part of the work, together.
  """

  rate: float
  cpu: float
  thread: float
  helpers: float


def measure(
  dataset: tf.data.Dataset,
  batch_size: int,
  videos: int,
  helpers: Sequence[int] = (),
  warm_up: int = 4,
) -> Cost:
  """Reads `videos` videos, rounded up to batches, and measures the cost.

  Args:
    dataset: an infinite dataset of batches.
    batch_size: videos per batch.
    videos: how many to read.
    helpers: ids of other processes that do part of the work.
    warm_up: batches to read first, which are not measured.

  Returns:
    The cost per video.
  """
  steps = -(-videos // batch_size)
  others = [psutil.Process(pid) for pid in helpers]
  iterator = iter(dataset)
  for _ in range(warm_up):
    next(iterator)
  threads, helped = _thread_seconds(), sum(map(_seconds, others))
  cpu, start = time.process_time(), time.perf_counter()
  for _ in range(steps):
    next(iterator)
  seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
  busiest = max(
    spent - threads.get(thread, 0) for thread, spent in _thread_seconds().items()
  )
  helped = sum(map(_seconds, others)) - helped
  read = steps * batch_size
  return Cost(
    read / seconds, *(1000 * spent / read for spent in (cpu, busiest, helped))
  )


def _seconds(process: psutil.Process) -> float:
  times = process.cpu_times()
  return times.user + times.system


def _thread_seconds() -> dict[int, float]:
  return {
    thread.id: thread.user_time + thread.system_time
    for thread in psutil.Process().threads()
  }


def total_seconds() -> float:
  """Returns the CPU time of this process and of all that run below it."""
  process = psutil.Process()
  return sum(map(_seconds, [process, *process.children(recursive=True)]))


def peak_mib(pid: int | None = None) -> float:
  """Returns the peak memory in MiB of a process, by default of this one.

  Unlike getrusage(), this leaves out what the parent held when it forked.
  """
  with open(f'/proc/{pid or "self"}/status', encoding='utf-8') as status:
    return (
      next(int(line.split()[1]) for line in status if line.startswith('VmHWM')) / 1024
    )
