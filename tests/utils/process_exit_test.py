"""How commands end: without C++ destructors, or with an error as the last line."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from yt8m_distill.utils import process_exit

# The module itself as a program: importing the package would take seconds.
_SOURCE = pathlib.Path(process_exit.__file__).read_text()
_PROGRAM = """
atexit.register(print, 'handler')
sys.stdout.write('output ')
{prepare}
try:
  {action}
finally:
  end_process()
print('continued')
"""


def _run(action, prepare='skip_cpp_destructors()'):
  program = _SOURCE + _PROGRAM.format(action=action, prepare=prepare)
  return subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, check=False
  )


@pytest.mark.parametrize(
  'action, status, last_line',
  [
    ('pass', 0, ''),
    ('sys.exit()', 0, ''),
    ('sys.exit(0)', 0, ''),
    ('sys.exit(3)', 3, ''),
    ("sys.exit('Error: message')", 1, 'Error: message'),
    ("raise ValueError('message')", 1, 'ValueError: message'),
    # A shell ends its loop only if the interrupt itself ends the command.
    ("raise Interrupted('Interrupted.')", -signal.SIGINT, 'Interrupted.'),
    ("raise Terminated('Terminated.')", 128 + signal.SIGTERM, 'Terminated.'),
  ],
)
def test_ends_as_python_would(action, status, last_line):
  done = _run(action)
  assert done.returncode == status
  assert done.stdout == 'output handler\n'
  assert done.stderr.splitlines()[-1:] == ([last_line] if last_line else [])
  assert _run(action, 'pass').returncode == status
  assert ('Traceback' in done.stderr) == action.startswith('raise Value')


def test_continues_if_the_process_may_end_as_usual():
  assert _run('pass', 'pass').stdout == 'output continued\nhandler\n'


def test_error_is_the_last_line():
  done = _run(
    "sys.exit('Error: message')",
    "atexit.register(print, 'late', file=sys.stderr)\n"
    'class Complaint:\n'
    "  def __del__(self): print('later', file=sys.stderr)\n"
    'complaint = Complaint()',
  )
  assert done.returncode == 1
  assert done.stderr.splitlines() == ['late', 'Error: message']


def test_output_that_nobody_reads_ends_quietly(monkeypatch):
  reader, writer = os.pipe()
  with os.fdopen(writer, 'w') as output:
    monkeypatch.setattr(sys, 'stdout', output)
    with pytest.raises(BrokenPipeError), process_exit.when_output_closes():
      raise BrokenPipeError('of a connection')
    os.close(reader)
    with pytest.raises(SystemExit) as end, process_exit.when_output_closes():
      print('text')
    assert end.value.code == 141
    print('what others print while the process ends', flush=True)
