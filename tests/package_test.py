"""The wheel, used from an empty folder, as a user has it."""

import ast
import configparser
from importlib import metadata
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import paths
import processes
import pytest

pytestmark = pytest.mark.end_to_end

# Each with one of its flags.
_COMMANDS = {
  'train': '--config_file',
  'report': '--import',
  'export': '--tflite',
  'predict': '--segments',
  'adapt': '--mean_frames',
  'teach': '--top_k',
  'extract': '--weights',
  'thin': '--every_n',
  'split-segments': '--context',
  'simulate': '--segments',
  'extract-student': '--import',
  'import-tf1': '--every_n',
}
_YAML = (
  'own_features.yaml',
  'quickstart.yaml',
  'video_2017.yaml',
  'video_2018.yaml',
  'yt8m_2017.yaml',
  'yt8m_2018.yaml',
  'cluster/multi_worker.yaml',
  'cluster/tpu.yaml',
)
_TINY = {
  'task': {
    'model': {
      'num_classes': 5,
      **{
        network: {
          'backbone': {'type': 'yt8m_average', 'yt8m_average': {}},
          'head': {'type': 'logistic'},
        }
        for network in ('teacher', 'student')
      },
    },
    'train_data': {'global_batch_size': 4},
    'validation_data': {'global_batch_size': 4},
    'evaluation': {'top_k': 5},
  },
  'trainer': {'train_steps': 2, 'validation_interval': 2, 'steps_per_loop': 1},
  'runtime': {'run_eagerly': True},  # Spares the tracing of graphs.
}


def _run(*command, **kwargs):
  done = subprocess.run(
    [*map(str, command)], capture_output=True, text=True, check=False, **kwargs
  )
  assert done.returncode == 0, done.stderr[-4000:]
  return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  folder = tmp_path_factory.mktemp('wheel')
  # A copy: setuptools would leave a build folder in the checkout.
  source = folder / 'source'
  files = _run(
    'git', 'ls-files', '--cached', '--others', '--exclude-standard', cwd=paths.ROOT
  ).split()
  for name in files:
    if name.startswith(('yt8m_distill/', 'gin/', 'experiments/')) or '/' not in name:
      (source / name).parent.mkdir(parents=True, exist_ok=True)
      (source / name).write_bytes((paths.ROOT / name).read_bytes())
  _run(
    *(sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps'),
    *('--no-build-isolation', '--wheel-dir', folder, source),
  )
  return next(folder.glob('*.whl'))


@pytest.fixture(scope='module')
def site(wheel, tmp_path_factory):
  """Folder that the wheel alone is installed in."""
  folder = tmp_path_factory.mktemp('site')
  _run(
    *(sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps'),
    *('--target', folder, wheel),
  )
  return folder


@pytest.fixture
def start(site, tmp_path):
  """Runs yt8m-distill from an empty folder; returns the finished process."""
  empty = tmp_path / 'empty'
  empty.mkdir()

  def run(*arguments, path=(), **kwargs):
    return subprocess.run(
      [site / 'bin' / 'yt8m-distill', *map(str, arguments)],
      cwd=empty,
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, [*path, site]))},
      capture_output=True,
      text=True,
      check=False,
      **kwargs,
    )

  return run


def test_holds_every_module_gin_file_and_yaml_file(wheel):
  held = set(zipfile.ZipFile(wheel).namelist())
  for path in (paths.ROOT / 'yt8m_distill').rglob('*.py'):
    assert path.relative_to(paths.ROOT).as_posix() in held
  for path in (paths.ROOT / 'gin').glob('*.gin'):
    assert f'yt8m_distill/gin_files/{path.name}' in held
  for name in _YAML:
    assert f'yt8m_distill/yaml_files/{name}' in held


def test_holds_nothing_that_needs_a_checkout(wheel):
  held = zipfile.ZipFile(wheel).namelist()
  assert {name.split('/')[0].split('-')[0] for name in held} == {'yt8m_distill'}
  assert not [name for name in held if '_files/' in name and name.endswith('.py')]


def test_metadata(wheel, site):
  config = configparser.ConfigParser()
  config.read(paths.ROOT / 'setup.cfg')
  [distribution] = metadata.distributions(path=[str(site)])
  assert distribution.metadata['Name'] == 'yt8m-distill'
  assert distribution.version == config['metadata']['version']
  changelog = (paths.ROOT / 'CHANGELOG.md').read_text()
  assert f'## {distribution.version}' in changelog
  assert distribution.metadata['Author'] == 'yt8m_distill authors'
  assert distribution.metadata['Requires-Python'] == '>=3.10'
  classifiers = distribution.metadata.get_all('Classifier')
  for minor in (10, 11, 12, 13):
    assert f'Programming Language :: Python :: 3.{minor}' in classifiers
  [remote] = [name for name in distribution.requires if 'tensorflow-io' in name]
  assert remote.replace("'", '"').endswith('; python_version < "3.13"')


def test_lists_commands_without_tensorflow(start, tmp_path):
  for name in ('tensorflow', 'official', 'gin'):
    (tmp_path / f'{name}.py').write_text('raise SystemExit("imported")')
  lists = [start(*flag, path=[tmp_path]) for flag in ((), ('--help',))]
  module = subprocess.run(
    [sys.executable, '-m', 'yt8m_distill'],
    cwd=paths.ROOT,
    env={**os.environ, 'PYTHONPATH': str(tmp_path)},
    capture_output=True,
    text=True,
    check=False,
  )
  for listed in (*lists, module):
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout == lists[0].stdout
  lines = lists[0].stdout.splitlines()
  for command in _COMMANDS:
    [line] = [line for line in lines if line.startswith(f'  {command} ')]
    assert line.endswith('.')


def test_an_unknown_command_is_one_line(start):
  done = start('trian')
  assert done.returncode == 1
  assert done.stderr.splitlines() == [
    f'Error: COMMAND is trian: choose {", ".join(_COMMANDS)}. '
    'Did you mean train or thin?'
  ]


@pytest.mark.parametrize('command, flag', _COMMANDS.items())
def test_help_of_a_command_shows_its_flags(command, flag):
  done = processes.forked('-m', 'yt8m_distill', command, '--help')
  assert f'{flag}:' in done.stdout.replace('[no]', ''), done.stdout


def test_a_command_starts_without_keras_3(start, tmp_path):
  (tmp_path / 'keras.py').write_text('raise SystemExit("imported")')
  done = start('import-tf1', '--help', path=[tmp_path])
  assert '--every_n:' in done.stdout, done.stderr


def test_an_unknown_yaml_file_is_one_line(tmp_path):
  done = processes.forked(
    *('-m', 'yt8m_distill', 'train'),
    '--experiment=yt8m_distill_single',
    '--mode=train',
    f'--model_dir={tmp_path}',
    '--config_file=video_2019.yaml',
    check=False,
  )
  assert done.returncode == 1
  assert done.stderr.splitlines()[-1] == (
    'Error: --config_file is video_2019.yaml: no such file. Give the path of a YAML '
    f'file, or one of {", ".join(sorted(_YAML))}.'
  )


def test_finds_gin_and_yaml_files_from_an_empty_folder(site, tmp_path):
  program = (
    'import gin, yt8m_distill\n'
    'from yt8m_distill.utils import shipped\n'
    'gin.parse_config_files_and_bindings(["original.gin"], [])\n'
    'from official.core import exp_factory, task_factory\n'
    'params = exp_factory.get_exp_config("yt8m_distill")\n'
    'task_factory.get_task(params.task)\n'
    f'assert shipped.yaml_files() == {sorted(_YAML)}\n'
    f'files = [shipped.yaml_file(name) for name in {_YAML}]\n'
    'print([yt8m_distill.__file__, *files])\n'
    'print(params.task.losses.prediction_reduction)\n'
  )
  files, reduction = _run(
    *(sys.executable, '-c', program),
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(site)},
  ).splitlines()
  assert reduction == 'sum'
  for file in ast.literal_eval(files):
    assert file.startswith(str(site))
    assert pathlib.Path(file).is_file()


# Runs command lines in forks of a process that has imported the installed package, as
# the commands do first; importing again takes each of them 5 seconds.
_FORKS = """
import json, os, sys
from yt8m_distill import __main__ as commands
commands.startup.skip_keras_3()
from yt8m_distill import registration
for line in json.loads(sys.argv[1]):
  child = os.fork()
  if not child:
    sys.argv[1:] = line
    commands.main()
    sys.exit()
  if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
    sys.exit(f'{line} ended with status {status}')
"""


@pytest.mark.long
def test_commands_from_an_empty_folder(start, site, tmp_path):
  first = start(
    'simulate',
    '--output_dir=data',
    '--split=train',
    '--num_videos=8',
    '--num_classes=5',
  )
  assert first.returncode == 0, first.stderr[-4000:]
  (tmp_path / 'tiny.yaml').write_text(json.dumps(_TINY))
  lines = [
    (
      'thin',
      '--input_path=data/train*.tfrecord',
      '--output_dir=thinned',
      '--every_n=10',
    ),
    (
      'train',
      '--experiment=yt8m_distill',
      '--mode=train_and_eval',
      '--model_dir=run',
      '--config_file=quickstart.yaml',
      f'--config_file={tmp_path}/tiny.yaml',
      '--params_override=task.train_data.input_path=data/train*.tfrecord,'
      'task.validation_data.input_path=data/train*.tfrecord',
    ),
    ('report', 'run'),
    ('extract-student', 'run', 'student'),
    ('export', 'student', 'export'),
    (
      'predict',
      '--model=export',
      '--input_path=data/train*.tfrecord',
      '--output_dir=out',
    ),
  ]
  _run(
    *(sys.executable, '-c', _FORKS, json.dumps(lines)),
    cwd=tmp_path / 'empty',
    env={**os.environ, 'PYTHONPATH': str(site)},
  )
  for name in (
    'run/report.md',
    'student/params.yaml',
    'export/saved_model.pb',
    'out/predictions.csv',
  ):
    assert (tmp_path / 'empty' / name).is_file()
