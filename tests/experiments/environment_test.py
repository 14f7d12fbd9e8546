"""experiments/environment.sh with an interpreter that only notes its arguments."""

import os
import subprocess

import paths
import pytest

# Tells a version, has the module venv or not, makes environments of itself.
_INTERPRETER = """#!/bin/bash
echo "$*" >>{notes}
case "$*" in
  *version_info*) echo {version} ;;
  *ensurepip*) exit {without_venv} ;;
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip "*) exit {pip_status} ;;
esac
"""


@pytest.fixture
def source(tmp_path):
  """Sources the script; returns the finished process, which prints the set."""

  def run(version, without_venv=0, pip_status=0, **variables):
    python = tmp_path / 'an_interpreter'
    python.write_text(
      _INTERPRETER.format(
        notes=tmp_path / 'notes',
        version=version,
        without_venv=without_venv,
        pip_status=pip_status,
      )
    )
    python.chmod(0o755)
    environment = {
      **os.environ,
      'PYTHON': str(python),
      'VENV': str(tmp_path / 'venv'),
      'TF_SET': '',
      **variables,
    }
    return subprocess.run(
      ['bash', '-ec', '. experiments/environment.sh; echo "$set_name"'],
      cwd=paths.ROOT,
      env=environment,
      capture_output=True,
      text=True,
      check=False,
    )

  return run


@pytest.mark.parametrize(
  'version, chosen, used',
  [
    ('3.10', '', 'tf216'),
    ('3.11', '', 'tf216'),
    ('3.11', 'tf220', 'tf220'),
    ('3.12', '', 'tf220'),
    ('3.13', '', 'tf220'),
  ],
)
def test_the_set_fits_the_interpreter(source, tmp_path, version, chosen, used):
  done = source(version, TF_SET=chosen)
  assert done.stdout == f'{used}\n', done.stderr
  assert f'--constraint {paths.ROOT}/constraints/{used}.txt' in (
    (tmp_path / 'notes').read_text()
  )


@pytest.mark.parametrize(
  'version, chosen', [('3.9', ''), ('3.10', 'tf220'), ('3.12', 'tf216')]
)
def test_an_unsuitable_interpreter_is_one_line(source, tmp_path, version, chosen):
  done = source(version, TF_SET=chosen)
  assert done.returncode == 2
  assert done.stderr == (
    f'No suitable Python among {tmp_path}/an_interpreter: TF_SET=tf216 needs 3.10 or '
    '3.11, TF_SET=tf220 needs 3.11, 3.12 or 3.13. Install one or set PYTHON.\n'
  )


def test_an_unknown_set_is_one_line(source):
  done = source('3.11', TF_SET='tf217')
  assert done.returncode == 2
  assert done.stderr == 'TF_SET is tf217: choose tf216 or tf220.\n'


def test_a_missing_venv_module_names_its_package(source):
  done = source('3.11', without_venv=1)
  assert done.returncode == 2
  assert 'apt install python3.11-venv' in done.stderr
  assert len(done.stderr.splitlines()) == 1


def test_installs_once(source, tmp_path):
  assert source('3.11').returncode == 0
  assert source('3.11').returncode == 0
  notes = (tmp_path / 'notes').read_text()
  assert notes.count('-m pip install') == 1


def test_an_interrupted_installation_starts_over(source, tmp_path):
  assert source('3.11', pip_status=1).returncode == 1
  half_made = tmp_path / 'venv' / 'half_made'
  half_made.touch()
  assert source('3.11').returncode == 0
  assert not half_made.exists()
  assert (tmp_path / 'notes').read_text().count('-m venv') == 2


def test_another_folder_is_not_removed(source, tmp_path):
  file = tmp_path / 'venv' / 'file'
  file.parent.mkdir()
  file.touch()
  assert source('3.11').returncode == 0
  assert file.exists()
