"""How many videos/s a number of cores can read for training.

Calculated from what is measured on this machine: CPU time per video, of all
threads, and of the busiest thread where records are read, shuffled and batched,
but not parsed. That thread shuffles and batches alone, however many cores there
are. The defaults of a run, random records in the page cache; all cases in
turns. What memory and storage give is not in it.

  . experiments/environment.sh
  "$python" -m experiments.benchmarks.cores
"""

import os
import statistics

from absl import app
from absl import flags
import tensorflow as tf

from experiments.benchmarks import records
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import thin

_INPUT_PATH = flags.DEFINE_string(
  'input_path', '', 'Frame-level records to read; random ones by default.'
)
_VIDEOS = flags.DEFINE_integer(
  'videos', 8000, 'Videos per case and round.', lower_bound=1
)
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Rounds.', lower_bound=1)
_BATCH = flags.DEFINE_integer('batch', 256, 'Videos per batch.', lower_bound=1)
_CORES = flags.DEFINE_integer('cores', 16, 'Cores to calculate for.', lower_bound=1)


class _NoReader:
  """In the place of a FrameReader; leaves records as they are."""

  with_seeds = False

  def check_format(self, *_):
    """Takes any."""

  def __call__(self, paths, indices, serialized):
    return tf.strings.length(serialized)


def main(_):
  with records.folder_and_path(_INPUT_PATH.value, 2400, 16) as (folder, path):
    thinned = thin.thin(
      path, os.path.join(folder, 'thinned'), records.EVERY_N, records.MAX_FRAMES
    )
    full = records.training_set(_BATCH.value, input_path=path)
    small = records.training_set(_BATCH.value, input_path=thinned)
    cases = {
      'not parsed': pipeline.build(full, _NoReader()),
      'not parsed, thinned': pipeline.build(small, _NoReader()),
      'teacher': records.batches(full, 'teacher'),
      'student': records.batches(full, 'student'),
      'student, thinned': records.batches(small, 'student'),
    }
    costs = {name: [] for name in cases}
    for _ in range(_ROUNDS.value):
      for name, dataset in cases.items():
        costs[name].append(records.measure(dataset, _BATCH.value, _VIDEOS.value))

  print(
    f'{"":<20}{"videos/s":>9}{"CPU ms":>8}{"busiest thread":>16}'
    f'{f"on {_CORES.value} cores":>13}{"one thread":>12}'
  )
  for name, taken in costs.items():
    rate, cpu, thread = (
      statistics.median(getattr(cost, field) for cost in taken)
      for field in ('rate', 'cpu', 'thread')
    )
    serial = costs['not parsed' + ', thinned' * name.endswith('thinned')]
    alone = 1000 / statistics.median(cost.thread for cost in serial)
    print(
      f'{name:<20}{rate:>9.0f}{cpu:>8.3f}{thread:>16.3f}'
      f'{min(_CORES.value * 1000 / cpu, alone):>13.0f}{alone:>12.0f}'
    )


if __name__ == '__main__':
  app.run(main)
