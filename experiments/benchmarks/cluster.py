r"""Measures what Ray costs a command: without it, and on 1 to 3 nodes.

The command is `yt8m-distill simulate`, once while workers start and then with those
that have started. The nodes have one CPU each, and all are on this machine, so that the
benchmark shows the CPU time that Ray adds, and no speedup. From the repository's root:

  python -m experiments.benchmarks.cluster
"""

import contextlib
import os
import statistics
import tempfile

from absl import app
from absl import flags
import tqdm

from experiments.benchmarks import usage
from experiments.cluster import ray_nodes
from yt8m_distill.evaluation import report
from yt8m_distill.simulation import write_shards

_NODES = flags.DEFINE_integer('nodes', 3, 'Most nodes.', lower_bound=1)
_SHARDS = flags.DEFINE_integer('shards', 24, 'Shards.', lower_bound=1)
_VIDEOS = flags.DEFINE_integer('videos', 16, 'Videos of a shard.', lower_bound=1)
_ROUNDS = flags.DEFINE_integer(
  'rounds', 3, 'Runs with workers that have started.', lower_bound=1
)


def _cost(address) -> float:
  """Returns the CPU seconds of a run and of all processes of the cluster."""
  with tempfile.TemporaryDirectory() as folder:
    before = usage.total_seconds()
    write_shards.simulate(
      folder,
      'train',
      _SHARDS.value * _VIDEOS.value,
      videos_per_shard=_VIDEOS.value,
      num_classes=100,
      workers=1,
      ray_address=address,
    )
    return usage.total_seconds() - before


def main(_):
  """Prints a row per number of nodes."""
  os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
  os.environ['CUDA_VISIBLE_DEVICES'] = '-1'
  rows = [('nodes', 'first run, CPU s', 'next runs, median')]
  for nodes in tqdm.tqdm(range(_NODES.value + 1), unit='cases'):
    with contextlib.ExitStack() as stack:
      address = None
      if nodes:
        cluster = stack.enter_context(contextlib.closing(ray_nodes.Cluster(nodes)))
        address = cluster.address
      costs = [_cost(address) for _ in range(_ROUNDS.value + 1)]
    later = statistics.median(costs[1:])
    rows.append((f'{nodes}', f'{costs[0]:.1f}', f'{later:.1f}'))
  print(report.markdown(rows))


if __name__ == '__main__':
  app.run(main)
