"""The driver's configuration: sources, gin files, epochs and wrong names."""

import json
import pathlib
from unittest import mock

import paths
import pytest
import tensorflow as tf
import tiny
import yaml

from yt8m_distill.tasks import distillation
from yt8m_distill.trainer import cluster
from yt8m_distill.trainer import configuration

pytestmark = pytest.mark.end_to_end

_EVERY_N = 'task.model.student.frames.uniform.every_n'
_GIN_FILES = sorted(path.name for path in (paths.ROOT / 'gin').glob('*.gin'))


@pytest.fixture(name='configure')
def _configure(monkeypatch, tmp_path):
  """Calls the driver without reading or building; returns the configuration."""
  built = []

  def build_runner(*_, params, **__):
    built.append(params)
    return mock.MagicMock(run=lambda: (None, {}))

  monkeypatch.setattr(configuration, 'check_inputs', lambda *_: None)
  monkeypatch.setattr(cluster, 'build_runner', build_runner)

  def configure(*arguments, sized=True, mode='train'):
    records = "--gin_params=yt8m_distill.train_path='absent'"
    tiny.run_driver(mode, tmp_path / 'run', records, *arguments, sized=sized)
    return built.pop()

  return configure


def _every_n(params):
  return params.task.model.student.frames.uniform.every_n


def test_macro_and_comment_of_gin_may_come_with_settings(configure):
  params = configure(
    '--gin_params=n = 2',
    '--gin_params=yt8m_distill.every_n = %n',
    '--gin_params=# a comment',
    '--gin_params=',
    sized=False,
  )
  assert _every_n(params) == 2


def test_later_sources_win_over_earlier_ones(configure, tmp_path):
  gin_file, yaml_file = tmp_path / 'own.gin', tmp_path / 'own.yaml'
  gin_file.write_text('import yt8m_distill\nyt8m_distill.every_n = 6\n')
  yaml_file.write_text('{task: {model: {student: {frames: {uniform: {every_n: 15}}}}}}')
  arguments = []
  assert _every_n(configure(sized=False)) == 10
  for argument, expected in (
    (f'--gin_file={gin_file}', 6),
    ('--gin_params=yt8m_distill.every_n=5', 5),
    (f'--config_file={yaml_file}', 15),
    (f'--params_override={_EVERY_N}=30', 30),
  ):
    # Whatever their order on the command line.
    arguments.insert(0, argument)
    assert _every_n(configure(*arguments, sized=False)) == expected


def test_gin_files_follow_the_command_line(configure):
  params = configure(
    '--gin_file=train.gin',
    '--gin_params=yt8m_distill.every_n=20',
    '--gin_params=yt8m_distill.student_chunks=3',
    sized=False,
  )
  assert _every_n(params) == 20
  assert params.task.model.student.backbone.get().chunks == 3
  assert params.task.model.teacher.backbone.get().chunks == 20


def test_params_yaml_alone_rebuilds_the_run(configure, tmp_path):
  first = configure(
    '--gin_file=original.gin',
    '--gin_params=yt8m_distill.batch_size=32',
    f'--params_override={_EVERY_N}=2',
  ).as_dict()
  written = tmp_path / 'run' / 'params.yaml'
  assert 'yt8m_distill.batch_size = 32' in (tmp_path / 'run' / 'config.gin').read_text()
  again = configure(f'--config_file={written}', sized=False).as_dict()
  assert again == first
  assert again['task']['train_data']['global_batch_size'] == 32
  assert again['task']['losses']['prediction_reduction'] == 'sum'


@pytest.mark.parametrize('file', _GIN_FILES)
def test_shipped_gin_file_parses_and_builds(configure, file):
  text = (paths.ROOT / 'gin' / file).read_text()
  # Without the networks' file they go behind one that has it.
  alone = 'include' in text or file == 'uniform_every_n.gin'
  params = configure(
    *([] if alone else ['--gin_file=train.gin']),
    f'--gin_file={file}',
    '--gin_params=yt8m_distill.num_cells=4',
    '--params_override=task.model.num_classes=12',
    sized=False,
  )
  with tf.Graph().as_default():  # There variables take no memory.
    model = distillation.DistillationTask(params.task).create_model()
  assert model.student.head.get_config()['num_classes'] == 12
  if 'backbone' not in text or alone:
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
  assert [
    network.backbone.get().static_shapes for network in (model.teacher, model.student)
  ] == [enabled, enabled]
  written = yaml.safe_load((tmp_path / 'run' / 'params.yaml').read_text())
  backbone = written['task']['model']['student']['backbone']
  assert backbone['hierarchical_lstm']['static_shapes'] == enabled


def test_epochs_become_steps(configure, tmp_path):
  tiny.write_records(tmp_path / 'a.tfrecord', 7)
  tiny.write_records(tmp_path / 'b.tfrecord', 5)
  params = configure(
    '--params_override=trainer.optimizer_config.warmup.type=linear',
    _train_data(
      tmp_path / '?.tfrecord', train_epochs=2, decay_epochs=0.5, warmup_epochs=1
    ),
  )
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
  file.write_text(
    json.dumps(
      {
        'task': {
          **task,
          'train_data': {'input_path': str(path), 'global_batch_size': 5},
        }
      }
    )
  )
  return f'--config_file={file}'


def test_known_number_of_examples_is_not_counted(configure, tmp_path):
  params = configure(
    _train_data(tmp_path / 'absent', train_epochs=3),
    '--params_override=task.train_data.num_examples=100',
  )
  assert params.trainer.train_steps == 60


@pytest.mark.parametrize(
  'override,words',
  [
    (
      'task.decay_epochs=1,trainer.optimizer_config.learning_rate.type=constant',
      "'constant', which has no decay_steps",
    ),
    ('task.warmup_epochs=1', 'warmup.type to linear or polynomial'),
  ],
)
def test_epochs_of_what_has_no_steps_are_an_error(configure, override, words):
  with pytest.raises(ValueError, match=words):
    configure('--params_override=task.train_data.num_examples=100,' + override)


def test_epochs_without_this_driver_are_an_error():
  params = tiny.experiment({'task': {'train_epochs': 5.0}})
  with pytest.raises(
    ValueError,
    match='5.0, 0.0 and 0.0: this driver counts in steps.*yt8m-distill train',
  ):
    distillation.DistillationTask(params.task)


@pytest.mark.parametrize(
  'argument,words',
  [
    ('--gin_file=absent.gin', 'absent.gin. Give the path of a file, or one of average'),
    ('--gin_params=yt8m_distil.every_n=5', 'yt8m_distil.every_n is not a setting'),
    ('--gin_params=yt8m_distill.every_m=5', 'every_m'),
    (
      '--params_override=task.losses.label_wait=5',
      '^--params_override: task.losses.label_wait is 5: there is no such field. Did '
      'you mean task.losses.label_weight or ',
    ),
    (
      '--params_override=task.model.wdth=5',
      'wdth is 5: there is no such field. The fields of task.model are features, max_f',
    ),
    (
      '--params_override=yt8m_distill.every_n=5',
      'It holds the settings of gin: set them with --gin_params.',
    ),
    ('--params_override=none', '^--params_override: .*none.* path of a YAML file'),
    ('--params_override=[1]', '^--params_override: .*Give FIELD=VALUE,'),
    (
      '--params_override=task.seed=1, task.a[10000000000]=1',
      r'^--params_override: task.a\[10000000000\] is given, but not each item before',
    ),
  ],
)
def test_unknown_name_is_named(configure, argument, words):
  with pytest.raises(Exception, match=words):
    configure(argument)


@pytest.mark.parametrize(
  'text, message',
  [
    (
      'task: {model: {student: {backbone: {num_cels: 5}}}}',
      'task.model.student.backbone.num_cels is 5: there is no such field. The fields',
    ),
    ('', 'The configuration is None: it must be a mapping with the keys task, tr'),
    ('[1, 2]', r'The configuration is \[1, 2\]: it must be a mapping with the keys ta'),
    ('word', "The configuration is 'word': it must be a mapping with the keys task"),
    ('task: null', 'task is None: it must be a mapping with the keys init_checkpoint'),
    ('{on: 1}', 'True is 1: there is no such field'),
  ],
)
def test_file_that_does_not_fit_is_named(configure, tmp_path, text, message):
  path = tmp_path / 'own.yaml'
  path.write_text(text)
  with pytest.raises(ValueError, match=f'^--config_file={path}: {message}'):
    configure(f'--config_file={path}')


@pytest.mark.parametrize(
  'name, near',
  [
    ('yt8m_distil', 'yt8m_distill or yt8m_distill_stored or yt8m_distill_single'),
    ('video_clasification', 'video_classification'),
    ('mine', 'yt8m_distill or yt8m_distill_single or yt8m_distill_stored'),
  ],
)
def test_unknown_experiment_is_named_with_near_ones(tmp_path, name, near):
  with pytest.raises(
    ValueError, match=f'--experiment is {name}: .*Did you mean {near}.*--import=MODULE'
  ):
    tiny.run_driver('train', tmp_path / 'run', experiment=name, sized=False)


@pytest.mark.parametrize(
  'path, words',
  [
    ('train.gin', 'is a gin file: set --gin_file=train.gin'),
    ('', ': .*Is a directory. Give the path of a YAML file'),
  ],
)
def test_what_is_no_yaml_file_is_named(configure, tmp_path, path, words):
  with pytest.raises(ValueError, match=f'^--config_file=.*{words}'):
    configure(f'--config_file={path or tmp_path}')


@pytest.mark.parametrize('path', ['*.tfrecord', 'train{0000..0003}.tfrecord'])
def test_yaml_that_cannot_be_read_is_one_line(tmp_path, path):
  with pytest.raises(
    ValueError, match='--params_override: it cannot be read.*quotes'
  ) as e:
    tiny.run_driver(
      'train',
      tmp_path / 'run',
      f'--params_override=task.train_data.input_path={path}',
    )
  assert '\n' not in str(e.value)
