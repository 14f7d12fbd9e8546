"""From a serialized record to the frames and labels of a video.

Source: the frame-level `tf.train.SequenceExample` of all YouTube-8M releases.
Context: `id` (2018, 2019) or `video_id` (2017), `labels` (int64; absent in the
test partitions). Feature lists: per feature one byte string a frame, its values
uint8. MediaPipe's records have float lists and `clip/data_path`. Video-level
records are `tf.train.Example`s with one float list a feature, which read as a
SequenceExample with a context alone. Records that keep every N-th frame alone
are those of `thinning`. Deviations from the original reader: frames stay uint8
and are chosen before they are decoded; a record without frames or with features
of different length is an error; one without id is called `<shard>:<index>`.

B records, T frames of the longest, K chosen frames at most, D features, V
classes. A whole batch is read at once: one call per record costs more than what
it does, and here frames are decoded straight into the padded batch.
"""

from collections.abc import Sequence

import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.dataloaders import fast_parser
from yt8m_distill.dataloaders import record_errors
from yt8m_distill.dataloaders import thinned_records
from yt8m_distill.modeling import frame_selection
from yt8m_distill.utils import quantization

_ID_KEYS = ('id', 'video_id', 'clip/data_path')
_LABELS = 'labels'
_SEEDS = 2**31 - 1  # how many there are
# The parser's own errors begin with this, behind the name of the record.
_REMEDY = (
  ' (each frame of a feature, or the video where its format is so, '
  'must be stored as task.model.features, or --features of predict '
  'and export, says: one byte string, or a float list of its size; '
  'labels must be int64)'
)
_Examples = tuple[dict[str, tf.Tensor], tf.Tensor]


class FrameReader:
  """Parses, checks and decodes batches of records, inside tf.data.

  Attributes:
    dtype: of the frames: uint8, or float32 where features are kept as floats.
    with_seeds: whether examples have a `seed`: asked for, or frames are drawn
      at random.
  """

  def __init__(
    self,
    features: Sequence[data.Feature],
    max_frames: int,
    num_classes: int,
    selection,
    with_ids: bool = False,
    with_labels: bool = True,
    with_seeds: bool = False,
  ):
    """Initializes the reader.

    Args:
      features: joined in this order.
      max_frames: longer videos are cut here.
      num_classes: V.
      selection: a `configs.model.FrameSelection`, which frames to decode.
      with_ids: put `id` into the examples.
      with_labels: read labels; a record without that key is then an error. If
        not, no video has any.
      with_seeds: put `seed` into the examples, what a network draws from.
    """
    formats = {f.format for f in features}
    self.dtype = tf.float32 if formats <= {'floats', 'video'} else tf.uint8
    self._features = list(features)
    self._as_bytes = formats == {'bytes'}
    self._max_frames = max_frames
    self._num_classes = num_classes
    self._selection = selection
    self._with_ids = with_ids
    self._with_labels = with_labels
    self.with_seeds = with_seeds or selection.type == 'random'
    self._max_selected = frame_selection.max_selected(selection, max_frames)
    self._layout = None
    # To find few frames takes longer than to parse and decode them.
    if self._as_bytes and selection.type == 'all':
      self._layout = fast_parser.Layout([(f.name, f.size) for f in features])

  @tf.autograph.experimental.do_not_convert  # Several times faster to trace.
  def __call__(
    self,
    paths: tf.Tensor,
    indices: tf.Tensor,
    serialized: tf.Tensor,
    draws: tf.Tensor | None = None,
  ) -> _Examples:
    """Reads a batch of records.

    Args:
      paths: string [B], the files, for messages and missing ids.
      indices: int64 [B], positions of the records in them, likewise.
      serialized: string [B].
      draws: string [B], names the times that a video is seen, each with a seed
        of its own; without it, seeds follow from the videos' ids alone.

    Returns:
      inputs: `frames` uint8 (or float32) [B, K, D], zero behind the chosen
        frames; `num_frames` int32 [B], how many are chosen; `id` string [B] and
        `seed` int32 [B] if asked for.
      labels: bool [B, V].
    """
    read = self._read_regular if self._layout else self._read_any
    inputs, labels = read(paths, indices, serialized, draws)
    size = sum(feature.size for feature in self._features)
    inputs['frames'] = tf.ensure_shape(
      inputs['frames'], [None, self._max_selected, size]
    )
    return inputs, tf.ensure_shape(labels, [None, self._num_classes])

  def check_format(self, path: str, index: int, serialized: bytes):
    """Raises a ValueError where a record has another format altogether."""
    record_errors.check_format(self._features, path, index, serialized)

  def _read_regular(self, paths, indices, serialized, draws) -> _Examples:
    """Reads good records of the regular layout; others as `_read_any` does."""
    regular, contexts, num_frames, frames = self._layout.read(
      serialized, self._max_frames
    )
    context, _, _ = self._parse(paths, indices, contexts)
    labels = context[_LABELS]
    good = regular & tf.reduce_all(
      (labels.values >= 0) & (labels.values < self._num_classes)
    )
    good &= tf.reduce_all(thinned_records.steps(context) == 1)
    if self._with_labels:
      good &= tf.reduce_all(_some(labels))

    def examples():
      joined = tf.concat([f[:, : self._max_frames] for f in frames], 2)
      count = tf.minimum(num_frames, self._max_frames)
      ids = _video_ids(context, paths, indices)
      return self._examples(ids, self._seeds(ids, draws), labels, joined, count)

    return tf.cond(
      good, examples, lambda: self._read_any(paths, indices, serialized, draws)
    )

  def _read_any(self, paths, indices, serialized, draws) -> _Examples:
    """Reads any records, and says what is wrong with them."""
    context, lists, lengths = self._parse(paths, indices, serialized, self._features)
    values = [lists[feature.name] for feature in self._features]
    lengths = tf.stack([lengths[f.name] for f in self._features], 1)
    labels = context[_LABELS]
    labels_there = tf.fill([tf.size(serialized)], True)
    if self._with_labels:
      some = _some(labels)
      labels_there = tf.cond(
        tf.reduce_all(some), lambda: some, lambda: some | _have_labels(serialized)
      )
    ids = _video_ids(context, paths, indices)
    seeds = self._seeds(ids, draws)
    where = tf.strings.join([_where(paths, indices), ' (id ', ids, ')'])
    check = record_errors.assert_good(
      self._features, where, values, lengths, labels_there, labels, self._num_classes
    )
    fits = thinned_records.assert_fits(
      self._selection, self._max_frames, where, context, lengths[:, 0]
    )
    with tf.control_dependencies([check, fits]):
      frames, count = self._decode(
        [tf.identity(v) for v in values],
        tf.cast(thinned_records.num_frames(context, lengths[:, 0]), tf.int32),
        tf.cast(thinned_records.steps(context), tf.int32),
        seeds,
      )
      return self._examples(ids, seeds, labels, frames, count)

  def _parse(self, paths, indices, serialized, features: Sequence[data.Feature] = ()):
    """Parses the context and the lists of `features`."""
    context = {key: tf.io.FixedLenFeature([], tf.string, '') for key in _ID_KEYS}
    context.update(thinned_records.context_features())
    if self._with_labels:
      context[_LABELS] = tf.io.VarLenFeature(tf.int64)
    videos = [f for f in features if f.format == 'video']
    # Of a fixed size the parser's errors would not name them.
    context.update({f.name: tf.io.RaggedFeature(tf.float32) for f in videos})
    lists = {
      f.name: tf.io.FixedLenSequenceFeature(
        *(([], tf.string) if f.format == 'bytes' else ([f.size], tf.float32)),
        allow_missing=True,
      )
      for f in features
      if f not in videos
    }
    context, lists, lengths = tf.io.parse_sequence_example(
      serialized,
      context,
      lists,
      example_names=tf.strings.join([_where(paths, indices), _REMEDY]),
    )
    for f in videos:  # One frame each.
      with tf.control_dependencies(
        [
          record_errors.assert_size(
            f, _where(paths, indices), context[f.name].row_lengths()
          )
        ]
      ):
        lists[f.name] = context[f.name].to_tensor(shape=[None, f.size])[:, None]
      lengths[f.name] = tf.ones_like(serialized, tf.int64)
    if not self._with_labels:
      context[_LABELS] = tf.sparse.SparseTensor(
        tf.zeros([0, 2], tf.int64),
        tf.zeros([0], tf.int64),
        tf.stack([tf.size(serialized, tf.int64), 0]),
      )
    return context, lists, lengths

  def _seeds(self, ids, draws) -> tf.Tensor | None:
    """A hash of each id and draw, int32 [B]; None where none is needed."""
    if not self.with_seeds:
      return None
    if draws is not None:
      ids = tf.strings.join([ids, draws], '\n')
    return tf.cast(tf.strings.to_hash_bucket_fast(ids, _SEEDS), tf.int32)

  def _examples(self, ids, seeds, labels, frames, count) -> _Examples:
    hot = tf.stack([labels.indices[:, 0], labels.values], 1)
    inputs = {'frames': frames, 'num_frames': count}
    if self._with_ids:
      inputs['id'] = ids
    if seeds is not None:
      inputs['seed'] = seeds
    return inputs, tf.tensor_scatter_nd_update(
      tf.zeros([tf.size(ids), self._num_classes], tf.bool),
      hot,
      tf.ones_like(labels.values, tf.bool),
    )

  def _decode(
    self,
    values: list[tf.Tensor],
    num_frames: tf.Tensor,
    steps: tf.Tensor,
    seeds: tf.Tensor | None,
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Chooses among frames [B, T, ...] and decodes the chosen alone.

    Args:
      values: per feature, frames of the records.
      num_frames: int32 [B], of the videos.
      steps: int32 [B], how far apart in the videos the frames are.
      seeds: int32 [B], where frames are drawn.

    Returns:
      uint8 or float32 [B, K, D], and int32 [B], how many are chosen.
    """
    indices, count = frame_selection.frame_indices(
      tf.minimum(num_frames, self._max_frames), self._selection, self._max_frames, seeds
    )
    if self._selection.type == 'all':  # A slice of everything copies nothing.
      values = [v[:, : self._max_selected] for v in values]
    else:
      indices = tf.minimum(indices // steps[:, tf.newaxis], tf.shape(values[0])[1] - 1)
      values = [tf.gather(v, indices, batch_dims=1) for v in values]
    chosen = tf.sequence_mask(count, tf.shape(values[0])[1])
    if self._as_bytes:
      # Joining strings and decoding them takes less than half the time of
      # decoding feature by feature and joining what comes out.
      frames = _bytes(
        tf.where(chosen, tf.strings.join(values), ''),
        sum(feature.size for feature in self._features),
      )
    else:
      frames = tf.concat([_numbers(v, f) for v, f in zip(values, self._features)], 2)
      frames = tf.where(chosen[..., None], frames, tf.zeros([], self.dtype))
    padding = self._max_selected - tf.shape(frames)[1]
    return tf.pad(frames, [[0, 0], [0, padding], [0, 0]]), count


def _bytes(strings, size: int) -> tf.Tensor:
  return tf.io.decode_raw(strings, tf.uint8, fixed_length=size)


def _numbers(values, feature: data.Feature) -> tf.Tensor:
  """Frames [B, T, size] of stored ones."""
  if feature.format == 'bytes':
    return _bytes(values, feature.size)
  if feature.format != 'quantized_floats':
    return values
  return quantization.quantize(values)


def _where(paths, indices) -> tf.Tensor:
  """What to call the records; string [B]."""
  return tf.strings.join([paths, ', record ', tf.strings.as_string(indices)])


def _some(labels) -> tf.Tensor:
  """Whether there is a label; bool [B]."""
  return (
    tf.math.bincount(
      tf.cast(labels.indices[:, 0], tf.int32),
      minlength=tf.cast(labels.dense_shape[0], tf.int32),
    )
    > 0
  )


def _video_ids(context, paths, indices) -> tf.Tensor:
  """The first of _ID_KEYS that is there, else `<shard>:<index>`; string [B]."""
  shards = tf.strings.regex_replace(paths, '.*/', '')
  ids = tf.strings.join([shards, tf.strings.as_string(indices)], ':')
  for key in reversed(_ID_KEYS):
    ids = tf.where(context[key] != '', context[key], ids)
  return ids


def _have_labels(serialized) -> tf.Tensor:
  """Whether the key is there, be it without values; bool [B].

  The parser cannot tell: it gives no values in either case.
  """

  def field(message, name, value):
    values = tf.io.decode_proto(value, message, [name], [tf.string])[1][0]
    return tf.reshape(values, [tf.size(serialized), -1])

  contexts = field('tensorflow.SequenceExample', 'context', serialized)
  entries = field('tensorflow.Features', 'feature', contexts)
  keys = field('tensorflow.Features.FeatureEntry', 'key', entries)
  return tf.reduce_any(keys == _LABELS, 1)
