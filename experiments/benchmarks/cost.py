r"""What the networks cost, by the number of frames: FLOPs, parameters and time.

Each family of networks has one that sees all frames, the teacher, and students
that see k frames. The table shows how much of the teacher's FLOPs and time each
student saves; the paper claims about 90% fewer FLOPs and 30% less time. Two times
are measured on random videos of 300 frames: that of the network, its frames already
selected, and that of the whole path from serialized records to the 20 best classes.
The networks of a family take turns in each round, so that noise affects them alike.
Times are medians over the rounds; the whole path also has the 99th percentile.
From the repository's root, for all families and for one video at a time:

  . experiments/environment.sh
  "$python" -m experiments.benchmarks.cost
  "$python" -m experiments.benchmarks.cost --backbone=hierarchical_lstm --k=30 \
    --batch=1 --rounds=120
"""

import statistics
import time

from absl import app
from absl import flags
import numpy as np
import tensorflow as tf
import tqdm

from experiments.benchmarks import records
from yt8m_distill.configs import experiments
from yt8m_distill.configs import settings
from yt8m_distill.evaluation import report
from yt8m_distill.modeling import video_classifier
from yt8m_distill.serving import signatures

_FAMILIES = ('hierarchical_lstm', 'netvlad', 'nextvlad', 'yt8m_dbof', 'yt8m_average')
_BACKBONES = flags.DEFINE_multi_enum(
  'backbone', _FAMILIES, _FAMILIES, 'Families; repeat the flag for several'
)
_KS = flags.DEFINE_multi_integer(
  'k',
  [6, 10, 15, 20, 30],
  'Frames of the students; repeat the flag for several',
  lower_bound=1,
  upper_bound=300,
)
_CELLS = flags.DEFINE_integer('cells', 1024, 'Cells per LSTM layer.', lower_bound=1)
_BATCH = flags.DEFINE_integer('batch', 32, 'Videos per batch.', lower_bound=1)
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Rounds.', lower_bound=1)
_TOP_K = 20
_HEADER = (
  'network',
  'frames',
  'GFLOPs',
  'saved',
  'parameters',
  'ms, network',
  'saved',
  'ms, from record',
  'saved',
  'p99',
)


class _Network:
  """A network of a family, run alone and from serialized records."""

  def __init__(self, backbone: str, k: int, serialized: tf.Tensor):
    """Builds the network and runs it once; k = 0 is the teacher."""
    model = experiments.yt8m_distill_single(
      settings.Settings(
        frames='uniform' if k else 'all',
        k=k,
        backbone=backbone,
        student_chunks=next(c for c in (5, 3, 2, 1) if k % c == 0),
        num_cells=_CELLS.value,
      )
    ).task.model
    self.name = f'k = {k}' if k else 'teacher'
    self.frames = model.network.frames.max_selected(model.max_frames)
    network = video_classifier.build(model, model.network, 'network')
    self.flops, self.parameters = network.flops(), network.count_params()
    size = sum(feature.size for feature in model.features)
    videos = {
      'frames': tf.cast(
        tf.random.stateless_uniform(
          [_BATCH.value, self.frames, size], [0, 1], 0, 256, tf.int32
        ),
        tf.uint8,
      ),
      'num_frames': tf.fill([_BATCH.value], self.frames),
    }
    # Concrete functions: otherwise TensorFlow warns that the networks are one function
    # that is retraced.
    forward = tf.function(
      lambda: network(videos, training=False)['predictions'], autograph=False
    ).get_concrete_function()
    serve = signatures.ServingModule(
      network, model, _TOP_K
    ).records.get_concrete_function()
    where = (tf.fill([_BATCH.value], 'some'), tf.range(_BATCH.value, dtype=tf.int64))
    self._ways = (forward, lambda: serve(*where, serialized)['probabilities'])
    self.times: tuple[list[float], list[float]] = ([], [])
    for run in self._ways:
      run()

  def run(self):
    """Runs the network and the whole path once; keeps the seconds per video."""
    for times, run in zip(self.times, self._ways):
      start = time.perf_counter()
      run().numpy()
      times.append((time.perf_counter() - start) / _BATCH.value)

  def cells(self, teacher: '_Network'):
    """Returns the network's row of the table."""
    row = [
      self.name,
      str(self.frames),
      f'{self.flops / 1e9:.3f}',
      _saved(self.flops, teacher.flops),
      f'{self.parameters:,}',
    ]
    for times in zip(self.times, teacher.times):
      own, its = map(statistics.median, times)
      row += [f'{own * 1e3:.2f}', _saved(own, its)]
    return [*row, f'{np.percentile(self.times[1], 99) * 1e3:.2f}']


def _saved(own: float, its: float) -> str:
  return f'{1 - own / its:.0%}'


def main(_):
  """Prints a table for each family."""
  record = records.random_record(np.random.default_rng(0), records.MAX_FRAMES)
  serialized = tf.constant([record] * _BATCH.value)
  for backbone in _BACKBONES.value:
    networks = [_Network(backbone, k, serialized) for k in (0, *_KS.value)]
    for _ in tqdm.trange(_ROUNDS.value, desc=backbone):
      for network in networks:
        network.run()
    print(f'\n{backbone}, batch {_BATCH.value}, {_ROUNDS.value} rounds\n')
    print(
      report.markdown([_HEADER, *(network.cells(networks[0]) for network in networks)])
    )


if __name__ == '__main__':
  app.run(main)
