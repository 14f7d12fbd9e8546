"""Rewrites the records of shards, in parallel: the frame of commands that do so.

Output files keep the names of their sources and appear only when complete. After an
interruption, the same job writes the files that are missing; a JSON file in the output
folder records its settings.
"""

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import functools
import os
from typing import Any

from absl import flags
import tensorflow as tf

from yt8m_distill.dataloaders import record_errors
from yt8m_distill.dataloaders import remote
from yt8m_distill.dataloaders import shard_batches
from yt8m_distill.dataloaders import shards
from yt8m_distill.dataloaders import skip_flags
from yt8m_distill.dataloaders import taught_records
from yt8m_distill.dataloaders import thinned_records
from yt8m_distill.utils import files
from yt8m_distill.utils import parallel
from yt8m_distill.utils import ray_jobs

_BATCH = 16  # records between two updates of the progress bar

# From a batch of records to, for each, the serialized records that replace it, and a
# number to add up over each shard.
Change = Callable[
  [Sequence[shard_batches.Record]], Iterable[tuple[Sequence[bytes], int]]
]
# Keys of records that were rewritten before, and what was done to them.
_REWRITTEN = {thinned_records.EVERY_N: 'thinned', taught_records.TEACHER: 'taught'}


def parse(serialized: bytes, name: str) -> tuple[tf.train.SequenceExample, int]:
  """Parses a full frame-level record.

  Args:
    serialized: the record.
    name: name of the record in error messages.

  Returns:
    The record, and the number of its frames.

  Raises:
    RecordError: the record is not frame-level, was thinned or taught, or its features
      differ in length.
  """
  video = record_errors.parse(name, serialized)
  lists = video.feature_lists.feature_list
  for key, done in _REWRITTEN.items():
    if key in video.context.feature:
      raise record_errors.RecordError(
        f'{name}: its context has {key}, so it was {done} before. Set input_path to '
        'the full records.'
      )
  if not lists:
    raise record_errors.RecordError(
      f'{name}: no frame-level features. Set input_path to frame-level records.'
    )
  lengths = {key: len(lists[key].feature) for key in sorted(lists)}
  num_frames = max(lengths.values())
  if not num_frames or set(lengths.values()) != {num_frames}:
    raise record_errors.RecordError(
      f'{name}: its features have {lengths} frames, but must have the same number, at '
      'least 1. Remove the record.'
    )
  return video, num_frames


def serialize(record: tf.train.SequenceExample) -> bytes:
  """Returns the bytes of a record, the same ones in every process."""
  # Otherwise the order of the keys would differ between processes.
  return record.SerializeToString(deterministic=True)


def _rewrite_shard(
  change: Change,
  skip_malformed: bool,
  batches: Iterator[shard_batches.Batch],
  partial: str,
) -> Generator[int, None, tuple[int, int]]:
  """Writes one shard, whose size is in bytes; see `parallel.Writer`.

  Returns:
    The sum of the numbers that `change` returned, and how many records were skipped.
  """

  def replace(batch):
    return list(change(shard_batches.records_of(batch)))

  remote.ensure_file_system(partial)  # This process may not have it yet.
  source, written, total, skipped = '', 0, 0, 0
  with tf.io.TFRecordWriter(partial) as writer:
    for batch in batches:
      source = batch[0].numpy()[0].decode()
      replaced, left_out = shard_batches.apply(replace, batch, skip_malformed)
      skipped += left_out
      for replacements, number in replaced or ():
        for replacement in replacements:
          writer.write(replacement)
        written += len(replacements)
        total += number
      yield int(tf.reduce_sum(tf.strings.length(batch[2])))
  if source and not written:
    raise ValueError(
      f'{source}: no record is left of it, and training refuses empty files. Leave '
      'the file out of input_path.'
    )
  return total, skipped


def _outputs(paths: Sequence[str], output_dir: str) -> list[str]:
  """Returns the path of the new file of each shard."""
  sources: dict[str, str] = {}
  for path in paths:
    other = sources.setdefault(remote.file_name(path), path)
    if other != path:
      raise ValueError(
        f'{other} and {path} have the same name: write them into different folders.'
      )
  return [os.path.join(output_dir, name) for name in sources]


def rewrite(
  change: Change,
  input_path: str,
  output_dir: str,
  record: str,
  settings: dict[str, Any],
  description: str,
  skip_corrupt_records: bool = False,
  skip_malformed_records: bool = False,
  workers: int | None = None,
  threads: bool = False,
  batch_size: int = _BATCH,
  ray_address: str | None = None,
) -> tuple[list[str], list[parallel.Shard]]:
  """Rewrites the shards that are not rewritten yet.

  Args:
    change: see Change; must be picklable unless `threads`, and on a Ray cluster.
    input_path: see `file_patterns`.
    output_dir: folder for the new shards; created if missing.
    record: name of the JSON file that records the job.
    settings: what else the new records depend on.
    description: title of the progress bar.
    skip_corrupt_records: log and skip records that fail their checksum.
    skip_malformed_records: log and skip records that are invalid otherwise.
    workers: see `parallel.write_shards`.
    threads: see `parallel.write_shards`.
    batch_size: records that `change` gets at once; fewer at the end of a shard.
    ray_address: see `parallel.write_shards`.

  Returns:
    The paths of all new shards, in the order of their sources; and the shards that were
    written now, whose `returned` are the sums of the numbers that `change` returned.

  Raises:
    ValueError: a record is invalid, nothing is left of a shard, or the folder belongs
      to another job.
  """
  paths = shards.find(input_path)
  sizes = shards.sizes(paths)
  remote.ensure_file_system(output_dir)
  outputs = _outputs(paths, output_dir)
  files.claim_folder(
    os.path.join(output_dir, record),
    {
      'input_path': input_path,
      **settings,
      'skip_corrupt_records': skip_corrupt_records,
      **skip_flags.given(skip_malformed_records=skip_malformed_records),
    },
    outputs,
  )
  written = parallel.write_shards(
    functools.partial(_rewrite_shard, change, skip_malformed_records),
    list(map(parallel.Shard, paths, sizes, outputs)),
    description,
    'B',
    workers,
    threads,
    open=functools.partial(shard_batches.of_shards, batch_size, skip_corrupt_records),
    ray_address=ray_address,
  )
  skip_flags.report(sum(shard.returned[1] for shard in written))
  return outputs, [s._replace(returned=s.returned[0]) for s in written]


def define_flags():
  """Defines the flags of all commands that rewrite records."""
  # Not on import, because other commands define flags of the same names.
  flags.DEFINE_string(
    'input_path',
    None,
    'Frame-level TFRecord files: paths, patterns, ranges or @lists, separated by '
    'commas; see yt8m_distill/dataloaders/README.md.',
    required=True,
  )
  flags.DEFINE_string(
    'output_dir',
    None,
    'Folder for the new shards; created if missing.',
    required=True,
  )
  skip_flags.define_flags()
  ray_jobs.define_flags()
