"""What the fields of a set of records must be, to make batches of it."""

import tensorflow as tf

from yt8m_distill.configs import data

_TFDS_FIELDS = (
  'tfds_name',
  'tfds_split',
  'tfds_data_dir',
  'tfds_as_supervised',
  'tfds_skip_decoding_feature',
)


def check(
  params: data.VideoData,
  context: tf.distribute.InputContext,
  start_step: int,
  with_seeds: bool,
):
  """Raises a ValueError about a field that cannot be honoured.

  Args:
    params: the fields.
    context: of the input pipeline that is to be made.
    start_step: batches consumed before.
    with_seeds: whether each epoch gives a video another seed.
  """
  least = [
    ('global_batch_size', 1),
    ('block_length', 1),
    ('num_examples', 0),
    ('bagging_seed', -1),
  ]
  if params.is_training:
    least += [('cycle_length', 1), ('shuffle_buffer_size', 1), ('seed', 0)]
  for name, minimum in least:
    value = getattr(params, name)
    if value is None or value < minimum:
      raise ValueError(f'{name} is {value}: it must be {minimum} or more.')
  replicas = context.num_replicas_in_sync
  if params.global_batch_size % replicas:
    raise ValueError(
      f'global_batch_size is {params.global_batch_size}, which {replicas} '
      f'replicas cannot share: make it a multiple of {replicas}.'
    )
  for name in _TFDS_FIELDS:
    if getattr(params, name):
      raise ValueError(
        f'{name} is {getattr(params, name)!r}, but only '
        'TFRecord files are read here: set input_path instead.'
      )
  if not isinstance(params.input_path, (str, list, tuple)):
    raise ValueError(
      'input_path is a mapping, but data sets are not mixed '
      'here: give files or patterns.'
    )
  if start_step < 0 or (start_step and not params.is_training):
    raise ValueError(
      f'start_step is {start_step}: it must be 0 or more, and 0 '
      'where is_training is not set.'
    )
  if not params.is_training and params.bagging_seed >= 0:
    raise ValueError(
      f'bagging_seed is {params.bagging_seed}, but evaluation '
      'reads every record once: set it to -1 in '
      'validation_data.'
    )
  if params.is_training and params.cache and with_seeds:
    raise ValueError(
      'cache is True, but the network draws frames or dropout '
      'anew each time it sees a video, and the cache would keep '
      'what was drawn first: set it to False in train_data.'
    )
  if not params.is_training and params.drop_remainder:
    raise ValueError(
      'drop_remainder is True, so that evaluation would lose '
      'the last videos: set it to False in validation_data.'
    )
  if (
    not params.is_training and not params.sharding and (context.num_input_pipelines > 1)
  ):
    raise ValueError(
      'sharding is False, so that each input pipeline would '
      'evaluate every record: set it to True.'
    )
  if params.enable_tf_data_service:
    if not params.tf_data_service_address:
      raise ValueError(
        'enable_tf_data_service needs tf_data_service_address, '
        "for example 'grpc://host:5050'."
      )
    if params.skip_corrupt_records:
      raise ValueError(
        'skip_corrupt_records runs Python code, which a tf.data '
        'service cannot: switch one of the two off.'
      )
    if not params.is_training:
      raise ValueError(
        'enable_tf_data_service is for training: with several '
        'workers it would deliver records more than once.'
      )
