"""The driver: what a run writes, and messages."""

import json
import re
from unittest import mock

import paths
import processes
import pytest
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import run_dir
from yt8m_distill.tasks import distillation
from yt8m_distill.trainer import cluster
from yt8m_distill.trainer import progress
from yt8m_distill.utils import cli

pytestmark = pytest.mark.end_to_end


def test_loss_above_its_bound_is_an_error(tmp_path):
  tiny.write_records(tmp_path / 'a.tfrecord', 4)
  with pytest.raises(
    ValueError, match='^trainer.loss_upper_bound is 0.5: The loss value is .* Lower the'
  ):
    tiny.drive(
      'train', tmp_path / 'run', tmp_path / 'a.tfrecord', trainer__loss_upper_bound=0.5
    )


def test_model_dir_that_cannot_be_written_is_an_error(tmp_path, records):
  (tmp_path / 'file').write_text('')
  folder = tmp_path / 'file' / 'run'
  sizes = tiny.sizes_file(tmp_path)
  with pytest.raises(
    ValueError,
    match=f'--model_dir={folder} cannot be written.*Choose a writable folder',
  ):
    tiny.run_driver(
      'train',
      folder,
      f'--config_file={sizes}',
      f"--gin_params=yt8m_distill.train_path='{records}'",
      sized=False,
    )


@pytest.mark.parametrize(
  'mode, values, message',
  [
    ('eval', {'validation_data__input_path': 'absent'}, 'There is no checkpoint in'),
    (
      'train',
      {'train_data__input_path': 'absent'},
      r'^task.train_data.input_path \(yt8m_distill.train_path\): absent: no such',
    ),
    (
      'train_and_eval',
      {'validation_data__input_path': "'absent*'"},
      r'absent\*',
    ),
    (
      'train',
      {'teacher_checkpoint': 'absent'},
      'task.teacher_checkpoint is absent: There is no checkpoint absent',
    ),
    ('train', {'init_checkpoint': 'absent'}, 'task.init_checkpoint is absent: There'),
    ('train', {'training': 'serial'}, "task.teacher_checkpoint is ''"),
    ('train', {'evaluation__vocabulary': 'absent'}, 'absent'),
    # Found only once the model is built.
    ('train', {'optimizer__adam__global_clipnorm': 1.0}, 'global_clipnorm is 1.0'),
  ],
)
def test_failed_start_leaves_no_folder(tmp_path, records, mode, values, message):
  values = {
    (
      f'trainer__optimizer_config__{name}'
      if name.startswith('optimizer')
      else f'task__{name}'
    ): value
    for name, value in {
      'train_data__input_path': records,
      'validation_data__input_path': records,
      **values,
    }.items()
  }
  with pytest.raises(ValueError, match=message) as error:
    tiny.run_driver(mode, tmp_path / 'runs' / 'new', tiny.override(**values))
  assert '\n' not in cli.message(error.value)
  assert not (tmp_path / 'runs' / 'new').exists()


@pytest.mark.parametrize(
  'experiment, losses',
  [
    ('yt8m_distill', {}),
    ('yt8m_distill', {'task__losses__intermediate_weight': 0.1}),
    ('yt8m_distill_single', {}),
  ],
)
def test_metric_names_are_those_of_an_evaluation(tmp_path, records, experiment, losses):
  run = tmp_path / 'run'
  found = {}

  class Recorder(progress.Progress):
    def after_evaluation(self, output):
      found.update(output)

  with mock.patch.object(progress, 'Progress', Recorder):
    tiny.drive('train_and_eval', run, records, experiment, **losses)
  names = run_dir.read_params(str(run / 'params.yaml')).task.metric_names()
  # The trainer adds the best value so far.
  assert {name for name in found if not name.startswith('best_')} == set(names)


def test_failed_start_leaves_a_run_that_another_process_began(tmp_path, records):
  run = tmp_path / 'run'

  def begin(*_, **__):
    (run / 'params.yaml').write_text('task: {}')
    raise ValueError('no runner')

  with (
    mock.patch.object(cluster, 'build_runner', begin),
    pytest.raises(ValueError, match='no runner'),
  ):
    tiny.drive('train', run, records)
  assert (run / 'params.yaml').exists()


def test_run_without_a_folder_is_an_error(records):
  with pytest.raises(ValueError, match="--model_dir is '': name the folder"):
    tiny.run_driver(
      'train', '', f"--gin_params=yt8m_distill.train_path='{records}'", sized=False
    )


def test_resumed_run_says_what_was_changed(tmp_path, records, capsys):
  run = tmp_path / 'run'
  tiny.drive('train', run, records)
  assert 'Changed since' not in capsys.readouterr().out
  tiny.drive('train', run, records, trainer__train_steps=4, task__seed=7)
  assert (
    'Changed since the last start: task.seed 0 -> 7; trainer.train_steps 3 -> 4\n'
    in capsys.readouterr().out
  )


@pytest.mark.parametrize('mode', ['train', 'eval'])
def test_run_of_another_experiment_is_named(tmp_path, records, mode):
  run = tmp_path / 'run'
  tiny.drive('train', run, records, 'yt8m_distill_single')
  with pytest.raises(
    ValueError,
    match=f"^{run} is a run of the experiment 'yt8m_distill_single', which has other",
  ):
    tiny.drive(mode, run, records)
  with pytest.raises(
    ValueError, match='it is a configuration of the experiment yt8m_distill_single, not'
  ):
    tiny.run_driver(mode, run, f'--config_file={run}/params.yaml', sized=False)


@pytest.mark.parametrize('training', ['parallel', 'serial'])
def test_log_lists_the_variables_of_both_networks(caplog, training):
  task = distillation.DistillationTask(
    tiny.experiment({'task': {'training': training}}).task
  )
  with caplog.at_level('INFO', logger='absl'):
    model = task.build_model()
  for network in (model.teacher, model.student):
    assert re.search(
      rf'{network.name}: \d+ frames, .* GFLOPs per video, '
      rf'{network.count_params():,} parameters',
      caplog.text,
    )
    for variable in network.variables:
      assert f'{variable.name} {variable.shape}' in caplog.text


def _tags(folder):
  """Summaries of a folder: {tag: steps}."""
  tags = {}
  for path in folder.glob('events.out.tfevents.*'):
    for event in tf.compat.v1.train.summary_iterator(str(path)):
      for value in event.summary.value:
        tags.setdefault(value.tag, set()).add(event.step)
  return tags


def test_train_and_eval_writes_a_whole_run(tmp_path, capsys):
  tiny.write_records(tmp_path / 'train.tfrecord', 12)
  tiny.write_records(tmp_path / 'validate.tfrecord', 9, seed=1)
  run = tmp_path / 'run'
  tiny.run_driver(
    'train_and_eval',
    run,
    '--gin_file=train.gin',
    f"--gin_params=yt8m_distill.train_path='{tmp_path}/train.tfrecord'",
    f"--gin_params=yt8m_distill.validation_path='{tmp_path}/validate.tfrecord'",
    '--gin_params=yt8m_distill.batch_size=4',
    '--gin_params=yt8m_distill.train_steps=6',
    tiny.override(
      trainer__steps_per_loop=2,
      trainer__summary_interval=2,
      trainer__checkpoint_interval=2,
      trainer__validation_interval=4,
    ),
  )
  for name in (
    'params.yaml',
    'config.gin',
    'per_class.csv',
    'evaluation.json',
    'operative_config.train_and_eval.gin',
    'ckpt-6.index',
  ):
    assert (run / name).exists(), name
  assert not (run / 'probe').exists()
  best = json.loads((run / 'best_ckpt' / 'info.json').read_text())
  assert list((run / 'best_ckpt').glob('best_ckpt-*.index'))
  evaluated = json.loads((run / 'evaluation.json').read_text())
  assert evaluated['step'] == 6
  assert best['student/gap'] >= evaluated['metrics']['student/gap'] > 0.0

  both = [
    f'{who}/{name}'
    for who in ('teacher', 'student')
    for name in ('label_loss', 'hit_at_one', 'perr', 'gap')
  ]
  student = ['student/representation_loss', 'student/prediction_loss']
  train = _tags(run / 'train')
  expected = {
    *both,
    *student,
    'teacher/regularization_loss',
    'student/regularization_loss',
    'learning_rate',
    'training_loss',
  }
  assert {tag for tag in expected if train.get(tag) == {2, 4, 6}} == expected
  # The first loop has no rate: it holds the tracing.
  assert train['examples_per_second'] == train['seconds_left'] == {4, 6}
  validation = _tags(run / 'validation')
  expected = {
    *both,
    *student,
    'teacher/map',
    'student/map',
    'agreement/top1',
    'agreement/overlap',
    'validation_loss',
    'best_student/gap',
  }
  assert {tag for tag in expected if validation.get(tag) == {4, 6}} == expected
  lines = [
    line for line in capsys.readouterr().out.splitlines() if line.startswith('step ')
  ]
  assert [line.split()[1] for line in lines] == ['2/6', '4/6', '6/6']
  assert 'videos/s' in lines[1] and 'student/gap' in lines[0]


def test_stock_driver_of_the_garden_trains(tmp_path):
  tiny.write_records(tmp_path / 'train.tfrecord', 6)
  run = tmp_path / 'run'
  processes.python(
    '-m',
    'official.vision.train',
    '--experiment=yt8m_distill',
    '--mode=train',
    f'--model_dir={run}',
    f'--gin_file={paths.ROOT / "gin" / "train.gin"}',
    f"--gin_params=yt8m_distill.train_path='{tmp_path}/train.tfrecord'",
    '--gin_params=yt8m_distill.batch_size=2',
    '--gin_params=yt8m_distill.train_steps=3',
    f'--config_file={tiny.sizes_file(tmp_path)}',
    tiny.override(
      trainer__steps_per_loop=3,
      trainer__summary_interval=3,
      runtime__run_eagerly=True,  # Spares the tracing of graphs.
    ),
  )
  assert (run / 'ckpt-3.index').exists() and (run / 'params.yaml').exists()
