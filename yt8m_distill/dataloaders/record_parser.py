"""Parses batches of serialized records, and checks what was parsed.

B records, T frames, V classes.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import os
from typing import Any

import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.dataloaders import record_errors
from yt8m_distill.dataloaders import window_records

ID_KEYS = ('id', 'video_id', 'clip/data_path')
LABELS = 'labels'
# Paths string [B], positions int64 [B] and records string [B].
Records = tuple[tf.Tensor, tf.Tensor, tf.Tensor]


class RecordParser:
  """Parses the contexts of records, and features.

  Attributes:
    single: what has at most one value, with the type of the value.
    keys: what is read of the context, with the type of the values.
  """

  def __init__(
    self,
    single: Mapping[str, tf.DType],
    ratings: Mapping[str, tf.DType],
    with_labels: bool,
  ):
    """Initializes the parser.

    Args:
      single: as in the class, without the ids, which are always read.
      ratings: keys of the ratings of windows; empty to read none.
      with_labels: read labels.
    """
    self.single = {**dict.fromkeys(ID_KEYS, tf.string), **single}
    self._with_labels = with_labels
    labels = {LABELS: tf.int64} if with_labels else {}
    self.keys = {**self.single, **labels, **ratings}

  def parse(self, batch: Records, features: Sequence[data.Feature], explain):
    """Parses the context and the given features.

    Args:
      batch: the records.
      features: to parse, besides the context.
      explain: see `record_errors.assert_valid`; if given, records that cannot be
        parsed fail a check instead of raising an error.

    Returns:
      context: by key: labels sparse int64 [B, labels], ratings ragged, and of others
        their value, which is '' or 0 if missing.
      values: per feature the frames, ragged string [B, (T)] or float32 [B, (T), size];
        none or zeros if they are invalid.
      checks: of all that was parsed.
    """
    # Ragged, because a padded batch could be far larger than its records.
    spec: dict[str, Any] = {
      key: tf.io.RaggedFeature(dtype) for key, dtype in self.keys.items()
    }
    if self._with_labels:
      spec[LABELS] = tf.io.VarLenFeature(tf.int64)
    lists: dict[str, Any] = {}
    for f in features:
      dtype = tf.string if f.format in data.BYTES_PER_VALUE else tf.float32
      level = spec if f.format == 'video' else lists
      level[f.name] = tf.io.RaggedFeature(dtype, row_splits_dtype=tf.int64)
    paths, indices, serialized = batch
    checks: list[record_errors.Check] = []
    if explain:
      (context, lists), is_parsed = _try_to_parse(serialized, spec, lists)
      checks.append((tf.fill([tf.size(serialized)], is_parsed), ''))
    else:
      names = record_errors.names(paths, indices)
      context, lists, _ = tf.io.parse_sequence_example(
        serialized, spec, lists, example_names=names
      )
    values = []
    for f in features:
      frames, new = _frames(f, (context if f.format == 'video' else lists)[f.name])
      values.append(frames)
      checks += new
    for key in self.single:
      counts = context[key].row_lengths()
      checks.append((counts <= 1, f'several values of {key}'))
      if key == window_records.START:
        checks.append((counts > 0, f'no {key}'))
      context[key] = context[key].to_tensor(shape=[None, 1])[:, 0]
    if not self._with_labels:
      context[LABELS] = tf.sparse.SparseTensor(
        tf.zeros([0, 2], tf.int64),
        tf.zeros([0], tf.int64),
        tf.stack([tf.size(serialized, tf.int64), 0]),
      )
    return context, values, checks


def _frames(
  feature: data.Feature, stored: tf.RaggedTensor
) -> tuple[tf.RaggedTensor, list[record_errors.Check]]:
  """Returns the frames of a feature, ragged [B, (T), ...], and checks of them.

  Args:
    feature: the feature.
    stored: [B, (T), (values)], or, of a video-level feature, [B, (values)].
  """
  wrong_size, infinite = (
    f'{feature.name} has another size',
    f'{feature.name} holds NaN or infinity',
  )
  if feature.format in data.BYTES_PER_VALUE:
    # Frames need not have one string each, so strings and frames are counted apart.
    strings, size = stored.flat_values, record_errors.frame_bytes(feature)
    is_single = stored.values.row_lengths() == 1
    of_records = tf.gather(stored.values.row_splits, stored.row_splits)
    has_size = tf.strings.length(strings) == size
    fits = _all_within(stored.row_splits, is_single) & _all_within(of_records, has_size)
    checks = [(fits, wrong_size)]
    if feature.format == 'float32_bytes':
      numbers = tf.io.decode_raw(strings, tf.float32, fixed_length=size)
      is_finite = tf.reduce_all(tf.math.is_finite(numbers), 1)
      checks.append((_all_within(of_records, is_finite), infinite))
    return stored.with_values(strings), checks
  lists = stored if feature.format == 'video' else stored.values
  has_size = lists.row_lengths() == feature.size
  flat = tf.cond(
    tf.reduce_all(has_size),
    lambda: tf.reshape(lists.flat_values, [-1, feature.size]),
    lambda: tf.zeros([tf.size(has_size), feature.size]),
  )
  if feature.format == 'video':
    frames = tf.RaggedTensor.from_tensor(flat[:, tf.newaxis])
  else:
    frames = stored.with_values(flat)
  is_finite = tf.reduce_all(tf.math.is_finite(flat), 1)
  return frames, [
    (_all_within(frames.row_splits, has_size), wrong_size),
    (_all_within(frames.row_splits, is_finite), infinite),
  ]


def _all_within(splits: tf.Tensor, is_valid: tf.Tensor) -> tf.Tensor:
  """Whether all values of each row of a ragged tensor are valid, bool [B].

  Args:
    splits: int64 [B + 1], row splits.
    is_valid: bool [values].
  """
  # Much faster than reducing a RaggedTensor.
  valid = tf.concat([[0], tf.cumsum(tf.cast(is_valid, splits.dtype))], 0)
  valid = tf.gather(valid, splits)
  return valid[1:] - valid[:-1] == splits[1:] - splits[:-1]


def _try_to_parse(serialized, context, lists):
  """Parses as `tf.io.parse_sequence_example`, but without errors.

  Returns:
    What it returns of the context and the lists, and whether it could, bool []; if not,
    what it returns of empty records.
  """
  records = tf.data.Dataset.from_tensors((serialized, True))
  empty = tf.data.Dataset.from_tensors((tf.zeros_like(serialized), False))
  structure = None

  def parse(serialized, is_whole):
    nonlocal structure
    structure = tf.io.parse_sequence_example(serialized, context, lists)[:2]
    return *tf.nest.flatten(structure, expand_composites=True), is_whole

  # Only this operation, because every call traces the function again.
  *flat, is_parsed = (
    records.concatenate(empty).map(parse).ignore_errors().take(1).get_single_element()
  )
  return tf.nest.pack_sequence_as(structure, flat, expand_composites=True), is_parsed


def check_labels(context, num_classes: int) -> record_errors.Check:
  """Checks that labels are between 0 and V - 1.

  Args:
    context: see RecordParser.parse().
    num_classes: V.
  """
  labels = context[LABELS]
  in_range = record_errors.in_range(labels.values, num_classes)
  ok = tf.math.unsorted_segment_min(
    tf.cast(in_range, tf.int32), labels.indices[:, 0], labels.dense_shape[0]
  )
  return ok > 0, 'labels out of range'


def has_labels(context) -> tf.Tensor:
  """Returns whether a record has a label, bool [B].

  Args:
    context: see RecordParser.parse().
  """
  labels = context[LABELS]
  counts = tf.math.bincount(
    tf.cast(labels.indices[:, 0], tf.int32),
    minlength=tf.cast(labels.dense_shape[0], tf.int32),
  )
  return counts > 0


def has_empty_labels(serialized) -> tf.Tensor:
  """Whether a record has the key `labels` without values; bool [B].

  The parser cannot tell it from a missing key, so the bytes of the entry are searched
  for. An operation that parses protobufs would fail on damaged ones, and name none.
  """
  empty = (tf.train.Feature(), tf.train.Feature(int64_list=tf.train.Int64List()))
  entries = [
    tf.train.Features(feature={LABELS: feature}).SerializeToString()
    for feature in empty
  ]
  patterns = [''.join(rf'\x{byte:02X}' for byte in entry) for entry in entries]
  # \C is any byte.
  return tf.strings.regex_full_match(serialized, rf'\C*({"|".join(patterns)})\C*')


def video_ids(context, paths, indices) -> tf.Tensor:
  """Returns the first of ID_KEYS that a record has, or `<file>:<index>`; string [B].

  Args:
    context: see RecordParser.parse().
    paths: string [B], the files.
    indices: int64 [B], positions of the records in the files.
  """
  files = tf.strings.regex_replace(paths, '.*/', '')
  ids = tf.strings.join([files, tf.strings.as_string(indices)], ':')
  for key in reversed(ID_KEYS):
    ids = tf.where(context[key] != '', context[key], ids)
  return ids


def video_id(features, path: str, index: int) -> bytes:
  """Returns the id of a video as the reader finds it.

  Args:
    features: of the record's context, by key.
    path: file of the record, for a missing id.
    index: its position in the file, likewise.
  """
  ids = (features[key].bytes_list.value for key in ID_KEYS if key in features)
  missing = f'{os.path.basename(path)}:{index}'.encode()
  return next((value[0] for value in ids if value and value[0]), missing)
