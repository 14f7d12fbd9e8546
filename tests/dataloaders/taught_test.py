"""How records that hold a teacher's answers are read."""

import frame_readers
import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill.dataloaders import taught_records
from yt8m_distill.dataloaders import thin

_CLASSES = 50


def _taught(
  number=0, top_k=5, dtype='float16', teacher='abc', size=7, thinned=False, **change
):
  """A record of 20 frames, and all predictions and the representation."""
  rng = np.random.default_rng(number)
  predictions = rng.random(_CLASSES).astype(np.float32)
  representation = rng.normal(size=size).astype(np.float32)
  record = frame_readers.record(20, context={'id': b'v%d' % number}, seed=number)
  if thinned:
    thin.thin_video(record, 20, 10, 300)
  classes = np.argsort(-predictions)
  taught_records.add(
    record,
    teacher,
    top_k,
    dtype,
    classes,
    predictions[classes],
    representation if size else None,
    'x',
  )
  for key, value in change.items():
    feature = record.context.feature[f'teacher/{key}']
    feature.Clear()
    feature.bytes_list.value.append(value)
  return record, predictions, representation


def _answers(record, num_classes=_CLASSES):
  return taught_records.answers_of('f', 3, record.SerializeToString(), num_classes)


@pytest.mark.parametrize('dtype, error', [('float16', 2**-11), ('float32', 0)])
@pytest.mark.parametrize('thinned', [False, True])  # The fast parser, and the other.
def test_answers_are_read(dtype, error, thinned):
  records, predictions, representations = zip(
    *(_taught(n, dtype=dtype, thinned=thinned) for n in range(3))
  )
  answers = _answers(records[0])
  assert answers == (b'abc', _CLASSES, 5, tf.as_dtype(dtype), 7)
  selection = frame_readers.every(10) if thinned else frame_readers.ALL
  plain, labels = frame_readers.read(
    frame_readers.reader(selection=selection), *records
  )
  inputs, labels_too = frame_readers.read(
    frame_readers.reader(selection=selection, answers=answers), *records
  )
  read = inputs.pop('teacher')
  for key, value in plain.items():
    np.testing.assert_array_equal(inputs[key], value)
  np.testing.assert_array_equal(labels_too, labels)
  best = np.argsort(-np.array(predictions))
  np.testing.assert_array_equal(read['classes'], best[:, :5])
  in_order = np.take_along_axis(np.array(predictions), best, 1)
  np.testing.assert_allclose(read['probabilities'], in_order[:, :5], rtol=error)
  np.testing.assert_allclose(read['rest'], in_order[:, 5:].sum(1), rtol=1e-6)
  np.testing.assert_allclose(
    read['representation'], representations, rtol=error, atol=error and 2**-24
  )


def test_several_teachers_have_no_representation():
  record, *_ = _taught(size=0)
  answers = _answers(record)
  assert not answers.representation_size
  inputs, _ = frame_readers.read(frame_readers.reader(answers=answers), record)
  assert inputs['teacher'].keys() == {'classes', 'probabilities', 'rest'}


@pytest.mark.parametrize(
  'make, message',
  [
    (
      lambda: frame_readers.record(20),
      'not taught, but the first record .* by abc. Set',
    ),
    (
      lambda: _taught(teacher='def')[0],
      'taught by def, but the first record .* by abc',
    ),
    (lambda: _taught(top_k=4)[0], 'have 16, 8, 14 bytes, but 20, 10, 14 in the first'),
    (lambda: _taught(dtype='float32')[0], 'have 20, 20, 28 bytes, but 20, 10, 14'),
    (lambda: _taught(size=0)[0], 'have 20, 10, 0 bytes'),
    (
      lambda: _taught(classes=np.array([0, 1, 50, 2, 3], '<i4').tobytes())[0],
      'teacher/classes are 50, but must be between 0 and 49. Teach the record again.',
    ),
  ],
)
def test_other_answers_are_refused(make, message):
  first, *_ = _taught()
  reader = frame_readers.reader(answers=_answers(first))
  with pytest.raises(
    tf.errors.InvalidArgumentError, match=f'train07.tfrecord, record 1 .*: .*{message}'
  ):
    frame_readers.read(reader, first, make())


@pytest.mark.parametrize(
  'make, message',
  [
    (
      lambda: frame_readers.record(20),
      'f, record 3: .*no teacher, so it was not taught',
    ),
    (
      lambda: _taught(probabilities=b'abc')[0],
      'teacher/classes and teacher/probabilities have 20 and 3 bytes',
    ),
  ],
)
def test_a_first_record_without_answers_is_refused(make, message):
  with pytest.raises(ValueError, match=message):
    _answers(make())


def test_other_classes_are_refused():
  with pytest.raises(ValueError, match='num_classes is 51, but .* 50 classes.*to 50'):
    _answers(_taught()[0], num_classes=51)


def test_values_that_float16_cannot_hold_are_refused():
  values = np.array([1e5], np.float32)
  record, ones = frame_readers.record(), np.ones(2, np.float32)
  with pytest.raises(
    ValueError, match='x: teacher/representation has the value 100000.0, which float16'
  ):
    taught_records.add(record, 'a', 1, 'float16', np.arange(2), ones, values, 'x')
