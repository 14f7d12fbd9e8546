"""Workers that are threads of this process, to exchange values without a network."""

from collections.abc import Callable
from concurrent import futures
import pickle
import threading
from typing import Any


def run(count: int, work: Callable) -> tuple[list[Any], list[int]]:
  """Runs workers that exchange values.

  Args:
    count: number of workers.
    work: called for each worker with its position and a function that exchanges values
      as `utils.workers.gather_objects` does.

  Returns:
    What each worker returns, and the bytes that each has sent.
  """
  barrier = threading.Barrier(count)
  data = [b''] * count
  sent = [0] * count

  def gather(index, value):
    data[index] = pickle.dumps(value)
    sent[index] += len(data[index])
    barrier.wait()
    values = list(map(pickle.loads, data))
    barrier.wait()
    return values

  def start(index):
    try:
      return work(index, lambda value: gather(index, value))
    except BaseException:
      barrier.abort()  # The others would wait forever.
      raise

  with futures.ThreadPoolExecutor(count) as pool:
    return list(pool.map(start, range(count))), sent
