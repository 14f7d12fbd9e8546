"""Command lines: which errors end in one line."""

from absl import app
from absl import flags
from absl import logging
import pytest
import tensorflow as tf

from yt8m_distill.utils import cli
from yt8m_distill.utils import process_exit


@pytest.fixture(autouse=True)
def _stays_alive(monkeypatch):
  monkeypatch.setattr(process_exit, 'end_process', lambda: None)
  verbosity = logging.get_verbosity()
  yield
  logging.set_verbosity(verbosity)


def _run(monkeypatch, arguments, main, *positional):
  monkeypatch.setattr(app, 'run', lambda checked, **_: checked(['command', *arguments]))
  cli.run(main, *positional)


@pytest.mark.parametrize(
  'error, text',
  [
    (ValueError('chunks is 3.'), 'Error: chunks is 3.'),
    (OSError('disk full'), 'Error: disk full'),
    (ValueError('one\nand  two.'), 'Error: one and two.'),
    (
      ValueError("bad.\n  In call to configurable 'Trainer' (<class 'Trainer'>)"),
      'Error: bad.',
    ),
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
    (
      tf.errors.NotFoundError(
        None,
        None,
        'Graph execution error:\n\nat node x\n\nNo kernel.\n\n\t [[x]] [Op:y]',
      ),
      'Error: No kernel.',
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


@pytest.mark.parametrize(
  'error',
  [
    ValueError('a.tfrecord: bad.'),
    tf.errors.InvalidArgumentError(
      None, None, 'assertion failed: [a.tfrecord: bad.]\n\t [[{{node Assert}}]]'
    ),
  ],
)
def test_an_error_about_files_names_their_flag(error):
  with pytest.raises(ValueError) as caught, cli.naming_flag('data_path'):
    raise error
  assert str(caught.value) == '--data_path: a.tfrecord: bad.'


def test_the_first_value_below_the_least_is_named():
  cli.check_least(workers=1, segments=None)
  with pytest.raises(ValueError, match='^top_k is 0: it must be 1 or more.$'):
    cli.check_least(workers=1, top_k=0, batch_size=0)
  with pytest.raises(ValueError, match='^seed is -1: it must be 0 or more.$'):
    cli.check_least(0, seed=-1)


def test_programming_errors_keep_their_traceback(monkeypatch):
  with pytest.raises(KeyError, match='absent'):
    _run(monkeypatch, [], lambda _: {}['absent'])


@pytest.mark.parametrize(
  'positional, arguments, message',
  [
    ((), [], None),
    ((), ['x'], "'x' is unexpected: give flags only."),
    ((), ['x', 'y'], "'x', 'y' are unexpected: give flags only."),
    (('RUN', 'OUT'), ['x', 'y'], None),
    (('RUN', 'OUT'), ['x'], 'OUT is missing: give RUN OUT.'),
    (('RUN', 'OUT'), [], 'RUN, OUT are missing: give RUN OUT.'),
    (('RUN', 'OUT'), ['x', 'y', 'z'], "'z' is unexpected: give RUN OUT."),
    (('RUN...',), ['x', 'y', 'z'], None),
    (('RUN...',), [], 'RUN is missing: give RUN [RUN ...].'),
    (('RUN...', 'OUT'), ['x', 'y', 'z'], None),
    (('RUN...', 'OUT'), ['x'], 'OUT is missing: give RUN [RUN ...] OUT.'),
  ],
)
def test_number_of_arguments(monkeypatch, positional, arguments, message):
  received = []
  if message:
    with pytest.raises(SystemExit) as end:
      _run(monkeypatch, arguments, received.extend, *positional)
    assert end.value.code == f'Error: {message} --help explains the arguments.'
  else:
    _run(monkeypatch, arguments, received.extend, *positional)
    assert received == arguments


@pytest.fixture(name='parse')
def _parse(monkeypatch):
  """Parses the flags of a small command, whose --count is required."""
  values = flags.FlagValues()
  flags.DEFINE_integer('count', None, 'Number.', flag_values=values)
  flags.mark_flag_as_required('count', flag_values=values)
  monkeypatch.setattr(flags, 'FLAGS', values)
  return lambda *arguments: cli._parse_flags(['command', *arguments])


@pytest.mark.parametrize(
  'argument, message',
  [
    ('--count=x', 'flag --count=x: it must be a whole number.'),
    ('--cuont=3', "Unknown command line flag 'cuont'. Did you mean: count?"),
    ('x', '--count is missing.'),
  ],
)
def test_invalid_flags_end_with_one_line(parse, argument, message):
  with pytest.raises(SystemExit) as end:
    parse(argument)
  assert end.value.code == f'Error: {message} --help lists the flags.'
  assert parse('--count=3', 'x') == ['command', 'x']


def test_blank_flag_is_refused(parse):
  flags.DEFINE_string('out', '', 'Folder.', flag_values=flags.FLAGS)
  parse('--count=3', '--out=')
  cli._check_flags()
  parse('--count=3', '--out= ')
  with pytest.raises(ValueError, match="^--out is ' ': it must not be blank"):
    cli._check_flags()


@pytest.mark.parametrize(
  'gpus, visible, seen, warns',
  [
    (['/dev/nvidia0'], None, [], True),
    (['/dev/nvidia0'], '-1', [], False),
    (['/dev/nvidia0'], None, ['GPU'], False),
    ([], None, [], False),
  ],
)
def test_warns_of_a_gpu_that_is_not_used(
  monkeypatch, caplog, gpus, visible, seen, warns
):
  monkeypatch.setattr(cli.glob, 'glob', lambda _: gpus)
  monkeypatch.setattr(tf.config, 'list_physical_devices', lambda _: seen)
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  if visible:
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
  _run(monkeypatch, [], lambda _: None)
  assert ('a GPU that TensorFlow cannot use' in caplog.text) == warns


@pytest.mark.parametrize(
  'text, words',
  [
    ('raise RuntimeError("boom")', r'RuntimeError: boom \(.*own_module.py, line 1\)'),
    ('\n\ndef f(:', 'SyntaxError: '),
    (
      'import yt8m_absent',
      "ModuleNotFoundError: No module named 'yt8m_absent' .*line 1",
    ),
    (
      'from yt8m_distill.tasks import loss_terms\n'
      'loss_terms.register("prediction")(print)',
      "KeyError: '.*prediction registered multiple times",
    ),
  ],
)
def test_module_that_cannot_be_imported_names_the_place(
  tmp_path, monkeypatch, text, words
):
  (tmp_path / 'own_module.py').write_text(text)
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(ValueError, match=f'--import=own_module: {words}') as error:
    cli.import_modules(['own_module'])
  assert 'PYTHONPATH' not in str(error.value)


@pytest.mark.parametrize('name', ['yt8m_absent', 'yt8m_absent.experiments'])
def test_absent_module_says_how_to_find_it(name):
  with pytest.raises(ValueError, match=f'--import={name}: No module.*set PYTHONPATH'):
    cli.import_modules([name])
