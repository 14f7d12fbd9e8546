"""Nodes of a Ray cluster on this machine, for tests and benchmarks."""

import logging
import os
from unittest import mock

_MEMORY = 80_000_000  # bytes of each node's object store, about the least


class Cluster:
  """Nodes of one CPU each, which only this machine reaches, and a connection to them.

  Attributes:
    address: of the first one, the head.
  """

  def __init__(self, nodes: int):
    """Starts the nodes, which inherit the environment, and connects to them."""
    import ray
    from ray import cluster_utils

    self._ray = ray
    # By default Ray's workers give way to all other processes.
    with mock.patch.dict(os.environ, RAY_worker_niceness='0'):
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
      logging_level=logging.ERROR,
    )

  def kill_node(self):
    """Kills the last node and all its processes, without a warning to the others."""
    self._cluster.remove_node(self._nodes.pop(), allow_graceful=False)

  def close(self):
    """Ends all nodes."""
    self._ray.shutdown()
    while self._nodes:
      self.kill_node()
