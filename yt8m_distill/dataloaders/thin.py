r"""Thins frame-level records to every N-th frame, for a student that sees only those.

  yt8m-distill thin --input_path='train*.tfrecord' \
    --output_dir=thinned/train --every_n=10

The student computes the same numbers from thinned records as from full ones, in
training and evaluation, and reads about an N-th of the bytes. Only frames are removed;
`thinned_records` describes what is added. Output files keep their names and appear only
when complete. After an interruption, the same command writes the files that are
missing; thin.json in the output folder records its settings.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import functools
import os
from typing import NamedTuple

from absl import flags
from google.protobuf import message as protobuf
import tensorflow as tf

from yt8m_distill.dataloaders import remote
from yt8m_distill.dataloaders import shard_batches
from yt8m_distill.dataloaders import shards
from yt8m_distill.dataloaders import thinned_records
from yt8m_distill.utils import cli
from yt8m_distill.utils import files
from yt8m_distill.utils import parallel

_BATCH = 16  # records between two updates of the progress bar


class _Settings(NamedTuple):
  """How to thin; see the flags."""

  every_n: int
  max_frames: int
  skip_corrupt_records: bool


def thin_record(serialized: bytes, every_n: int, max_frames: int, name: str) -> bytes:
  """Keeps frames 0, N, 2N, ... below max_frames.

  Args:
    serialized: a frame-level SequenceExample.
    every_n: N.
    max_frames: task.model.max_frames of the networks that will read the record.
    name: name of the record in error messages.

  Returns:
    The thinned SequenceExample, serialized.

  Raises:
    ValueError: the record is not frame-level, or was thinned before.
  """
  try:
    video = tf.train.SequenceExample.FromString(serialized)
  except protobuf.DecodeError as error:
    raise ValueError(
      f'{name}: not a tf.train.SequenceExample. Set input_path to frame-level '
      'YouTube-8M records.'
    ) from error
  context, lists = video.context.feature, video.feature_lists.feature_list
  if thinned_records.EVERY_N in context:
    raise ValueError(
      f'{name}: its context has {thinned_records.EVERY_N}, so it was thinned before. '
      'Set input_path to the full records.'
    )
  if not lists:
    raise ValueError(
      f'{name}: no frame-level features. Set input_path to frame-level records.'
    )
  lengths = {key: len(lists[key].feature) for key in sorted(lists)}
  num_frames = max(lengths.values())
  if not num_frames or set(lengths.values()) != {num_frames}:
    raise ValueError(
      f'{name}: its features have {lengths} frames, but must have the same number, at '
      'least 1. Remove the record.'
    )
  for values in lists.values():
    kept = values.feature[:max_frames:every_n]
    del values.feature[:]
    values.feature.extend(kept)
  for key, value in (
    (thinned_records.EVERY_N, every_n),
    (thinned_records.NUM_FRAMES, num_frames),
  ):
    context[key].int64_list.value.append(value)
  # Otherwise the order of the keys would differ between processes.
  return video.SerializeToString(deterministic=True)


def _thin_shard(
  settings: _Settings, batches: Iterator[shard_batches.Batch], partial: str
) -> Iterator[int]:
  """Writes one shard, whose size is in bytes; see `parallel.Writer`."""
  remote.ensure_file_system(partial)  # This process may not have it yet.
  with tf.io.TFRecordWriter(partial) as writer:
    for batch in batches:
      paths, indices, block = (values.numpy() for values in batch)
      for path, index, serialized in zip(paths, indices, block):
        writer.write(
          thin_record(
            serialized,
            settings.every_n,
            settings.max_frames,
            f'{path.decode()}, record {index}',
          )
        )
      yield sum(map(len, block))


def _outputs(paths: Sequence[str], output_dir: str) -> list[str]:
  """Returns the path of the thinned file of each shard."""
  sources: dict[str, str] = {}
  for path in paths:
    other = sources.setdefault(remote.file_name(path), path)
    if other != path:
      raise ValueError(
        f'{other} and {path} have the same name: thin them into different folders.'
      )
  return [os.path.join(output_dir, name) for name in sources]


def thin(
  input_path: str,
  output_dir: str,
  every_n: int = 10,
  max_frames: int = 300,
  skip_corrupt_records: bool = False,
  processes: int | None = None,
) -> list[str]:
  """Thins the shards that are not thinned yet; prints the result.

  Args:
    input_path: see `file_patterns`.
    output_dir: folder for the thinned shards; created if missing.
    every_n: N.
    max_frames: task.model.max_frames of the networks that will read the records.
    skip_corrupt_records: log and skip records that fail their checksum.
    processes: number of worker processes; by default one per core.

  Returns:
    The paths of all shards, in the order of their sources.

  Raises:
    ValueError: an argument or a record is invalid, or the folder belongs to another
      job.
  """
  if not 2 <= every_n <= max_frames:
    raise ValueError(
      f'every_n is {every_n}: it must be between 2 and max_frames, which is '
      f'{max_frames}.'
    )
  paths = shards.find(input_path)
  sizes = shards.sizes(paths)
  remote.ensure_file_system(output_dir)
  outputs = _outputs(paths, output_dir)
  settings = _Settings(every_n, max_frames, skip_corrupt_records)
  files.claim_folder(
    os.path.join(output_dir, 'thin.json'),
    {'input_path': input_path, **settings._asdict()},
    outputs,
  )
  written = parallel.write_shards(
    functools.partial(_thin_shard, settings),
    list(map(parallel.Shard, paths, sizes, outputs)),
    'Thinning',
    'B',
    processes,
    open=functools.partial(shard_batches.of_shards, _BATCH, skip_corrupt_records),
  )
  size = sum(shards.sizes([shard.output for shard in written]))
  print(parallel.summary(output_dir, len(outputs), len(written), size, 'byte'))
  return outputs


def _define_flags():
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
    'Folder for the thinned shards; created if missing.',
    required=True,
  )
  flags.DEFINE_integer('every_n', 10, 'Keep frames 0, N, 2N, ...')
  flags.DEFINE_integer(
    'max_frames',
    300,
    'task.model.max_frames of the networks that will read the records.',
  )
  flags.DEFINE_bool(
    'skip_corrupt_records', False, 'Skip corrupt records instead of stopping.'
  )


def main(_):
  """Runs the command."""
  # Nothing runs on an accelerator, and claiming it could block other processes.
  os.environ['CUDA_VISIBLE_DEVICES'] = '-1'
  values = flags.FLAGS
  thin(
    values.input_path,
    values.output_dir,
    values.every_n,
    values.max_frames,
    values.skip_corrupt_records,
  )


if __name__ == '__main__':
  _define_flags()
  cli.run(main)
