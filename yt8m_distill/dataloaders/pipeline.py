"""The input pipeline: from TFRecord files to batches, with tf.data.

  files --interleave--> records --shuffle--> batch --> FrameReader --> prefetch

- Training order is a function of (seed, epoch), so a resumed run continues with the
  batch at which it stopped. Each epoch holds every record once; epochs do not mix in
  the shuffle buffer.
- Evaluation reads every record once, in order.
- Records are batched before they are parsed: one call per batch costs less than one
  per record (see `reader`).
- Bagging (Breiman, 1996) draws files instead of records, because single records of a
  file cannot be read sequentially.

B videos per replica, K frames, D features, V classes.
"""

from collections.abc import Sequence
import secrets
from typing import NamedTuple

from absl import logging
import numpy as np
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.dataloaders import reader as reader_lib
from yt8m_distill.dataloaders import remote
from yt8m_distill.dataloaders import shards
from yt8m_distill.utils import progress_bar

_CACHE_PARSE_BATCH = 16  # records parsed at once for the cache
_CHECK_BATCH = 16  # records checked at once where malformed ones are skipped
_COUNT_BATCH = 64  # files whose records are counted at once
# Names the tf.data service jobs of this process, so that a restarted trainer does not
# continue the job of its predecessor.
_PROCESS_ID = secrets.token_hex(4)


class _File(NamedTuple):
  """A TFRecord file and its size in bytes."""

  path: str
  size: int


def build(
  params: data.VideoData,
  reader: reader_lib.FrameReader,
  input_context: tf.distribute.InputContext | None = None,
  start_step: int = 0,
) -> tf.data.Dataset:
  """Builds the batches of one input pipeline.

  Training repeats without end. Evaluation reads every record once, in order, and
  ignores `cycle_length`, `block_length`, `shuffle_buffer_size` and `seed`.

  Args:
    params: which files to read and how. `deterministic=None` means True.
    reader: turns a batch of records into a batch of examples.
    input_context: the part of the input that belongs to this pipeline.
    start_step: batches that the job has already consumed; training continues after
      them. Whole epochs are skipped without reading them. Where `num_examples` does
      not tell their length (this pipeline reads its own files, or a bag), consumed
      records are counted. Consumed records of the current epoch are read but not
      parsed; with `skip_corrupt_records` or `skip_malformed_records`, all records since
      step 0 are. A tf.data service starts over.

  Returns:
    A dataset of (inputs, labels), as the reader returns them: `inputs` holds 'frames'
    uint8 [B, K, D], 'num_frames' int32 [B] and what else the reader adds; `labels` is
    bool [B, V]. In training, a video's seed is a function of
    its id, the position of its file and (seed, epoch); in evaluation, of its id.

  Raises:
    ValueError: a field has an invalid value, or a file is missing, empty or of
      another format.
  """
  context = input_context or tf.distribute.InputContext()
  _check(params, context, start_step, reader.with_seeds)
  source = _RecordSource(
    params, _find_files(params, reader), context, start_step, reader
  )
  # The workers of a tf.data service cannot run Python.
  read = reader if params.enable_tf_data_service else reader.read_explained
  if params.cache:
    # Examples are cached one by one, so that each epoch can shuffle them.
    examples = (
      source.one_pass()
      .batch(_CACHE_PARSE_BATCH)
      .map(read, num_parallel_calls=tf.data.AUTOTUNE)
      .unbatch()
      .cache()
    )
    if params.is_training:
      examples = source.epochs(examples)
  else:
    examples = source.epochs() if params.is_training else source.one_pass()

  distribute_records = (
    params.enable_shared_tf_data_service_between_parallel_trainers
    and params.apply_tf_data_service_before_batching
  )
  if params.enable_tf_data_service and distribute_records:
    examples = _distribute(examples, params)
  batches = examples.batch(
    context.get_per_replica_batch_size(params.global_batch_size), params.drop_remainder
  )
  if not params.cache:
    batches = batches.map(read, num_parallel_calls=tf.data.AUTOTUNE)
  if params.enable_tf_data_service and not distribute_records:
    batches = _distribute(batches, params)
  return batches.with_options(_options(params)).prefetch(
    params.prefetch_buffer_size or tf.data.AUTOTUNE
  )


def _check(params, context, start_step, with_seeds):
  """Raises a ValueError where fields do not fit the other arguments of build()."""
  replicas = context.num_replicas_in_sync
  if params.global_batch_size % replicas:
    raise ValueError(
      f'global_batch_size is {params.global_batch_size}: {replicas} replicas cannot '
      f'share it. Set it to a multiple of {replicas}.'
    )
  if start_step < 0 or (start_step and not params.is_training):
    raise ValueError(
      f'start_step is {start_step}: it must be at least 0, and 0 in evaluation.'
    )
  if params.is_training and params.cache and with_seeds:
    raise ValueError(
      'cache is True: the network draws frames or dropout again each time it sees a '
      'video, but a cache would keep the first draw. Set it to False in train_data.'
    )
  if not (params.is_training or params.sharding or context.num_input_pipelines == 1):
    raise ValueError(
      'sharding is False: each of several input pipelines would evaluate every '
      'record. Set it to True in validation_data.'
    )


def _find_files(params: data.VideoData, reader: reader_lib.FrameReader) -> list[_File]:
  """Returns the files to read, sorted, after a look at the first record.

  Raises:
    ValueError: a file is missing, empty or of another format.
  """
  paths = shards.find(params.input_path)
  remote_paths = [path for path in paths if remote.needs_tensorflow_io(path)]
  if params.enable_tf_data_service and remote_paths:
    raise ValueError(
      'enable_tf_data_service is True: the workers of a tf.data service cannot read '
      f'{remote_paths[0]}, which needs tensorflow-io. Set it to False, or copy the '
      'files to a disk.'
    )
  sizes = shards.sizes(paths)
  empty = [path for path, size in zip(paths, sizes) if not size]
  if empty and not params.skip_corrupt_records:
    raise ValueError(
      f'{", ".join(empty)}: the file is empty. Fetch it again, remove it, or set '
      'skip_corrupt_records to True.'
    )
  record = first = shards.first_record(paths, sizes)
  if record and params.skip_malformed_records:
    record = shards.first_record(
      paths, sizes, lambda *record: not reader.explain(*record)
    )
  if record is None:
    reason = (
      reader.explain(*first) if first else shards.unreadable(paths[0], 0, sizes[0])
    )
    raise ValueError(
      f'input_path is {params.input_path!r}: none of its {len(paths)} files holds a '
      f'readable record. {reason}'
    )
  reader.check(*record)
  files = [_File(path, size) for path, size in zip(paths, sizes)]
  return files if params.bagging_seed < 0 else _bootstrap(files, params.bagging_seed)


def _bootstrap(files: Sequence[_File], seed: int) -> list[_File]:
  """Draws as many files, with replacement; the same on every worker."""
  drawn = np.random.default_rng(seed).integers(len(files), size=len(files))
  distinct = len(np.unique(drawn))
  logging.info(
    'bagging_seed %d draws %d files, %d of them distinct (%.1f%%).',
    seed,
    len(drawn),
    distinct,
    100 * distinct / len(files),
  )
  return [files[i] for i in np.sort(drawn)]


def _distribute(dataset: tf.data.Dataset, params: data.VideoData) -> tf.data.Dataset:
  """Runs everything before this point on a tf.data service."""
  service = tf.data.experimental.service
  job_name, cache = params.tf_data_service_job_name, None
  if params.enable_shared_tf_data_service_between_parallel_trainers:
    cache = service.CrossTrainerCache(trainer_id=params.trainer_id)
  else:  # Batches of another size are another job.
    job_name = f'{job_name}_bs{params.global_batch_size}'
  return dataset.apply(
    service.distribute(
      processing_mode=service.ShardingPolicy.OFF,
      service=params.tf_data_service_address,
      job_name=f'{job_name}_{_PROCESS_ID}',
      cross_trainer_cache=cache,
    )
  )


def _options(params: data.VideoData) -> tf.data.Options:
  options = tf.data.Options()
  options.deterministic = params.deterministic is not False
  if params.autotune_algorithm:
    options.autotune.autotune_algorithm = tf.data.experimental.AutotuneAlgorithm[
      params.autotune_algorithm
    ]
  if params.ram_budget:
    options.autotune.ram_budget = params.ram_budget << 30  # GiB to bytes
  return options


class _RecordSource:
  """Serialized records in reading order, as (path, index, serialized).

  Shuffled epochs add the record's epoch key if the reader derives seeds from it.

  How records are divided among pipelines:
  - by file, if there are at least as many files as pipelines and `sharding` is True;
  - otherwise record by record. In training this happens after the shuffle, so that
    the pipelines' batches together are those of a single pipeline.
  """

  def __init__(
    self,
    params: data.VideoData,
    files: Sequence[_File],
    context: tf.distribute.InputContext,
    start_step: int,
    reader: reader_lib.FrameReader,
  ):
    self._params = params
    self._reader = reader
    self._paths, sizes = zip(*files)
    self._file_tensors = tf.constant(self._paths), tf.constant(sizes, tf.int64)
    self._retry = any(map(remote.needs_tensorflow_io, self._paths))
    # A tf.data service divides the work itself.
    service = params.enable_tf_data_service
    self._num_pipelines = 1 if service else context.num_input_pipelines
    self._pipeline_id = 0 if service else context.input_pipeline_id
    self._shard_files = self._num_pipelines == 1 or (
      params.sharding and len(files) >= self._num_pipelines
    )
    self._shard_shuffled = params.is_training and not self._shard_files
    if self._shard_shuffled and params.deterministic is False:
      raise ValueError(
        f'deterministic is False: {self._num_pipelines} input pipelines that divide '
        f'the records of {len(files)} files must read them in the same order. Set it '
        'to True, or set sharding to True and give each pipeline at least one file.'
      )
    self._start_epoch, self._skip = self._resume_position(start_step)

  def one_pass(self) -> tf.data.Dataset:
    """Returns one pass over the files, in sorted order."""
    cycle_length = self._params.cycle_length if self._params.is_training else 1
    return self._read(tf.range(len(self._paths)), cycle_length)

  def epochs(self, cached: tf.data.Dataset | None = None) -> tf.data.Dataset:
    """Returns shuffled epochs without end.

    Args:
      cached: the examples of one pass; if None, each epoch reads the files.
    """
    params = self._params

    def epoch(number):
      seed = self._epoch_seed(number)
      if params.enable_tf_data_service:  # Each worker shuffles differently.
        seed = tf.random.uniform([2], maxval=tf.int64.max, dtype=tf.int64)
      dataset = cached or self._read(
        self._file_order(seed),
        params.cycle_length,
        seed if self._reader.with_seeds else None,
      )
      return dataset.shuffle(
        params.shuffle_buffer_size,
        seed=tf.random.stateless_uniform([], seed, maxval=tf.int64.max, dtype=tf.int64),
        reshuffle_each_iteration=False,
      )

    numbers = tf.data.Dataset.range(self._start_epoch, tf.int64.max)
    records = numbers.flat_map(epoch).skip(self._skip)
    if self._shard_shuffled:
      records = records.shard(self._num_pipelines, self._pipeline_id)
    return records

  def _resume_position(self, start_step: int) -> tuple[int, int]:
    """Returns the epoch to resume in and how many of its records to skip."""
    params = self._params
    if params.enable_tf_data_service:
      if start_step:
        logging.warning(
          'A tf.data service cannot resume: the data order starts over at step %d.',
          start_step,
        )
      return 0, 0
    consumed = start_step * params.global_batch_size
    if not self._shard_shuffled:
      consumed //= self._num_pipelines
    # Only reading shows how many records a file delivers.
    skips = params.skip_corrupt_records or params.skip_malformed_records
    if not consumed or skips:
      return 0, consumed
    reads_all_files = self._shard_shuffled or self._num_pipelines == 1
    # A bag does not hold num_examples records.
    if params.num_examples and reads_all_files and params.bagging_seed < 0:
      epoch, consumed = divmod(consumed, params.num_examples)
    else:
      epoch, counts = 0, dict[str, int]()
      files = len(set(self._paths))
      with progress_bar.start('Counting records', files, ' files') as bar:
        while consumed >= (size := self._epoch_size(epoch, consumed, counts, bar)):
          epoch, consumed = epoch + 1, consumed - size
    logging.info(
      'Training resumes in epoch %d (counted from 0), after %d of its records.',
      epoch,
      consumed,
    )
    return epoch, consumed

  def _epoch_size(
    self, epoch: int, limit: int, counts: dict[str, int], bar: progress_bar.Bar
  ) -> int:
    """Counts this pipeline's records of an epoch, stopping once above `limit`.

    Counting may mean reading the file, so only files that are reached are counted,
    and `counts` keeps the number of records of each.
    """
    order = self._file_order(self._epoch_seed(tf.constant(epoch, tf.int64)))
    if self._params.cache:
      order = tf.range(len(self._paths))
    order, total = self._own_files(order).numpy(), 0
    for start in range(0, len(order), _COUNT_BATCH):
      paths = [self._paths[i] for i in order[start : start + _COUNT_BATCH]]
      new = sorted(set(paths) - counts.keys())
      counts.update(zip(new, shards.count_by_file(new)))
      bar.update(len(new))
      total += sum(counts[path] for path in paths)
      if total > limit:
        break
    return total

  def _epoch_seed(self, epoch: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.constant(self._params.seed, tf.int64), epoch])

  def _file_order(self, epoch_seed: tf.Tensor) -> tf.Tensor:
    """Shuffles the indices of all files, int32 [files]."""
    return tf.random.experimental.stateless_shuffle(
      tf.range(len(self._paths)), epoch_seed
    )

  def _own_files(self, order: tf.Tensor) -> tf.Tensor:
    """Selects the files that this pipeline reads."""
    return (
      order[self._pipeline_id :: self._num_pipelines] if self._shard_files else order
    )

  def _read(
    self, order: tf.Tensor, cycle_length: int, epoch_seed: tf.Tensor | None = None
  ) -> tf.data.Dataset:
    """Reads this pipeline's part of one pass.

    Args:
      order: int32 [files], indices of the files.
      cycle_length: files to read at the same time.
      epoch_seed: int64 [2], for epoch keys; None adds none.
    """
    params = self._params
    order = self._own_files(order)
    paths, sizes = (tf.gather(values, order) for values in self._file_tensors)
    # Pipelines that divide records all read every file; one of them counts.
    count_skipped = self._shard_files or self._pipeline_id == 0

    def valid(*batch):
      is_valid = self._reader.find_valid(*batch, count_skipped)
      return tuple(tf.boolean_mask(values, is_valid) for values in batch)

    def read(path, size, index):
      records = shards.read(
        path,
        size,
        params.skip_corrupt_records,
        self._retry,
        count_skipped,
      )
      if params.skip_malformed_records:
        records = records.batch(_CHECK_BATCH).map(valid).unbatch()
      if epoch_seed is None:
        return records
      # The index tells apart the copies of a file in a bag.
      key = tf.strings.reduce_join(
        tf.strings.as_string([*tf.unstack(epoch_seed), tf.cast(index, tf.int64)]),
        separator=' ',
      )
      return records.map(lambda *record: (*record, key))

    records = tf.data.Dataset.from_tensor_slices((paths, sizes, order)).interleave(
      read,
      cycle_length=cycle_length,
      block_length=params.block_length,
      num_parallel_calls=cycle_length,
      deterministic=params.deterministic is not False,
    )
    if not self._shard_files and not self._shard_shuffled:
      records = records.shard(self._num_pipelines, self._pipeline_id)
    return records
