"""The driver: configuration, what a run writes, and messages."""

import json
import pathlib
import re

import pytest
import tensorflow as tf
import tiny
import yaml

from official.core import exp_factory
from official.core import train_lib
from yt8m_distill import train
from yt8m_distill.tasks import distillation

_EVERY_N = 'task.model.student.frames.uniform.every_n'
_GIN_FILES = sorted(path.name for path in (tiny.ROOT / 'gin').glob('*.gin'))


class _Recorder:
  """Stands for the Garden's runner; keeps the configuration."""

  def __init__(self, params, **_):
    _Recorder.params = params

  def run(self):
    return None, {}


@pytest.fixture(name='configure')
def _configure(monkeypatch, tmp_path):
  """Calls the driver without training; returns the configuration."""
  monkeypatch.setattr(train_lib, 'OrbitExperimentRunner', _Recorder)

  def configure(*arguments, sized=True, mode='train'):
    tiny.run_driver(mode, tmp_path / 'run', *arguments, sized=sized)
    return _Recorder.params

  return configure


def _every_n(params):
  return params.task.model.student.frames.uniform.every_n


def test_later_sources_win_over_earlier_ones(configure, tmp_path):
  gin_file, yaml_file = tmp_path / 'own.gin', tmp_path / 'own.yaml'
  gin_file.write_text('import yt8m_distill\nyt8m_distill.every_n = 6\n')
  yaml_file.write_text(
      '{task: {model: {student: {frames: {uniform: {every_n: 15}}}}}}')
  arguments = []
  assert _every_n(configure(sized=False)) == 10
  for argument, expected in (
      (f'--gin_file={gin_file}', 6),
      ('--gin_params=yt8m_distill.every_n=5', 5),
      (f'--config_file={yaml_file}', 15),
      (f'--params_override={_EVERY_N}=30', 30)):
    # Whatever their order on the command line.
    arguments.insert(0, argument)
    assert _every_n(configure(*arguments, sized=False)) == expected


def test_gin_files_and_their_macros_follow_the_command_line(configure):
  params = configure('--gin_file=train.gin', '--gin_params=EVERY_N=20',
                     '--gin_params=STUDENT_CHUNKS=3', sized=False)
  assert _every_n(params) == 20
  assert params.task.model.student.backbone.get().chunks == 3
  assert params.task.model.teacher.backbone.get().chunks == 20


def test_params_yaml_alone_rebuilds_the_run(configure, tmp_path):
  first = configure('--gin_file=original.gin', '--gin_params=BATCH_SIZE=32',
                    f'--params_override={_EVERY_N}=4').as_dict()
  written = tmp_path / 'run' / 'params.yaml'
  assert 'BATCH_SIZE = 32' in (tmp_path / 'run' / 'config.gin').read_text()
  again = configure(f'--config_file={written}', sized=False).as_dict()
  assert again == first
  assert again['task']['train_data']['global_batch_size'] == 32
  assert again['task']['losses']['prediction_reduction'] == 'sum'


@pytest.mark.parametrize('file', _GIN_FILES)
def test_shipped_gin_file_parses_and_builds(configure, file):
  text = (tiny.ROOT / 'gin' / file).read_text()
  # Without the networks' file they go behind one that has it.
  alone = 'include' in text or file == 'uniform_every_n.gin'
  params = configure(
      *([] if alone else ['--gin_file=train.gin']), f'--gin_file={file}',
      '--gin_params=NUM_CELLS=4', '--params_override=task.model.num_classes=12',
      sized=False)
  with tf.Graph().as_default():  # There variables take no memory.
    model = distillation.DistillationTask(params.task).create_model()
  assert model.student.head.get_config()['num_classes'] == 12
  if 'BACKBONE' not in text or alone:
    assert model.teacher.backbone.representation_size == 2 * 2 * 4


def test_original_gin_has_what_its_header_promises(configure):
  params = configure('--gin_file=original.gin', sized=False)
  task, optimizer = params.task, params.trainer.optimizer_config
  assert task.losses.representation_weight == 2.0
  assert task.losses.prediction_reduction == 'sum'
  assert task.losses.regularization_penalty == 2.0
  assert task.model.student.frames.uniform.length == 'original'
  assert task.model.num_classes == 4716
  assert optimizer.learning_rate.get().decay_rate == 1.0
  assert optimizer.optimizer.get().epsilon == 1e-8
  assert optimizer.optimizer.get().clipnorm == 1.0
  passes = params.trainer.train_steps * 256 / 4906660
  assert passes == pytest.approx(5, abs=1e-3)


@pytest.mark.parametrize('enabled', [True, False])
def test_xla_gets_fixed_shapes(configure, tmp_path, enabled):
  params = configure(f'--params_override=runtime.enable_xla={enabled}')
  model = params.task.model
  assert [network.backbone.get().static_shapes for network in (
      model.teacher, model.student)] == [enabled, enabled]
  written = yaml.safe_load((tmp_path / 'run' / 'params.yaml').read_text())
  backbone = written['task']['model']['student']['backbone']
  assert backbone['hierarchical_lstm']['static_shapes'] == enabled


def test_epochs_become_steps(configure, tmp_path):
  tiny.write_records(tmp_path / 'a.tfrecord', 7)
  tiny.write_records(tmp_path / 'b.tfrecord', 5)
  params = configure(
      '--params_override=trainer.optimizer_config.warmup.type=linear',
      _train_data(tmp_path / '?.tfrecord', train_epochs=2, decay_epochs=0.5,
                  warmup_epochs=1))
  optimizer = params.trainer.optimizer_config
  assert params.task.train_data.num_examples == 12
  assert params.trainer.train_steps == 5  # 24 videos, 5 at a time.
  assert optimizer.learning_rate.get().decay_steps == 1
  assert optimizer.warmup.get().warmup_steps == 2
  written = yaml.safe_load((tmp_path / 'run' / 'params.yaml').read_text())
  assert written['task']['train_epochs'] == 0
  assert written['trainer']['train_steps'] == 5


def _train_data(path, **task):
  """A --config_file's worth of overrides; returns the flag."""
  folder = pathlib.Path(path).parent
  file = folder / 'task.yaml'
  file.write_text(json.dumps({'task': {
      **task, 'train_data': {'input_path': str(path),
                             'global_batch_size': 5}}}))
  return f'--config_file={file}'


def test_known_number_of_examples_is_not_counted(configure, tmp_path):
  params = configure(_train_data(tmp_path / 'absent', train_epochs=3),
                     '--params_override=task.train_data.num_examples=100')
  assert params.trainer.train_steps == 60


@pytest.mark.parametrize('override,words', [
    ('task.decay_epochs=1,trainer.optimizer_config.learning_rate.type=constant',
     "'constant' has no decay_steps"),
    ('task.warmup_epochs=1', 'warmup.type to linear'),
])
def test_epochs_of_what_has_no_steps_are_an_error(configure, override, words):
  with pytest.raises(ValueError, match=words):
    configure('--params_override=task.train_data.num_examples=100,' + override)


def test_epochs_without_this_driver_are_an_error():
  params = tiny.experiment({'task': {'train_epochs': 5.0}})
  with pytest.raises(ValueError, match='5.0, 0.0 and 0.0: this driver counts '
                     'in steps.*python -m yt8m_distill.train'):
    distillation.DistillationTask(params.task)


@pytest.mark.parametrize('argument,words', [
    ('--gin_file=absent.gin', 'absent.gin'),
    ('--gin_params=yt8m_distil.every_n=5', "No configurable.*yt8m_distil"),
    ('--gin_params=yt8m_distill.every_m=5', 'every_m'),
    ('--params_override=task.model.clases=5', 'clases'),
    ('--params_override=task.losses.label_wait=5', 'label_wait'),
])
def test_unknown_name_is_named(configure, argument, words):
  with pytest.raises(Exception, match=words):
    configure(argument)


def test_unknown_key_in_yaml_is_named(configure, tmp_path):
  path = tmp_path / 'own.yaml'
  path.write_text('task: {model: {student: {backbone: {num_cels: 5}}}}')
  with pytest.raises(ValueError, match='num_cels.*Correct the name in'):
    configure(f'--config_file={path}')


def test_fault_of_the_code_keeps_its_traceback(monkeypatch):
  """It is no bad input, and must not be told as such."""
  monkeypatch.setattr(train, 'run', lambda _: {}['absent'])
  with pytest.raises(KeyError, match='absent'):
    train.main([])


def test_unknown_experiment_is_named():
  with pytest.raises(LookupError, match='yt8m_distil'):
    exp_factory.get_exp_config('yt8m_distil')


def test_chunks_that_do_not_divide_are_an_error(tmp_path):
  tiny.write_records(tmp_path / 'a.tfrecord', 2)
  with pytest.raises(ValueError, match='chunks is 3, which does not divide the '
                     '4 frames .* choose one of 1, 2, 4'):
    tiny.run_driver('train', tmp_path / 'run', _train_data(
        tmp_path / 'a.tfrecord'), tiny.override(
            task__model__student__backbone__hierarchical_lstm__chunks=3))


def test_model_dir_that_cannot_be_written_is_an_error(tmp_path):
  (tmp_path / 'file').write_text('')
  folder = tmp_path / 'file' / 'run'
  sizes = tiny.sizes_file(tmp_path)
  with pytest.raises(ValueError, match=f'--model_dir={folder} cannot be '
                     'written.*Choose a folder that can'):
    tiny.run_driver('train', folder, f'--config_file={sizes}', sized=False)


def test_missing_input_path_is_an_error(tmp_path):
  with pytest.raises(ValueError, match='input_path is empty: set it to'):
    tiny.run_driver('train', tmp_path / 'run')


@pytest.mark.parametrize('error,text', [
    (ValueError('chunks is 3.'), 'chunks is 3.'),
    (tf.errors.InvalidArgumentError(
        None, None, 'Graph execution error:\n\nassertion failed: [a.tfrecord, '
        'record 0: bad.]\n\t [[{{node Assert}}]]'),
     'a.tfrecord, record 0: bad.'),
])
def test_bad_input_ends_with_one_line(monkeypatch, error, text):
  def fail(_):
    raise error

  monkeypatch.setattr(train, 'run', fail)
  with pytest.raises(SystemExit) as end:
    train.main([])
  assert end.value.code == f'Error: {text}'


def test_evaluation_without_a_checkpoint_leaves_no_folder(tmp_path):
  with pytest.raises(ValueError, match='There is no checkpoint in .*Train'):
    tiny.run_driver('eval', tmp_path / 'none')
  assert not (tmp_path / 'none').exists()


@pytest.mark.parametrize('training', ['parallel', 'serial'])
def test_log_lists_the_variables_of_both_networks(caplog, training):
  task = distillation.DistillationTask(
      tiny.experiment({'task': {'training': training}}).task)
  with caplog.at_level('INFO'):
    model = task.build_model()
  for network in (model.teacher, model.student):
    assert re.search(rf'{network.name}: \d+ frames, .* GFLOPs per video, '
                     rf'{network.count_params():,} parameters', caplog.text)
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
      'train_and_eval', run, '--gin_file=train.gin',
      f"--gin_params=TRAIN_PATH='{tmp_path}/train.tfrecord'",
      f"--gin_params=VALIDATION_PATH='{tmp_path}/validate.tfrecord'",
      '--gin_params=BATCH_SIZE=4', '--gin_params=TRAIN_STEPS=6',
      tiny.override(trainer__steps_per_loop=2, trainer__summary_interval=2,
                    trainer__checkpoint_interval=2,
                    trainer__validation_interval=4))
  for name in ('params.yaml', 'config.gin', 'per_class.csv', 'evaluation.json',
               'operative_config.train_and_eval.gin', 'ckpt-6.index'):
    assert (run / name).exists(), name
  assert not (run / 'probe').exists()
  best = json.loads((run / 'best_ckpt' / 'info.json').read_text())
  assert list((run / 'best_ckpt').glob('best_ckpt-*.index'))
  evaluated = json.loads((run / 'evaluation.json').read_text())
  assert evaluated['step'] == 6
  assert best['student/gap'] >= evaluated['metrics']['student/gap'] > 0.0

  both = [f'{who}/{name}' for who in ('teacher', 'student')
          for name in ('label_loss', 'hit_at_one', 'perr', 'gap')]
  student = ['student/representation_loss', 'student/prediction_loss']
  train = _tags(run / 'train')
  expected = {*both, *student, 'teacher/regularization_loss',
              'student/regularization_loss', 'learning_rate', 'training_loss'}
  assert {tag for tag in expected if train.get(tag) == {2, 4, 6}} == expected
  # The first loop has no rate: it holds the tracing.
  assert train['examples_per_second'] == train['seconds_left'] == {4, 6}
  validation = _tags(run / 'validation')
  expected = {*both, *student, 'teacher/map', 'student/map', 'agreement/top1',
              'agreement/overlap', 'validation_loss', 'best_student/gap'}
  assert {tag for tag in expected if validation.get(tag) == {4, 6}} == expected
  lines = [line for line in capsys.readouterr().out.splitlines()
           if line.startswith('step ')]
  assert [line.split()[1] for line in lines] == ['2/6', '4/6', '6/6']
  assert 'videos/s' in lines[1] and 'student/gap' in lines[0]


@pytest.mark.slow
def test_stock_driver_of_the_garden_trains(tmp_path):
  tiny.write_records(tmp_path / 'train.tfrecord', 6)
  run = tmp_path / 'run'
  tiny.python(
      '-m', 'official.vision.train', '--experiment=yt8m_distill',
      '--mode=train', f'--model_dir={run}',
      f'--gin_file={tiny.ROOT / "gin" / "train.gin"}',
      f"--gin_params=TRAIN_PATH='{tmp_path}/train.tfrecord'",
      '--gin_params=BATCH_SIZE=2', '--gin_params=TRAIN_STEPS=3',
      f'--config_file={tiny.sizes_file(tmp_path)}',
      tiny.override(trainer__steps_per_loop=3, trainer__summary_interval=3))
  assert (run / 'ckpt-3.index').exists() and (run / 'params.yaml').exists()
