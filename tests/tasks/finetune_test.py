"""Fine-tuning starts from a distilled student, and goes on from itself."""

import logging
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.tasks import classification

pytestmark = pytest.mark.end_to_end

_FINETUNE = 'yt8m_distill_finetune'
_LEARNING_RATE = (
  'trainer__optimizer_config__learning_rate__exponential__initial_learning_rate'
)


@pytest.fixture(name='run', scope='module')
def _run(distilled, converted):
  """A distillation run, with `converted`, its student taken out, beside it."""
  assert converted == distilled.parent / 'converted'
  return distilled


@pytest.fixture(name='weights', scope='module')
def _weights(run):
  """Of the distilled student."""
  return trained_network.Network(str(run)).network.get_weights()


def _started(source, **model):
  """A network that starts from `source`."""
  params = tiny.experiment(
    {'task': {'init_checkpoint': str(source), 'model': model}}, experiment=_FINETUNE
  )
  task = classification.ClassificationTask(params.task)
  network = task.build_model()
  task.initialize(network)
  return network


def _assert_equal(actual, expected):
  for value, other in zip(actual, expected, strict=True):
    np.testing.assert_array_equal(value, other)


@pytest.mark.parametrize(
  'source', ['.', 'best_ckpt', 'ckpt-3', '../converted', '../converted/ckpt-3']
)
def test_starts_from_the_distilled_student(run, weights, source):
  _assert_equal(_started(run / source).get_weights(), weights)


def test_starts_from_weights_without_a_configuration(run, weights, tmp_path):
  for path in run.glob('ckpt-3.*'):
    shutil.copy(path, tmp_path)
  _assert_equal(_started(tmp_path / 'ckpt-3').get_weights(), weights)


def test_driver_starts_from_it(run, weights, records, tmp_path):
  tiny.drive(
    'train',
    tmp_path / 'tuned',
    records,
    _FINETUNE,
    task__init_checkpoint=run,
    trainer__train_steps=1,
    **{_LEARNING_RATE: 1e-30},  # changes no weight
  )
  tuned = trained_network.Network(str(tmp_path / 'tuned'))
  assert tuned.step == 1
  _assert_equal(tuned.network.get_weights(), weights)


@pytest.mark.parametrize(
  'arguments',
  [
    [],
    [
      "--gin_params=yt8m_distill.init_checkpoint='RUN'",
      '--config_file=CONVERTED/params.yaml',
    ],
  ],
)
def test_driver_without_a_start_is_refused(run, tmp_path, arguments):
  arguments = [
    a.replace('RUN', str(run)).replace('CONVERTED', f'{run.parent}/converted')
    for a in arguments
  ]
  with pytest.raises(ValueError, match="task.init_checkpoint is ''"):
    tiny.run_driver('train', tmp_path / 'tuned', *arguments, experiment=_FINETUNE)
  assert not (tmp_path / 'tuned').exists()


def test_other_classes_get_a_new_head(run, weights, caplog):
  with caplog.at_level(logging.INFO, logger='absl'):
    network = _started(run, num_classes=7)
  backbone = network.backbone.get_weights()
  _assert_equal(backbone, weights[: len(backbone)])
  assert network.head.experts.kernel.shape == [8, 14]
  log = caplog.text
  assert (
    'task.model.num_classes is 12 in its params.yaml, 7 in this configuration'
  ) in log
  for variable in network.backbone.variables:
    assert f'restored {variable.name}' in log
  for variable in network.head.variables:
    assert f'new {variable.name}' in log


_ALL = {'type': 'all'}


def _backbone(**values):
  return {'network': {'backbone': {'hierarchical_lstm': values}}}


@pytest.mark.parametrize(
  'model, field, values',
  [
    (_backbone(num_cells=6), 'num_cells', (4, 6)),
    (_backbone(num_layers=2), 'num_layers', (1, 2)),
    (_backbone(chunks=4), 'chunks', (2, 4)),
    ({'network': {'head': {'moe': {'num_mixtures': 3}}}}, 'num_mixtures', (2, 3)),
    # As many values in all.
    (
      {'features': [{'name': 'rgb', 'size': 4}, {'name': 'audio', 'size': 8}]},
      'features',
      ([8, 4], [4, 8]),
    ),
  ],
)
@pytest.mark.parametrize('source', ['.', '../converted'])
def test_other_architecture_names_both_values(run, source, model, field, values):
  with pytest.raises(ValueError) as error:
    _started(run / source, **model)
  message = str(error.value)
  assert (
    f'{field} is {values[0]} in its params.yaml, {values[1]} in this configuration'
  ) in message
  assert message.count('in its params.yaml') == 1


@pytest.mark.parametrize(
  'model, line',
  [
    (
      {'network': {'frames': {'uniform': {'every_n': 10}}}},
      'every_n is 5 in its params.yaml, 10 in this configuration',
    ),
    (
      {'max_frames': 40},
      'max_frames is 20 in its params.yaml, 40 in this configuration',
    ),
  ],
)
def test_other_frames_are_logged(run, weights, caplog, model, line):
  with caplog.at_level(logging.WARNING, logger='absl'):
    network = _started(run, **model)
  _assert_equal(network.get_weights(), weights)
  warnings = [
    record.getMessage()
    for record in caplog.records
    if 'Differs from' in record.getMessage()
  ]
  assert len(warnings) == 1 and line in warnings[0]


@pytest.mark.parametrize('seen', [{'max_frames': 40}, {'network': {'frames': _ALL}}])
def test_other_frames_may_have_other_chunks(run, weights, seen):
  chunks = _backbone(chunks=4)['network']
  network = _started(run, **{**seen, 'network': {**seen.get('network', {}), **chunks}})
  _assert_equal(network.get_weights(), weights)


def test_same_configuration_warns_of_nothing(run, caplog):
  with caplog.at_level(logging.WARNING, logger='absl'):
    _started(run)
  assert 'Differs from' not in caplog.text


@pytest.fixture(name='tuned', scope='module')
def _tuned(run, records, tmp_path_factory):
  """Folder with a run of 6 steps, `whole`, and one that stopped at 3."""
  folder = tmp_path_factory.mktemp('tuned')
  for name, steps in (('whole', 6), ('half', 3)):
    tiny.drive(
      'train',
      folder / name,
      records,
      _FINETUNE,
      task__init_checkpoint=run,
      trainer__train_steps=steps,
    )
  return folder


@pytest.mark.parametrize('source', ['as before', 'changed', 'removed'])
def test_resumes_from_its_own_checkpoints(tuned, run, records, tmp_path, source):
  half = shutil.copytree(tuned / 'half', tmp_path / 'half')
  init = pathlib.Path(shutil.copytree(run, tmp_path / 'run'))
  if source == 'changed':
    network = trained_network.Network(str(init)).network
    tiny.scatter_weights(network)
    tf.train.Checkpoint(model=network).write(f'{init}/ckpt-3')
  elif source == 'removed':
    shutil.rmtree(init)
  tiny.drive(
    'train',
    half,
    records,
    _FINETUNE,
    task__init_checkpoint=init,
    trainer__train_steps=6,
  )
  expected = tiny.checkpoint_values(tuned / 'whole/ckpt-6')
  actual = tiny.checkpoint_values(half / 'ckpt-6')
  assert any(
    'OPTIMIZER_SLOT' in name or 'optimizer/_variables' in name for name in expected
  )
  assert actual.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(actual[name], value, name)


def test_fine_tuning_changes_every_weight(tuned, weights):
  """Otherwise the comparison above would not see where a run starts."""
  after = trained_network.Network(str(tuned / 'whole')).network.get_weights()
  assert all(
    np.any(value != other) for value, other in zip(after, weights, strict=True)
  )


def test_evaluation_with_other_chunks_is_refused(tuned, run, records):
  message = 'hierarchical_lstm.chunks is 2 in its params.yaml, 4 in this'
  path = 'task__model__{}__backbone__hierarchical_lstm__chunks'
  for folder, experiment, name in (
    (run, 'yt8m_distill', 'student'),
    (tuned / 'half', _FINETUNE, 'network'),
  ):
    with pytest.raises(ValueError, match=f'task.model.{name}.*{message}'):
      tiny.drive('eval', folder, records, experiment, **{path.format(name): 4})
