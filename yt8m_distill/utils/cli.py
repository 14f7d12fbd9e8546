"""Runs a command line; reports bad input as one line instead of a traceback."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import glob
import importlib
import os
import re
import sys
import traceback

from absl import app
from absl import flags
from absl import logging
import tensorflow as tf

from yt8m_distill.utils import process_exit
from yt8m_distill.utils import startup

flags.DEFINE_list(
  'import',
  [],
  'Modules of your own to import first, which register experiments, backbones, heads '
  'or losses.',
)
# Errors that are due to the input, not to the code.
REPORTED = (ValueError, OSError, ImportError, NotImplementedError, tf.errors.OpError)
_MAX_NAMED = 6  # items that a message lists


def run(main: Callable[[Sequence[str]], None], *positional: str):
  """Runs a command; errors and interrupts end it with one line, the last one.

  Shows the log from WARNING on, or as --verbosity says. With --verbosity=1 the log
  holds the traceback of an error as well.

  Args:
    main: takes the positional arguments.
    *positional: their names; one that ends in '...' may be repeated.
  """

  def checked(argv):
    # TensorFlow would print what absl also prints.
    tf.get_logger().handlers.clear()
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.WARNING)
    _warn_of_unused_gpu()
    try:
      _check_arguments(argv[1:], positional)
      _check_flags()
      import_modules(flags.FLAGS['import'].value)
      with process_exit.when_output_closes():
        main(argv[1:])
    except KeyboardInterrupt:
      raise process_exit.Interrupted(
        'Interrupted. Repeat the command to continue; finished work is kept.'
      ) from None
    except REPORTED as error:
      logging.debug('Traceback:', exc_info=True)
      sys.exit(f'Error: {message(error)}')

  try:
    app.run(checked, flags_parser=_parse_flags)
  finally:
    process_exit.end_process()


def _parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses flags, or shows the help; returns the program and its other arguments."""
  if {'--help', '-help', '-h', '-?', '--helpshort'} & {*argv[1:]}:
    with process_exit.when_output_closes():
      _show_help()
    sys.exit()
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    sys.exit(f'Error: {_explain(str(error))} --help lists the flags.')
  with startup.loading():
    # absl would do so next, and load the driver.
    tf.config.list_physical_devices('GPU')
  return rest


def _explain(text: str) -> str:
  """Returns what absl says about invalid flags, as a sentence."""
  missing = re.findall(r'flag --(\w+)=None:', text)
  if missing:
    return _list([f'--{name}' for name in missing], 'missing') + '.'
  for ours, theirs in (
    ('it must be true or false', r"\('Non-boolean argument to boolean flag', .*\)"),
    ('it must be a whole number', r'invalid literal for int\(\).*'),
    ('it must be a number', r'could not convert string to float: .*'),
  ):
    text = re.sub(f'{theirs}$', f'{ours}.', text)
  text = ' '.join(text.split()).replace(' ?', '?')
  return text if text.endswith(('.', '?')) else f'{text}.'


def _list(names: Sequence[str], what: str) -> str:
  return f'{", ".join(names)} {"is" if len(names) == 1 else "are"} {what}'


def _warn_of_unused_gpu():
  """Says what TensorFlow's hidden messages would say on a machine with a GPU."""
  if (
    glob.glob('/dev/nvidia[0-9]*')
    and 'CUDA_VISIBLE_DEVICES' not in os.environ
    and not tf.config.list_physical_devices('GPU')
  ):
    logging.warning(
      'This machine has a GPU that TensorFlow cannot use: install TensorFlow with '
      'CUDA. With TF_CPP_MIN_LOG_LEVEL=0 in the environment it says what it lacks.'
    )


def _show_help():
  """Prints what the command does, and its flags."""
  for module, defined in flags.FLAGS.flags_by_module_dict().items():
    if module.startswith('yt8m_distill.'):  # A command shares flags with others.
      for flag in defined:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
  _, _, listed = flags.FLAGS.main_module_help().strip().partition('\n')
  print(f'{sys.modules["__main__"].__doc__}\nFlags:\n\n{listed}\n')
  print(
    '  --verbosity: How much of the log to show: -1 warnings, 0 everything, 1 details\n'
    "    and the traceback of an error.\n    (default: '-1')\n"
    '\n--helpfull lists the flags of all libraries.'
  )


def _check_arguments(given: Sequence[str], positional: Sequence[str]):
  """Raises ValueError if there are too few or too many positional arguments."""
  missing = [name.removesuffix('...') for name in positional[len(given) :]]
  extra = given[len(positional) :]
  repeats = any(name.endswith('...') for name in positional)
  usage = ' '.join(re.sub(r'(.+)\.\.\.', r'\1 [\1 ...]', name) for name in positional)
  if missing:
    raise ValueError(
      f'{_list(missing, "missing")}: give {usage}. --help explains the arguments.'
    )
  if extra and not repeats:
    raise ValueError(
      f'{_list([*map(repr, extra)], "unexpected")}: give {usage or "flags only"}. '
      '--help explains the arguments.'
    )
  for value in given:
    if not value.strip():
      raise ValueError(f'An argument is {value!r}: give {usage}; none may be blank.')


def _check_flags():
  """Raises ValueError if the text of a flag, or one of several, is only white space."""
  for name in flags.FLAGS:
    value = flags.FLAGS[name].value
    for text in value if isinstance(value, list) else [value]:
      # An empty text may mean none.
      if isinstance(text, str) and text and not text.strip():
        raise ValueError(f'--{name} is {text!r}: it must not be blank. Leave it out.')


def import_modules(names: Sequence[str]):
  """Imports modules of other projects, which register what they add.

  Args:
    names: as --import lists them.

  Raises:
    ValueError: a module cannot be imported; names the place of the error.
  """
  for name in names:
    try:
      importlib.import_module(name)
    except Exception as error:
      if isinstance(error, ModuleNotFoundError) and f'{name}.'.startswith(
        f'{error.name}.'
      ):
        raise ValueError(
          f'--import={name}: {error}. Install the project, or set PYTHONPATH to the '
          'folder that holds it.'
        ) from error
      place = traceback.extract_tb(error.__traceback__)[-1]
      raise ValueError(
        f'--import={name}: {type(error).__name__}: {error} ({place.filename}, line '
        f'{place.lineno}). Correct the module, or its name.'
      ) from error


def some_of(items: Sequence[str]) -> str:
  """Lists the first items, for a message, and the number of the others."""
  more = len(items) - _MAX_NAMED
  return '; '.join(items[:_MAX_NAMED]) + (f'; and {more} more' if more > 0 else '')


def check_least(least: int = 1, **values: int | None):
  """Raises a ValueError about the first value below the least; None is none.

  Args:
    least: the least that is allowed.
    **values: by the name that the message gives.
  """
  for name, value in values.items():
    if value is not None and value < least:
      raise ValueError(f'{name} is {value}: it must be {least} or more.')


@contextlib.contextmanager
def naming_flag(name: str) -> Iterator[None]:
  """Puts the name of a flag before an error about the files that it names."""
  try:
    yield
  except (ValueError, tf.errors.InvalidArgumentError) as error:
    raise ValueError(f'--{name}: {message(error)}') from error


def message(error: Exception) -> str:
  """Returns an error's text as one line, without what libraries add to it."""
  if isinstance(error, tf.errors.OpError):
    text = error.message
    ours = re.search(r'assertion failed: \[(.*?)\]\s*\[\[', text, re.DOTALL)
    if ours:  # tf.Assert puts a backslash before these.
      text = re.sub(r'\\([\\"\'])', r'\1', ours[1])
    else:
      text = re.split(r'\s*\[\[', text)[0].split('\n\n')[-1]
  else:
    # gin appends a line for each of its configurables that the error passes.
    text = re.sub(r'\n\s*In call to configurable .*', '', str(error))
    # Keras puts the layer and a traceback before its error, and the inputs after.
    for before in (
      r'Exception encountered when calling layer .*?\n\n',
      r'in user code:.*\n\s*\w+Error: ',
    ):
      text = re.sub(f'^.*{before}', '', text, flags=re.DOTALL)
    text = text.split('\n\nCall arguments received')[0]
  if re.match("File system scheme '.*' not implemented", text):
    text += '. Correct the path, or name a local one.'
  return ' '.join(text.split())
