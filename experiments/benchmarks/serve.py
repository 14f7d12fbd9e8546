r"""Compares how a network can be served: time, memory, size, and the GAP that it costs.

Without --run, the paper's student with random weights classifies random videos, all
frames of which are sent. With --run and --input_path, a run's network classifies
records, and the GAP of each case is that of their first --videos. Each case runs in a
process of its own; all take turns. From the repository's root:

  python -m experiments.benchmarks.serve
  python -m experiments.benchmarks.serve --run=RUN --input_path='validate*.tfrecord'

Cases, besides the float32 and bfloat16 SavedModel and the kinds of `tflite.KINDS`:

  LiteRT int8          activations in 8 bits, too, calibrated on 50 of the videos. The
                       loops of LSTMs are unrolled, because calibration crashes on loops
  SavedModel rank=R    each large matrix of the head is a product of two, of rank R
"""

from collections.abc import Iterator
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import types
from unittest import mock

from absl import app
from absl import flags
import numpy as np
import tensorflow as tf
import tf_keras
import tqdm

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.configs import data
from yt8m_distill.configs import experiments
from yt8m_distill.configs import model as model_config
from yt8m_distill.configs import settings
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import reader
from yt8m_distill.evaluation import metrics
from yt8m_distill.evaluation import report
from yt8m_distill.evaluation import video_metrics
from yt8m_distill.modeling import lstm
from yt8m_distill.modeling import video_classifier
from yt8m_distill.serving import signatures
from yt8m_distill.serving import tflite

_RUN = flags.DEFINE_string('run', '', 'Run whose network is served.')
_INPUT_PATH = flags.DEFINE_string('input_path', '', 'Labeled records, with --run.')
_VIDEOS = flags.DEFINE_integer('videos', 1000, 'Records to score.', lower_bound=1)
_CELLS = flags.DEFINE_integer('cells', 1024, 'Cells, without --run.', lower_bound=1)
_CASES = flags.DEFINE_multi_string(
  'case', [], 'Cases, as the table names them; repeat the flag. Default: all'
)
_RANKS = flags.DEFINE_list('ranks', ['256', '512', '1024'], 'Ranks of the head.')
_BATCHES = flags.DEFINE_list('batches', ['1', '8', '64'], 'Videos per request.')
_ROUNDS = flags.DEFINE_integer('rounds', 20, 'Rounds.', lower_bound=1)
_REQUESTS = flags.DEFINE_integer(
  'requests',
  5,
  'Requests of one video in a round; of larger batches fewer, but at least one.',
  lower_bound=1,
)

_CALIBRATE = 50  # videos
_HEADER = (
  'case',
  'p50, ms',
  'p99, ms',
  'videos/s',
  'CPU ms per video',
  'CPU, of float32',
)
_Arrays = dict[str, np.ndarray]


class _LowRank(tf_keras.layers.Layer):
  """A dense layer whose kernel is replaced by the closest one of a rank."""

  def __init__(self, dense: tf_keras.layers.Dense, vectors: np.ndarray, rank: int):
    """Initializes the layer.

    Args:
      dense: the layer to replace, with a kernel [R, N].
      vectors: left singular vectors of the kernel, [R, R], the most important last.
      rank: of the new kernel.
    """
    super().__init__()
    self.down = tf.Variable(vectors[:, -rank:])
    self.up = tf.Variable(vectors[:, -rank:].T @ dense.kernel.numpy())
    self.bias = tf.Variable(dense.bias) if dense.use_bias else 0.0

  def call(self, inputs):
    return inputs @ self.down @ self.up + self.bias


def _network() -> types.SimpleNamespace | trained_network.Network:
  """Returns the network of the run, or one of random weights."""
  if _RUN.value:
    return trained_network.Network(_RUN.value)
  model = experiments.yt8m_distill_single(
    settings.Settings(
      frames='uniform', every_n=10, student_chunks=5, num_cells=_CELLS.value
    )
  ).task.model
  network = video_classifier.build(model, model.network, 'network')
  return types.SimpleNamespace(network=network, model=model, checkpoint='none')


def _random_videos(model: model_config.ClassifierModel) -> _Arrays:
  rng = np.random.default_rng(0)
  size = sum(feature.size for feature in model.features)
  return {
    'frames': rng.integers(0, 256, [64, model.max_frames, size], np.uint8),
    'num_frames': np.full([64], model.max_frames, np.int32),
  }


def _records(model: model_config.ClassifierModel) -> _Arrays:
  """Returns all frames of the first records, and their labels."""
  dataset = pipeline.build(
    data.VideoData(
      input_path=_INPUT_PATH.value, global_batch_size=1, drop_remainder=False
    ),
    reader.FrameReader(
      model.features,
      model.max_frames,
      model.num_classes,
      model_config.FrameSelection(),
    ),
  )
  batches = [
    (inputs['frames'], inputs['num_frames'], labels)
    for inputs, labels in dataset.take(_VIDEOS.value)
  ]
  arrays = [tf.concat(parts, 0).numpy() for parts in zip(*batches)]
  return dict(zip(('frames', 'num_frames', 'labels'), arrays))


def _save(folder: str, network, model) -> str:
  """Writes a SavedModel as `export` does; returns its folder."""
  module = signatures.ServingModule(network, model)
  signatures.save(folder, network.variables, module.get_inference_signatures())
  return folder


@contextlib.contextmanager
def _policy(name: str) -> Iterator[None]:
  tf_keras.mixed_precision.set_global_policy(name)
  try:
    yield
  finally:
    tf_keras.mixed_precision.set_global_policy('float32')


def _unrolled(count, body, variables):
  """Replaces `lstm._loop`."""
  for step in range(int(count)):
    variables = body(step, *variables[1:])
  return variables


def _int8(network, videos: _Arrays) -> bytes:
  """Returns a LiteRT model that computes in 8 bits where LiteRT can."""

  def calibration():
    for i in range(min(_CALIBRATE, len(videos['frames']))):
      yield {name: videos[name][i : i + 1] for name in ('frames', 'num_frames')}

  with mock.patch.object(lstm, '_loop', _unrolled), tflite.saved(network, 20) as path:
    converter = tf.lite.TFLiteConverter.from_saved_model(
      path, signature_keys=['serving_default']
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = calibration
    converter.target_spec.supported_ops = [
      tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
      tf.lite.OpsSet.TFLITE_BUILTINS,
    ]
    return converter.convert()


def _prepare(folder: str, network, videos: _Arrays) -> dict[str, str]:
  """Writes the models; returns their paths by the names of the cases."""

  def wanted(case):
    return not _CASES.value or case in _CASES.value

  model, paths = network.model, {}
  plain = signatures.rebuilt(network.network, model, use_cudnn=False)
  for dtype in filter(lambda d: wanted(f'SavedModel {d}'), ('float32', 'bfloat16')):
    with _policy(dtype):
      again = signatures.rebuilt(plain, model, use_cudnn=False)
      paths[f'SavedModel {dtype}'] = _save(f'{folder}/{dtype}', again, model)
  contents = dict(
    tflite.convert(network, 20, [k for k in tflite.KINDS if wanted(f'LiteRT {k}')])
  )
  if wanted('LiteRT int8'):
    contents['int8'] = _int8(network, videos)
  for kind, content in contents.items():
    paths[f'LiteRT {kind}'] = path = f'{folder}/{kind}.tflite'
    with open(path, 'wb') as file:
      file.write(content)
  ranks = [rank for rank in map(int, _RANKS.value) if wanted(f'SavedModel rank={rank}')]
  layers = {
    name: getattr(plain.head, name)
    for name in ('gates', 'experts', 'classes')
    if hasattr(plain.head, name)
  }
  vectors = {
    name: np.linalg.eigh(layer.kernel.numpy() @ layer.kernel.numpy().T)[1]
    for name, layer in layers.items()
    if ranks
  }
  for rank in ranks:
    again = signatures.rebuilt(plain, model, use_cudnn=False)
    for name, layer in layers.items():
      setattr(again.head, name, _LowRank(layer, vectors[name], rank))
    paths[f'SavedModel rank={rank}'] = _save(f'{folder}/{rank}', again, model)
  return paths


class _Worker:
  """A process that serves a model; see `serve_worker`."""

  def __init__(self, path: str, videos_path: str):
    self._process = subprocess.Popen(
      [sys.executable, '-m', 'experiments.benchmarks.serve_worker', path, videos_path],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )

  def __call__(self, *command):
    """Returns the answer to a command."""
    print(*command, file=self._process.stdin, flush=True)
    assert self._process.stdout
    if line := self._process.stdout.readline():
      return json.loads(line)
    raise RuntimeError(f'The worker ended with status {self._process.wait()}.')

  def close(self):
    """Ends the process."""
    self._process.communicate()


def _megabytes(path: str) -> float:
  """Returns the size of a file, or of a SavedModel, in MB."""
  paths = [path] if os.path.isfile(path) else tf.io.gfile.glob(f'{path}/*')
  paths += tf.io.gfile.glob(f'{path}/variables/*')
  return sum(os.path.getsize(each) for each in paths if os.path.isfile(each)) / 1e6


def _gap(predictions: np.ndarray, labels: np.ndarray) -> float:
  scores = metrics.GlobalMetrics(labels.shape[1])
  values = video_metrics.compute(tf.constant(predictions), labels, 20)
  scores.update(**{k: v.numpy() for k, v in values.items()}, positives=labels.sum(0))
  return scores.result()['gap']


def _print_times(workers: dict[str, _Worker]):
  """Prints a table for each batch size."""
  for batch in map(int, _BATCHES.value):
    times: dict[str, list] = {case: [] for case in workers}
    for worker in workers.values():
      worker('time', batch, 2)  # Warms up.
    for _ in tqdm.trange(_ROUNDS.value, desc=f'batch {batch}'):
      for case, worker in workers.items():
        times[case] += worker('time', batch, max(1, _REQUESTS.value // batch))
    rows, first = [_HEADER], None
    for case, pairs in times.items():
      wall, cpu = zip(*pairs)
      median, cpu = statistics.median(wall), statistics.median(cpu)
      first = first or cpu
      rows.append(
        (
          case,
          f'{median * 1e3:.1f}',
          f'{np.quantile(wall, 0.99) * 1e3:.1f}',
          f'{batch / median:.0f}',
          f'{cpu * 1e3 / batch:.2f}',
          f'{cpu / first:.2f}',
        )
      )
    print(f'\nbatch {batch}\n\n{report.markdown(rows)}', flush=True)


def main(_):
  """Prints the tables."""
  if bool(_RUN.value) != bool(_INPUT_PATH.value):
    raise app.UsageError('Give both --run and --input_path, or none of them.')
  network = _network()
  videos = (_records if _RUN.value else _random_videos)(network.model)
  with tempfile.TemporaryDirectory() as folder:
    np.savez(f'{folder}/videos.npz', **videos)
    paths = _prepare(folder, network, videos)
    workers = {
      case: _Worker(path, f'{folder}/videos.npz') for case, path in paths.items()
    }
    _print_times(workers)
    rows = [('case', 'peak memory, MiB', 'size, MB', 'GAP')]
    for case, worker in workers.items():
      memory, size, gap = worker('peak'), _megabytes(paths[case]), ''
      if 'labels' in videos:
        worker('predict', f'{folder}/predictions.npy')
        predictions = np.load(f'{folder}/predictions.npy')
        gap = f'{_gap(predictions, videos["labels"]):.4f}'
      rows.append((case, f'{memory:,.0f}', f'{size:.1f}', gap))
      worker.close()
  print(f'\n{network.network.count_params():,} parameters\n\n{report.markdown(rows)}')


if __name__ == '__main__':
  app.run(main)
