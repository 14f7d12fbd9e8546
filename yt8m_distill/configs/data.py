"""Configuration of the input: features of a frame and sets of records."""

import dataclasses

from official.core import config_definitions as cfg
from official.modeling import hyperparams


@dataclasses.dataclass
class Feature(hyperparams.Config):
  """One frame-level feature: its key in a record and its bytes per frame."""
  name: str = ''
  size: int = 0


@dataclasses.dataclass
class VideoData(cfg.DataConfig):
  """A set of frame-level records; `task.model` owns what a record holds.

  Attributes:
    input_path: file, pattern, or several of either, separated by commas.
    seed: order of the training records is a function of (seed, epoch).
    num_examples: records in the set; 0 is unknown, then the driver counts them
      where epochs are asked for, and a resumed run reads past what it consumed
      instead of starting in the right epoch.
    skip_corrupt_records: log, count and leave out records that fail their
      checksum; False stops at the first one.
  """
  seed: int = 0
  num_examples: int = 0
  shuffle_buffer_size: int = 1024
  cycle_length: int = 8
  skip_corrupt_records: bool = False
