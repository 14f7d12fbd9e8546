r"""What the networks cost: FLOPs, parameters, and time per video.

For every family of backbones one network that sees all frames, the teacher, and
students that see k of them; beside each what it saves of the teacher's FLOPs,
and time. The paper claims about 90% fewer FLOPs and 30% less time. Time is
measured twice, on random videos of 300 frames: of the network alone, from its
chosen frames, and of the whole way from serialized records to the 20 best
classes. All networks of a family run in turns, so that noise hits them alike;
times are medians over the rounds, and of the whole way the 99th percentile too.
From the repository's root, first every family, then how long one video waits:

  . experiments/environment.sh
  "$python" -m experiments.benchmarks.cost
  "$python" -m experiments.benchmarks.cost --backbone=hierarchical_lstm --k=30 \
    --batch=1 --rounds=200
"""

import statistics
import time

from absl import app
from absl import flags
import numpy as np
import tensorflow as tf
import tqdm

from yt8m_distill.configs import experiments
from yt8m_distill.configs import settings
from yt8m_distill.modeling import frame_selection
from yt8m_distill.modeling import video_classifier
from yt8m_distill.serving import signatures

_FAMILIES = ('hierarchical_lstm', 'netvlad', 'nextvlad', 'yt8m_dbof', 'yt8m_average')
_BACKBONES = flags.DEFINE_multi_enum(
  'backbone', _FAMILIES, _FAMILIES, 'Families; give the flag once for each.'
)
_KS = flags.DEFINE_multi_integer(
  'k',
  [6, 10, 15, 20, 30],
  'Frames of the students, likewise.',
  lower_bound=1,
  upper_bound=300,
)
_CELLS = flags.DEFINE_integer(
  'cells', 1024, 'Cells of every LSTM layer.', lower_bound=1
)
_BATCH = flags.DEFINE_integer('batch', 32, 'Videos at once.', lower_bound=1)
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


def _record(rng, features, frames: int) -> bytes:
  video = tf.train.SequenceExample()
  video.context.feature['id'].bytes_list.value.append(b'some')
  for feature in features:
    added = video.feature_lists.feature_list[feature.name].feature
    for _ in range(frames):
      added.add().bytes_list.value.append(rng.bytes(feature.size))
  return video.SerializeToString()


class _Network:
  """A network of a family, and two ways to run it on a batch."""

  def __init__(self, backbone: str, k: int, records: tf.Tensor):
    """Builds it; k = 0 is the teacher."""
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
    self.frames = frame_selection.max_selected(model.network.frames, model.max_frames)
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
    # Concrete: TensorFlow takes the same code of several networks for one
    # function that is traced again and again, and warns.
    forward = tf.function(
      lambda: network(videos, training=False)['predictions'], autograph=False
    ).get_concrete_function()
    serve = signatures.ServingModule(
      network, model, _TOP_K
    ).records.get_concrete_function()
    where = (tf.fill([_BATCH.value], 'some'), tf.range(_BATCH.value, dtype=tf.int64))
    self._ways = (forward, lambda: serve(*where, records)['probabilities'])
    self.times = tuple([] for _ in self._ways)
    for run in self._ways:
      run()

  def run(self):
    for times, run in zip(self.times, self._ways):
      start = time.perf_counter()
      run().numpy()
      times.append((time.perf_counter() - start) / _BATCH.value)

  def cells(self, teacher: '_Network'):
    """A row of the table."""
    row = [
      self.name,
      str(self.frames),
      f'{self.flops / 1e9:.3f}',
      _saved(self.flops, teacher.flops),
      f'{self.parameters:,}',
    ]
    for own, its in zip(self.times, teacher.times):
      own, its = statistics.median(own), statistics.median(its)
      row += [f'{own * 1e3:.2f}', _saved(own, its)]
    return [*row, f'{np.percentile(self.times[1], 99) * 1e3:.2f}']


def _saved(own: float, its: float) -> str:
  return f'{1 - own / its:.0%}'


def main(_):
  features = experiments.yt8m_distill_single().task.model.features
  rng = np.random.default_rng(0)
  records = tf.constant([_record(rng, features, 300)] * _BATCH.value)
  for backbone in _BACKBONES.value:
    networks = [_Network(backbone, k, records) for k in (0, *_KS.value)]
    for _ in tqdm.trange(_ROUNDS.value, desc=backbone):
      for network in networks:
        network.run()
    print(f'\n{backbone}, batch {_BATCH.value}, {_ROUNDS.value} rounds\n')
    print(f'| {" | ".join(_HEADER)} |\n{"|---" * len(_HEADER)}|')
    for network in networks:
      print(f'| {" | ".join(network.cells(networks[0]))} |')


if __name__ == '__main__':
  app.run(main)
