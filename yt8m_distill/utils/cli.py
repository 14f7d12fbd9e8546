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

flags.DEFINE_list(
  'import',
  [],
  'Modules of your own to import first, which register experiments, backbones, heads '
  'or losses.',
)


def run(main: Callable[[Sequence[str]], None], *positional: str):
  """Runs a command; errors and interrupts end it with one line.

  With --verbosity=1 the log holds the traceback as well.

  Args:
    main: takes the positional arguments.
    *positional: their names; the last one may be repeated if it ends in '...'.
  """

  def checked(argv):
    given = argv[1:]
    repeated = positional and positional[-1].endswith('...')
    if len(given) < len(positional) or (len(given) > len(positional) and not repeated):
      raise app.UsageError(
        f'Arguments are {given}: give {" ".join(positional) or "flags only"}. '
        '--help lists the flags.'
      )
    try:
      import_modules(flags.FLAGS['import'].value)
      main(given)
    except KeyboardInterrupt:
      sys.exit('Interrupted. Repeat the command to continue; finished work is kept.')
    except (ValueError, OSError, ImportError, tf.errors.OpError) as error:
      logging.debug('Traceback:', exc_info=True)
      sys.exit(f'Error: {message(error)}')
    finally:
      process_exit.end_process()

  app.run(checked)


def import_modules(names: Sequence[str]):
  """Imports modules of other projects, which register what they add.

  Args:
    names: as --import lists them.

  Raises:
    ValueError: there is no such module, or it needs one that there is not.
  """
  for name in names:
    try:
      importlib.import_module(name)
    except ModuleNotFoundError as error:
      raise ValueError(
        f'--import={name}: {error}. Install the project, or set PYTHONPATH to the '
        'folder that holds it.'
      ) from error


def message(error: Exception) -> str:
  """Returns an error's text without what TensorFlow's runtime adds to it."""
  if not isinstance(error, tf.errors.OpError):
    # gin appends a line for each of its configurables that the error passes.
    return re.sub(r'\n\s*In call to configurable .*', '', str(error))
  text = error.message
  ours = re.search(r'assertion failed: \[(.*?)\]\s*\[\[', text, re.DOTALL)
  if ours:  # tf.Assert puts a backslash before these.
    return re.sub(r'\\([\\"\'])', r'\1', ours[1])
  return text.split('\n\n')[-1].split('\n\t [[')[0]
