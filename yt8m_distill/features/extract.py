r"""Computes YouTube-8M features of video files: records for all other commands.

  yt8m-distill extract --input='videos/*.mp4' \
    --output_dir=features --weights=WEIGHTS

Writes OUT/train0000.tfrecord, OUT/train0001.tfrecord, ... in the format of the 2018
release, one frame per second of a video. --input may also be a CSV file, with the
columns path, labels (optional: indices of classes, separated by spaces or ';') and id
(optional).

A student that sees every N-th frame needs no others: --every_n=N, or
--model=RUN_OR_EXPORT, decodes and computes only those. The records are, byte for byte,
those that `yt8m-distill thin` makes of full ones.

A video that cannot be decoded is left out and does not stop the others. A CSV file
beside each shard says what became of its videos; OUT/extract_train.csv joins them.
After an interruption, the same command writes the shards that are missing;
OUT/extract_train.json records its settings.
"""

from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import inspect
import itertools
import os
from typing import NamedTuple
import zlib

from absl import flags
from absl import logging
import numpy as np
import pandas as pd
import tensorflow as tf

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.dataloaders import record_writer
from yt8m_distill.dataloaders import remote
from yt8m_distill.dataloaders import thinned_records
from yt8m_distill.features import decode
from yt8m_distill.features import networks as networks_lib
from yt8m_distill.features import video_list
from yt8m_distill.utils import cli
from yt8m_distill.utils import cores
from yt8m_distill.utils import files
from yt8m_distill.utils import parallel
from yt8m_distill.utils import ray_jobs

FLAGS = flags.FLAGS
_MAX_SHARDS = 10_000  # what the four digits of a name allow


class _Unreadable(Exception):
  """A video cannot be decoded; the message says why."""


class _Row(NamedTuple):
  """A row of the report: what became of a video.

  Attributes:
    id: of its record.
    path: the file.
    frames: its length, at most --max_frames; 0 if it cannot be decoded.
    sound: whether it has sound.
    error: why it cannot be decoded; '' if it can.
  """

  id: str
  path: str
  frames: int = 0
  sound: bool = False
  error: str = ''


class _Extraction(NamedTuple):
  """How to write a shard, whose source is a sequence of `video_list.Video`.

  Attributes:
    networks: computes features.
    max_frames: frames of a video at most.
    every_n: which frames are needed: 0, N, 2N, ...
  """

  networks: networks_lib.FeatureNetworks
  max_frames: int
  every_n: int

  def write(self, shard: parallel.Shard, partial: str) -> Generator[int, None, int]:
    """Writes a shard's records, and its report to `partial`; see `parallel.Writer`.

    Returns the number of records.
    """
    rows = []
    with contextlib.ExitStack() as stack:
      writer = None
      for video in shard.source:
        try:
          record, row = self._extract(video)
        except _Unreadable as error:
          row = _Row(video.id, video.path, error=str(error))
          logging.warning('Left out: %s', error)
        else:
          if not writer:  # A file without records would be refused in training.
            path = stack.enter_context(files.whole_file(_records(shard)))
            writer = stack.enter_context(tf.io.TFRecordWriter(path))
          writer.write(record)
        rows.append(row)
        yield 1
    with tf.io.gfile.GFile(partial, 'w') as file:
      pd.DataFrame(rows).to_csv(file, index=False)
    return sum(row.frames > 0 for row in rows)

  def _extract(self, video: video_list.Video) -> tuple[bytes, _Row]:
    """Returns the record of a video, and its row."""
    file = _opened(video.path)
    length = min(file.num_pictures, self.max_frames)
    seconds = range(0, length, self.every_n)
    # Without sound, VGGish is not even loaded.
    audio = networks_lib.no_audio(0)
    if file.has_sound:
      audio = self.networks.audio(_decoded(file.sound(seconds)))
    has_sound = len(audio) > 0
    if has_sound:
      # The longer one of picture and sound is cut.
      length = _seconds_with_sound(file, seconds, len(audio), length)
      seconds = range(0, length, self.every_n)
    else:
      audio = networks_lib.no_audio(len(seconds))
    rgb = self.networks.rgb(_decoded(file.pictures(seconds)))
    thinned = {
      thinned_records.EVERY_N: self.every_n,
      thinned_records.NUM_FRAMES: length,
    }
    record = record_writer.serialize(
      record_writer.Video(video.id, {'rgb': rgb, 'audio': audio}, video.labels),
      **(thinned if self.every_n > 1 else {}),
    )
    return record, _Row(video.id, video.path, length, has_sound)


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
  """Tells errors of a video file from those of the networks, which end the command."""
  try:
    yield
  except (ValueError, OSError, tf.errors.OpError) as error:
    raise _Unreadable(cli.message(error)) from error


def _opened(path: str) -> decode.VideoFile:
  with _decoding():
    return decode.VideoFile(path)


def _decoded(arrays: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
  with _decoding():
    yield from arrays


def _seconds_with_sound(
  file: decode.VideoFile, seconds: range, count: int, length: int
) -> int:
  """Returns how many seconds of a video, from its start, have sound.

  Args:
    file: the video.
    seconds: those at which sound was asked for.
    count: at how many of these there is sound, at least 1.
    length: seconds to consider.
  """
  first = seconds[count - 1] + 1
  last = seconds[count] if count < len(seconds) else length
  between = range(first, last)
  return first + (sum(1 for _ in _decoded(file.sound(between))) if between else 0)


def _records(shard: parallel.Shard) -> str:
  """Returns the path of a shard's records; its output is the report."""
  return f'{shard.output.removesuffix(".csv")}.tfrecord'


def _shards(
  videos: Sequence[video_list.Video], output_dir: str, split: str, videos_per_shard: int
) -> list[parallel.Shard]:
  count = -(-len(videos) // videos_per_shard)
  if count > _MAX_SHARDS:
    raise ValueError(
      f'videos_per_shard is {videos_per_shard}, which makes {count:,} files of '
      f'{len(videos):,} videos: {_MAX_SHARDS:,} is the most. Raise it to '
      f'{-(-len(videos) // _MAX_SHARDS)} or more.'
    )
  return [
    parallel.Shard(
      videos[number * videos_per_shard :][:videos_per_shard],
      min(videos_per_shard, len(videos) - number * videos_per_shard),
      os.path.join(output_dir, f'{split}{number:04d}.csv'),
    )
    for number in range(count)
  ]


def _read_report(shard: parallel.Shard) -> pd.DataFrame:
  with tf.io.gfile.GFile(shard.output) as file:
    return pd.read_csv(file, dtype={'id': str, 'path': str}, keep_default_na=False)


def _frames_of_student(model: str) -> tuple[int, int]:
  """Returns every_n and max_frames of a student.

  Args:
    model: a run or an export.

  Raises:
    ValueError: it sees other frames than every N-th.
  """
  config = trained_network.student_config(model)
  frames = config.network.frames
  every_n = frames.uniform.every_n if frames.type == 'uniform' else 0
  if every_n < 2:
    raise ValueError(
      f'model is {model}, whose student sees frames of type {frames.type!r}, which may '
      'be any of a video. Leave out --model: then all frames are extracted.'
    )
  return every_n, config.max_frames


def extract(
  input: str,
  output_dir: str,
  weights: str,
  split: str = 'train',
  videos_per_shard: int = 32,
  max_frames: int | None = None,
  every_n: int | None = None,
  model: str | None = None,
  workers: int = cores.THREADS,
  ray_address: str | None = None,
) -> list[str]:
  """Extracts the videos of all missing shards; prints the result.

  Args:
    input: the videos, see `video_list.read`.
    output_dir: folder for the shards; created if missing.
    weights: folder with the files of the networks, see `weights`.
    split: file names are `<split>0000.tfrecord`, `<split>0001.tfrecord`, ...
    videos_per_shard: videos in each file except the last.
    max_frames: longer videos are cut. By default that of `model`, otherwise 300.
    every_n: extract frames 0, N, 2N, ... only; by default those of `model`, otherwise
      all.
    model: a run or an export, whose student tells `every_n`.
    workers: see `parallel.write_shards`. The shards do not depend on it.
    ray_address: see `parallel.write_shards`.

  Returns:
    The paths of all shards that have records.

  Raises:
    ValueError: an argument, the list of videos or a file of `weights` is invalid, none
      of the videos can be decoded, or output_dir holds shards of this split that were
      made with other settings.
    ImportError: PyAV is not installed.
  """
  if model and every_n:
    raise ValueError(
      f'every_n is {every_n} and model is {model}, which tells it: leave out one.'
    )
  if model:
    every_n, longest = _frames_of_student(model)
    max_frames = max_frames or longest
  if every_n is None:
    every_n = 1
  if max_frames is None:
    max_frames = decode.MAX_SECONDS
  cli.check_least(
    videos_per_shard=videos_per_shard,
    workers=workers,
    max_frames=max_frames,
    every_n=every_n,
  )
  if every_n > max_frames:
    raise ValueError(
      f'every_n is {every_n}: it must be at most max_frames, which is {max_frames}.'
    )
  videos = video_list.read(input)
  remote.ensure_file_system(output_dir)
  shards = _shards(videos, output_dir, split, videos_per_shard)
  networks = networks_lib.FeatureNetworks(weights)
  # Loads the network, or says what is missing, before the work starts.
  networks.rgb([])
  job = {
    'input': input,
    # The list may change while the job is stopped.
    'videos': f'{len(videos)}, CRC {zlib.crc32(repr(videos).encode()):08x}',
    'weights': weights,
    'videos_per_shard': videos_per_shard,
    'max_frames': max_frames,
    'every_n': every_n,
  }
  files.claim_split(output_dir, 'extract', split, job)
  for shard in shards:
    _forget_if_removed(shard)
  written = parallel.write_shards(
    _Extraction(networks, max_frames, every_n).write,
    shards,
    'Extracting',
    ' videos',
    workers,
    threads=True,  # They share the networks.
    open=_seen if ray_address else iter,
    ray_address=ray_address,
  )
  joined = os.path.join(output_dir, f'extract_{split}.csv')
  report = pd.concat(map(_read_report, shards))
  files.write_text(joined, report.to_csv(index=False))
  failed = report[report.frames == 0]
  if len(failed) == len(report):
    for shard in shards:  # So that the command can be corrected.
      tf.io.gfile.remove(shard.output)
    raise ValueError(
      f'None of the {len(report)} videos can be decoded; {joined} lists the reasons. '
      f'The first: {failed.error.iloc[0]}'
    )
  count = sum(shard.returned for shard in written)
  print(parallel.summary(output_dir, len(shards), len(written), count, 'video'))
  silent = (~report.sound & (report.frames > 0)).sum()
  print(
    f'{joined}: of {len(report):,} videos, {len(failed):,} left out because they '
    f'cannot be decoded, {silent:,} without sound.'
  )
  return [path for path in map(_records, shards) if tf.io.gfile.exists(path)]


def _seen(shards: Sequence[parallel.Shard]) -> Iterable[parallel.Shard]:
  """Returns shards; raises a ValueError if this node does not see their videos."""
  for video in itertools.chain.from_iterable(shard.source for shard in shards):
    remote.ensure_file_system(video.path)
    if not tf.io.gfile.exists(video.path):
      # Otherwise its shard would leave it out, as one that cannot be decoded.
      raise ValueError(
        f'{video.path} does not exist there: all nodes must see the videos.'
      )
  return shards


def _forget_if_removed(shard: parallel.Shard):
  """Removes the report of a shard whose records someone removed, to write both."""
  if (
    tf.io.gfile.exists(shard.output)
    and not tf.io.gfile.exists(_records(shard))
    and _read_report(shard).frames.any()
  ):
    tf.io.gfile.remove(shard.output)


def _define_flags():
  # Not on import, because other commands define flags of the same names.
  ray_jobs.define_flags()
  flags.DEFINE_string(
    'input',
    None,
    'A CSV file with the columns path, labels (optional) and id (optional); or video '
    'files and patterns, separated by commas.',
    required=True,
  )
  flags.DEFINE_string(
    'output_dir', None, 'Folder for the shards; created if missing.', required=True
  )
  flags.DEFINE_string(
    'weights',
    None,
    'Folder with the files of the networks; see yt8m_distill/features/README.md.',
    required=True,
  )
  flags.DEFINE_string(
    'split', 'train', 'Prefix of the file names: <split>0000.tfrecord, ...'
  )
  flags.DEFINE_integer('videos_per_shard', 32, 'Videos in each file except the last.')
  flags.DEFINE_integer(
    'max_frames',
    None,
    'Frames, or seconds, after which videos are cut. Default: task.model.max_frames of '
    '--model, otherwise 300.',
  )
  flags.DEFINE_integer(
    'every_n', None, 'Extract only frames 0, N, 2N, ... Default: all.'
  )
  flags.DEFINE_string(
    'model', None, 'Run or export: extract only the frames that its student sees.'
  )
  flags.DEFINE_integer(
    'workers',
    cores.THREADS,
    'Number of shards written at the same time, with --ray_address on each node.',
  )


def main(_):
  """Runs the command."""
  extract(**{name: FLAGS[name].value for name in inspect.signature(extract).parameters})


if __name__ == '__main__':
  _define_flags()
  cli.run(main)
