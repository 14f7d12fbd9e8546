r"""Writes frame-level YouTube-8M shards with a planted structure.

The more frames of a video a model sees, the more it can tell: every label has
shots of its own (see `simulated_frames`). The shards have the format of the
official 2018 frame-level release. One call writes one split:

  python -m yt8m_distill.simulation.write_shards --output_dir=data/simulated \
    --split=train --num_videos=5000 --num_classes=100

Prototypes and labels are random, or come from video-level records
(--video_level): then each record becomes one video that averages to it.
"""

from collections.abc import Iterator
import functools
import itertools
import os
import re
from typing import NamedTuple

from absl import flags
import numpy as np
import tensorflow as tf
import tqdm

from yt8m_distill.dataloaders import shards as shards_lib
from yt8m_distill.simulation import classes
from yt8m_distill.simulation import frames as frames_lib
from yt8m_distill.simulation import video_level as video_level_lib
from yt8m_distill.utils import cli
from yt8m_distill.utils import parallel

# Videos between two steps of the progress bar.
_BLOCK = 16


class Simulation(NamedTuple):
  """What is needed to write any shard of one split; the same for all of them.

  Attributes:
    world: prototypes, and frequencies if the records are drawn.
    files: video-level files and their numbers of records; empty if drawn.
    output_dir: directory of the shards.
    split: start of the file names.
    seed: of the videos, together with split and shard.
    num_videos: of the whole split.
    videos_per_shard: of each shard but the last.
    min_frames: least length of a video.
    max_frames: greatest length of a video.
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

  def shard_path(self, shard: int) -> str:
    return os.path.join(self.output_dir, f'{self.split}{shard:04d}.tfrecord')

  def num_shards(self) -> int:
    return -(-self.num_videos // self.videos_per_shard)


def _generator(*entropy: int) -> np.random.Generator:
  return np.random.Generator(np.random.SFC64(np.random.SeedSequence(entropy)))


def _draw_records(
  rng: np.random.Generator, simulation: Simulation, first: int
) -> Iterator[video_level_lib.Record]:
  """Yields random records without end; their ids count from `first`."""
  # A shot for each label and a filler have to fit.
  most_labels = simulation.max_frames // frames_lib.MIN_SHOT - 1
  for number in itertools.count(first):
    labels, mean = classes.random_record(rng, simulation.world, most_labels)
    video_id = f'{simulation.split}-{number:07d}'.encode()
    yield video_level_lib.Record(video_id, labels, mean)


def _serialize(
  record: video_level_lib.Record, frames: np.ndarray, rgb_size: int
) -> bytes:
  """Returns a `tf.train.SequenceExample` of the official format."""
  example = tf.train.SequenceExample()
  example.context.feature['id'].bytes_list.value.append(record.video_id)
  example.context.feature['labels'].int64_list.value.extend(record.labels.tolist())
  for key, part in (('rgb', frames[:, :rgb_size]), ('audio', frames[:, rgb_size:])):
    add = example.feature_lists.feature_list[key].feature.add
    for frame in part:
      add().bytes_list.value.append(frame.tobytes())
  # The order of the keys would otherwise differ from process to process.
  return example.SerializeToString(deterministic=True)


def _write_shard(simulation: Simulation, shard: int) -> Iterator[int]:
  """Writes one shard; yields how many videos were written since the last."""
  rng = _generator(simulation.seed, shard, *simulation.split.encode())
  first = shard * simulation.videos_per_shard
  if simulation.files:
    records = video_level_lib.read_records(simulation.world, simulation.files, first)
  else:
    records = _draw_records(rng, simulation, first)
  count = min(simulation.videos_per_shard, simulation.num_videos - first)
  path = simulation.shard_path(shard)
  unfinished = f'{path}.unfinished'
  with tf.io.TFRecordWriter(unfinished) as writer:
    for done, record in enumerate(itertools.islice(records, count), 1):
      length = frames_lib.random_length(
        rng, len(record.labels), simulation.min_frames, simulation.max_frames
      )
      plan = frames_lib.shot_plan(rng, record.labels, length)
      frames = frames_lib.simulate_frames(rng, simulation.world, record.mean, *plan)
      writer.write(_serialize(record, frames, simulation.world.rgb_size))
      if done % _BLOCK == 0 or done == count:
        yield (done - 1) % _BLOCK + 1
  tf.io.gfile.rename(unfinished, path)


def _check_arguments(
  split: str,
  num_videos: int,
  videos_per_shard: int,
  num_classes: int,
  seed: int,
  rgb_size: int,
  audio_size: int,
  min_frames: int,
  max_frames: int,
) -> None:
  """Raises ValueError with a remedy for the first unusable argument."""
  for name, value, least in (
    ('num_videos', num_videos, 1),
    ('videos_per_shard', videos_per_shard, 1),
    ('num_classes', num_classes, 2),
    ('seed', seed, 0),
    ('rgb_size', rgb_size, 1),
    ('audio_size', audio_size, 1),
    ('min_frames', min_frames, 2 * frames_lib.MIN_SHOT),
    ('max_frames', max_frames, min_frames),
  ):
    if value < least:
      raise ValueError(f'{name} is {value}: give at least {least}.')
  if not re.fullmatch(r'[\w-]+', split):
    raise ValueError(f'split is {split!r}: give letters, digits, "-" and "_" only.')


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
  processes: int | None = None,
) -> list[str]:
  """Writes the shards of one split.

  Args:
    output_dir: directory of the shards; made if missing.
    split: file names are `<split>0000.tfrecord`, `<split>0001.tfrecord`, ...
    num_videos: videos to write; with `video_level` at most this many, 0 for
      all records.
    videos_per_shard: videos in each file but the last.
    num_classes: labels lie below it.
    seed: fixes the classes; with split and shard it fixes the videos.
    video_level: video-level files, as `patterns` has it; each record becomes
      one video with its labels and id, whose dequantised frames average to
      its means.
    rgb_size: bytes of rgb per frame.
    audio_size: bytes of audio per frame.
    min_frames: least length of a video.
    max_frames: greatest length of a video.
    processes: how many write shards at the same time, by default one per
      core; the shards do not depend on it.

  Returns:
    The paths written.

  Raises:
    FileExistsError: there are shards of this split in output_dir.
    ValueError: an argument or a video-level record is unusable, or no file
      matches `video_level`.
  """
  _check_arguments(
    split,
    1 if video_level and not num_videos else num_videos,
    videos_per_shard,
    num_classes,
    seed,
    rgb_size,
    audio_size,
    min_frames,
    max_frames,
  )
  present = tf.io.gfile.glob(
    os.path.join(output_dir, f'{split}[0-9][0-9][0-9][0-9].tfrecord')
  )
  if present:
    raise FileExistsError(
      f'{min(present)} exists: delete the shards of that split or give '
      'another output_dir or split.'
    )
  files = ()
  if video_level:
    try:
      paths = shards_lib.find(video_level)
    except ValueError as error:
      raise ValueError(str(error).replace('input_path', 'video_level')) from error
    world, files = video_level_lib.read_world(
      paths, num_videos, num_classes, rgb_size, audio_size
    )
    num_videos = sum(number for _, number in files)
  else:
    world = classes.random_world(_generator(seed), num_classes, rgb_size, audio_size)
  tf.io.gfile.makedirs(output_dir)
  simulation = Simulation(
    world,
    files,
    output_dir,
    split,
    seed,
    num_videos,
    videos_per_shard,
    min_frames,
    max_frames,
  )
  shards = range(simulation.num_shards())
  with tqdm.tqdm(total=num_videos, unit='video', desc=split) as bar:
    parallel.run(functools.partial(_write_shard, simulation), shards, bar, processes)
  return [simulation.shard_path(shard) for shard in shards]


def _define_flags():
  # Not on import: other commands share names.
  flags.DEFINE_string(
    'output_dir', None, 'Directory of the shards; made if missing.', required=True
  )
  flags.DEFINE_string(
    'split', 'train', 'Start of the file names: <split>0000.tfrecord, ...'
  )
  flags.DEFINE_integer(
    'num_videos', 0, 'Videos to write; 0 with --video_level: all records.'
  )
  flags.DEFINE_integer('videos_per_shard', 256, 'Videos in each file but the last.')
  flags.DEFINE_integer('num_classes', 3862, 'Labels are 0 to num_classes - 1.')
  flags.DEFINE_integer(
    'seed', 0, 'Splits of one seed share their classes but no videos.'
  )
  flags.DEFINE_string(
    'video_level',
    None,
    'Video-level records to simulate frames of: a '
    'path, pattern, range or @list, see dataloaders/patterns.py.',
  )


def main(_):
  # Nothing runs on an accelerator, and claiming one could take it from others.
  os.environ['CUDA_VISIBLE_DEVICES'] = '-1'
  values = flags.FLAGS
  simulate(
    values.output_dir,
    values.split,
    values.num_videos,
    values.videos_per_shard,
    values.num_classes,
    values.seed,
    values.video_level,
  )


if __name__ == '__main__':
  _define_flags()
  cli.run(main)
