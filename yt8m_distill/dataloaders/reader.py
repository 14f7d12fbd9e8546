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

from collections.abc import Iterator
from collections.abc import Sequence
import functools

import numpy as np
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config
from yt8m_distill.dataloaders import fast_parser
from yt8m_distill.dataloaders import record_errors
from yt8m_distill.dataloaders import record_parser
from yt8m_distill.dataloaders import skipped
from yt8m_distill.dataloaders import taught_records
from yt8m_distill.dataloaders import thinned_records
from yt8m_distill.dataloaders import window_records
from yt8m_distill.modeling import frame_selection
from yt8m_distill.utils import cli
from yt8m_distill.utils import quantization

_NUM_SEEDS = 2**31 - 1
_MAX_CUT = 150  # selected frames that are cut out one by one
_KINDS = {tf.string: 'bytes_list', tf.int64: 'int64_list', tf.float32: 'float_list'}
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
    single = dict(thinned_records.CONTEXT)
    if self._with_window_starts:
      single[window_records.START] = tf.int64
    if answers:
      single.update(answers.context)
    self._parser = record_parser.RecordParser(
      single, window_records.RATINGS if rated else {}, with_labels
    )
    self._max_selected = selection.max_selected(max_frames)
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
        `video_labels` bool [B, V] if labels are ratings; `teacher`, see
        `taught_records.Answers.decode`, if requested.
      labels: bool [B, V].
    """
    return self._read((paths, indices, serialized), epoch_keys)

  @tf.autograph.experimental.do_not_convert
  def read_explained(
    self,
    paths: tf.Tensor,
    indices: tf.Tensor,
    serialized: tf.Tensor,
    epoch_keys: tf.Tensor | None = None,
  ) -> _Examples:
    """Reads as __call__(), but Python says what is wrong; in this process only.

    The graph's own message holds no values, and does not always name the record if its
    bytes are damaged.

    Args:
      paths: as for __call__().
      indices: as for __call__().
      serialized: as for __call__().
      epoch_keys: as for __call__().

    Returns:
      As for __call__().

    Raises:
      InvalidArgumentError: when run, if a record is invalid; with the line that
        explain() returns.
    """
    return self._read((paths, indices, serialized), epoch_keys, self._faults)

  @tf.autograph.experimental.do_not_convert
  def find_valid(
    self,
    paths: tf.Tensor,
    indices: tf.Tensor,
    serialized: tf.Tensor,
    count_skipped: bool = True,
  ) -> tf.Tensor:
    """Tells which records of a batch can be read; logs and counts the others.

    Args:
      paths: see __call__().
      indices: see __call__().
      serialized: see __call__().
      count_skipped: False if another process logs and counts the same records.

    Returns:
      bool [B]. Python looks at batches that hold an invalid record.
    """
    batch = paths, indices, serialized
    *_, checks = self._inspect(batch, self._faults)
    return tf.cond(
      tf.reduce_all([tf.reduce_all(is_valid) for is_valid, _ in checks]),
      lambda: tf.fill([tf.size(indices)], True),
      lambda: tf.ensure_shape(
        tf.numpy_function(functools.partial(self._skip, count_skipped), batch, tf.bool),
        [None],
      ),
    )

  def explain(self, path: str, index: int, serialized: bytes) -> str:
    """Says what is wrong with a record, in one line; '' if nothing is.

    Args:
      path: its file.
      index: its position there.
      serialized: its bytes.
    """
    try:
      self.check(path, index, serialized)
    except record_errors.RecordError as error:
      return str(error)
    return ''

  def check(self, path: str, index: int, serialized: bytes):
    """Checks a record as the graph does.

    Args:
      path: as for explain().
      index: as for explain().
      serialized: as for explain().

    Raises:
      RecordError: what explain() returns.
    """
    name = record_errors.name_of(path, index)
    record = record_errors.parse(name, serialized)
    record_errors.check_format(self._features, name, record)
    context = record.context.feature
    values = {
      key: record_errors.values(name, context, key, _KINDS[dtype])
      for key, dtype in self._parser.keys.items()
    }
    stored = record_errors.num_frames(self._features[0], record)
    length = min(thinned_records.length(values, stored), self._max_frames)
    faults = []
    if self._with_labels:
      if record_parser.LABELS not in context:
        faults.append('no `labels`. Only prediction reads such records.')
      faults += record_errors.label_faults(
        record_parser.LABELS, values[record_parser.LABELS], self._num_classes
      )
    faults += record_errors.frame_faults(self._features, record)
    faults += [
      f'{key} has {len(values[key])} values, but must have one. {record_errors.REMOVE}'
      for key in self._parser.single
      if len(values[key]) > 1
    ]
    if self._rated:
      faults += window_records.rating_faults(values, self._num_classes)
    if self._with_window_starts:
      faults += window_records.start_faults(values[window_records.START], length)
    if self._answers:
      faults += self._answers.faults(values)
    if not faults:
      faults += thinned_records.faults(
        self._selection, self._max_frames, values, stored
      )
    if faults:
      video = record_errors.escape(record_parser.video_id(context, path, index))
      raise record_errors.RecordError(f'{name} (id {video}): {" ".join(faults)}')

  def _refused(self, *batch: np.ndarray) -> Iterator[int]:
    """Yields the positions of the records of a batch that the graph refuses.

    By halves: most batches have few such records, and a call takes long.
    """
    try:
      self(*map(tf.constant, batch))
    # The message may hold bytes of the record, which are not always UTF-8.
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError):
      middle = len(batch[0]) // 2
      if not middle:
        yield 0
        return
      yield from self._refused(*(values[:middle] for values in batch))
      for position in self._refused(*(values[middle:] for values in batch)):
        yield middle + position

  def _explain_refused(self, path: str, index: int, serialized: bytes) -> str:
    """Says what is wrong with a record that the graph refuses."""
    return self.explain(path, index, serialized) or (
      f'{record_errors.name_of(path, index)}: its bytes are damaged, so that '
      f'TensorFlow cannot parse them. {record_errors.REMOVE}'
    )

  def first_fault(self, *batch: np.ndarray) -> str:
    """Says what is wrong with the first invalid record of a batch; '' if all are valid.

    Args:
      *batch: paths, indices and serialized, as for __call__().
    """
    refused = next(self._refused(*batch), None)
    return '' if refused is None else self._explain_refused(*_record(refused, *batch))

  def _faults(self, *batch: np.ndarray) -> str:
    """Says why a batch was refused."""
    if text := self.first_fault(*batch):
      return text
    try:
      self(*map(tf.constant, batch))
    except tf.errors.OpError as error:  # It has nothing to do with the records.
      return cli.message(error)
    return 'Reading failed, but succeeds when it is repeated. Repeat the command.'

  def _skip(self, count_skipped: bool, *batch: np.ndarray) -> np.ndarray:
    """Tells which records of a batch are valid; logs and counts the others."""
    is_valid = np.ones(len(batch[0]), bool)
    for position in self._refused(*batch):
      is_valid[position] = False
      if count_skipped:
        skipped.malformed(self._explain_refused(*_record(position, *batch)))
    return is_valid

  def _read(self, batch: record_parser.Records, epoch_keys, explain=None) -> _Examples:
    """Reads a batch; `explain` is that of `record_errors.assert_valid`."""
    read = self._read_fast if self._fast_parser else self._read_any
    inputs, labels = read(batch, epoch_keys, explain)
    size = sum(feature.size for feature in self._features)
    inputs['frames'] = tf.ensure_shape(
      inputs['frames'], [None, self._max_selected, size]
    )
    return inputs, tf.ensure_shape(labels, [None, self._num_classes])

  def _read_fast(self, batch: record_parser.Records, epoch_keys, explain) -> _Examples:
    """Reads valid records of the usual layout; falls back to `_read_any`."""
    assert self._fast_parser
    paths, indices, serialized = batch
    found = self._fast_parser.find(serialized)
    context, _, checks = self._parser.parse(
      (paths, indices, found.contexts), (), explain
    )
    stored = tf.cast(found.num_frames, tf.int64)
    num_frames, steps = self._lengths(context, stored)
    checks += self._context_checks(context, num_frames)
    checks += thinned_records.checks(self._selection, self._max_frames, context, stored)
    ids = record_parser.video_ids(context, paths, indices)
    seeds = self._seeds(ids, epoch_keys)
    if self._selection.type == 'all':
      count = num_frames
      is_cut, values = self._fast_parser.cut(serialized, found, self._max_frames)
      if self.dtype == tf.float32:
        values = [
          tf.bitcast(
            tf.reshape(v, tf.concat([tf.shape(v)[:2], [f.size, 4]], 0)), tf.float32
          )
          for v, f in zip(values, self._features)
        ]
    else:
      places, count = self._choose(num_frames, steps, seeds, context)
      is_cut, strings = self._fast_parser.cut_some(serialized, found, places, count)
      values = [tf.io.decode_raw(strings, self.dtype, fixed_length=self._frame_bytes())]
    is_valid = found.is_regular & is_cut
    if self.dtype == tf.float32:
      is_valid &= tf.reduce_all([tf.reduce_all(tf.math.is_finite(v)) for v in values])
    if self._with_labels:
      is_valid &= tf.reduce_all(record_parser.has_labels(context))
    for is_correct, _ in checks:
      is_valid &= tf.reduce_all(is_correct)

    def examples():
      frames = tf.concat([v[:, : self._max_selected] for v in values], 2)
      return self._examples(ids, seeds, context, num_frames, frames, count)

    return tf.cond(
      is_valid, examples, lambda: self._read_any(batch, epoch_keys, explain)
    )

  def _read_any(self, batch: record_parser.Records, epoch_keys, explain) -> _Examples:
    """Reads all kinds of records and raises errors about invalid ones."""
    paths, indices, _ = batch
    context, values, checks = self._inspect(batch, explain)
    ids = record_parser.video_ids(context, paths, indices)
    seeds = self._seeds(ids, epoch_keys)
    check = record_errors.assert_valid(checks, batch, explain)
    with tf.control_dependencies([check]):
      num_frames, steps = self._lengths(context, values[0].row_lengths())
      frames, count = self._decode(
        [tf.identity(v) for v in values], num_frames, steps, seeds, context
      )
      return self._examples(ids, seeds, context, num_frames, frames, count)

  def _inspect(self, batch: record_parser.Records, explain):
    """Parses and checks a batch.

    Returns:
      context: see RecordParser.parse().
      values: see RecordParser.parse().
      checks: all of them.
    """
    context, values, checks = self._parser.parse(batch, self._features, explain)
    stored = values[0].row_lengths()
    length = thinned_records.num_frames(context, stored)
    checks += self._context_checks(context, tf.minimum(length, self._max_frames))
    checks += [
      (stored > 0, 'no frames'),
      *(
        (value.row_lengths() == stored, 'features of different lengths')
        for value in values[1:]
      ),
      *thinned_records.checks(self._selection, self._max_frames, context, stored),
    ]
    if self._with_labels:
      has_values = record_parser.has_labels(context)
      has_labels = tf.cond(
        tf.reduce_all(has_values),
        lambda: has_values,
        lambda: has_values | record_parser.has_empty_labels(batch[2]),
      )
      checks.append((has_labels, 'no labels'))
    return context, values, checks

  def _context_checks(self, context, num_frames) -> list[record_errors.Check]:
    """Returns checks of what examples need of labels, windows and a teacher's answer.

    Args:
      context: see RecordParser.parse().
      num_frames: integers [B], frames of the videos, at most max_frames.
    """
    checks = []
    if self._with_labels:
      checks.append(record_parser.check_labels(context, self._num_classes))
    if self._rated:
      checks += window_records.check_ratings(context, self._num_classes)
    if self._with_window_starts:
      checks.append(window_records.check_start(context, num_frames))
    if self._answers:
      checks += self._answers.checks(context)
    return checks

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
    shape, labels = [tf.size(ids), self._num_classes], context[record_parser.LABELS]
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
      context: see RecordParser.parse().
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
    values: Sequence[tf.RaggedTensor],
    num_frames: tf.Tensor,
    steps: tf.Tensor,
    seeds: tf.Tensor | None,
    context,
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Selects frames and decodes only those.

    Args:
      values: per feature, the stored frames [B, (T), ...].
      num_frames: int32 [B], frames of the videos, at most max_frames.
      steps: int32 [B], distance of the stored frames in the videos.
      seeds: int32 [B], for random selections.
      context: see RecordParser.parse(), for those of a window.

    Returns:
      Frames, uint8 or float32 [B, K, D], and how many are selected, int32 [B].
    """
    places, count = self._choose(num_frames, steps, seeds, context)
    selected = [_select(v, places) for v in values]
    is_selected = tf.sequence_mask(count, self._max_selected)
    if self._as_bytes:
      # Joining strings before decoding them takes less than half the time of decoding
      # each feature and concatenating the results.
      frames = tf.io.decode_raw(
        tf.where(is_selected, tf.strings.join(selected), ''),
        self.dtype,
        fixed_length=self._frame_bytes(),
      )
    else:
      frames = tf.concat(
        [self._decode_feature(v, f) for v, f in zip(selected, self._features)], 2
      )
      frames = tf.where(is_selected[..., None], frames, tf.zeros([], self.dtype))
    return frames, count

  def _decode_feature(self, frames, feature: data.Feature) -> tf.Tensor:
    """Decodes the frames of one feature, [B, K, ...], to [B, K, size]."""
    if feature.format in data.BYTES_PER_VALUE:
      return tf.io.decode_raw(
        frames, self.dtype, fixed_length=record_errors.frame_bytes(feature)
      )
    if feature.format == 'quantized_floats':
      return quantization.quantize(frames)
    return frames


def seeds_of(ids: tf.Tensor) -> tf.Tensor:
  """Hashes ids to the seeds of their videos outside of training; int32 [B]."""
  return tf.cast(tf.strings.to_hash_bucket_fast(ids, _NUM_SEEDS), tf.int32)


def _select(values: tf.RaggedTensor, indices) -> tf.Tensor:
  """Gathers frames [B, K, ...] at int32 [B, K]; after a video's end, any will do."""
  indices = tf.cast(indices, tf.int64) + values.row_splits[:-1, tf.newaxis]
  return tf.gather(values.values, tf.minimum(indices, values.row_splits[-1] - 1))


def _record(position: int, *batch: np.ndarray) -> tuple[str, int, bytes]:
  """Returns file, position there, and bytes of a record of a batch."""
  path, index, serialized = (values[position] for values in batch)
  return path.decode(errors='backslashreplace'), int(index), serialized
