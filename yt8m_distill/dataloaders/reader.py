"""From a serialized record to the frames and labels of a video.

Source: the frame-level `tf.train.SequenceExample` of all YouTube-8M releases.
Context: `id` (2018, 2019) or `video_id` (2017), `labels` (int64; absent in the
test partitions). Feature lists: per feature one byte string a frame, its values
uint8. Deviations from the original reader: frames stay uint8 and are chosen
before they are decoded; a record without frames or with features of different
length is an error; a record without id is called `<shard>:<index>`.

T frames in the record, K chosen frames at most, D features, V classes.
"""

from typing import Dict, List, Sequence, Tuple

import tensorflow as tf

from yt8m_distill import selection as selection_lib

_ID_KEYS = ('id', 'video_id')
_LABELS = 'labels'
_Example = Tuple[Dict[str, tf.Tensor], tf.Tensor]


class FrameReader:
  """Parses, checks and decodes records, one at a time, inside tf.data."""

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
    self._max_frames = max_frames
    self._num_classes = num_classes
    self._selection = selection
    self._with_ids = with_ids
    self._labels_required = labels_required
    self._max_selected = selection_lib.max_selected(selection, max_frames)

  @property
  def padded_shapes(self):
    """The shapes of an example whose frames are padded to K."""
    inputs = {'frames': [self._max_selected, sum(s for _, s in self._features)],
              'num_frames': []}
    if self._with_ids:
      inputs['id'] = []
    return inputs, [self._num_classes]

  def __call__(self, path: tf.Tensor, index: tf.Tensor,
               serialized: tf.Tensor) -> _Example:
    """Reads one record.

    Args:
      path: string [], the file, for messages and missing ids.
      index: int64 [], position of the record in the file, likewise.
      serialized: string [].

    Returns:
      inputs: `frames` uint8 [n, D], n of at most K frames, without padding: a
        batch adds it (`padded_shapes`); `num_frames` int32 [], n; `id` string
        [] if asked for.
      labels: bool [V].
    """
    # The parser's own errors (a list of floats, say) begin with this name.
    where = tf.strings.join([path, ', record ', tf.strings.as_string(index)])
    context = {key: tf.io.FixedLenFeature([], tf.string, '')
               for key in _ID_KEYS}
    context[_LABELS] = tf.io.VarLenFeature(tf.int64)
    context, lists = tf.io.parse_single_sequence_example(
        serialized, context,
        {name: tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True)
         for name, _ in self._features},
        example_name=tf.strings.join([where, _KIND_REMEDY]))
    video_id = _video_id(context, path, index)
    labels = context[_LABELS].values
    strings = [lists[name] for name, _ in self._features]
    with tf.control_dependencies([
        self._check(where, video_id, serialized, strings, labels)]):
      frames, count = self._decode([tf.identity(s) for s in strings])
      labels = tf.tensor_scatter_nd_update(
          tf.zeros([self._num_classes], tf.bool), labels[:, tf.newaxis],
          tf.ones_like(labels, tf.bool))
    inputs = {'frames': frames, 'num_frames': count}
    if self._with_ids:
      inputs['id'] = video_id
    return inputs, labels

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
    except Exception as e:  # The class of protobuf's error differs by version.
      raise ValueError(f'{where}: no tf.train.SequenceExample. Set input_path '
                       'to frame-level YouTube-8M records.') from e
    lists = record.feature_lists.feature_list
    for name, _ in self._features:
      if name not in lists:
        raise ValueError(
            f'{where}: no frame-level feature {name!r}, but '
            f'{sorted(lists) or "none at all"}; of the whole video '
            f'{sorted(record.context.feature)}. Correct task.model.features, or '
            'input_path where these are video-level records.')
      for frame in lists[name].feature:
        if frame.WhichOneof('kind') != 'bytes_list':
          raise ValueError(
              f'{where}: feature {name!r} is a {frame.WhichOneof("kind")}, not '
              'a bytes_list of uint8 values. Quantise it as the releases do, to '
              'round((x + 2 - 4 / 512) * 255 / 4) clipped to 0 to 255, and '
              'write one byte string per frame.')

  def _decode(self, strings: List[tf.Tensor]) -> Tuple[tf.Tensor, tf.Tensor]:
    """Chooses frames among byte strings [T] each, and decodes these alone."""
    indices, count = selection_lib.frame_indices(
        tf.minimum(tf.size(strings[0]), self._max_frames), self._selection,
        self._max_frames)
    if self._max_selected < self._max_frames:
      strings = [tf.gather(s, indices[:count]) for s in strings]
    else:  # None is left out: slicing copies nothing.
      strings = [s[:count] for s in strings]
    frames = tf.concat(
        [tf.io.decode_raw(s, tf.uint8, fixed_length=size)
         for s, (_, size) in zip(strings, self._features)], 1)
    return tf.ensure_shape(
        frames, [None, self.padded_shapes[0]['frames'][1]]), count

  def _check(self, where, video_id, serialized, strings, labels):
    """Raises an InvalidArgumentError that says all that is wrong."""
    lengths = tf.stack([tf.size(s) for s in strings])
    widths = [tf.strings.length(s) for s in strings]
    sizes_good = [tf.reduce_all(tf.equal(w, size))
                  for w, (_, size) in zip(widths, self._features)]
    frames_good = tf.reduce_min(lengths) > 0
    lengths_good = tf.reduce_all(tf.equal(lengths, lengths[0]))
    range_good = tf.reduce_all(
        (labels >= 0) & (labels < self._num_classes))
    labels_good = tf.constant(True)
    if self._labels_required:  # The parser tells absent from empty no more.
      labels_good = tf.cond(tf.size(labels) > 0, lambda: True,
                            lambda: _has_labels(serialized))

    def fail():
      names = ', '.join(name for name, _ in self._features)
      problems = [
          (labels_good, [
              'it has no `labels`: only prediction reads unlabelled videos']),
          (range_good, [
              'labels are ', _list(labels), ', but must lie between 0 and '
              f'{self._num_classes - 1}: set task.model.num_classes']),
          (frames_good & lengths_good, [
              f'{names} have ', _list(lengths), ' frames, but every feature '
              'must have equally many, at least 1: a feature with 0 is missing '
              'or empty; see task.model.features, or leave the record out']),
      ]
      for (name, size), width, good in zip(self._features, widths, sizes_good):
        problems.append((good, [
            f'{name} has frames of ', _list(tf.unique(width)[0]),
            f' bytes, not {size}: set its size in task.model.features']))
      texts = [tf.where(good, '', tf.strings.join([': ', *text]))
               for good, text in problems]
      return tf.Assert(False, [tf.strings.join(
          [where, ' (id ', video_id, ')', *texts, '.'])])

    good = tf.stack([frames_good, lengths_good, range_good, labels_good,
                     *sizes_good])
    return tf.cond(tf.reduce_all(good), tf.no_op, fail)


_KIND_REMEDY = (' (each frame of a feature must be one byte string of uint8 '
                'values; quantise float features first)')


def _video_id(context, path, index) -> tf.Tensor:
  """`id`, else `video_id`, else `<shard>:<index>`."""
  first, second = (context[key] for key in _ID_KEYS)
  shard = tf.strings.regex_replace(path, '.*/', '')
  return tf.where(first != '', first, tf.where(
      second != '', second,
      tf.strings.join([shard, tf.strings.as_string(index)], ':')))


def _has_labels(serialized) -> tf.Tensor:
  """Whether the key is there, with or without values."""
  def field(message, name, value):
    return tf.io.decode_proto(value, message, [name], [tf.string])[1][0]

  context = field('tensorflow.SequenceExample', 'context', serialized)
  entries = field('tensorflow.Features', 'feature', context)
  keys = field('tensorflow.Features.FeatureEntry', 'key', entries)
  return tf.reduce_any(tf.equal(keys, _LABELS))


def _list(values) -> tf.Tensor:
  return tf.strings.reduce_join(tf.strings.as_string(values), separator=', ')
