"""Predicts all videos of a set of shards, with one network or several.

  python -m yt8m_distill.serving.predict --model=RUN \
    --input_path='test*.tfrecord' --output_dir=OUT

Every shard becomes OUT/<shard>.csv or .parquet (its name without .tfrecord),
and of CSV there is OUT/predictions.csv besides, all rows in one file for
Kaggle. A file appears when it is whole. The same command goes on with the
shards that are missing; it knows itself by OUT/predict.json.

--model takes runs, checkpoints and exports, several separated by commas: their
predictions are averaged. Parquet holds the `embedding` of a single one.
"""

from collections.abc import Sequence
import concurrent.futures
import contextlib
import functools
import inspect
import os
import re
import sys
import threading

from absl import flags
import tensorflow as tf
import tqdm

from yt8m_distill.configs import data
from yt8m_distill.dataloaders import remote
from yt8m_distill.dataloaders import shards
from yt8m_distill.evaluation import results as results_lib
from yt8m_distill.serving import ensemble
from yt8m_distill.serving import tables
from yt8m_distill.utils import cli
from yt8m_distill.utils import files

FLAGS = flags.FLAGS
_FORMATS = ('csv', 'parquet')
_JOINED = 'predictions.csv'
_AHEAD = 2  # batches read while one is predicted
# A worker parses on one core, and several keep a GPU busy.
_WORKERS = min(8, os.cpu_count() or 1)


def predict(
  model: Sequence[str],
  input_path: str,
  output_dir: str,
  format: str = 'csv',
  top_k: int = 20,
  vocabulary: str = '',
  batch_size: int = 64,
  network: str = 'student',
  workers: int = _WORKERS,
  skip_corrupt_records: bool = False,
  features: Sequence[str] = (),
):
  """Predicts what is missing of a job; arguments are the flags.

  Raises:
    ValueError: an argument does not fit, or OUT is of another job.
    tf.errors.OpError: a file cannot be read or written. What is finished stays.
  """
  for name, value in (('batch_size', batch_size), ('workers', workers)):
    if value < 1:
      raise ValueError(f'{name} is {value}: it must be 1 or more.')
  paths = shards.find(input_path)
  sizes = shards.sizes(paths)
  outputs = _outputs(paths, output_dir, format)
  networks = ensemble.Ensemble(model, network, top_k, data.parse_features(features))
  vocabulary = vocabulary or networks.vocabulary
  names = (
    results_lib.read_vocabulary(vocabulary, networks.num_classes) if vocabulary else ()
  )
  joined = os.path.join(output_dir, _JOINED)
  files.claim(
    os.path.join(output_dir, 'predict.json'),
    [*outputs, joined],
    {
      'model': networks.versions,
      'network': network,
      'input_path': input_path,
      'format': format,
      'top_k': top_k,
      'vocabulary': vocabulary,
      'skip_corrupt_records': skip_corrupt_records,
      'features': list(features),
    },
  )
  tasks = [
    task for task in zip(paths, sizes, outputs) if not tf.io.gfile.exists(task[-1])
  ]
  progress = _Progress(tasks, len(paths))
  table = (
    tables.Csv
    if format == 'csv'
    else functools.partial(tables.Parquet, names=names, embedding=len(model) == 1)
  )
  read = functools.partial(
    shards.read,
    skip_corrupt=skip_corrupt_records,
    retry=any(map(remote.is_remote, paths)),
  )
  worker = _Worker(networks, table, batch_size, read, progress)
  try:
    _run(worker, tasks, workers)
  finally:
    progress.close()
  if format == 'csv':
    tables.join_csv(outputs, joined)


def _outputs(paths, output_dir, suffix) -> Sequence[str]:
  """Names the file of each shard."""
  shards_of = {_JOINED: 'the file of all shards'} if suffix == 'csv' else {}
  for path in paths:
    name = f'{re.sub("[.]tfrecord$", "", remote.file_name(path))}.{suffix}'
    if name in shards_of:
      raise ValueError(
        f'{path} and {shards_of[name]} would both be {name} in {output_dir}: '
        'rename one, or predict them into folders of their own.'
      )
    shards_of[name] = path
  return [os.path.join(output_dir, name) for name in shards_of if name != _JOINED]


class _Stopped(Exception):
  """Another shard failed, or the user stopped the job."""


class _Worker:
  """Predicts shards, in any number of threads."""

  def __init__(
    self,
    networks: ensemble.Ensemble,
    table,
    batch_size: int,
    read,
    progress: '_Progress',
  ):
    """Initializes the worker.

    Args:
      networks: what to predict with.
      table: from an open file to a `tables` writer.
      batch_size: videos predicted at once.
      read: from path and size to records, as `shards.read`.
      progress: told of every batch.
    """
    self._networks = networks
    self._table = table
    self._progress = progress
    self._stop = threading.Event()

    # A function, so that the many shards are traced once.
    def batches(path, size):
      return read(path, size).batch(batch_size).prefetch(_AHEAD)

    self._batches = tf.function(
      batches,
      autograph=False,
      input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)],
    )
    self._batches.get_concrete_function()

  def stop(self):
    """Ends all shards after their present batch, without their files."""
    self._stop.set()

  def __call__(self, path: str, size: int, out: str):
    """Predicts the shard `path` of `size` bytes into the file `out`."""
    with tables.whole_file(out) as file, contextlib.closing(self._table(file)) as table:
      for records in self._batches(path, size):
        if self._stop.is_set():
          raise _Stopped
        results = self._networks(*records)
        table.write({key: value.numpy() for key, value in results.items()})
        lengths = tf.strings.length(records[-1])
        self._progress.add(len(lengths), int(tf.reduce_sum(lengths)))
    self._progress.finish_shard()


def _run(worker, tasks, workers):
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    futures = [pool.submit(worker, *task) for task in tasks]
    try:
      for future in concurrent.futures.as_completed(futures):
        future.result()
    except BaseException:  # An interrupt as well.
      worker.stop()
      pool.shutdown(cancel_futures=True)
      raise


class _Progress:
  """A bar over videos; how many there are is estimated from bytes."""

  def __init__(self, tasks, num_shards: int):
    self._bytes, self._total = 0, sum(size for _, size, _ in tasks)
    self._done, self._num_shards = num_shards - len(tasks), num_shards
    self._lock = threading.Lock()
    self._bar = tqdm.tqdm(unit=' videos', mininterval=1)
    self._show()

  def _show(self):
    self._bar.set_postfix_str(f'{self._done}/{self._num_shards} shards')

  def add(self, videos: int, size: int):
    with self._lock:
      self._bytes += size
      self._bar.total = round((self._bar.n + videos) * self._total / self._bytes)
      self._bar.update(videos)

  def finish_shard(self):
    with self._lock:
      self._done += 1
      self._show()

  def close(self):
    self._bar.close()


def _define_flags():
  flags.DEFINE_list(
    'model',
    None,
    'Runs, checkpoints or exports; predictions of several are averaged.',
    required=True,
  )
  flags.DEFINE_string(
    'input_path',
    None,
    'TFRecords, with or without '
    'labels: patterns, ranges and @lists (see the README), '
    'separated by commas.',
    required=True,
  )
  flags.DEFINE_string('output_dir', None, 'Folder of the predictions.', required=True)
  flags.DEFINE_enum('format', 'csv', _FORMATS, 'Of the files.')
  flags.DEFINE_integer('top_k', 20, 'Best classes of each video.')
  flags.DEFINE_string(
    'vocabulary',
    '',
    'CSV with Index and Name of the '
    'classes, for Parquet. Default: what the first model '
    'that knows one was trained or exported with.',
  )
  flags.DEFINE_integer('batch_size', 64, 'Videos predicted at once.')
  flags.DEFINE_enum(
    'network', 'student', ('student', 'teacher'), 'Which one of runs that have both.'
  )
  flags.DEFINE_integer('workers', _WORKERS, 'Shards predicted side by side.')
  flags.DEFINE_list(
    'features',
    [],
    'NAME:SIZE:FORMAT of each, where records '
    'store them in another way than those trained on.',
  )
  flags.DEFINE_bool(
    'skip_corrupt_records', False, 'Leave out what cannot be read, instead of stopping.'
  )


def main(_):
  try:
    predict(
      **{name: FLAGS[name].value for name in inspect.signature(predict).parameters}
    )
  except KeyboardInterrupt:
    sys.exit(
      f'Stopped. What is finished stays in {FLAGS.output_dir}; the same '
      'command goes on.'
    )


if __name__ == '__main__':
  _define_flags()
  cli.run(main)
