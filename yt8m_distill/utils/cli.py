"""Runs a command line; reports bad input as one line instead of a traceback."""

from collections.abc import Callable
from collections.abc import Sequence
import importlib
import re
import sys

from absl import app
from absl import flags
from absl import logging
import tensorflow as tf

from yt8m_distill.utils import process_exit

_IMPORT = flags.DEFINE_list(
  'import',
  [],
  'Modules of your own to import first, which register experiments, backbones, heads '
  'or losses.',
)


def run(main: Callable[[Sequence[str]], None], *positional: str):
  """Runs a command; errors and interrupts end it with one line, the last one.

  Shows the log from WARNING on, or as --verbosity says. With --verbosity=1 the log
  holds the traceback of an error as well.

  Args:
    main: takes the positional arguments.
    *positional: their names; the last one may be repeated if it ends in '...'.
  """

  def checked(argv):
    # TensorFlow would print what absl also prints.
    tf.get_logger().handlers.clear()
    if not flags.FLAGS['verbosity'].present:
      logging.set_verbosity(logging.WARNING)
    try:
      _check_arguments(argv[1:], positional)
      _import_modules(_IMPORT.value)
      main(argv[1:])
    except KeyboardInterrupt:
      sys.exit('Interrupted. Repeat the command to continue; finished work is kept.')
    except (ValueError, OSError, ImportError, tf.errors.OpError) as error:
      logging.debug('Traceback:', exc_info=True)
      sys.exit(f'Error: {message(error)}')

  try:
    app.run(checked, flags_parser=_parse_flags)
  finally:
    process_exit.end_process()


def _parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses flags, or shows the help; returns the program and its other arguments."""
  if {'--help', '-help', '-h', '-?', '--helpshort'} & {*argv[1:]}:
    _show_help()
    sys.exit()
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    sys.exit(f'Error: {" ".join(str(error).split())} --help lists the flags.')


def _show_help():
  """Prints what the command does, and its flags."""
  flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS['import'])
  _, _, listed = flags.FLAGS.main_module_help().strip().partition('\n')
  print(f'{sys.modules["__main__"].__doc__}\nFlags:\n\n{listed}\n')
  print(
    '  --verbosity: How much of the log to show: -1 warnings, 0 everything, 1 details\n'
    "    and the traceback of an error.\n    (default: '-1')\n"
    '\n--helpfull lists the flags of all libraries.'
  )


def _check_arguments(given: Sequence[str], positional: Sequence[str]):
  """Raises ValueError if there are too few or too many positional arguments."""
  missing = positional[len(given) :]
  extra = given[len(positional) :]
  if positional and positional[-1].endswith('...'):
    extra = []
  if missing or extra:
    names = missing or [repr(argument) for argument in extra]
    raise ValueError(
      f'{", ".join(names)} {"is" if len(names) == 1 else "are"} '
      f'{"missing" if missing else "unexpected"}: give '
      f'{" ".join(positional) or "flags only"}. --help explains them.'
    )


def _import_modules(names: Sequence[str]):
  for name in names:
    try:
      importlib.import_module(name)
    except ModuleNotFoundError as error:
      raise ValueError(
        f'--import={name}: {error}. Install the project, or set PYTHONPATH to the '
        'folder that holds it.'
      ) from error


def message(error: Exception) -> str:
  """Returns an error's text as one line, without what libraries add to it."""
  if isinstance(error, tf.errors.OpError):
    text = error.message
    ours = re.search(r'assertion failed: \[(.*?)\]\s*\[\[', text, re.DOTALL)
    text = ours[1] if ours else text.split('\n\n')[-1].split('\n\t [[')[0]
  else:
    # gin appends a line for each of its configurables that the error passes.
    text = re.sub(r'\n\s*In call to configurable .*', '', str(error))
  return ' '.join(text.split())
