"""From files to batches: a `tf.data` pipeline whose order is known.

The Garden's `InputReader` parses, caches, serves (tf.data service) and
prefetches. Deviations from it: the source is ours, so that training order is a
function of (seed, epoch) and a resumed run can go on where it stopped; each
epoch holds every record once, epochs never mix in a shuffle buffer; evaluation
is in order; records are batched before they are parsed (see `reader`). Bagging
(Breiman, 1996) draws files, not records, which could not be read in a row.

B videos per replica, K frames, D features, V classes.
"""

from collections.abc import Sequence

from absl import logging
import numpy as np
from official.core import input_reader
import tensorflow as tf
import tqdm

from yt8m_distill.configs import data
from yt8m_distill.dataloaders import reader as reader_lib
from yt8m_distill.dataloaders import remote
from yt8m_distill.dataloaders import shards

_File = tuple[str, int]  # path and bytes
_BLOCK = 16  # records parsed at once for the cache
_COUNTED = 64  # files counted at once


def build(
  params: data.VideoData,
  reader: reader_lib.FrameReader,
  input_context: tf.distribute.InputContext | None = None,
  start_step: int = 0,
) -> tf.data.Dataset:
  """Returns the batches of one input pipeline.

  Training repeats for ever. Evaluation reads every record once, in order; there
  `cycle_length`, `block_length`, `shuffle_buffer_size` and `seed` mean nothing.

  Args:
    params: which files and how. `deterministic` left at None is True.
    reader: from a batch of records to a batch of examples.
    input_context: which part of the input is for this pipeline.
    start_step: batches that the job has consumed before: training goes on
      behind them. Whole epochs are passed over; where `num_examples` does not
      tell how long they are (of files of its own, of a bag), records are
      counted, as far as they were consumed. What is consumed of the epoch begun
      is read, but not parsed; with `skip_corrupt_records` all that was consumed
      since step 0 is. A tf.data service starts afresh.

  Returns:
    A dataset of ({'frames': uint8 [B, K, D], 'num_frames': int32 [B], perhaps
    'id': string [B] and 'seed': int32 [B]}, labels bool [B, V]). In training a
    video's seed is a function of its id, its file's place among all, and (seed,
    epoch); in evaluation of its id.

  Raises:
    ValueError: a field has a value that cannot be honoured, or a file is
      missing, empty or of another format.
  """
  context = input_context or tf.distribute.InputContext()
  _check(params, context, start_step, reader.with_seeds)
  paths = shards.find(params.input_path)
  far = [path for path in paths if remote.among([path])]
  if params.enable_tf_data_service and far:
    raise ValueError(
      'enable_tf_data_service is True, but its workers cannot '
      f'read through tensorflow-io, as {far[0]} must be: set it '
      'to False.'
    )
  sizes = shards.sizes(paths)
  if not params.skip_corrupt_records:
    empty = [path for path, size in zip(paths, sizes) if not size]
    if empty:
      raise ValueError(
        f'{", ".join(empty)}: empty, 0 bytes. Fetch again or '
        'remove, or set skip_corrupt_records=True.'
      )
  first = shards.first(paths, sizes)
  if first is None:
    raise ValueError(
      f'{paths[0]} and {len(paths) - 1} more files: no record '
      'can be read; all are corrupt, or not uncompressed '
      'TFRecords. Correct input_path.'
    )
  reader.check_format(*first)
  files = list(zip(paths, sizes))
  if params.bagging_seed >= 0:
    files = _bag(files, params.bagging_seed)
  source = _Source(params, files, context, start_step, reader.with_seeds)

  # Shuffling and repeating are done by `source`: is_training asks for both.
  # The Garden wants a path, but would look for files, and split what a URL may
  # have in it.
  garden = params.replace(
    input_path='records',
    is_training=False,
    deterministic=params.deterministic is not False,
  )
  if not params.cache:
    hooks = {'postprocess_fn': reader}
  else:  # Examples are kept, one by one: each epoch shuffles them anew.
    hooks = {
      'sample_fn': lambda dataset: (
        dataset.batch(_BLOCK).map(reader, num_parallel_calls=tf.data.AUTOTUNE).unbatch()
      )
    }
    if params.is_training:
      hooks['transform_and_batch_fn'] = lambda cached, _: source.epochs(cached).batch(
        context.get_per_replica_batch_size(params.global_batch_size),
        params.drop_remainder,
      )
  return input_reader.InputReader(garden, **hooks).read(
    context, dataset=source.records()
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


class _Source:
  """Serialized records in the order wanted, as (path, index, serialized).

  Shuffled epochs add `draw` where wanted, see `reader`.
  """

  def __init__(self, params, files, context, start_step, with_draws):
    self._params = params
    paths, sizes = zip(*files)
    self._files = (tf.constant(paths), tf.constant(sizes, tf.int64))
    self._num_files = len(files)
    self._retry = remote.among(paths)
    self._with_draws = with_draws
    # A tf.data service divides the work itself.
    service = params.enable_tf_data_service
    self._pipelines = 1 if service else context.num_input_pipelines
    self._id = 0 if service else context.input_pipeline_id
    self._shard_files = self._pipelines == 1 or (
      params.sharding and self._num_files >= self._pipelines
    )
    # A training stream of records is dealt behind the shuffle: the pipelines'
    # batches together are those of a single one.
    self._deal = params.is_training and not self._shard_files
    if self._deal and params.deterministic is False:
      raise ValueError(
        f'deterministic is False, but records of {self._num_files} files are '
        f'dealt out to {self._pipelines} input pipelines, which must agree '
        'on their order: set it to True, or sharding to True with a file or '
        'more for each.'
      )
    self._start_epoch, self._skip = self._start(start_step, paths)

  def _start(self, start_step: int, paths: Sequence[str]) -> tuple[int, int]:
    """The epoch to go on in, and how much of it this pipeline has consumed."""
    params = self._params
    if params.enable_tf_data_service:
      if start_step:
        logging.warning(
          'A tf.data service cannot go on where it stopped: the '
          'data order starts afresh at step %d.',
          start_step,
        )
      return 0, 0
    consumed = start_step * params.global_batch_size
    if not self._deal:
      consumed //= self._pipelines
    # What a corrupt file delivers shows only where it is read.
    if not consumed or params.skip_corrupt_records:
      return 0, consumed
    all_files = self._deal or self._pipelines == 1
    # A bag holds more or fewer records than the set.
    if params.num_examples and all_files and params.bagging_seed < 0:
      epoch, consumed = divmod(consumed, params.num_examples)
    else:
      epoch, known = 0, {}
      with tqdm.tqdm(
        desc='Counting records',
        total=len(set(paths)),
        unit=' files',
        disable=len(paths) < 2,
      ) as bar:
        while consumed >= (length := self._count(epoch, consumed, paths, known, bar)):
          epoch, consumed = epoch + 1, consumed - length
    logging.info(
      'Training goes on in epoch %d (of 0, 1, ...), behind %d records of it.',
      epoch,
      consumed,
    )
    return epoch, consumed

  def _count(
    self,
    epoch: int,
    enough: int,
    paths: Sequence[str],
    known: dict[str, int],
    bar: tqdm.tqdm,
  ) -> int:
    """Counts this pipeline's records of an epoch, up to more than `enough`.

    Files are counted only when they are reached, since that may mean to read
    them; `known` keeps what each holds.
    """
    order = self._order(self._seed(tf.constant(epoch, tf.int64)))
    if self._params.cache:
      order = tf.range(self._num_files)
    share, total = self._share(order).numpy(), 0
    for start in range(0, len(share), _COUNTED):
      named = [paths[place] for place in share[start : start + _COUNTED]]
      new = sorted(set(named) - known.keys())
      known.update(zip(new, shards.count_by_file(new)))
      bar.update(len(new))
      total += sum(known[path] for path in named)
      if total > enough:
        break
    return total

  def records(self) -> tf.data.Dataset:
    """All epochs; a single one for evaluation, or to be cached."""
    params = self._params
    if params.is_training and not params.cache:
      return self.epochs(None)
    return self._read(
      tf.range(self._num_files), params.cycle_length if params.is_training else 1
    )

  def epochs(self, cached: tf.data.Dataset | None) -> tf.data.Dataset:
    """Shuffled epochs without end, of examples `cached` or of the files."""
    params = self._params

    def epoch(number):
      seed = self._seed(number)
      if params.enable_tf_data_service:  # Each worker its own order.
        seed = tf.random.uniform([2], maxval=tf.int64.max, dtype=tf.int64)
      dataset = cached or self._read(
        self._order(seed), params.cycle_length, seed if self._with_draws else None
      )
      return dataset.shuffle(
        params.shuffle_buffer_size,
        seed=tf.random.stateless_uniform([], seed, maxval=tf.int64.max, dtype=tf.int64),
        reshuffle_each_iteration=False,
      )

    numbers = tf.data.Dataset.range(self._start_epoch, tf.int64.max)
    stream = numbers.flat_map(epoch).skip(self._skip)
    return stream.shard(self._pipelines, self._id) if self._deal else stream

  def _seed(self, epoch: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.constant(self._params.seed, tf.int64), epoch])

  def _order(self, seed: tf.Tensor) -> tf.Tensor:
    """All files in the order of the epoch of this seed, int32 [files]."""
    return tf.random.experimental.stateless_shuffle(tf.range(self._num_files), seed)

  def _share(self, order: tf.Tensor) -> tf.Tensor:
    """Those files of an order that this pipeline reads."""
    return order[self._id :: self._pipelines] if self._shard_files else order

  def _read(
    self, order: tf.Tensor, cycle_length: int, seed: tf.Tensor | None = None
  ) -> tf.data.Dataset:
    """This pipeline's share of one pass.

    Args:
      order: int32 [files], of the files.
      cycle_length: files read side by side.
      seed: of the draws, int64 [2]; None for none.

    Returns:
      A dataset as records() returns it.
    """
    order = self._share(order)
    paths, sizes = (tf.gather(values, order) for values in self._files)
    params = self._params

    def read(path, size, place):
      # Where records are dealt, every pipeline reads all files.
      records = shards.read(
        path,
        size,
        params.skip_corrupt_records,
        self._retry,
        self._shard_files or self._id == 0,
      )
      if seed is None:
        return records
      # By place, since a bag may hold a file twice.
      draw = tf.strings.reduce_join(
        tf.strings.as_string([*tf.unstack(seed), tf.cast(place, tf.int64)]),
        separator=' ',
      )
      return records.map(lambda *record: (*record, draw))

    files = tf.data.Dataset.from_tensor_slices((paths, sizes, order))
    dataset = files.interleave(
      read,
      cycle_length=cycle_length,
      block_length=params.block_length,
      num_parallel_calls=cycle_length,
      deterministic=params.deterministic is not False,
    )
    if not self._shard_files and not self._deal:
      dataset = dataset.shard(self._pipelines, self._id)
    return dataset


def _bag(files: Sequence[_File], seed: int) -> list[_File]:
  """As many files, drawn with replacement; the same on every worker."""
  drawn = np.random.default_rng(seed).integers(len(files), size=len(files))
  distinct = len(np.unique(drawn))
  logging.info(
    'Bag %d: %d files, %d of the %d there are (%.1f %%).',
    seed,
    len(drawn),
    distinct,
    len(files),
    100 * distinct / len(files),
  )
  return [files[i] for i in np.sort(drawn)]
