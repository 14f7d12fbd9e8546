"""Configuration of the input: features of a frame and sets of records."""

from collections.abc import Sequence
import dataclasses

from official.core import config_definitions as cfg
from official.modeling import hyperparams


@dataclasses.dataclass
class Feature(hyperparams.Config):
  """One feature, of each frame or of the whole video.

  Attributes:
    name: its key in a record.
    size: values per frame.
    format: how a frame is stored, and read.
      'bytes': one byte string of uint8 values, as the releases have it.
      'quantized_floats': a float list that is clipped to [-2, 2] and quantised
        as the releases are, so that a network trained on them sees what it
        knows. MediaPipe writes such lists, RGB/feature/floats and
        AUDIO/feature/floats.
      'floats': a float list as it stands; then all features must be so.
      'video': a float list of the whole video, as video-level records have
        mean_rgb and mean_audio; then all features must be so, and a video has
        one frame.
  """

  name: str = ''
  size: int = 0
  format: str = 'bytes'  # bytes | quantized_floats | floats | video


def parse_features(items: Sequence[str]) -> list[Feature]:
  """Reads features from a command line.

  Args:
    items: NAME:SIZE or NAME:SIZE:FORMAT, in the order in which they are joined.

  Raises:
    ValueError: an item has another form.
  """
  features = []
  for item in items:
    parts = item.split(':')
    if not 2 <= len(parts) <= 3 or not parts[1].isdecimal():
      raise ValueError(
        f'Feature {item!r} cannot be read: write NAME:SIZE or '
        'NAME:SIZE:FORMAT, as in rgb:1024,audio:128.'
      )
    features.append(
      Feature(
        name=parts[0], size=int(parts[1]), **({'format': parts[2]} if parts[2:] else {})
      )
    )
  return features


@dataclasses.dataclass
class VideoData(cfg.DataConfig):
  """A set of records; `task.model` owns what a record holds.

  Attributes:
    input_path: file, pattern, range or @list of files, or several of these,
      separated by commas; see `dataloaders.patterns`.
    seed: order of the training records is a function of (seed, epoch).
    num_examples: records in the set, not in a bag; 0 is unknown, then the
      driver counts them where epochs are asked for, and a resumed run counts
      what it consumed, up to one epoch, to find where it goes on. One that
      reads a bag, or files of its own among several pipelines, always does.
    sharding: with several input pipelines (workers), True has each train on
      whole files of its own where there are as many files as pipelines, or
      more: it reads no others, but batches are not those of one process. False
      deals out records whatever the number of files: the pipelines' batches
      together are those of one process, but each reads all files, and parses
      its share (with `cache` all, once). Fewer files than pipelines are always
      dealt so. Must be True in evaluation; means nothing to a tf.data service.
    bagging_seed: train on as many files as there are, drawn with replacement
      under this seed, for ensembles; -1 trains on each once. Of a single file
      every bag is the same.
    skip_corrupt_records: log, count and leave out records that fail their
      checksum; False stops at the first one. With True a resumed run reads all
      that it consumed since step 0, since what corrupt files hold shows only
      so.
    prefetch_buffer_size: batches of a replica that are ready; bounded, since
      what tf.data tunes by itself (0) was seen to grow with each pause, as for
      an evaluation.
  """

  seed: int = 0
  num_examples: int = 0
  shuffle_buffer_size: int = 1024
  prefetch_buffer_size: int | None = 4
  cycle_length: int = 8
  bagging_seed: int = -1
  skip_corrupt_records: bool = False
