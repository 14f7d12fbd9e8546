"""A Ray cluster on this machine, and what tests run on its nodes."""

import dataclasses
import os
import pathlib
import time
from unittest import mock

import processes

from experiments.study import runner

_MEMORY = 80_000_000  # bytes of each node's object store, about the least


class Cluster:
  """Nodes of one CPU each, which only this machine reaches, and a connection to them.

  Attributes:
    address: of the first one, which outlives all others.
  """

  def __init__(self, nodes):
    import ray
    from ray import cluster_utils

    self._ray = ray
    # Nodes inherit it. By default Ray's workers give way to all other processes.
    with mock.patch.dict(
      os.environ, {**processes.ENVIRONMENT, 'RAY_worker_niceness': '0'}
    ):
      self._cluster = cluster_utils.Cluster()
      # The first one becomes the head. Ray replaces 127.0.0.1 by another address.
      self._nodes = [
        self._cluster.add_node(
          num_cpus=1,
          object_store_memory=_MEMORY,
          node_ip_address=f'127.0.0.{2 + number}',
          **({} if number else {'include_dashboard': False}),
        )
        for number in range(nodes)
      ]
      self.address = self._cluster.address
    # Commands use this connection, and workers keep what they have imported.
    ray.init(
      self.address,
      _node_ip_address='127.0.0.2',
      log_to_driver=False,
      logging_level='ERROR',
    )

  def kill_node(self):
    """Kills a node and all its processes, without a warning to the others."""
    self._cluster.remove_node(self._nodes.pop(), allow_graceful=False)

  def close(self):
    """Ends all nodes."""
    self._ray.shutdown()
    while self._nodes:
      self.kill_node()


def wait_until(condition):
  """Until it holds; 5 minutes at most, for a machine under load."""
  deadline = time.monotonic() + 300
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.05)


def write(shard, partial):
  """Writes where it ran and what it was told to, as the source says.

  Args:
    shard: its source is 'fail', 'hang', or the text to write.
    partial: path to write to.
  """
  path = pathlib.Path(partial)
  path.write_text(shard.source)
  with open(path.parent / 'started', 'a', encoding='utf-8') as file:
    file.write(f'{os.getpid()}\n')
  yield 0
  if shard.source == 'fail':
    wait_until(lambda: len((path.parent / 'started').read_text().splitlines()) >= 3)
    raise ValueError(f'{shard.output}: wrong.')
  while shard.source == 'hang':
    time.sleep(0.05)
    yield 0
  return len(shard.source)


@dataclasses.dataclass(frozen=True)
class Counting(runner.Job):
  """Counts to 2 in a file, and waits in between until `go` exists beside its folder."""

  @property
  def needs(self):
    """None."""
    return ()

  def specification(self):
    """Only its name."""
    return {}

  def execute(self, output_dir):
    """Continues at the last number."""
    count = pathlib.Path(runner.folder(output_dir, self.name), 'count')
    with count.open('a', encoding='utf-8') as file:
      print('start', file=file, flush=True)
    wait_until(pathlib.Path(output_dir, 'go').exists)
    with count.open('a', encoding='utf-8') as file:
      print('end', file=file)
