r"""Times adaptive inference beside fixed numbers of frames.

A nested network of random weights, the paper's student, classifies random videos at
each number of frames, and adaptively with a threshold at which a given share of the
videos stops at each number. All take turns, so that noise affects them alike. Times are
those of the network, its frames already selected. From the repository's root:

  python -m experiments.benchmarks.adaptive --cells=1024
"""

from collections.abc import Callable
import statistics
import time

from absl import app
from absl import flags
import numpy as np
import tensorflow as tf
import tqdm

from yt8m_distill.configs import experiments
from yt8m_distill.configs import settings
from yt8m_distill.evaluation import report
from yt8m_distill.modeling import adaptive
from yt8m_distill.modeling import video_classifier

_CELLS = flags.DEFINE_integer('cells', 1024, 'Cells per LSTM layer.', lower_bound=1)
_BATCH = flags.DEFINE_integer('batch', 64, 'Videos per batch.', lower_bound=1)
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Rounds.', lower_bound=1)
_GO_ON = flags.DEFINE_multi_float(
  'go_on',
  [0.7, 0.5, 0.3],
  'Share of the videos that go on from the smallest number of frames; repeat the flag '
  'for several',
  lower_bound=0.0,
  upper_bound=1.0,
)
_MEASURE = 'top'
_HEADER = ('frames', 'mean frames', 'GFLOPs', 'of all', 'ms per video', 'of all')


def _threshold(network, videos, go_on: float) -> float:
  """Returns a threshold that a share of the videos misses at the smallest number."""
  first = network(videos, answers=True)['answers'][0]['predictions']
  confidence = adaptive.MEASURES[_MEASURE](first, None)
  return float(np.quantile(confidence, go_on))


def main(_):
  """Prints the table."""
  params = experiments.yt8m_distill_single(
    settings.Settings(frames='nested', num_cells=_CELLS.value)
  ).task.model
  counts = params.network.frames.counts()
  network = video_classifier.build(params, params.network, 'network')
  # Random weights of the head answer all videos nearly alike.
  rng = np.random.default_rng(0)
  for variable in network.head.trainable_variables:
    variable.assign(rng.normal(0.0, 0.1, variable.shape))
  size = sum(feature.size for feature in params.features)
  videos = {
    'frames': tf.constant(
      rng.integers(0, 256, [_BATCH.value, counts[-1], size], np.uint8)
    ),
    'num_frames': tf.fill([_BATCH.value], counts[-1]),
  }
  flops = adaptive.flops_of(network, counts)
  # By name: what runs on which videos, mean frames, FLOPs, and the times.
  rows: dict[str, tuple[Callable, dict, float, float, list[float]]] = {}
  for count in counts:
    seen = {
      'frames': videos['frames'][:, :count],
      'num_frames': tf.fill([_BATCH.value], count),
    }
    run = tf.function(network).get_concrete_function(seen)
    rows[f'{count}'] = run, seen, count, network.flops(count), []
  for go_on in _GO_ON.value:
    threshold = _threshold(network, videos, go_on)
    rule = adaptive.Rule(counts, _MEASURE, threshold)
    model = adaptive.AdaptiveClassifier(network, rule)
    run = tf.function(model).get_concrete_function(videos)
    stops = np.searchsorted(counts, run(videos)['frames_seen'])
    rows[f'adaptive, {go_on:.0%} go on'] = (
      run,
      videos,
      np.mean(np.take(counts, stops)),
      np.mean(np.take(flops, stops)),
      [],
    )
  for _ in tqdm.trange(_ROUNDS.value + 1):  # The first warms up.
    for run, seen, _, _, times in rows.values():
      start = time.perf_counter()
      run(seen)['predictions'].numpy()
      times.append((time.perf_counter() - start) / _BATCH.value)
  table = [_HEADER]
  whole = rows[f'{counts[-1]}']
  for name, (_, _, frames, cost, times) in rows.items():
    own, its = (statistics.median(t[1:]) for t in (times, whole[4]))
    table.append(
      (
        name,
        f'{frames:.1f}',
        f'{cost / 1e9:.3f}',
        f'{cost / whole[3]:.0%}',
        f'{own * 1e3:.2f}',
        f'{own / its:.0%}',
      )
    )
  print(f'\n{_CELLS.value} cells, batch {_BATCH.value}, {_ROUNDS.value} rounds\n')
  print(report.markdown(table))


if __name__ == '__main__':
  app.run(main)
