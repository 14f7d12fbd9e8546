"""What a command hides while TensorFlow loads, and what it does not."""

import os
import subprocess
import sys

import pytest

from yt8m_distill.utils import startup

# The module itself: importing the package would take seconds.
_PROGRAM = """
import os, sys
sys.path.insert(0, {folder!r})
import startup
{prepare}
with startup.loading():
  os.write(2, b'noise ')
  {action}
os.write(2, b'after')
"""


def _run(action='pass', prepare='startup.hide_messages()', **environment):
  folder = os.path.dirname(startup.__file__)
  return subprocess.run(
    [
      sys.executable,
      '-c',
      _PROGRAM.format(folder=folder, prepare=prepare, action=action),
    ],
    env={k: v for k, v in os.environ.items() if not k.startswith('TF_')} | environment,
    capture_output=True,
    text=True,
    check=False,
  )


def test_noise_is_hidden_only_while_loading():
  assert _run().stderr == 'after'


@pytest.mark.parametrize(
  'prepare, environment',
  [
    ('', {}),
    ('startup.hide_messages()', {'TF_CPP_MIN_LOG_LEVEL': '1'}),
  ],
)
def test_a_library_and_a_user_who_chose_the_level_see_all(prepare, environment):
  show = "print(sorted(k for k in os.environ if k.startswith(('TF_', 'YT8M'))))"
  done = _run(show, prepare, **environment)
  assert done.stderr == 'noise after'
  assert done.stdout.strip() == str(sorted(environment))


def test_processes_that_a_command_starts_inherit_it():
  nested = 'import subprocess; subprocess.run([sys.executable, "-c", PROGRAM])'
  program = _PROGRAM.format(
    folder=os.path.dirname(startup.__file__), prepare='', action='pass'
  )
  done = _run(
    prepare=f'startup.hide_messages(); PROGRAM = {program!r}; {nested}',
  )
  assert done.stderr == 'afterafter'


@pytest.mark.parametrize(
  'environment, keras', [({}, '1'), ({'TF_USE_LEGACY_KERAS': '0'}, '0')]
)
def test_a_command_skips_keras_3_unless_the_user_chose_it(environment, keras):
  show = "print(os.environ['TF_USE_LEGACY_KERAS'])"
  assert _run(show, 'startup.skip_keras_3()', **environment).stdout == f'{keras}\n'


@pytest.mark.parametrize(
  'action, shown',
  [
    ("raise ImportError('no libfoo')", ['noise Traceback', 'no libfoo']),
    ('os.abort()', ['Fatal Python error: Aborted']),
  ],
)
def test_trouble_is_shown(action, shown):
  done = _run(action)
  assert done.returncode
  for text in shown:
    assert text in done.stderr


def test_an_interrupt_is_one_line():
  done = _run('raise KeyboardInterrupt')
  assert (done.returncode, done.stderr) == (1, 'Interrupted.\n')


@pytest.mark.parametrize(
  'options, name',
  [
    (['-m', 'package'], 'package'),
    (['-W', 'ignore', '-m', 'package.part', '-m', 'x'], 'package.part'),
    (['-mpackage.part'], 'package.part'),
    (['-c', 'import package', '-m', 'x'], ''),
  ],
)
def test_module_that_python_runs(tmp_path, options, name):
  package = tmp_path / 'package'
  package.mkdir()
  folder = os.path.dirname(startup.__file__)
  (package / '__init__.py').write_text(
    f'import sys; sys.path.append({folder!r}); import startup; print(startup.module())'
  )
  for part in ('__main__', 'part'):
    (package / f'{part}.py').write_text('')
  done = subprocess.run(
    [sys.executable, *options],
    cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(tmp_path)},
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout == f'{name}\n'
