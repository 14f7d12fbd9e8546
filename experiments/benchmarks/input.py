"""How fast the input delivers videos, and what limits it.

--case chooses the question:

  rates    How many videos/s does each way to read and decode records deliver?
  cores    How many videos/s can a machine with --cores cores read? Calculated
           from the CPU time per video. One thread shuffles and batches, so its
           CPU time per video bounds the rate however many cores there are.
           Memory and storage bandwidth are not considered.
  overlap  How much longer is a training step that reads TFRecords than one that
           takes its batch from memory? On a GPU the input works while the step
           runs. On a CPU both share the cores, so a step must take longer by
           the input's share of the CPU time, which is printed too.
  remote   What do records cost over HTTP, or from a tf.data service with two
           workers, compared with the local disk? Both kinds of server run on
           this machine and share its cores. Each measurement runs in a new
           process with new servers. Memory is that process' peak beyond
           TensorFlow's own; "servers" is the peak of the largest server,
           TensorFlow included.

Records are random ones of 120 to 300 frames, which stay in the page cache, or
those of --input_path. The cases take turns in each round, so that noise affects
them alike; figures are medians over the rounds. Ratios to the raw read need
idle cores, since decoding is several times the work. From the repository's
root:

  . experiments/environment.sh
  "$python" -m experiments.benchmarks.input
  "$python" -m experiments.benchmarks.input --case=cores --records=2400 --files=16
  "$python" -m experiments.benchmarks.input --case=overlap --videos=1920 --rounds=5
  "$python" -m experiments.benchmarks.input --case=remote --batch=256 \
    --videos=4000 --records=8000 --files=16
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import functools
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from typing import Any
from typing import NamedTuple
from typing import TypeVar

from absl import app
from absl import flags
from official.core import base_trainer
import orbit
import tensorflow as tf
import tqdm

from experiments.benchmarks import records
from experiments.benchmarks import usage
from yt8m_distill.configs import data
from yt8m_distill.configs import experiments
from yt8m_distill.configs import model as model_config
from yt8m_distill.configs import settings
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import reader as reader_lib
from yt8m_distill.dataloaders import shards
from yt8m_distill.dataloaders import thin
from yt8m_distill.evaluation import report
from yt8m_distill.tasks import distillation
from yt8m_distill.trainer import cluster

_CASE = flags.DEFINE_enum(
  'case', 'rates', ['rates', 'cores', 'overlap', 'remote'], 'The question to answer.'
)
_INPUT_PATH = flags.DEFINE_string(
  'input_path', '', 'Frame-level records to read; random ones by default.'
)
_RECORDS = flags.DEFINE_integer(
  'records', 600, 'Random records to write, 0.24 MB each.', lower_bound=1
)
_FILES = flags.DEFINE_integer(
  'files', 8, 'Files to write random records to.', lower_bound=1
)
_CYCLE_LENGTH = flags.DEFINE_integer(
  'cycle_length',
  data.VideoData().cycle_length,
  'Files to read in parallel.',
  lower_bound=1,
)
_VIDEOS = flags.DEFINE_integer(
  'videos', 8000, 'Videos to read per case and round.', lower_bound=1
)
_BATCH = flags.DEFINE_integer('batch', 64, 'Videos per batch.', lower_bound=1)
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Rounds.', lower_bound=1)
_CORES = flags.DEFINE_integer(
  'cores', 16, 'Cores to calculate for (cores).', lower_bound=1
)
_CELLS = flags.DEFINE_integer(
  'cells',
  256,
  "Cells per LSTM layer (overlap); the paper's size is 1024.",
  lower_bound=1,
)
_LATENCY = flags.DEFINE_float(
  'latency',
  0.0,
  'Seconds before each answer of the HTTP server (remote).',
  lower_bound=0.0,
)

_EVERY_N = 10
_SELECTIONS = {
  'teacher': model_config.FrameSelection(),
  'student': model_config.FrameSelection(
    type='uniform', uniform=model_config.UniformFrames(every_n=_EVERY_N)
  ),
}
_SOURCES = ('disk', 'http', 'service')
_SERVICE_WORKERS = 2
_STEP_WARM_UP = 8  # training steps; a new iterator first reads ahead
_REMOTE_WARM_UP = 20  # batches; a service has prepared many before the first read
_T = TypeVar('_T')


def _training_data(path: str | Sequence[str], **fields: Any) -> data.VideoData:
  """Returns training data as the flags say; `fields` sets more of its fields."""
  return data.VideoData(
    input_path=path,
    is_training=True,
    global_batch_size=_BATCH.value,
    cycle_length=_CYCLE_LENGTH.value,
    **fields,
  )


def _batches(train_data: data.VideoData, network: str) -> tf.data.Dataset:
  """Returns the batches that the teacher, or a student without it, trains on."""
  return pipeline.build(
    train_data,
    reader_lib.FrameReader(
      records.FEATURES, records.MAX_FRAMES, records.CLASSES, _SELECTIONS[network]
    ),
  )


def _thinned(path: str, folder: str) -> list[str]:
  """Writes thinned records for students; returns their paths."""
  return thin.thin(path, os.path.join(folder, 'thinned'), _EVERY_N, records.MAX_FRAMES)


def _in_turns(cases: dict[str, Callable[[], _T]]) -> dict[str, list[_T]]:
  """Runs every case once a round; returns the results of each."""
  results: dict[str, list[_T]] = {name: [] for name in cases}
  for _ in tqdm.trange(_ROUNDS.value, desc=_CASE.value):
    for name, run in cases.items():
      results[name].append(run())
  return results


def _measure_all(cases: dict[str, tf.data.Dataset]) -> dict[str, list[usage.Cost]]:
  return _in_turns(
    {
      name: functools.partial(usage.measure, dataset, _BATCH.value, _VIDEOS.value)
      for name, dataset in cases.items()
    }
  )


def _raw(path: str) -> tf.data.Dataset:
  cycle = _CYCLE_LENGTH.value
  return (
    tf.data.Dataset.from_tensor_slices(shards.find(path))
    .repeat()
    .interleave(tf.data.TFRecordDataset, cycle_length=cycle, num_parallel_calls=cycle)
  )


def _parse(serialized):
  """Parses one record with TensorFlow's own operation."""
  context, lists = tf.io.parse_single_sequence_example(
    serialized,
    {'labels': tf.io.VarLenFeature(tf.int64)},
    {
      feature.name: tf.io.FixedLenSequenceFeature([], tf.string)
      for feature in records.FEATURES
    },
  )
  labels = tf.reduce_any(
    tf.one_hot(context['labels'].values, records.CLASSES, True, False, dtype=tf.bool), 0
  )
  return [lists[feature.name] for feature in records.FEATURES], labels


def _parse_only(serialized):
  strings, labels = _parse(serialized)
  return [tf.size(s) for s in strings], labels


def _float_example(serialized):
  """Dequantizes and pads one video at a time, as the original code does."""
  strings, labels = _parse(serialized)
  frames = tf.concat(
    [
      tf.reshape(tf.io.decode_raw(s, tf.uint8), [-1, feature.size])
      for s, feature in zip(strings, records.FEATURES)
    ],
    1,
  )
  frames = frames[: records.MAX_FRAMES]
  frames = tf.cast(frames, tf.float32) * (4 / 255) + (4 / 512 - 2)
  count = tf.shape(frames)[0]
  frames = tf.pad(frames, [[0, records.MAX_FRAMES - count], [0, 0]])
  size = sum(feature.size for feature in records.FEATURES)
  return tf.ensure_shape(frames, [records.MAX_FRAMES, size]), count, labels


def _rates(path: str, folder: str):
  """Prints videos/s of each way to read and decode."""
  thinned = _thinned(path, folder)
  share = sum(shards.sizes(thinned)) / sum(shards.sizes(shards.find(path)))

  def network_batches(path, network):
    # A short shuffle buffer: filling it is not part of the steady rate.
    return _batches(_training_data(path, shuffle_buffer_size=_BATCH.value), network)

  def plain_batches(dataset, parse=None):
    if parse:
      dataset = dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(_BATCH.value).prefetch(tf.data.AUTOTUNE)

  results = _measure_all(
    {
      'raw read, files in parallel': plain_batches(_raw(path)),
      'raw read, file by file': plain_batches(
        tf.data.TFRecordDataset(shards.find(path)).repeat()
      ),
      'parse only': plain_batches(_raw(path), _parse_only),
      'teacher, uint8': network_batches(path, 'teacher'),
      'teacher, float32 per example': plain_batches(_raw(path), _float_example),
      'student, every 10th frame': network_batches(path, 'student'),
      'student, thinned records': network_batches(thinned, 'student'),
    }
  )
  rates = {name: [cost.rate for cost in costs] for name, costs in results.items()}
  rows = [['case', 'videos/s', 'least', 'most']]
  for name, values in rates.items():
    figures = statistics.median(values), min(values), max(values)
    rows.append([name, *(f'{figure:.0f}' for figure in figures)])
  print(report.markdown(rows))
  raw, sequential, parse, teacher, floats, student, thin_student = rates.values()
  rows = [['ratio', 'median', 'aim']]
  for name, above, below, aim in (
    ('teacher / raw, files in parallel', teacher, raw, '0.6'),
    ('teacher / raw, file by file', teacher, sequential, '0.6'),
    ('teacher / float32', teacher, floats, '1.3'),
    ('student / parse only', student, parse, '0.85'),
    (f'student, thinned ({share:.3f} of the bytes) / full', thin_student, student, ''),
    ('student, thinned / teacher', thin_student, teacher, '2.5'),
  ):
    ratio = statistics.median(a / b for a, b in zip(above, below))
    rows.append([name, f'{ratio:.2f}', aim])
  print(report.markdown(rows))


class _NoReader(reader_lib.FrameReader):
  """Does not parse the records."""

  def check(self, *_):
    """Called by the pipeline with the first record: accepts any."""

  def read_explained(self, paths, indices, serialized, epoch_keys=None):
    return tf.strings.length(serialized)


def _cores(path: str, folder: str):
  """Prints the rates that --cores cores and one thread allow."""
  full, small = _training_data(path), _training_data(_thinned(path, folder))
  no_reader = _NoReader(
    records.FEATURES, records.MAX_FRAMES, records.CLASSES, _SELECTIONS['student']
  )
  costs = _measure_all(
    {
      'not parsed': pipeline.build(full, no_reader),
      'not parsed, thinned': pipeline.build(small, no_reader),
      'teacher': _batches(full, 'teacher'),
      'student': _batches(full, 'student'),
      'student, thinned': _batches(small, 'student'),
    }
  )
  rows = [
    [
      'case',
      'videos/s here',
      'CPU ms per video',
      'of the busiest thread',
      f'videos/s on {_CORES.value} cores',
      'videos/s of one thread',
    ]
  ]
  for name, taken in costs.items():
    rate, cpu, thread = (
      statistics.median(getattr(cost, field) for cost in taken)
      for field in ('rate', 'cpu', 'thread')
    )
    # Without parsing, the busiest thread is the one that shuffles and batches.
    serial = costs['not parsed' + ', thinned' * name.endswith('thinned')]
    bound = 1000 / statistics.median(cost.thread for cost in serial)
    rows.append(
      [
        name,
        f'{rate:.0f}',
        f'{cpu:.3f}',
        f'{thread:.3f}',
        f'{min(_CORES.value * 1000 / cpu, bound):.0f}',
        f'{bound:.0f}',
      ]
    )
  print(report.markdown(rows))


def _overlap(path: str, folder: str):
  """Prints how long a training step takes from TFRecords and from memory."""
  del folder
  steps = -(-_VIDEOS.value // _BATCH.value)
  params = experiments.yt8m_distill(
    settings.Settings(num_cells=_CELLS.value, batch_size=_BATCH.value)
  )
  params.runtime.num_gpus = len(tf.config.list_physical_devices('GPU'))
  params.task.train_data = _training_data(path)
  strategy = cluster.create_strategy(params.runtime, 'train')
  task = distillation.DistillationTask(params.task)
  read = task.build_inputs(params.task.train_data)
  kept = tf.data.Dataset.from_tensors(next(iter(read))).repeat()
  with strategy.scope():
    model = task.build_model()
    datasets = {
      'from memory': orbit.utils.make_distributed_dataset(strategy, kept),
      'from TFRecords': orbit.utils.make_distributed_dataset(
        strategy, task.build_inputs, params.task.train_data
      ),
    }
    trainer = base_trainer.Trainer(
      params,
      task,
      model,
      task.create_optimizer(params.trainer.optimizer_config, params.runtime),
      evaluate=False,
      train_dataset=datasets['from memory'],
    )

    def train(count):
      logs = trainer.train(tf.constant(count))
      float(logs['training_loss'])  # On the host, so a GPU has finished.

    def step(dataset) -> tuple[float, float]:
      """Returns seconds and CPU seconds per step, after a warm-up."""
      trainer.train_dataset = dataset  # Stops reading for the other case.
      train(_STEP_WARM_UP)
      cpu, start = time.process_time(), time.perf_counter()
      train(steps)
      seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
      return seconds / steps, cpu / steps

    def input_only() -> tuple[float, float]:
      """Returns seconds and CPU seconds to read the batch of a step."""
      trainer.train_dataset = datasets['from memory']
      cost = usage.measure(read, _BATCH.value, _VIDEOS.value)
      return _BATCH.value / cost.rate, cost.cpu * _BATCH.value / 1000

    cases: dict[str, Callable[[], tuple[float, float]]] = {
      **{name: functools.partial(step, data) for name, data in datasets.items()},
      'input only': input_only,
    }
    results = _in_turns(cases)
  print(
    f'{_CELLS.value} cells, batch {_BATCH.value}, {steps} steps, '
    f'{_ROUNDS.value} rounds, {params.runtime.num_gpus} GPUs'
  )
  rows = [['case', 'ms a step', 'least', 'most', 'CPU ms a step']]
  for name, taken in results.items():
    seconds, cpu = zip(*taken)
    figures = statistics.median(seconds), min(seconds), max(seconds)
    rows.append(
      [
        name,
        *(f'{1000 * figure:.1f}' for figure in figures),
        f'{1000 * statistics.median(cpu):.0f}',
      ]
    )
  print(report.markdown(rows))
  memory, files, alone = results.values()
  ratio = statistics.median(f[0] / m[0] for m, f in zip(memory, files))
  share = statistics.median(a[1] / m[1] for m, a in zip(memory, alone))
  print(
    f'From TFRecords / from memory: {ratio:.3f} (aim: at most 1.1). '
    f'CPU time of the input / of the step: {share:.3f}.'
  )


class _Remote(NamedTuple):
  cost: usage.Cost
  memory: float  # MiB, of the process that reads
  servers: float  # MiB, of the largest server


@contextlib.contextmanager
def _process(module: str, *args: str) -> Iterator[tuple[int, str]]:
  """Starts a module; yields its process id and the last word of its first line."""
  with subprocess.Popen(
    [sys.executable, '-m', module, *args], text=True, stdout=subprocess.PIPE
  ) as process:
    try:
      assert process.stdout  # a pipe
      line = process.stdout.readline()
      if not line:
        raise RuntimeError(f'{module} ended with status {process.wait()}.')
      yield process.pid, line.split()[-1]
    finally:
      process.terminate()


@contextlib.contextmanager
def _serving(
  source: str, paths: Sequence[str]
) -> Iterator[tuple[list[int], data.VideoData]]:
  """Yields the process ids of the servers, and training data that they serve."""
  with contextlib.ExitStack() as stack:

    def start(*args):
      return stack.enter_context(_process(*args))

    if source == 'disk':
      yield [], _training_data(paths)
    elif source == 'http':
      server, url = start(
        'experiments.benchmarks.range_server',
        os.path.dirname(paths[0]),
        f'--latency={_LATENCY.value}',
      )
      yield (
        [server],
        _training_data([f'{url}/{os.path.basename(path)}' for path in paths]),
      )
    else:
      module = 'experiments.cluster.data_service'
      dispatcher, address = start(module)
      target = address.split('://')[-1]
      workers = [
        start(module, f'--dispatcher={target}')[0] for _ in range(_SERVICE_WORKERS)
      ]
      yield (
        [dispatcher, *workers],
        _training_data(
          paths, enable_tf_data_service=True, tf_data_service_address=address
        ),
      )


def _measure_remote(
  network: str, servers: Sequence[int], videos: int, fields: dict[str, Any]
) -> _Remote:
  """Measures reading; runs in a new process, which has no flags."""
  tf.config.set_visible_devices([], 'GPU')
  tf.zeros([]).numpy()  # Loads the rest of TensorFlow.
  before = usage.peak_mib()
  train_data = data.VideoData(**fields)
  cost = usage.measure(
    _batches(train_data, network),
    train_data.global_batch_size,
    videos,
    servers,
    _REMOTE_WARM_UP,
  )
  return _Remote(
    cost,
    usage.peak_mib() - before,
    max(map(usage.peak_mib, servers), default=0.0),
  )


def _remote(path: str, folder: str):
  """Prints the rates and costs of records from each source."""
  del folder
  paths = shards.find(path)
  context = multiprocessing.get_context('spawn')

  def run(network, source):
    with _serving(source, paths) as (servers, train_data), context.Pool(1) as pool:
      return pool.apply(
        _measure_remote, (network, servers, _VIDEOS.value, train_data.as_dict())
      )

  results = _in_turns(
    {
      f'{network}, {source}': functools.partial(run, network, source)
      for network, source in itertools.product(_SELECTIONS, _SOURCES)
    }
  )
  print(
    f'batch {_BATCH.value}, {len(paths)} files, {_CYCLE_LENGTH.value} in '
    f'parallel, {_LATENCY.value} s of latency over HTTP, {_ROUNDS.value} rounds'
  )
  rows = [
    [
      'case',
      'videos/s',
      'least',
      'most',
      'of disk',
      'CPU ms per video',
      'of servers',
      'MiB',
      'servers',
    ]
  ]
  for name, taken in results.items():
    costs = [result.cost for result in taken]
    rates = [cost.rate for cost in costs]
    disk = results[f'{name.split(",")[0]}, disk']
    shares = [rate / other.cost.rate for rate, other in zip(rates, disk)]
    rows.append(
      [
        name,
        f'{statistics.median(rates):.0f}',
        f'{min(rates):.0f}',
        f'{max(rates):.0f}',
        f'{statistics.median(shares):.2f}',
        f'{statistics.median(cost.cpu for cost in costs):.2f}',
        f'{statistics.median(cost.helpers for cost in costs):.2f}',
        f'{max(result.memory for result in taken):.0f}',
        f'{max(result.servers for result in taken):.0f}',
      ]
    )
  print(report.markdown(rows))


def main(_):
  """Answers the question of --case."""
  answer = {'rates': _rates, 'cores': _cores, 'overlap': _overlap, 'remote': _remote}
  with records.folder_and_path(_INPUT_PATH.value, _RECORDS.value, _FILES.value) as (
    folder,
    path,
  ):
    answer[_CASE.value](path, folder)


if __name__ == '__main__':
  app.run(main)
