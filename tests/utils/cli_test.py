"""Command lines: which errors end in one line."""

from absl import app
import pytest
import tensorflow as tf

from yt8m_distill.utils import cli


def _run(monkeypatch, arguments, main, *positional):
  monkeypatch.setattr(app, 'run', lambda checked: checked(['command', *arguments]))
  cli.run(main, *positional)


@pytest.mark.parametrize(
  'error, text',
  [
    (ValueError('chunks is 3.'), 'Error: chunks is 3.'),
    (OSError('disk full'), 'Error: disk full'),
    (ImportError('pip install it'), 'Error: pip install it'),
    (KeyboardInterrupt(), 'Interrupted. Repeat the command to continue'),
    (
      tf.errors.InvalidArgumentError(
        None,
        None,
        'Graph execution error:\n\nassertion failed: [a.tfrecord, '
        'record 0: bad.]\n\t [[{{node Assert}}]]',
      ),
      'Error: a.tfrecord, record 0: bad.',
    ),
  ],
)
def test_bad_input_ends_with_one_line(monkeypatch, error, text):
  def fail(_):
    raise error

  with pytest.raises(SystemExit) as end:
    _run(monkeypatch, [], fail)
  assert end.value.code.startswith(text)
  assert '\n' not in end.value.code


def test_programming_errors_keep_their_traceback(monkeypatch):
  with pytest.raises(KeyError, match='absent'):
    _run(monkeypatch, [], lambda _: {}['absent'])


@pytest.mark.parametrize(
  'positional, arguments, accepted',
  [
    ((), [], True),
    ((), ['x'], False),
    (('RUN', 'OUT'), ['x', 'y'], True),
    (('RUN', 'OUT'), ['x'], False),
    (('RUN', 'OUT'), ['x', 'y', 'z'], False),
    (('RUN...',), ['x', 'y', 'z'], True),
    (('RUN...',), [], False),
  ],
)
def test_number_of_arguments(monkeypatch, positional, arguments, accepted):
  received = []
  if accepted:
    _run(monkeypatch, arguments, received.extend, *positional)
    assert received == arguments
  else:
    with pytest.raises(app.UsageError, match='Arguments are .*: give '):
      _run(monkeypatch, arguments, received.extend, *positional)
