"""A student taken out of a distillation run is a run of its own."""

import pathlib
import shutil

import numpy as np
from official.core import task_factory
from official.core import train_utils
import pytest
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import extract_student
from yt8m_distill.checkpoints import run_dir

pytestmark = pytest.mark.end_to_end

_FINETUNE = 'yt8m_distill_finetune'


def _load(run):
  """The model of a run, rebuilt from its params.yaml."""
  params = run_dir.read_params(str(run / 'params.yaml'))
  return task_factory.get_task(params.task, logging_dir=str(run)).build_model()


def _assert_same_weights(actual, expected):
  for value, other in zip(actual.get_weights(), expected.get_weights(), strict=True):
    np.testing.assert_array_equal(value, other)


def test_predicts_as_the_student_in_the_run(distilled, converted):
  inputs, _ = tiny.batch(6)
  expected = _load(distilled)(inputs)['student']
  actual = _load(converted)(tiny.students(inputs))
  for name in ('predictions', 'representation'):
    np.testing.assert_array_equal(actual[name], expected[name])


def test_holds_neither_teacher_nor_optimizer(distilled, converted):
  values = tiny.checkpoint_values(tf.train.latest_checkpoint(str(converted)))
  assert values['global_step/.ATTRIBUTES/VARIABLE_VALUE'] == 3
  assert {name.split('/')[0] for name in values} == {'global_step', 'model'}
  assert not any('teacher' in name or 'SLOT' in name for name in values)

  def size(values):
    return sum(value.nbytes for value in values.values())

  whole = tiny.checkpoint_values(distilled / 'ckpt-3')
  # Two networks, and two slots of Adam for each of their weights.
  assert size(whole) / size(values) == pytest.approx(6, rel=0.01)


def test_configuration_is_the_students(distilled, converted):
  before = run_dir.read_params(str(distilled / 'params.yaml')).task
  after = run_dir.read_params(str(converted / 'params.yaml')).task
  assert after.model.network.as_dict() == before.model.student.as_dict()
  for part in ('train_data', 'validation_data', 'evaluation'):
    assert getattr(after, part).as_dict() == getattr(before, part).as_dict()
  assert after.losses.label_epsilon == before.losses.label_epsilon


def test_evaluates_as_the_student_in_the_run(distilled, converted, records, tmp_path):
  out = shutil.copytree(converted, tmp_path / 'out')
  carried = run_dir.read_evaluation(str(out))
  (out / 'evaluation.json').unlink()
  tiny.drive('eval', out, records, experiment=_FINETUNE)
  expected = run_dir.read_evaluation(str(distilled))['metrics']
  results = run_dir.read_evaluation(str(out))
  assert {'gap', 'map', 'hit_at_one', 'perr', 'label_loss'} <= set(results['metrics'])
  for name, value in results['metrics'].items():
    assert value == expected[f'student/{name}'] == carried['metrics'][name], name
  assert results['networks'] == carried['networks']
  assert results['step'] == carried['step'] == 3


def test_evaluation_of_another_step_is_not_carried(distilled, tmp_path):
  copy = pathlib.Path(shutil.copytree(distilled, tmp_path / 'run'))
  path = copy / 'evaluation.json'
  path.write_text(path.read_text().replace('"step": 3', '"step": 2'))
  extract_student.extract(str(copy), str(tmp_path / 'out'))
  assert run_dir.read_evaluation(str(copy))['step'] == 2
  assert not (tmp_path / 'out/evaluation.json').exists()


@pytest.mark.parametrize('source', ['best_ckpt', 'ckpt-3'])
def test_source_may_be_the_best_or_a_prefix(distilled, converted, tmp_path, source):
  extract_student.extract(str(distilled / source), str(tmp_path / 'out'))
  _assert_same_weights(_load(tmp_path / 'out'), _load(converted))
  assert run_dir.read_evaluation(str(tmp_path / 'out')) == run_dir.read_evaluation(
    str(converted)
  )


def test_evaluation_of_the_best_itself_is_carried(distilled, tmp_path):
  copy = pathlib.Path(shutil.copytree(distilled, tmp_path / 'run'))
  (copy / 'evaluation.json').rename(copy / 'best_ckpt/evaluation.json')
  extract_student.extract(str(copy / 'best_ckpt'), str(tmp_path / 'out'))
  assert run_dir.read_evaluation(str(tmp_path / 'out'))['step'] == 3


def test_converted_student_converts_into_itself(converted, tmp_path):
  extract_student.extract(str(converted), str(tmp_path / 'out'))
  _assert_same_weights(_load(tmp_path / 'out'), _load(converted))


def test_training_in_its_folder_is_refused(converted, records, tmp_path):
  out = pathlib.Path(shutil.copytree(converted, tmp_path / 'out'))
  before = (out / 'params.yaml').read_text()
  with pytest.raises(
    ValueError,
    match='holds no optimizer state.*Set task.init_checkpoint to it',
  ):
    tiny.drive('train', out, records, experiment=_FINETUNE)
  assert (out / 'params.yaml').read_text() == before
  assert run_dir.checkpoint(str(out)).endswith('ckpt-3')


def test_folder_that_holds_something_is_left_alone(distilled, tmp_path):
  (tmp_path / 'mine').write_text('mine')
  with pytest.raises(ValueError, match=f'{tmp_path} is not empty'):
    extract_student.extract(str(distilled), str(tmp_path))
  assert [path.name for path in tmp_path.iterdir()] == ['mine']


def test_empty_folder_is_used(distilled, tmp_path):
  extract_student.extract(str(distilled), str(tmp_path) + '/')
  assert (tmp_path / 'params.yaml').exists()


def _no_params(run):
  (run / 'params.yaml').unlink()


def _other_cells(run):
  path = run / 'params.yaml'
  path.write_text(path.read_text().replace('num_cells: 4', 'num_cells: 6'))


def _other_program(run):
  (run / 'params.yaml').write_text('{task: {model: {resnet: 50}}}')


def _torn_params(run):
  (run / 'params.yaml').write_text('{task: {model')


@pytest.mark.parametrize(
  'spoil, message',
  [
    (shutil.rmtree, 'There is no checkpoint .*run'),
    (lambda run: (run / 'checkpoint').unlink(), 'folder without a checkpoint'),
    (_no_params, 'There is no params.yaml next to .*ckpt-3'),
    (_other_program, 'params.yaml is not the configuration of a run'),
    (_torn_params, 'params.yaml is not the configuration of a run'),
    (_other_cells, r'\[16, 16\] in the checkpoint, \[18, 24\] in the model'),
  ],
)
def test_source_that_does_not_fit_is_named(distilled, tmp_path, spoil, message):
  copy = pathlib.Path(shutil.copytree(distilled, tmp_path / 'run'))
  spoil(copy)
  with pytest.raises(ValueError, match=message):
    extract_student.extract(str(copy), str(tmp_path / 'out'))
  assert not (tmp_path / 'out').exists()


def test_interrupted_conversion_leaves_nothing_that_looks_whole(
  distilled, tmp_path, monkeypatch
):
  out = tmp_path / 'out'

  def interrupt(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(train_utils, 'serialize_config', interrupt)
    with pytest.raises(KeyboardInterrupt):
      extract_student.extract(str(distilled), str(out))
  assert not out.exists()
  extract_student.extract(str(distilled), str(out))
  assert [path.name for path in tmp_path.iterdir()] == ['out']
  assert _load(out)
