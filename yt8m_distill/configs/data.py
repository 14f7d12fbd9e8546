"""Configuration of the input: features of a frame and sets of records."""

from collections.abc import Sequence
import dataclasses

from official.core import config_definitions as cfg
from official.modeling import hyperparams

from yt8m_distill.configs import validation

# Formats that store a frame as one byte string.
BYTES_PER_VALUE = {'bytes': 1, 'float32_bytes': 4}
# Features are concatenated, so their values must be of one kind.
_COMBINABLE = (
  {'bytes', 'quantized_floats'},
  {'floats', 'float32_bytes'},
  {'video'},
)


@dataclasses.dataclass
class Feature(hyperparams.Config):
  """One feature of each frame or of the whole video.

  Attributes:
    name: key of the feature in a record.
    size: number of values per frame.
    format: how records store the feature.
      'bytes': per frame, a byte string of uint8 values, as in the releases.
      'quantized_floats': per frame, a list of floats, which is clipped to
        [-2, 2] and quantized as in the releases, so that networks trained on
        them can read it. MediaPipe writes such lists: RGB/feature/floats and
        AUDIO/feature/floats.
      'floats': per frame, a list of floats, which is used unchanged. All
        features must then be 'floats' or 'float32_bytes'.
      'float32_bytes': per frame, a byte string of little-endian float32 values,
        which are used unchanged. Combines with 'floats' only.
      'video': one list of floats per video, as mean_rgb and mean_audio of
        video-level records. All features must then have this format, and
        task.model.max_frames must be 1.
  """

  name: str = ''
  size: int = validation.number(0, least=1, most=1_000_000)
  format: str = validation.choice(
    'bytes', 'bytes', 'quantized_floats', 'floats', 'float32_bytes', 'video'
  )

  def check(self, path: str):
    """Raises where fields exclude each other; see `validation`."""
    if not self.name:
      raise ValueError(
        f"{path}.name is '': give the key of the feature in a record, such as rgb."
      )


def check_features(features: Sequence[Feature], path: str):
  """Raises where features cannot be read together.

  Args:
    features: of a frame.
    path: of the list, for the message.

  Raises:
    ValueError: there are none, a name is given twice, or formats do not mix.
  """
  names = [feature.name for feature in features]
  if not names:
    raise ValueError(f'{path} is []: give at least one feature.')
  if len(set(names)) < len(names):
    raise ValueError(f'{path} has the names {names}: give each one once.')
  formats = sorted({feature.format for feature in features})
  if not any(group.issuperset(formats) for group in _COMBINABLE):
    raise ValueError(
      f'{path} has the formats {formats}: bytes combines only with quantized_floats, '
      'and floats only with float32_bytes. Give all features the same format, or use '
      'quantized_floats instead of floats.'
    )


def parse_features(items: Sequence[str]) -> list[Feature]:
  """Parses the features that a --features flag lists.

  Args:
    items: NAME:SIZE or NAME:SIZE:FORMAT, in the order in which features are
      concatenated.

  Returns:
    The features; none where there are no items.

  Raises:
    ValueError: an item is malformed, or the features cannot be read together.
  """
  features = []
  for item in items:
    parts = item.split(':')
    if not 2 <= len(parts) <= 3 or not parts[1].isdecimal():
      raise ValueError(
        f'--features has the item {item!r}: write NAME:SIZE or NAME:SIZE:FORMAT, '
        'as in rgb:1024,audio:128.'
      )
    feature = Feature(name=parts[0], size=int(parts[1]))
    if parts[2:]:
      feature.format = parts[2]
    validation.validate(feature, '--features')
    features.append(feature)
  if features:
    check_features(features, '--features')
  return features


def format_features(features: Sequence[Feature]) -> str:
  """Returns features as parse_features() takes them, separated by commas."""
  return ','.join(f'{f.name}:{f.size}:{f.format}' for f in features)


@dataclasses.dataclass
class VideoData(cfg.DataConfig):
  """A set of records; `task.model` says what a record holds.

  Attributes:
    input_path: a file, pattern, range or @list of files, or several of these
      separated by commas; see `dataloaders.file_patterns`.
    global_batch_size: videos per batch, over all replicas.
    is_training: whether to shuffle and repeat the records. Otherwise every
      record is read once, in order.
    seed: the order of the training records is a function of (seed, epoch).
    num_examples: number of records in the set (not in a bag); 0 means unknown.
      If it is unknown, the driver counts the records where lengths are given in
      epochs, and a resumed run counts those it consumed, up to one epoch. A run
      that reads a bag, or whose input pipelines read different files, always
      counts.
    sharding: with several input pipelines (workers), True lets each train on
      files of its own if there are at least as many files as pipelines. It
      reads no other files, but batches differ from those of a single process.
      False distributes records instead: together, the pipelines' batches equal
      those of a single process, but each pipeline reads all files and parses
      its share (with `cache`, all of them once). Records are always distributed
      if there are fewer files than pipelines. Must be True in evaluation; has
      no effect with a tf.data service.
    shuffle_buffer_size: records that the shuffle of an epoch draws from.
    cycle_length: files that training reads in parallel.
    bagging_seed: for ensembles, train on files drawn with replacement under
      this seed, as many as the set has. -1 trains on each file once. Every bag
      of a single file is the same.
    skip_corrupt_records: log, count and skip records whose checksum is wrong;
      False stops at the first one. If True, a resumed run reads all records
      that it consumed since step 0, since only reading shows which are corrupt.
    skip_malformed_records: log, count and skip records that are invalid though
      their checksum is right; False stops at the first one. If True, each record
      is parsed twice, and a resumed run reads again as for skip_corrupt_records.
    prefetch_buffer_size: batches per replica to keep ready; 0 lets tf.data
      choose, whose buffer was seen to grow with every pause of the training,
      as for an evaluation.
    autotune_algorithm: how tf.data tunes itself; null for its default.
  """

  input_path: str | Sequence[str] = ''
  global_batch_size: int = validation.number(256, least=1, most=1_000_000)
  is_training: bool = False
  seed: int = validation.number(0, least=0, most=validation.MAX_SEED)
  num_examples: int = validation.number(0, least=0)
  shuffle_buffer_size: int = validation.number(1024, least=1)
  prefetch_buffer_size: int | None = validation.number(4, least=0, most=10_000)
  cycle_length: int = validation.number(8, least=1, most=10_000)
  bagging_seed: int = validation.number(-1, least=-1, most=validation.MAX_SEED)
  skip_corrupt_records: bool = False
  skip_malformed_records: bool = False
  autotune_algorithm: str | None = validation.choice(
    None,
    'DEFAULT',
    'HILL_CLIMB',
    'GRADIENT_DESCENT',
    'MAX_PARALLELISM',
    'STAGE_BASED',
  )

  def check(self, path: str):
    """Raises where fields exclude each other; see `validation`."""
    for name in (
      'tfds_name',
      'tfds_split',
      'tfds_data_dir',
      'tfds_as_supervised',
      'tfds_skip_decoding_feature',
    ):
      if getattr(self, name):
        raise ValueError(
          f'{path}.{name} is {getattr(self, name)!r}: only TFRecord files are read. '
          'Set input_path instead.'
        )
    if self.enable_tf_data_service:
      if not self.tf_data_service_address:
        raise ValueError(
          f'{path}.enable_tf_data_service is True: it needs '
          "tf_data_service_address. Set it, for example to 'grpc://host:5050'."
        )
      for name in ('skip_corrupt_records', 'skip_malformed_records'):
        if getattr(self, name):
          raise ValueError(
            f'{path}.{name} is True: it runs Python code, which a tf.data service '
            'cannot. Set it or enable_tf_data_service to False.'
          )

  def check_evaluation(self, path: str):
    """Raises a ValueError where records are not read once each, as to evaluate.

    Args:
      path: of this configuration, for the message.
    """
    if self.bagging_seed >= 0:
      raise ValueError(
        f'{path}.bagging_seed is {self.bagging_seed}: evaluation reads every '
        'record once. Set it to -1.'
      )
    if self.drop_remainder:
      raise ValueError(
        f'{path}.drop_remainder is True: evaluation would lose the last videos. '
        'Set it to False.'
      )
    if self.enable_tf_data_service:
      raise ValueError(
        f'{path}.enable_tf_data_service is True: it is for training, since with '
        'several workers it may deliver a record more than once. Set it to False.'
      )
