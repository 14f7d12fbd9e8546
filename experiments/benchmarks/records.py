"""Records to read, and how fast and at what cost they come in.

What the benchmarks of input share.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import itertools
import os
import tempfile
import time

import numpy as np
import psutil
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.configs import model
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import reader as reader_lib

FEATURES = model.VideoModel().features
MAX_FRAMES = model.VideoModel().max_frames
CLASSES = model.VideoModel().num_classes
EVERY_N = 10
SELECTIONS = {
  'teacher': model.FrameSelection(),
  'student': model.FrameSelection(
    type='uniform', uniform=model.UniformFrames(every_n=EVERY_N)
  ),
}
_DISTINCT = 64  # records; making one takes longer than reading 20


@dataclasses.dataclass(frozen=True)
class Cost:
  """What videos cost that came in.

  Attributes:
    rate: videos/s.
    cpu: CPU milliseconds per video, of this process.
    thread: those of its busiest thread alone.
    helpers: those of other processes that help.
  """

  rate: float
  cpu: float
  thread: float
  helpers: float


def write(folder: str, videos: int, num_shards: int):
  """Writes random frame-level records of 120 to 300 frames, a few repeatedly.

  Args:
    folder: to write to.
    videos: rounded up to a multiple of `num_shards`.
    num_shards: files.
  """
  rng = np.random.default_rng(0)
  distinct = itertools.cycle([_record(rng) for _ in range(_DISTINCT)])
  for shard in range(num_shards):
    path = os.path.join(folder, f'train{shard:04}.tfrecord')
    with tf.io.TFRecordWriter(path) as writer:
      for _ in range(-(-videos // num_shards)):
        writer.write(next(distinct))


def _record(rng: np.random.Generator) -> bytes:
  frames = rng.integers(120, 301)
  record = tf.train.SequenceExample()
  labels = record.context.feature['labels'].int64_list.value
  labels.extend(rng.integers(CLASSES, size=3))
  for feature in FEATURES:
    added = record.feature_lists.feature_list[feature.name].feature
    for _ in range(frames):
      added.add().bytes_list.value.append(rng.bytes(feature.size))
  return record.SerializeToString()


@contextlib.contextmanager
def folder_and_path(
  input_path: str, videos: int, num_shards: int
) -> Iterator[Sequence[str]]:
  """Yields a temporary folder, and `input_path` or random records in it."""
  with tempfile.TemporaryDirectory() as folder:
    if not input_path:
      write(folder, videos, num_shards)
      input_path = os.path.join(folder, '*.tfrecord')
    yield folder, input_path


def training_set(batch_size: int, **fields) -> data.VideoData:
  """Returns records to train on; other fields than `fields` by default."""
  return data.VideoData(is_training=True, global_batch_size=batch_size, **fields)


def batches(train_data: data.VideoData, network: str) -> tf.data.Dataset:
  """Returns what a network of SELECTIONS trains on."""
  return pipeline.build(
    train_data,
    reader_lib.FrameReader(FEATURES, MAX_FRAMES, CLASSES, SELECTIONS[network]),
    tf.distribute.InputContext(),
  )


def measure(
  dataset: tf.data.Dataset,
  batch_size: int,
  videos: int,
  helpers: Sequence[int] = (),
  warm_up: int = 4,
) -> Cost:
  """Reads at least so many videos, behind batches that do not count.

  Args:
    dataset: batches without end.
    batch_size: of the dataset.
    videos: to time.
    helpers: ids of other processes that do part of the work.
    warm_up: batches before.
  """
  steps = -(-videos // batch_size)
  others = [psutil.Process(pid) for pid in helpers]
  iterator = iter(dataset)
  for _ in range(warm_up):
    next(iterator)
  threads, helped = _thread_seconds(), sum(map(_seconds, others))
  cpu, start = time.process_time(), time.perf_counter()
  for _ in range(steps):
    next(iterator)
  seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
  busiest = max(
    spent - threads.get(thread, 0) for thread, spent in _thread_seconds().items()
  )
  helped = sum(map(_seconds, others)) - helped
  read = steps * batch_size
  return Cost(
    read / seconds, *(1000 * spent / read for spent in (cpu, busiest, helped))
  )


def _seconds(process: psutil.Process) -> float:
  times = process.cpu_times()
  return times.user + times.system


def _thread_seconds() -> dict[int, float]:
  return {
    thread.id: thread.user_time + thread.system_time
    for thread in psutil.Process().threads()
  }


def peak_mib(pid: int | None = None) -> float:
  """Returns the peak memory of a process, by default of this one.

  Not as getrusage, which counts what the parent held at the start.
  """
  with open(f'/proc/{pid or "self"}/status', encoding='utf-8') as status:
    return (
      next(int(line.split()[1]) for line in status if line.startswith('VmHWM')) / 1024
    )
