r"""Thins frame-level records to every N-th frame, for a student that sees only those.

  yt8m-distill thin --input_path='train*.tfrecord' \
    --output_dir=thinned/train --every_n=10

The student computes the same numbers from thinned records as from full ones, in
training and evaluation, and reads about an N-th of the bytes. Only frames are removed;
`thinned_records` describes what is added. Output files keep their names and appear only
when complete. After an interruption, the same command writes the files that are
missing; thin.json in the output folder records its settings.
"""

from collections.abc import Sequence
import functools

from absl import flags
import tensorflow as tf

from yt8m_distill.dataloaders import rewrite
from yt8m_distill.dataloaders import shard_batches
from yt8m_distill.dataloaders import shards
from yt8m_distill.dataloaders import thinned_records
from yt8m_distill.utils import cli
from yt8m_distill.utils import parallel
from yt8m_distill.utils import startup


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
  video, num_frames = rewrite.parse(serialized, name)
  thin_video(video, num_frames, every_n, max_frames)
  return rewrite.serialize(video)


def thin_video(
  video: tf.train.SequenceExample, num_frames: int, every_n: int, max_frames: int
):
  """Removes frames of a parsed record, and notes it in its context.

  Args:
    video: the record, as returned by `rewrite.parse`; changed in place.
    num_frames: likewise.
    every_n: N.
    max_frames: see thin_record().
  """
  for values in video.feature_lists.feature_list.values():
    kept = values.feature[:max_frames:every_n]
    del values.feature[:]
    values.feature.extend(kept)
  for key, value in (
    (thinned_records.EVERY_N, every_n),
    (thinned_records.NUM_FRAMES, num_frames),
  ):
    video.context.feature[key].int64_list.value.append(value)


def _change(records: Sequence[shard_batches.Record], every_n: int, max_frames: int):
  """Thins records; see `rewrite.Change`."""
  for record in records:
    yield [thin_record(record.serialized, every_n, max_frames, str(record))], 0


def check(every_n: int, max_frames: int, least: int = 2):
  """Raises a ValueError unless every_n is from `least` to max_frames."""
  if not least <= every_n <= max_frames:
    raise ValueError(
      f'every_n is {every_n}: it must be between {least} and max_frames, which is '
      f'{max_frames}.'
    )


def thin(
  input_path: str,
  output_dir: str,
  every_n: int = 10,
  max_frames: int = 300,
  skip_corrupt_records: bool = False,
  skip_malformed_records: bool = False,
  workers: int | None = None,
  ray_address: str | None = None,
) -> list[str]:
  """Thins the shards that are not thinned yet; prints the result.

  Args:
    input_path: see `file_patterns`.
    output_dir: folder for the thinned shards; created if missing.
    every_n: N.
    max_frames: task.model.max_frames of the networks that will read the records.
    skip_corrupt_records: log and skip records that fail their checksum.
    skip_malformed_records: log and skip records that are invalid otherwise.
    workers: as for `parallel.write_shards`.
    ray_address: see `parallel.write_shards`.

  Returns:
    The paths of all shards, in the order of their sources.

  Raises:
    ValueError: an argument or a record is invalid, or the folder belongs to another
      job.
  """
  check(every_n, max_frames)
  outputs, written = rewrite.rewrite(
    functools.partial(_change, every_n=every_n, max_frames=max_frames),
    input_path,
    output_dir,
    'thin.json',
    {'every_n': every_n, 'max_frames': max_frames},
    'Thinning',
    skip_corrupt_records,
    skip_malformed_records,
    workers,
    ray_address=ray_address,
  )
  size = sum(shards.sizes([shard.output for shard in written]))
  print(parallel.summary(output_dir, len(outputs), len(written), size, 'byte'))
  return outputs


def define_flags(every_n: str = 'Keep frames 0, N, 2N, ...'):
  """Defines the flags of commands that thin; `every_n` is the help of that one."""
  rewrite.define_flags()
  flags.DEFINE_integer('every_n', 10, every_n)
  flags.DEFINE_integer(
    'max_frames',
    300,
    'task.model.max_frames of the networks that will read the records.',
  )


def main(_):
  """Runs the command."""
  startup.use_no_accelerator()
  values = flags.FLAGS
  thin(
    values.input_path,
    values.output_dir,
    values.every_n,
    values.max_frames,
    values.skip_corrupt_records,
    values.skip_malformed_records,
    ray_address=values.ray_address,
  )


if __name__ == '__main__':
  define_flags()
  cli.run(main)
