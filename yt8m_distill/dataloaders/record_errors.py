"""What can be wrong with a record, and with what is expected of it, in words.

B records, T frames of the longest.
"""

from collections.abc import Sequence

from google.protobuf import message as protobuf
import tensorflow as tf

from yt8m_distill.configs import data

# Of the frames of a feature that are stored so.
_REMEDIES = {
  'bytes_list': 'Set its format in task.model.features to bytes.',
  'float_list': 'Set its format in task.model.features: quantized_floats for '
  'a network trained on the releases, or floats.',
}


def check_format(
  features: Sequence[data.Feature], path: str, index: int, serialized: bytes
):
  """Says in plain words when records have another format altogether.

  The graph would say less, for its parser knows only the keys it asks for.

  Args:
    features: expected.
    path: file of the record.
    index: its position there.
    serialized: the record.

  Raises:
    ValueError: no SequenceExample or Example, or a feature is missing, of
      another kind, or of another size where it is the video's.
  """
  where = f'{path}, record {index}'
  try:
    # An Example reads as one with a context alone.
    record = tf.train.SequenceExample.FromString(serialized)
  except protobuf.DecodeError as e:
    raise ValueError(
      f'{where}: no tf.train.SequenceExample or Example. Set input_path to '
      'YouTube-8M records, frame-level or video-level.'
    ) from e
  lists = record.feature_lists.feature_list
  context = record.context.feature
  for feature in features:
    of_video = feature.format == 'video'
    here, there = (context, lists) if of_video else (lists, context)
    if feature.name not in here:
      level, other = ('video', 'frame') if of_video else ('frame', 'video')
      raise ValueError(
        f'{where}: no {level}-level feature {feature.name!r}, but '
        f'{sorted(here) or "none at all"}; {other}-level {sorted(there)}. '
        'Correct task.model.features (those of a whole video have the format '
        f'video), or input_path where these are {other}-level records.'
      )
    wanted = 'bytes_list' if feature.format == 'bytes' else 'float_list'
    for value in [here[feature.name]] if of_video else (here[feature.name].feature):
      kind = value.WhichOneof('kind')
      if kind != wanted:
        stored = f'a {kind}' if kind else 'empty'
        remedies = {} if of_video else _REMEDIES
        raise ValueError(
          f'{where}: feature {feature.name!r} is {stored}, but its format '
          f'{feature.format!r} is a {wanted}. '
          + remedies.get(kind, 'Leave the record out.')
        )
      size = len(value.float_list.value)
      if of_video and size != feature.size:
        raise ValueError(
          f'{where}: feature {feature.name!r} has {size} values, not '
          f'{feature.size}; set its size in task.model.features.'
        )


def assert_size(feature: data.Feature, where, sizes) -> tf.Operation:
  """Raises an InvalidArgumentError about the first video of another size.

  Args:
    feature: of the whole video.
    where: string [B], what to call the records.
    sizes: int [B], values in each; 0 where the feature is missing.

  Returns:
    An operation to wait for.
  """
  good = sizes == feature.size

  def fail():
    bad = tf.argmin(tf.cast(good, tf.int32))
    return tf.Assert(
      False,
      [
        tf.strings.join(
          [
            where[bad],
            f': {feature.name} has ',
            tf.strings.as_string(sizes[bad]),
            f' values, not {feature.size} (0: it is missing); correct '
            'task.model.features (of predict and export: --features) or leave the '
            'record out.',
          ]
        )
      ],
    )

  return tf.cond(tf.reduce_all(good), tf.no_op, fail)


def assert_good(
  features: Sequence[data.Feature],
  where,
  values,
  lengths,
  labels_there,
  labels,
  num_classes,
) -> tf.Operation:
  """Raises an InvalidArgumentError with all faults of the first bad record.

  Args:
    features: F of them.
    where: string [B], what to call the records.
    values: per feature string [B, T] or float32 [B, T, size], frames.
    lengths: int64 [B, F], frames of each.
    labels_there: bool [B], whether a record has what labels it must have.
    labels: sparse int64 [B, labels].
    num_classes: that labels must be below.

  Returns:
    An operation to wait for.
  """
  rows, hot = labels.indices[:, 0], labels.values
  in_range = (
    tf.math.unsorted_segment_min(
      tf.cast((hot >= 0) & (hot < num_classes), tf.int32), rows, tf.size(where)
    )
    > 0
  )
  lengths_good = tf.reduce_all((lengths > 0) & (lengths == lengths[:, :1]), 1)
  frames_good = []
  for i, (feature, value) in enumerate(zip(features, values)):
    good = (
      tf.strings.length(value) == feature.size
      if feature.format == 'bytes'
      else tf.reduce_all(tf.math.is_finite(value), 2)
    )
    real = tf.sequence_mask(lengths[:, i], tf.shape(value)[1])
    frames_good.append(tf.reduce_all(good | ~real, 1))
  good = tf.reduce_all(
    tf.stack([labels_there, in_range, lengths_good, *frames_good]), 0
  )

  def fail():
    names = ', '.join(feature.name for feature in features)
    bad = tf.argmin(tf.cast(good, tf.int32))
    problems = [
      (labels_there, ['no `labels`; only prediction reads such videos']),
      (
        in_range,
        [
          'labels are ',
          _list(hot[rows == bad]),
          f', but must lie between 0 and {num_classes - 1}; set task.model.num_classes',
        ],
      ),
      (
        lengths_good,
        [
          f'{names} have ',
          _list(lengths[bad]),
          ' frames, but each must '
          'have equally many, at least 1 (0 may mean that the feature is '
          'missing); correct task.model.features (of predict and export: '
          '--features) or leave the record out',
        ],
      ),
    ]
    for i, (feature, value) in enumerate(zip(features, values)):
      text = [f'{feature.name} holds NaN or infinity; leave the record out']
      if feature.format == 'bytes':
        widths = tf.strings.length(value[bad, : lengths[bad, i]])
        text = [
          f'{feature.name} has frames of ',
          _list(tf.unique(widths)[0]),
          f' bytes, not {feature.size}; set its size in task.model.features',
        ]
      problems.append((frames_good[i], text))
    texts = [
      tf.where(fine[bad], '', tf.strings.join([': ', *text])) for fine, text in problems
    ]
    return tf.Assert(False, [tf.strings.join([where[bad], *texts, '.'])])

  return tf.cond(tf.reduce_all(good), tf.no_op, fail)


def _list(values) -> tf.Tensor:
  return tf.strings.reduce_join(tf.strings.as_string(values), separator=', ')
