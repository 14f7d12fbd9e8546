"""Turns batches of serialized records into frames and labels.

Source: the `tf.train.SequenceExample` of all frame-level YouTube-8M releases. Its
context has `id` (2018, 2019) or `video_id` (2017) and `labels` (int64; absent in the
test partitions). Each feature list has one byte string of uint8 values per frame.

Other records that are read, see `configs.data.Feature.format`:
- MediaPipe's, with float lists, and with `clip/data_path` as the id;
- those with float32 values in place of the uint8 values;
- video-level `tf.train.Example`s with one float list per feature. They parse as a
  SequenceExample that has only a context;
- records that keep only every N-th frame, see `thinned_records`;
- records that hold the answer of a teacher, see `taught_records`;
- records of rated windows, see `window_records`.

Deviations from the original reader: frames stay uint8 and are selected before they are
decoded; a record without frames, or whose features differ in length, is an error; a
record without id is named `<file>:<index>`.

A whole batch is parsed at once, because a call per record costs more than its work, and
frames are decoded directly into the padded batch.

B records, T frames of the longest, K selected frames at most, D features, V classes.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config
from yt8m_distill.dataloaders import fast_parser
from yt8m_distill.dataloaders import record_errors
from yt8m_distill.dataloaders import taught_records
from yt8m_distill.dataloaders import thinned_records
from yt8m_distill.dataloaders import window_records
from yt8m_distill.modeling import frame_selection
from yt8m_distill.utils import quantization

ID_KEYS = ('id', 'video_id', 'clip/data_path')
_LABELS = 'labels'
_NUM_SEEDS = 2**31 - 1
_MAX_CUT = 100  # selected frames that are cut out one by one
# What has at most one value, with the type of the value.
_SINGLE = {**dict.fromkeys(ID_KEYS, tf.string), **thinned_records.CONTEXT}
# Stands after the name of the record in an error of TensorFlow's parser.
_PARSER_HINT = (
  ' (it must be a tf.train.SequenceExample, or an Example if formats are video; its '
  'id a byte string; its labels int64; each frame of a feature, or the video if its '
  'format is video, must be stored as task.model.features, or --features of predict '
  'and export, says: as one byte string, or as a float list of its size. Correct what '
  'differs, or remove the record)'
)
_Examples = tuple[dict[str, tf.Tensor], tf.Tensor]


class FrameReader:
  """Parses, checks and decodes batches of records inside tf.data.

  Attributes:
    dtype: of the frames: uint8, or float32 if features are kept as floats.
    with_seeds: whether examples have a `seed`: requested, or needed by the selection.
  """

  def __init__(
    self,
    features: Sequence[data.Feature],
    max_frames: int,
    num_classes: int,
    selection: model_config.FrameSelection,
    with_ids: bool = False,
    with_labels: bool = True,
    with_seeds: bool = False,
    with_window_starts: bool = False,
    with_lengths: bool = False,
    rated: bool = False,
    answers: taught_records.Answers | None = None,
  ):
    """Initializes the reader.

    Args:
      features: concatenated in this order.
      max_frames: longer videos are cut to this number of frames.
      num_classes: V.
      selection: which frames to decode.
      with_ids: add `id` to the examples.
      with_labels: read labels; a record without that key is then an error. If False,
        no video has labels.
      with_seeds: add `seed` to the examples, for a network's random draws.
      with_window_starts: add `window_start`, for a network that selects the frames of
        the window later; a record without it is then an error.
      with_lengths: add `length` to the examples.
      rated: take the examples' labels from the ratings of windows, and add `rated`; a
        record without ratings is then an error. Labels of the videos, if read, become
        `video_labels`.
      answers: the answers of a teacher to add as `teacher`; a record without them is
        then an error.
    """
    formats = {f.format for f in features}
    self.dtype = tf.uint8 if formats <= {'bytes', 'quantized_floats'} else tf.float32
    self._features = list(features)
    self._as_bytes = formats in ({'bytes'}, {'float32_bytes'})
    self._max_frames = max_frames
    self._num_classes = num_classes
    self._selection = selection
    self._with_ids = with_ids
    self._with_labels = with_labels
    self._with_lengths = with_lengths
    self._rated = rated
    self._answers = answers
    self.with_seeds = with_seeds or selection.type == 'random'
    self._with_window_starts = with_window_starts or selection.type == 'window'
    self._single = dict(_SINGLE)
    if self._with_window_starts:
      self._single[window_records.START] = tf.int64
    if answers:
      self._single.update(answers.context)
    self._max_selected = frame_selection.max_selected(selection, max_frames)
    self._fast_parser = None
    # One operation per frame: for many, TensorFlow's parser is faster.
    if self._as_bytes and (selection.type == 'all' or self._max_selected <= _MAX_CUT):
      self._fast_parser = fast_parser.FastParser(
        [(f.name, record_errors.frame_bytes(f)) for f in features]
      )

  @tf.autograph.experimental.do_not_convert  # Tracing is several times faster.
  def __call__(
    self,
    paths: tf.Tensor,
    indices: tf.Tensor,
    serialized: tf.Tensor,
    epoch_keys: tf.Tensor | None = None,
  ) -> _Examples:
    """Reads a batch of records.

    Args:
      paths: string [B], the files, for messages and missing ids.
      indices: int64 [B], positions of the records in the files, likewise.
      serialized: string [B], the records.
      epoch_keys: string [B]; seeds are hashes of id and key, so that each epoch has
        other seeds. If None, seeds are hashes of the ids.

    Returns:
      inputs: `frames` uint8 or float32 [B, K, D], zero after the selected frames;
        `num_frames` int32 [B], the number of selected frames; `id` string [B] and
        `seed` int32 [B] if requested; `window_start` int32 [B], the index of the
        window's first frame, if requested or needed by the selection; `length` int32
        [B], frames of the video before the selection, if requested; `rated` and
        `video_labels` bool [B, V] if labels are ratings; `teacher`, as of
        `taught_records.Answers.decode`, if requested.
      labels: bool [B, V].
    """
    read = self._read_fast if self._fast_parser else self._read_any
    inputs, labels = read(paths, indices, serialized, epoch_keys)
    size = sum(feature.size for feature in self._features)
    inputs['frames'] = tf.ensure_shape(
      inputs['frames'], [None, self._max_selected, size]
    )
    return inputs, tf.ensure_shape(labels, [None, self._num_classes])

  def check_format(self, path: str, index: int, serialized: bytes):
    """Raises a ValueError if a record has a different format."""
    record_errors.check_format(self._features, path, index, serialized)

  def _read_fast(self, paths, indices, serialized, epoch_keys) -> _Examples:
    """Reads valid records of the usual layout; falls back to `_read_any`."""
    assert self._fast_parser
    found = self._fast_parser.find(serialized)
    context, counts, _, _ = self._parse(paths, indices, found.contexts)
    labels = context[_LABELS]
    is_valid = found.is_regular & tf.reduce_all(
      (labels.values >= 0) & (labels.values < self._num_classes)
    )
    is_valid &= tf.reduce_all(counts <= 1)
    stored = tf.cast(found.num_frames, tf.int64)
    for suffices in thinned_records.suffice(
      self._selection, self._max_frames, context, stored
    ):
      is_valid &= tf.reduce_all(suffices)
    length, steps = self._lengths(context, stored)
    for is_correct, _ in self._context_checks(context, counts, length):
      is_valid &= tf.reduce_all(is_correct)
    if self._with_labels:
      is_valid &= tf.reduce_all(_has_values(labels))
    ids = _video_ids(context, paths, indices)
    seeds = self._seeds(ids, epoch_keys)
    if self._selection.type == 'all':
      count = length
      is_cut, values = self._fast_parser.cut(serialized, found, self._max_frames)
      if self.dtype == tf.float32:
        values = [
          tf.bitcast(
            tf.reshape(v, tf.concat([tf.shape(v)[:2], [f.size, 4]], 0)), tf.float32
          )
          for v, f in zip(values, self._features)
        ]
      frames = lambda: tf.concat([v[:, : self._max_frames] for v in values], 2)
    else:
      chosen, count = self._choose(length, steps, seeds, context)
      is_cut, strings = self._fast_parser.cut_some(serialized, found, chosen, count)
      values = [_decode_bytes(strings, self.dtype, self._frame_bytes())]
      frames = lambda: values[0]
    is_valid &= is_cut
    if self.dtype == tf.float32:
      is_valid &= tf.reduce_all([tf.reduce_all(tf.math.is_finite(v)) for v in values])

    def examples():
      return self._examples(ids, seeds, context, length, frames(), count)

    return tf.cond(
      is_valid,
      examples,
      lambda: self._read_any(paths, indices, serialized, epoch_keys),
    )

  def _read_any(self, paths, indices, serialized, epoch_keys) -> _Examples:
    """Reads all kinds of records and raises errors that name invalid ones."""
    context, counts, stored, lengths = self._parse(
      paths, indices, serialized, self._features
    )
    labels = context[_LABELS]
    has_labels = tf.fill([tf.size(serialized)], True)
    if self._with_labels:
      has_values = _has_values(labels)
      has_labels = tf.cond(
        tf.reduce_all(has_values),
        lambda: has_values,
        lambda: has_values | _has_empty_labels(serialized),
      )
    ids = _video_ids(context, paths, indices)
    seeds = self._seeds(ids, epoch_keys)

    def name(row):
      record = _record_names(paths[row], indices[row])
      return tf.strings.join([record, ' (id ', record_errors.escape(ids[row]), ')'])

    values = [
      v if f.format in data.BYTES_PER_VALUE else _float_frames(f, v, name)
      for f, v in zip(self._features, stored)
    ]
    checks = [
      record_errors.assert_valid(
        self._features,
        name,
        dict(zip(self._single, tf.unstack(counts))),
        values,
        lengths,
        has_labels,
        labels,
        self._num_classes,
        # Of the full videos, so that thinned windows get the message below.
        self._context_checks(
          context,
          counts,
          tf.minimum(
            thinned_records.num_frames(context, lengths[:, 0]), self._max_frames
          ),
        ),
      ),
      thinned_records.assert_sufficient(
        self._selection, self._max_frames, name, context, lengths[:, 0]
      ),
    ]
    with tf.control_dependencies(checks):
      num_frames, steps = self._lengths(context, lengths[:, 0])
      frames, count = self._decode(
        [tf.identity(v) for v in values], num_frames, steps, seeds, context
      )
      return self._examples(ids, seeds, context, num_frames, frames, count)

  def _context_checks(self, context, counts, num_frames) -> list[record_errors.Check]:
    """Returns checks of what examples need of a window and of a teacher's answer.

    Args:
      context: as of _parse().
      counts: as of _parse().
      num_frames: integers [B], frames of the videos, at most max_frames.
    """
    checks = []
    if self._rated:
      checks += window_records.check_ratings(context, self._num_classes)
    if self._with_window_starts:
      start = window_records.START
      numbers = dict(zip(self._single, tf.unstack(counts)))[start]
      checks.append(window_records.check_start(context[start], numbers, num_frames))
    if self._answers:
      checks += self._answers.checks(context)
    return checks

  def _parse(self, paths, indices, serialized, features: Sequence[data.Feature] = ()):
    """Parses the context and the given features.

    Returns:
      context: by key; '' or 0 if missing.
      counts: int32 [keys, B], how many values each key of self._single has.
      values: per feature string [B, T], or ragged float32 [B, (T), (values)], or, of
        video-level features, [B, (values)].
      lengths: int64 [B, features], number of frames.
    """
    # Ragged, because the parser's error about a wrong number of values names no record.
    keys = {**self._single, **(window_records.RATINGS if self._rated else {})}
    context = {key: tf.io.RaggedFeature(dtype) for key, dtype in keys.items()}
    if self._with_labels:
      context[_LABELS] = tf.io.VarLenFeature(tf.int64)
    floats = tf.io.RaggedFeature(tf.float32, row_splits_dtype=tf.int64)
    strings = tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True)
    lists: dict[str, Any] = {}
    for f in features:
      level = context if f.format == 'video' else lists
      level[f.name] = strings if f.format in data.BYTES_PER_VALUE else floats
    names = tf.strings.join([_record_names(paths, indices), _PARSER_HINT])
    context, lists, num_strings = tf.io.parse_sequence_example(
      serialized, context, lists, example_names=names
    )
    values, lengths = [], []
    for f in features:
      values.append((context if f.format == 'video' else lists)[f.name])
      if f.format == 'video':
        lengths.append(tf.ones_like(serialized, tf.int64))  # It counts as one frame.
      elif f.format in data.BYTES_PER_VALUE:
        lengths.append(num_strings[f.name])
      else:
        lengths.append(values[-1].row_lengths())
    splits = tf.stack([context[key].row_splits for key in self._single])
    counts = splits[:, 1:] - splits[:, :-1]
    for key in self._single:
      context[key] = context[key].to_tensor(shape=[None, 1])[:, 0]
    if not self._with_labels:
      context[_LABELS] = tf.sparse.SparseTensor(
        tf.zeros([0, 2], tf.int64),
        tf.zeros([0], tf.int64),
        tf.stack([tf.size(serialized, tf.int64), 0]),
      )
    return context, counts, values, tf.stack(lengths, 1) if lengths else None

  def _seeds(self, ids, epoch_keys) -> tf.Tensor | None:
    """Hashes each id and epoch key to a seed, int32 [B]; None if not needed."""
    if not self.with_seeds:
      return None
    if epoch_keys is not None:
      ids = tf.strings.join([ids, epoch_keys], '\n')
    return seeds_of(ids)

  def _examples(self, ids, seeds, context, length, frames, count) -> _Examples:
    """Puts the tensors of a batch together; labels become multi-hot."""
    inputs = {'frames': frames, 'num_frames': count}
    if self._with_ids:
      inputs['id'] = ids
    if seeds is not None:
      inputs['seed'] = seeds
    if self._with_window_starts:
      inputs['window_start'] = tf.cast(context[window_records.START], tf.int32)
    if self._with_lengths:
      inputs['length'] = length
    if self._answers:
      inputs['teacher'] = self._answers.decode(context)
    shape, labels = [tf.size(ids), self._num_classes], context[_LABELS]
    multi_hot = window_records.multi_hot(
      tf.stack([labels.indices[:, 0], labels.values], 1), shape
    )
    if not self._rated:
      return inputs, multi_hot
    if self._with_labels:
      inputs['video_labels'] = tf.ensure_shape(multi_hot, [None, self._num_classes])
    holds, rated = window_records.ratings(context, shape)
    inputs['rated'] = tf.ensure_shape(rated, [None, self._num_classes])
    return inputs, holds

  def _frame_bytes(self) -> int:
    """Returns the bytes of a frame that all features store as byte strings."""
    return sum(map(record_errors.frame_bytes, self._features))

  def _lengths(self, context, stored) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns lengths of videos and distances of stored frames; at most max_frames.

    Args:
      context: as of _parse().
      stored: int64 [B], number of frames in the records.

    Returns:
      int32 [B] each.
    """
    # Bounded before the cast, because a damaged number could overflow or be 0.
    length, steps = (
      tf.cast(tf.clip_by_value(numbers, 1, self._max_frames), tf.int32)
      for numbers in (
        thinned_records.num_frames(context, stored),
        thinned_records.steps(context),
      )
    )
    return length, steps

  def _choose(self, num_frames, steps, seeds, context) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns places of chosen frames in the records, and how many; see `_decode`."""
    starts = None
    if self._selection.type == 'window':
      starts = tf.cast(context[window_records.START], tf.int32)
    indices, count = frame_selection.frame_indices(
      num_frames, self._selection, self._max_frames, seeds, starts
    )
    return indices // steps[:, tf.newaxis], count

  def _decode(
    self,
    values: Sequence[tf.Tensor | tf.RaggedTensor],
    num_frames: tf.Tensor,
    steps: tf.Tensor,
    seeds: tf.Tensor | None,
    context,
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Selects frames and decodes only those.

    Args:
      values: per feature, the stored frames [B, T, ...].
      num_frames: int32 [B], frames of the videos, at most max_frames.
      steps: int32 [B], distance of the stored frames in the videos.
      seeds: int32 [B], for random selections.
      context: as of _parse(), for those of a window.

    Returns:
      Frames, uint8 or float32 [B, K, D], and how many are selected, int32 [B].
    """
    indices, count = self._choose(num_frames, steps, seeds, context)
    if self._selection.type == 'all':  # Slicing copies nothing.
      values = [
        v[:, : self._max_selected] if isinstance(v, tf.Tensor) else v for v in values
      ]
    else:
      values = [_select(v, indices) for v in values]
    if self._as_bytes:
      is_selected = tf.sequence_mask(count, tf.shape(values[0])[1])
      # Joining strings before decoding them takes less than half the time of decoding
      # each feature and concatenating the results.
      frames = _decode_bytes(
        tf.where(is_selected, tf.strings.join(values), ''),
        self.dtype,
        self._frame_bytes(),
      )
    else:
      frames = tf.concat(
        [self._decode_feature(v, f) for v, f in zip(values, self._features)], 2
      )
      if self._selection.type != 'all':  # Otherwise padding is 0 already.
        is_selected = tf.sequence_mask(count, tf.shape(frames)[1])
        frames = tf.where(is_selected[..., None], frames, tf.zeros([], self.dtype))
    padding = self._max_selected - tf.shape(frames)[1]
    return tf.pad(frames, [[0, 0], [0, padding], [0, 0]]), count

  def _decode_feature(self, values, feature: data.Feature) -> tf.Tensor:
    """Decodes the stored frames of one feature to [B, T, size]."""
    if feature.format in data.BYTES_PER_VALUE:
      return _decode_bytes(values, self.dtype, record_errors.frame_bytes(feature))
    frames = values.values if isinstance(values, tf.RaggedTensor) else values
    if feature.format == 'quantized_floats':
      frames = quantization.quantize(frames)
    if isinstance(values, tf.RaggedTensor):
      return values.with_values(frames).to_tensor()[:, : self._max_selected]
    return frames


def seeds_of(ids: tf.Tensor) -> tf.Tensor:
  """Hashes ids to the seeds of their videos outside of training; int32 [B]."""
  return tf.cast(tf.strings.to_hash_bucket_fast(ids, _NUM_SEEDS), tf.int32)


def _float_frames(
  feature: data.Feature, values: tf.RaggedTensor, name
) -> tf.RaggedTensor:
  """Checks the sizes of float lists; returns them as float32 [B, (T), size]."""
  check = record_errors.assert_size(feature, name, values)
  with tf.control_dependencies([check]):
    frames = tf.reshape(values.flat_values, [-1, feature.size])
  if feature.format == 'video':
    return tf.RaggedTensor.from_tensor(frames[:, tf.newaxis])
  return values.with_values(frames)


def _select(values: tf.Tensor | tf.RaggedTensor, indices) -> tf.Tensor:
  """Gathers frames [B, T, ...] at int32 [B, K]; after a video's end, any will do."""
  if isinstance(values, tf.Tensor):
    return tf.gather(values, tf.minimum(indices, tf.shape(values)[1] - 1), batch_dims=1)
  indices = tf.cast(indices, tf.int64) + values.row_splits[:-1, tf.newaxis]
  return tf.gather(values.values, tf.minimum(indices, values.row_splits[-1] - 1))


def _decode_bytes(strings, dtype, size: int) -> tf.Tensor:
  return tf.io.decode_raw(strings, dtype, fixed_length=size)


def _record_names(paths, indices) -> tf.Tensor:
  """Names records in error messages; string [B]."""
  return tf.strings.join([paths, ', record ', tf.strings.as_string(indices)])


def _has_values(labels) -> tf.Tensor:
  """Whether a record has a label; bool [B]."""
  counts = tf.math.bincount(
    tf.cast(labels.indices[:, 0], tf.int32),
    minlength=tf.cast(labels.dense_shape[0], tf.int32),
  )
  return counts > 0


def _video_ids(context, paths, indices) -> tf.Tensor:
  """Returns the first of ID_KEYS that a record has, or `<file>:<index>`."""
  files = tf.strings.regex_replace(paths, '.*/', '')
  ids = tf.strings.join([files, tf.strings.as_string(indices)], ':')
  for key in reversed(ID_KEYS):
    ids = tf.where(context[key] != '', context[key], ids)
  return ids


def _has_empty_labels(serialized) -> tf.Tensor:
  """Whether a record has the key `labels` without values; bool [B].

  The parser cannot tell it from a missing key, so the bytes of the entry are searched
  for. An operation that parses protobufs would fail on damaged ones, and name none.
  """
  empty = (tf.train.Feature(), tf.train.Feature(int64_list=tf.train.Int64List()))
  entries = [
    tf.train.Features(feature={_LABELS: feature}).SerializeToString()
    for feature in empty
  ]
  patterns = [''.join(rf'\x{byte:02X}' for byte in entry) for entry in entries]
  # \C is any byte.
  return tf.strings.regex_full_match(serialized, rf'\C*({"|".join(patterns)})\C*')
