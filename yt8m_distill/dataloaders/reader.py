"""From a serialized record to the frames and labels of a video.

Source: the frame-level `tf.train.SequenceExample` of all YouTube-8M releases.
Context: `id` (2018, 2019) or `video_id` (2017), `labels` (int64; absent in the
test partitions). Feature lists: per feature one byte string a frame, its values
uint8. Deviations from the original reader: frames stay uint8 and are chosen
before they are decoded; a record without frames or with features of different
length is an error; a record without id is called `<shard>:<index>`.

B records, T frames of the longest, K chosen frames at most, D features, V
classes. A whole batch is read at once: one call per record costs more than what
it does, and here frames are decoded straight into the padded batch.
"""

from typing import Dict, List, Sequence, Tuple

from google.protobuf import message as protobuf
import tensorflow as tf

from yt8m_distill import selection as selection_lib
from yt8m_distill.dataloaders import layout

_ID_KEYS = ('id', 'video_id')
_LABELS = 'labels'
_KIND_REMEDY = (' (each frame of a feature must be one byte string of uint8 '
                'values, and labels int64; quantise float features first)')
_Examples = Tuple[Dict[str, tf.Tensor], tf.Tensor]


class FrameReader:
  """Parses, checks and decodes batches of records, inside tf.data."""

  def __init__(self, features: Sequence, max_frames: int, num_classes: int,
               selection, with_ids: bool = False,
               labels_required: bool = True):
    """Initializes the reader.

    Args:
      features: objects with `name`, a key in the record, and `size`, bytes per
        frame; joined in this order.
      max_frames: longer videos are cut here.
      num_classes: V.
      selection: a `configs.model.FrameSelection`, which frames to decode.
      with_ids: put `id` into the examples.
      labels_required: a record without the key `labels` is an error, and not a
        video without labels.

    Raises:
      ValueError: an argument is out of its range.
    """
    if not features or any(not f.name or f.size < 1 for f in features):
      raise ValueError(
          f'features are {[(f.name, f.size) for f in features]}: give at least '
          'one, each with a name and a size of 1 or more.')
    if len({f.name for f in features}) < len(features):
      raise ValueError(f'features are {[f.name for f in features]}: give each '
                       'one once.')
    for name, value in (('max_frames', max_frames),
                        ('num_classes', num_classes)):
      if value < 1:
        raise ValueError(f'{name} is {value}: it must be 1 or more.')
    self._features = [(f.name, f.size) for f in features]
    self._layout = layout.Layout(self._features)
    self._max_frames = max_frames
    self._num_classes = num_classes
    self._selection = selection
    self._with_ids = with_ids
    self._labels_required = labels_required
    self._max_selected = selection_lib.max_selected(selection, max_frames)

  def __call__(self, paths: tf.Tensor, indices: tf.Tensor,
               serialized: tf.Tensor) -> _Examples:
    """Reads a batch of records.

    Args:
      paths: string [B], the files, for messages and missing ids.
      indices: int64 [B], positions of the records in them, likewise.
      serialized: string [B].

    Returns:
      inputs: `frames` uint8 [B, K, D], zero behind the chosen frames;
        `num_frames` int32 [B], how many are chosen; `id` string [B] if asked
        for.
      labels: bool [B, V].
    """
    records = (paths, indices, serialized)
    if self._selection.type == 'all':
      inputs, labels = self._read_regular(*records)
    else:  # Finding the frames takes longer than parsing and decoding a few.
      inputs, labels = self._read_any(*records)
    size = sum(size for _, size in self._features)
    inputs['frames'] = tf.ensure_shape(
        inputs['frames'], [None, self._max_selected, size])
    return inputs, tf.ensure_shape(labels, [None, self._num_classes])

  def _read_regular(self, paths, indices, serialized) -> _Examples:
    """Reads good records of the regular layout; others as `_read_any` does."""
    regular, contexts, num_frames, frames = self._layout.read(
        serialized, self._max_frames)
    context, _, _ = self._parse(paths, indices, contexts)
    labels = context[_LABELS]
    good = regular & tf.reduce_all(self._in_range(labels.values))
    if self._labels_required:
      good &= tf.reduce_all(_some(labels))

    def examples():
      joined = tf.concat([f[:, :self._max_frames] for f in frames], 2)
      count = tf.minimum(num_frames, self._max_frames)
      return self._examples(paths, indices, context, joined, count)

    return tf.cond(good, examples,
                   lambda: self._read_any(paths, indices, serialized))

  def _read_any(self, paths, indices, serialized) -> _Examples:
    """Reads any records, and says what is wrong with them."""
    context, lists, lengths = self._parse(
        paths, indices, serialized, [name for name, _ in self._features])
    strings = [lists[name] for name, _ in self._features]
    lengths = tf.stack([lengths[name] for name, _ in self._features], 1)
    where = tf.strings.join([_where(paths, indices), ' (id ',
                             _video_ids(context, paths, indices), ')'])
    check = self._check(where, serialized, strings, lengths, context[_LABELS])
    with tf.control_dependencies([check]):
      frames, count = self._decode([tf.identity(s) for s in strings],
                                   tf.cast(lengths[:, 0], tf.int32))
      return self._examples(paths, indices, context, frames, count)

  def _parse(self, paths, indices, serialized, names: Sequence[str] = ()):
    """Parses the context and the feature lists `names`."""
    context = {key: tf.io.FixedLenFeature([], tf.string, '')
               for key in _ID_KEYS}
    context[_LABELS] = tf.io.VarLenFeature(tf.int64)
    return tf.io.parse_sequence_example(
        serialized, context,
        {name: tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True)
         for name in names},
        # The parser's own errors (of a list of floats, say) begin with this.
        example_names=tf.strings.join([_where(paths, indices), _KIND_REMEDY]))

  def _examples(self, paths, indices, context, frames, count) -> _Examples:
    labels = context[_LABELS]
    hot = tf.stack([labels.indices[:, 0], labels.values], 1)
    inputs = {'frames': frames, 'num_frames': count}
    if self._with_ids:
      inputs['id'] = _video_ids(context, paths, indices)
    return inputs, tf.tensor_scatter_nd_update(
        tf.zeros([tf.size(paths), self._num_classes], tf.bool), hot,
        tf.ones_like(labels.values, tf.bool))

  def check_format(self, path: str, index: int, serialized: bytes):
    """Says in plain words when records have another format altogether.

    The graph would say less, for its parser knows only the keys it asks for.

    Args:
      path: file of the record.
      index: its position there.
      serialized: the record.

    Raises:
      ValueError: no SequenceExample, or a feature is missing or not of bytes.
    """
    where = f'{path}, record {index}'
    try:
      record = tf.train.SequenceExample.FromString(serialized)
    except protobuf.DecodeError as e:
      raise ValueError(f'{where}: no tf.train.SequenceExample. Set input_path '
                       'to frame-level YouTube-8M records.') from e
    lists = record.feature_lists.feature_list
    for name, _ in self._features:
      if name not in lists:
        raise ValueError(
            f'{where}: no frame-level feature {name!r}, but '
            f'{sorted(lists) or "none at all"}; of the whole video '
            f'{sorted(record.context.feature)}. Correct task.model.features, '
            'or input_path where these are video-level records.')
      for frame in lists[name].feature:
        if frame.WhichOneof('kind') != 'bytes_list':
          raise ValueError(
              f'{where}: feature {name!r} is a {frame.WhichOneof("kind")}, not '
              'a bytes_list of uint8 values. Quantise it as the releases do, '
              'to round((x + 2 - 4 / 512) * 255 / 4) clipped to 0 to 255, and '
              'write one byte string per frame.')

  def _decode(self, strings: List[tf.Tensor],
              num_frames: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
    """Chooses among byte strings [B, T], and decodes the chosen alone."""
    indices, count = selection_lib.frame_indices(
        tf.minimum(num_frames, self._max_frames), self._selection,
        self._max_frames)
    if self._selection.type == 'all':  # A slice of everything copies nothing.
      strings = [s[:, :self._max_selected] for s in strings]
    else:
      indices = tf.minimum(indices, tf.shape(strings[0])[1] - 1)
      chosen = tf.sequence_mask(count, self._max_selected)
      strings = [tf.where(chosen, tf.gather(s, indices, batch_dims=1), '')
                 for s in strings]
    # Joining strings and decoding them takes less than half the time of
    # decoding feature by feature and joining what comes out.
    size = sum(size for _, size in self._features)
    frames = tf.io.decode_raw(
        tf.strings.join(strings), tf.uint8, fixed_length=size)
    padding = self._max_selected - tf.shape(frames)[1]
    frames = tf.pad(frames, [[0, 0], [0, padding], [0, 0]])
    return frames, count

  def _in_range(self, labels):
    return (labels >= 0) & (labels < self._num_classes)

  def _check(self, where, serialized, strings, lengths, labels):
    """Raises an InvalidArgumentError with all faults of the first bad record.

    Args:
      where: string [B], what to call the records.
      serialized: string [B].
      strings: per feature string [B, T], '' behind the frames.
      lengths: int64 [B, features], frames of each.
      labels: sparse int64 [B, labels].

    Returns:
      An operation to wait for.
    """
    batch = tf.size(serialized)
    rows, values = labels.indices[:, 0], labels.values
    range_good = tf.math.unsorted_segment_min(
        tf.cast(self._in_range(values), tf.int32), rows, batch) > 0
    lengths_good = tf.reduce_all(
        (lengths > 0) & (lengths == lengths[:, :1]), 1)
    sizes_good = []
    for i, (_, size) in enumerate(self._features):
      real = tf.sequence_mask(lengths[:, i], tf.shape(strings[i])[1])
      sizes_good.append(tf.reduce_all(
          (tf.strings.length(strings[i]) == size) | ~real, 1))
    labels_good = tf.fill([batch], True)
    if self._labels_required:
      some = _some(labels)
      labels_good = tf.cond(tf.reduce_all(some), lambda: some,
                            lambda: some | _have_labels(serialized))

    def fail():
      names = ', '.join(name for name, _ in self._features)
      bad = tf.argmin(tf.cast(good, tf.int32))
      problems = [
          (labels_good, ['no `labels`; only prediction reads such videos']),
          (range_good, [
              'labels are ', _list(values[rows == bad]), ', but must lie '
              f'between 0 and {self._num_classes - 1}; set '
              'task.model.num_classes']),
          (lengths_good, [
              f'{names} have ', _list(lengths[bad]), ' frames, but each must '
              'have equally many, at least 1 (0 may mean that the feature is '
              'missing); correct task.model.features or leave the record out']),
      ]
      for i, (name, size) in enumerate(self._features):
        widths = tf.strings.length(strings[i][bad, :lengths[bad, i]])
        problems.append((sizes_good[i], [
            f'{name} has frames of ', _list(tf.unique(widths)[0]),
            f' bytes, not {size}; set its size in task.model.features']))
      texts = [tf.where(fine[bad], '', tf.strings.join([': ', *text]))
               for fine, text in problems]
      return tf.Assert(False, [tf.strings.join([where[bad], *texts, '.'])])

    good = tf.reduce_all(
        tf.stack([labels_good, range_good, lengths_good, *sizes_good]), 0)
    return tf.cond(tf.reduce_all(good), tf.no_op, fail)


def _where(paths, indices) -> tf.Tensor:
  """What to call the records; string [B]."""
  return tf.strings.join([paths, ', record ', tf.strings.as_string(indices)])


def _some(labels) -> tf.Tensor:
  """Whether there is a label; bool [B]."""
  return tf.math.bincount(tf.cast(labels.indices[:, 0], tf.int32), minlength=
                          tf.cast(labels.dense_shape[0], tf.int32)) > 0


def _video_ids(context, paths, indices) -> tf.Tensor:
  """`id`, else `video_id`, else `<shard>:<index>`; string [B]."""
  first, second = (context[key] for key in _ID_KEYS)
  shards = tf.strings.regex_replace(paths, '.*/', '')
  return tf.where(first != '', first, tf.where(
      second != '', second,
      tf.strings.join([shards, tf.strings.as_string(indices)], ':')))


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


def _list(values) -> tf.Tensor:
  return tf.strings.reduce_join(tf.strings.as_string(values), separator=', ')
