"""The wheel, used from an empty folder, as a user has it."""

import os
import subprocess
import sys
import zipfile

import golden_cases
import pytest


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
    'git',
    'ls-files',
    '--cached',
    '--others',
    '--exclude-standard',
    cwd=golden_cases.ROOT,
  ).split()
  for name in files:
    if name.startswith(('yt8m_distill/', 'gin/')) or '/' not in name:
      (source / name).parent.mkdir(parents=True, exist_ok=True)
      (source / name).write_bytes((golden_cases.ROOT / name).read_bytes())
  _run(
    sys.executable,
    '-m',
    'pip',
    'wheel',
    '--quiet',
    '--no-deps',
    '--no-build-isolation',
    '--wheel-dir',
    folder,
    source,
  )
  return next(folder.glob('*.whl'))


def test_holds_every_module_and_gin_file(wheel):
  held = set(zipfile.ZipFile(wheel).namelist())
  package = golden_cases.ROOT / 'yt8m_distill'
  for path in package.rglob('*.py'):
    assert path.relative_to(golden_cases.ROOT).as_posix() in held
  for path in (golden_cases.ROOT / 'gin').glob('*.gin'):
    assert f'yt8m_distill/gin_files/{path.name}' in held


def test_finds_gin_files_by_name_from_an_empty_folder(wheel, tmp_path):
  site = tmp_path / 'site'
  _run(
    sys.executable,
    '-m',
    'pip',
    'install',
    '--quiet',
    '--no-deps',
    '--target',
    site,
    wheel,
  )
  empty = tmp_path / 'empty'
  empty.mkdir()
  program = (
    'import gin, yt8m_distill\n'
    'from official.core import exp_factory, task_factory\n'
    'gin.parse_config_files_and_bindings(["original.gin"], ["yt8m_distill.every_n = 5"])\n'
    'params = exp_factory.get_exp_config("yt8m_distill")\n'
    'print(yt8m_distill.__file__)\n'
    'print(params.task.model.student.frames.uniform.every_n,\n'
    '      params.task.losses.prediction_reduction)\n'
    'task_factory.get_task(params.task)\n'
  )
  output = _run(
    sys.executable,
    '-c',
    program,
    cwd=empty,
    env={**os.environ, 'PYTHONPATH': str(site)},
  ).splitlines()
  assert output[0].startswith(str(site))
  assert output[1] == '5 sum'
