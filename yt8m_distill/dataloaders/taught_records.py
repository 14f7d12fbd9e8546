"""Records that also hold the answer of a teacher, so that training needs no teacher.

`yt8m-distill teach` writes them. They are ordinary records, thinned or full, whose
context also has

- `teacher` (bytes): the teacher's fingerprint, which its weights, and the features and
  frames that it reads, determine;
- `teacher/num_classes` (int64): V;
- `teacher/classes` (bytes): the K most probable classes, best first, little-endian
  int32;
- `teacher/probabilities` (bytes): theirs, little-endian float16 or float32;
- `teacher/rest` (float32): the sum of the probabilities of all other classes;
- `teacher/representation` (bytes): the teacher's representation, in the same type as
  the probabilities. Several teachers have none.

All records of a training set must hold answers of one teacher, of one K and type.
Numbers are byte strings because float lists take longer to parse and have no 16 bits.

B records, V classes, K best classes, R representation.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from yt8m_distill.dataloaders import record_errors

TEACHER = 'teacher'
_NUM_CLASSES = 'teacher/num_classes'
_CLASSES = 'teacher/classes'
_PROBABILITIES = 'teacher/probabilities'
_REST = 'teacher/rest'
_REPRESENTATION = 'teacher/representation'
_REMEDY = 'Set input_path to the records that one run of yt8m-distill teach wrote'
# By bytes of a probability; TensorFlow decodes no float16.
_DTYPES = {2: tf.float16, 4: tf.float32}
_DECODED = {tf.float16: tf.uint16}


def add(
  video: tf.train.SequenceExample,
  teacher: str,
  top_k: int,
  dtype: str,
  classes: np.ndarray,
  probabilities: np.ndarray,
  representation: np.ndarray | None,
  name: str,
):
  """Adds a teacher's answer to a record.

  Args:
    video: the record; changed in place.
    teacher: fingerprint.
    top_k: K.
    dtype: 'float16' or 'float32'.
    classes: integers [V], all classes by descending probability.
    probabilities: float [V], theirs.
    representation: float [R], or None.
    name: name of the record in error messages.

  Raises:
    ValueError: a value does not fit the type.
  """
  stored = {_PROBABILITIES: probabilities[:top_k]}
  if representation is not None:
    stored[_REPRESENTATION] = representation
  feature = video.context.feature
  for key, values in stored.items():
    with np.errstate(over='ignore'):  # Reported below.
      cast = values.astype(np.dtype(dtype).newbyteorder('<'))
    if not np.isfinite(cast).all():
      raise ValueError(
        f'{name}: {key} has the value {values[~np.isfinite(cast)][0]}, which {dtype} '
        'cannot hold. Set --dtype=float32, or choose another teacher if it is that.'
      )
    feature[key].bytes_list.value.append(cast.tobytes())
  feature[TEACHER].bytes_list.value.append(teacher.encode())
  feature[_NUM_CLASSES].int64_list.value.append(len(classes))
  feature[_CLASSES].bytes_list.value.append(classes[:top_k].astype('<i4').tobytes())
  rest = probabilities[top_k:].sum(dtype=np.float64)
  feature[_REST].float_list.value.append(rest)


class Answers(NamedTuple):
  """What the records of a training set hold; the reader parses it.

  Attributes:
    teacher: the teacher's fingerprint.
    num_classes: V.
    top_k: K.
    dtype: of probabilities and representation, tf.float16 or tf.float32.
    representation_size: R; 0 if there is none.
  """

  teacher: bytes
  num_classes: int
  top_k: int
  dtype: tf.DType
  representation_size: int

  @property
  def context(self) -> dict[str, tf.DType]:
    """Returns the types of what is parsed of the context."""
    return {
      TEACHER: tf.string,
      _REST: tf.float32,
      **dict.fromkeys(self._bytes, tf.string),
    }

  @property
  def _bytes(self) -> dict[str, int]:
    """Returns the size of each byte string of numbers."""
    sizes = {
      _CLASSES: self.top_k * tf.int32.size,
      _PROBABILITIES: self.top_k * self.dtype.size,
    }
    if self.representation_size:
      sizes[_REPRESENTATION] = self.representation_size * self.dtype.size
    return sizes

  def checks(self, context) -> list[record_errors.Check]:
    """Returns checks of records; see `record_errors.assert_valid`.

    Args:
      context: parsed `context`, by key [B]; '' or 0 if missing.
    """
    teacher, sizes = context[TEACHER], self._bytes
    lengths = tf.stack([tf.strings.length(context[key]) for key in sizes], 1)
    expected = list(sizes.values())
    fits = tf.reduce_all(lengths == expected, 1)
    classes = self._decode(context, _CLASSES, tf.int32)
    in_range = tf.reduce_all(record_errors.in_range(classes, self.num_classes), 1)

    return [
      (teacher == self.teacher, 'not taught by the teacher of the first record'),
      (fits, 'another --top_k or --dtype'),
      (in_range, f'{_CLASSES} out of range'),
    ]

  def faults(self, values: Mapping[str, Sequence]) -> Iterator[str]:
    """Yields in words what `checks` finds wrong with a record.

    Args:
      values: of the context, by key of `context`.
    """
    stored = {key: b''.join(values[key][:1]) for key in (TEACHER, *self._bytes)}
    teacher, sizes = stored[TEACHER], self._bytes
    lengths = [len(stored[key]) for key in sizes]
    if teacher != self.teacher:
      taught = f'taught by {record_errors.escape(teacher)}' if teacher else 'not taught'
      yield (
        f'{taught}, but the first record of input_path by {self.teacher.decode()}. '
        f'{_REMEDY}.'
      )
    elif lengths != [*sizes.values()]:
      yield (
        f'{", ".join(sizes)} have {record_errors.join(lengths)} bytes, but '
        f'{record_errors.join(sizes.values())} in the first record of input_path, '
        f'which was taught with another --top_k or --dtype. {_REMEDY}.'
      )
    else:
      classes = np.frombuffer(stored[_CLASSES], '<i4').tolist()
      yield from record_errors.label_faults(
        _CLASSES, classes, self.num_classes, 'Teach the record again.'
      )

  def decode(self, context) -> dict[str, tf.Tensor]:
    """Returns the teacher's answers.

    Args:
      context: see checks(); checked.

    Returns:
      `classes` int32 [B, K], `probabilities` [B, K] of `dtype`, `rest` float32 [B], and
      `representation` [B, R] of `dtype` if there is one.
    """
    answers = {
      'classes': self._decode(context, _CLASSES, tf.int32),
      'probabilities': self._decode(context, _PROBABILITIES, self.dtype),
      'rest': context[_REST],
    }
    if self.representation_size:
      answers['representation'] = self._decode(context, _REPRESENTATION, self.dtype)
    return answers

  def _decode(self, context, key: str, dtype: tf.DType) -> tf.Tensor:
    size = self._bytes[key]
    stored = _DECODED.get(dtype, dtype)
    values = tf.io.decode_raw(context[key], stored, fixed_length=size)
    values = tf.ensure_shape(values, [None, size // dtype.size])
    return values if stored == dtype else tf.bitcast(values, dtype)


def answers_of(path: str, index: int, serialized: bytes, num_classes: int) -> Answers:
  """Returns what a record holds, as all others of its training set must.

  Args:
    path: its file.
    index: its position there.
    serialized: the record.
    num_classes: V of the student.

  Raises:
    ValueError: the record was not taught, for other classes, or is damaged.
  """
  name = record_errors.name_of(path, index)
  feature = tf.train.SequenceExample.FromString(serialized).context.feature

  def size(key: str) -> int:
    return len(b''.join(feature[key].bytes_list.value))

  if TEACHER not in feature:
    raise ValueError(
      f'{name}: its context has no {TEACHER}, so it was not taught. {_REMEDY}.'
    )
  taught = sum(feature[_NUM_CLASSES].int64_list.value)
  if taught != num_classes:
    raise ValueError(
      f'task.model.num_classes is {num_classes}, but the teacher of {name} has '
      f'{taught} classes: both must have the same ones. Set it to {taught}, or '
      'input_path to records of another teacher.'
    )
  top_k = size(_CLASSES) // tf.int32.size
  dtype = _DTYPES.get(size(_PROBABILITIES) // max(top_k, 1))
  if not dtype:
    raise ValueError(
      f'{name}: {_CLASSES} and {_PROBABILITIES} have {size(_CLASSES)} and '
      f'{size(_PROBABILITIES)} bytes, which do not belong together. {_REMEDY}.'
    )
  return Answers(
    feature[TEACHER].bytes_list.value[0],
    num_classes,
    top_k,
    dtype,
    size(_REPRESENTATION) // dtype.size,
  )
