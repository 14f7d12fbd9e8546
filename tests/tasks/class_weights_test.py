"""Weights of classes: their file, and each label loss in a training step."""

import numpy as np
import pytest
import tiny

from yt8m_distill.configs import classification as classification_config
from yt8m_distill.modeling import losses
from yt8m_distill.tasks import class_weights
from yt8m_distill.tasks import classification
from yt8m_distill.tasks import distillation

_WEIGHTED = 'weighted_cross_entropy'


def _params(experiment='yt8m_distill', **values):
  return tiny.experiment({'task': {'losses': values}}, experiment=experiment).task


def _weights(path):
  return class_weights.read(str(path), tiny.CLASSES)


@pytest.fixture(name='write')
def _write(tmp_path):
  """Writes a file of weights; returns its path."""
  path = tmp_path / 'weights.csv'

  def write(text):
    path.write_text(text)
    return path

  return write


def test_rows_come_in_any_order_and_others_weigh_1(write):
  weights = _weights(write('Name,Weight,Index\nx,0.5,11\ny,3,0\nz,0,4\n'))
  expected = np.ones(tiny.CLASSES)
  expected[[11, 0, 4]] = 0.5, 3.0, 0.0
  assert weights.dtype == np.float32
  np.testing.assert_array_equal(weights, expected)
  np.testing.assert_array_equal(
    _weights(write('Index,Weight\n')), np.ones(tiny.CLASSES)
  )


@pytest.mark.parametrize(
  'text, message',
  [
    ('', "weights.csv': it cannot be read as CSV .No columns"),
    ('Index,Weight\n1,2,3\n1,2,3,4\n', "weights.csv': it cannot be read as CSV"),
    (
      'Index,Name\n0,x\n',
      r"has the columns \['Index', 'Name'\]: it must have Index and Weight",
    ),
    ('Index,Weight\n12,1\n', r'has indices from 12 to 12: .*num_classes \(12\)'),
    ('Index,Weight\n-1,1\n', 'has indices from -1'),
    ('Index,Weight\n1.5,1\n', 'whole numbers'),
    ('Index,Weight\nx,1\n', 'whole numbers'),
    ('Index,Weight\n3,-1\n', "weight of class 3 is '-1': a weight must be"),
    ('Index,Weight\n3,x\n', "weight of class 3 is 'x'"),
    ('Index,Weight\n3,\n', "weight of class 3 is ''"),
    ('Index,Weight\n3,inf\n', "weight of class 3 is 'inf'"),
    ('Index,Weight\n3,1e39\n', "weight of class 3 is '1e.39'"),
    ('Index,Weight\n3,1\n4,1\n3,1\n', 'has several rows for class 3: keep'),
  ],
)
def test_wrong_files(write, text, message):
  with pytest.raises(ValueError, match=message) as error:
    _weights(write(text))
  assert 'weights.csv' in str(error.value)


def test_no_file(tmp_path):
  with pytest.raises(ValueError, match=f"'{tmp_path}/no.csv': there is no such file"):
    _weights(tmp_path / 'no.csv')


@pytest.mark.parametrize('kind', classification_config.LABEL_LOSSES)
@pytest.mark.parametrize(
  'experiment, task_class',
  [
    ('yt8m_distill', distillation.DistillationTask),
    ('yt8m_distill_single', classification.ClassificationTask),
  ],
)
def test_each_kind_trains_all_networks(write, kind, experiment, task_class):
  path, weights = '', 1.0
  if kind == _WEIGHTED:
    path, weights = str(write('Index,Weight\n0,50\n')), np.ones(tiny.CLASSES)
    weights[0] = 50.0
  task = task_class(_params(experiment, label_kind=kind, class_weights=path))
  model = task.create_model()
  tiny.scatter_weights(model)
  inputs, labels = tiny.batch(6)
  if experiment != 'yt8m_distill':
    inputs = tiny.students(inputs)
  assert np.any(labels[:, 0])
  recorder = tiny.Recorder()
  logs = task.train_step((inputs, labels), model, recorder)
  for prefix, network in task.networks(model(inputs)).items():
    np.testing.assert_allclose(
      logs[f'{prefix}label_loss'],
      losses.label_loss(labels, network['predictions'], kind, class_weights=weights),
      rtol=1e-5,
    )
  for variable in model.trainable_variables:
    assert np.abs(recorder.gradients[variable.ref()]).max() > 0.0
