"""How fast videos come in from a local disk, over HTTP, by a tf.data service.

Random records, which stay in the page cache, are read with the defaults of a
run: from the files; from a server of this machine, by Range requests; and by a
dispatcher and two workers of this machine, which read the files and parse. All
cases run in turns, each time in a new process, with servers of its own. The
machine's cores are shared by all of them: CPU milliseconds say what a video
costs the process that trains, and what it costs the servers.

Memory is what that process takes at its peak beyond what it has with TensorFlow
loaded; `servers` is the peak of the largest of them, TensorFlow included.

  . experiments/environment.sh
  "$python" -m experiments.benchmarks.remote
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
from typing import NamedTuple

from absl import app
from absl import flags
import tensorflow as tf

from experiments.benchmarks import records
from yt8m_distill.configs import data
from yt8m_distill.dataloaders import shards

_VIDEOS = flags.DEFINE_integer(
  'videos', 8000, 'Videos per case and round.', lower_bound=1
)
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Rounds.', lower_bound=1)
_BATCH = flags.DEFINE_integer('batch', 256, 'Videos per batch.', lower_bound=1)
_RECORDS = flags.DEFINE_integer(
  'records', 4800, 'Records to write, 0.24 MB each.', lower_bound=1
)
_FILES = flags.DEFINE_integer('files', 32, 'Files to write them to.', lower_bound=1)
_CYCLE_LENGTH = flags.DEFINE_integer(
  'cycle_length',
  data.VideoData().cycle_length,
  'Files read side by side.',
  lower_bound=1,
)
_LATENCY = flags.DEFINE_float(
  'latency', 0.0, 'Seconds before the HTTP server answers.', lower_bound=0.0
)

_SOURCES = ('disk', 'http', 'service')
_WORKERS = 2
_WARM_UP = 20  # batches; a service has more of them ready at the start


class _Result(NamedTuple):
  cost: records.Cost
  memory: float  # MiB, of the process that reads
  servers: float  # MiB, of the largest


@contextlib.contextmanager
def _process(module: str, *args: str) -> Iterator[tuple[int, str]]:
  """Starts a module; yields its id and the last word of its first line."""
  with subprocess.Popen(
    [sys.executable, '-m', module, *args], text=True, stdout=subprocess.PIPE
  ) as process:
    try:
      line = process.stdout.readline()
      if not line:
        raise RuntimeError(f'{module} ended with status {process.wait()}.')
      yield process.pid, line.split()[-1]
    finally:
      process.terminate()


@contextlib.contextmanager
def _serving(source: str, paths: Sequence[str]) -> Iterator[tuple[list[int], dict]]:
  """Yields ids of the servers, and the input's fields that read from them."""
  with contextlib.ExitStack() as stack:

    def start(*args):
      return stack.enter_context(_process(*args))

    if source == 'disk':
      yield [], {'input_path': paths}
    elif source == 'http':
      server, url = start(
        'experiments.benchmarks.range_server',
        os.path.dirname(paths[0]),
        f'--latency={_LATENCY.value}',
      )
      yield (
        [server],
        {'input_path': [f'{url}/{os.path.basename(path)}' for path in paths]},
      )
    else:
      module = 'experiments.cluster.data_service'
      dispatcher, address = start(module)
      target = address.split('://')[-1]
      workers = [start(module, f'--dispatcher={target}')[0] for _ in range(_WORKERS)]
      yield (
        [dispatcher, *workers],
        {
          'input_path': paths,
          'enable_tf_data_service': True,
          'tf_data_service_address': address,
        },
      )


def _measure(
  network: str, servers: Sequence[int], videos: int, batch: int, fields: dict
) -> _Result:
  tf.config.set_visible_devices([], 'GPU')
  tf.zeros([]).numpy()  # All of TensorFlow is then there.
  before = records.peak_mib()
  cost = records.measure(
    records.batches(records.training_set(batch, **fields), network),
    batch,
    videos,
    servers,
    _WARM_UP,
  )
  return _Result(
    cost, records.peak_mib() - before, max(map(records.peak_mib, servers), default=0.0)
  )


def main(_):
  cases = list(itertools.product(records.SELECTIONS, _SOURCES))
  results = {case: [] for case in cases}
  context = multiprocessing.get_context('spawn')
  with records.folder_and_path('', _RECORDS.value, _FILES.value) as (_, path):
    paths = shards.find(path)
    for _ in range(_ROUNDS.value):
      for network, source in cases:
        with _serving(source, paths) as (servers, fields):
          fields['cycle_length'] = _CYCLE_LENGTH.value
          with context.Pool(1) as pool:
            results[network, source].append(
              pool.apply(
                _measure, (network, servers, _VIDEOS.value, _BATCH.value, fields)
              )
            )

  print(
    f'batch {_BATCH.value}, {_FILES.value} files, {_CYCLE_LENGTH.value} of '
    f'them side by side, {_LATENCY.value} s of latency over HTTP, '
    f'{_ROUNDS.value} rounds'
  )
  print(
    f'{"":<17}{"videos/s":>9}{"least":>7}{"most":>7}{"of disk":>8}  '
    f'{"CPU ms":>6}{"servers":>8}  {"MiB":>6}{"servers":>8}'
  )
  for (network, source), taken in results.items():
    costs = [result.cost for result in taken]
    rates = [cost.rate for cost in costs]
    shares = [
      rate / disk.cost.rate for rate, disk in zip(rates, results[network, 'disk'])
    ]
    print(
      f'{network}, {source:<8} {statistics.median(rates):>8.0f}'
      f'{min(rates):>7.0f}{max(rates):>7.0f}'
      f'{statistics.median(shares):>8.2f}  '
      f'{statistics.median(c.cpu for c in costs):>6.2f}'
      f'{statistics.median(c.helpers for c in costs):>8.2f}  '
      f'{max(r.memory for r in taken):>6.0f}'
      f'{max(r.servers for r in taken):>8.0f}'
    )


if __name__ == '__main__':
  app.run(main)
