r"""Writes simulated videos as frame-level shards in the format of the 2018 release.

Each label has its own shots (see `frames`), so a model that sees more frames of a video
can predict more of its labels. A command writes one split. After an interruption, the
same command writes the shards that are missing; simulate_SPLIT.json in the folder
records its settings:

  yt8m-distill simulate --output_dir=data/simulated \
    --split=train --num_videos=5000 --num_classes=100

Classes and labels are random, or come from video-level records (--video_level), each of
which becomes a video whose frames average to the record's features.

With --segments, records are those of YouTube-8M Segments: windows of 5 frames have
ratings, which are true because the shots are known (see `segments`). Everything else
is the same as without --segments.
"""

from collections.abc import Iterator
import functools
import itertools
import os
from typing import NamedTuple

from absl import flags
import numpy as np
import tensorflow as tf

from yt8m_distill.dataloaders import record_writer
from yt8m_distill.dataloaders import shards as shards_lib
from yt8m_distill.simulation import classes
from yt8m_distill.simulation import frames as frames_lib
from yt8m_distill.simulation import segments as segments_lib
from yt8m_distill.simulation import video_level as video_level_lib
from yt8m_distill.utils import cli
from yt8m_distill.utils import files
from yt8m_distill.utils import parallel
from yt8m_distill.utils import ray_jobs
from yt8m_distill.utils import startup

_MOST = 1_000_000  # classes, and files
# Ends the entropy of the ratings; no byte of a split's name.
_RATINGS = 256


class Simulation(NamedTuple):
  """Everything that is needed to write any shard of a split.

  Attributes:
    world: prototypes, and frequencies if videos are drawn.
    files: (file, number of records) of video-level files; empty if videos are drawn.
    output_dir: folder for the shards.
    split: prefix of the file names.
    seed: determines the videos, together with split and shard.
    num_videos: videos in the split.
    videos_per_shard: videos in each shard except the last.
    min_frames: minimum length of a video, in frames.
    max_frames: maximum length of a video, in frames.
    segments: which windows are rated, one of `segments.KINDS`; None for none.
    cutaways: share of the frames of label shots that show something else.
  """

  world: classes.World
  files: tuple[tuple[str, int], ...]
  output_dir: str
  split: str
  seed: int
  num_videos: int
  videos_per_shard: int
  min_frames: int
  max_frames: int
  segments: str | None
  cutaways: float

  def shards(self) -> list[parallel.Shard]:
    """Returns all shards: number, videos and path of each."""
    starts = range(0, self.num_videos, self.videos_per_shard)
    return [
      parallel.Shard(
        number,
        min(self.videos_per_shard, self.num_videos - start),
        os.path.join(self.output_dir, f'{self.split}{number:04d}.tfrecord'),
      )
      for number, start in enumerate(starts)
    ]


def _generator(*entropy: int) -> np.random.Generator:
  return np.random.Generator(np.random.SFC64(np.random.SeedSequence(entropy)))


def _draw_records(
  rng: np.random.Generator, simulation: Simulation, first: int
) -> Iterator[video_level_lib.Record]:
  """Yields an endless sequence of random records, numbered from `first`."""
  # Leaves room for a shot per label and a filler.
  max_labels = simulation.max_frames // frames_lib.MIN_SHOT - 1
  for number in itertools.count(first):
    labels, mean = classes.random_record(rng, simulation.world, max_labels)
    video_id = f'{simulation.split}-{number:07d}'.encode()
    yield video_level_lib.Record(video_id, labels, mean)


def _serialize(
  record: video_level_lib.Record,
  frames: np.ndarray,
  rgb_size: int,
  ratings: segments_lib.Ratings | None,
) -> bytes:
  """Returns a `tf.train.SequenceExample` in the format of the 2018 or 2019 release."""
  video = record_writer.Video(
    record.video_id,
    {'rgb': frames[:, :rgb_size], 'audio': frames[:, rgb_size:]},
    record.labels,
  )
  if not ratings:
    return record_writer.serialize(video)
  return record_writer.serialize(
    video,
    segment_start_times=ratings.starts,
    segment_end_times=ratings.starts + segments_lib.WINDOW,
    segment_labels=ratings.classes,
    segment_scores=ratings.scores,
  )


def _write_shard(
  simulation: Simulation, shard: parallel.Shard, partial: str
) -> Iterator[int]:
  """Writes one shard, whose size is in videos; see `parallel.Writer`."""
  entropy = (simulation.seed, shard.source, *simulation.split.encode())
  rng = _generator(*entropy)
  # Of their own, so that frames do not depend on --segments.
  rating_rng = _generator(*entropy, _RATINGS)
  first = shard.source * simulation.videos_per_shard
  if simulation.files:
    records = video_level_lib.read_records(simulation.world, simulation.files, first)
  else:
    records = _draw_records(rng, simulation, first)
  with tf.io.TFRecordWriter(partial) as writer:
    for record in itertools.islice(records, shard.size):
      length = frames_lib.random_length(
        rng, len(record.labels), simulation.min_frames, simulation.max_frames
      )
      plan = frames_lib.shot_plan(rng, record.labels, length)
      cut = None
      if simulation.cutaways:
        cut = frames_lib.cutaways(rng, *plan, simulation.cutaways)
      frames = frames_lib.simulate_frames(
        rng, simulation.world, record.mean, *plan, cut
      )
      ratings = None
      if simulation.segments:
        ratings = segments_lib.rate(
          rating_rng, simulation.segments, record.labels, simulation.world.known, *plan
        )
      writer.write(_serialize(record, frames, simulation.world.rgb_size, ratings))
      yield 1


def _check_arguments(
  num_videos: int,
  videos_per_shard: int,
  num_classes: int,
  seed: int,
  rgb_size: int,
  audio_size: int,
  min_frames: int,
  max_frames: int,
  segments: str | None,
  cutaways: float,
) -> None:
  """Raises a ValueError about the first invalid argument."""
  cli.check_least(num_videos=num_videos, videos_per_shard=videos_per_shard)
  cli.check_least(2, num_classes=num_classes)
  cli.check_least(0, seed=seed)
  cli.check_least(rgb_size=rgb_size, audio_size=audio_size)
  cli.check_least(2 * frames_lib.MIN_SHOT, min_frames=min_frames)
  cli.check_least(min_frames, max_frames=max_frames)
  if num_classes > _MOST:
    raise ValueError(f'num_classes is {num_classes}: it must be at most {_MOST:,}.')
  if num_videos > _MOST * videos_per_shard:
    raise ValueError(
      f'num_videos is {num_videos} and videos_per_shard {videos_per_shard}: these are '
      f'more than {_MOST:,} files. Set a higher videos_per_shard, or fewer videos.'
    )
  if segments not in (None, *segments_lib.KINDS):
    raise ValueError(
      f'segments is {segments!r}: it must be one of {", ".join(segments_lib.KINDS)}. '
      'Set it to None for videos without ratings.'
    )
  if not 0 <= cutaways < 1:
    raise ValueError(f'cutaways is {cutaways}: it must be 0 or more, and below 1.')


def simulate(
  output_dir: str,
  split: str,
  num_videos: int = 0,
  videos_per_shard: int = 256,
  num_classes: int = 3862,
  seed: int = 0,
  video_level: str | None = None,
  rgb_size: int = 1024,
  audio_size: int = 128,
  min_frames: int = 120,
  max_frames: int = 300,
  segments: str | None = None,
  cutaways: float = 0.0,
  workers: int | None = None,
  ray_address: str | None = None,
) -> list[str]:
  """Writes the missing shards of a split; prints the result.

  Args:
    output_dir: folder for the shards; created if missing.
    split: file names are `<split>0000.tfrecord`, `<split>0001.tfrecord`, ...
    num_videos: videos to write; with `video_level` at most this many, 0 for all
      records.
    videos_per_shard: videos in each file except the last.
    num_classes: labels are 0 to num_classes - 1.
    seed: determines the classes and, with split and shard, the videos.
    video_level: video-level files, see `file_patterns`. Each record becomes a video
      with its id and labels, whose dequantized frames average to its features.
    rgb_size: bytes of rgb per frame.
    audio_size: bytes of audio per frame.
    min_frames: minimum length of a video, in frames.
    max_frames: maximum length of a video, in frames.
    segments: which windows of a video are rated: 'sparse' or 'dense', see
      `segments.rate`; None for none.
    cutaways: share of the frames of label shots that show something else, 0 or more and
      below 1. Ratings do not depend on it: a label holds in its whole shots.
    workers: as for `parallel.write_shards`. The shards do not depend on it.
    ray_address: see `parallel.write_shards`.

  Returns:
    The paths of all shards.

  Raises:
    ValueError: an argument or a video-level record is invalid, `video_level` matches no
      file, or output_dir holds shards of this split that were made with other settings.
  """
  if not num_videos and not video_level:
    raise ValueError(
      '--num_videos is missing: give the number of videos to simulate, or records with '
      '--video_level.'
    )
  _check_arguments(
    num_videos or 1,  # All of video_level.
    videos_per_shard,
    num_classes,
    seed,
    rgb_size,
    audio_size,
    min_frames,
    max_frames,
    segments,
    cutaways,
  )
  job = dict(
    num_videos=num_videos,
    videos_per_shard=videos_per_shard,
    num_classes=num_classes,
    seed=seed,
    video_level=video_level,
    rgb_size=rgb_size,
    audio_size=audio_size,
    min_frames=min_frames,
    max_frames=max_frames,
    segments=segments,
    cutaways=cutaways or None,  # As in folders that an earlier version wrote.
  )
  source_files: tuple[tuple[str, int], ...] = ()
  if video_level:
    try:
      paths = shards_lib.find(video_level)
    except ValueError as error:
      raise ValueError(str(error).replace('input_path', 'video_level')) from error
    world, source_files = video_level_lib.read_world(
      paths, num_videos, num_classes, rgb_size, audio_size
    )
    num_videos = sum(number for _, number in source_files)
  else:
    world = classes.random_world(_generator(seed), num_classes, rgb_size, audio_size)
  files.claim_split(output_dir, 'simulate', split, job)
  simulation = Simulation(
    world,
    source_files,
    output_dir,
    split,
    seed,
    num_videos,
    videos_per_shard,
    min_frames,
    max_frames,
    segments,
    cutaways,
  )
  shards = simulation.shards()
  written = parallel.write_shards(
    functools.partial(_write_shard, simulation),
    shards,
    split,
    ' videos',
    workers,
    ray_address=ray_address,
  )
  videos = sum(shard.size for shard in written)
  print(parallel.summary(output_dir, len(shards), len(written), videos, 'video'))
  return [shard.output for shard in shards]


def _define_flags():
  # Not on import, because other commands define flags of the same names.
  ray_jobs.define_flags()
  flags.DEFINE_string(
    'output_dir', None, 'Folder for the shards; created if missing.', required=True
  )
  flags.DEFINE_string(
    'split', 'train', 'Prefix of the file names: <split>0000.tfrecord, ...'
  )
  flags.DEFINE_integer(
    'num_videos',
    0,
    'Videos to write; with --video_level at most this many, 0 for all records.',
  )
  flags.DEFINE_integer('videos_per_shard', 256, 'Videos in each file except the last.')
  flags.DEFINE_integer('num_classes', 3862, 'Labels are 0 to num_classes - 1.')
  flags.DEFINE_integer(
    'seed', 0, 'Splits with the same seed share their classes, but not their videos.'
  )
  flags.DEFINE_string(
    'video_level',
    None,
    'Video-level records to simulate frames for: paths, patterns, ranges or '
    '@lists; see yt8m_distill/dataloaders/README.md.',
  )
  flags.DEFINE_enum(
    'segments',
    None,
    segments_lib.KINDS,
    'Rates windows of 5 frames, as YouTube-8M Segments does. sparse: 5 windows of each '
    'video, for its labels; dense: all windows, for its labels and as many other '
    'classes.',
  )
  flags.DEFINE_float(
    'cutaways',
    0.0,
    "Share of the frames of a label's shots that show something else: 0 or more, and "
    'below 1. Ratings do not depend on it.',
  )


def main(_):
  """Runs the command."""
  startup.use_no_accelerator()
  values = flags.FLAGS
  simulate(
    values.output_dir,
    values.split,
    values.num_videos,
    values.videos_per_shard,
    values.num_classes,
    values.seed,
    values.video_level,
    segments=values.segments,
    cutaways=values.cutaways,
    ray_address=values.ray_address,
  )


if __name__ == '__main__':
  _define_flags()
  cli.run(main)
