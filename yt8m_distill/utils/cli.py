"""Command lines that end with one line where something is wrong."""

from collections.abc import Callable
from collections.abc import Sequence
import re
import sys

from absl import app
import tensorflow as tf


def run(main: Callable[[Sequence[str]], None], *positional: str):
  """Runs a command line; bad input ends it with a message, not a traceback.

  Args:
    main: takes the positional arguments.
    *positional: their names; a last one that ends in '...' may be repeated.
  """

  def plain(argv):
    given = argv[1:]
    repeated = positional and positional[-1].endswith('...')
    if len(given) < len(positional) or (len(given) > len(positional) and not repeated):
      raise app.UsageError(
        f'Give {" ".join(positional) or "flags alone"}, not {given}; --help '
        'lists the flags.'
      )
    try:
      main(given)
    except (ValueError, OSError, ImportError, tf.errors.OpError) as error:
      sys.exit(f'Error: {message(error)}')

  app.run(plain)


def message(error: Exception) -> str:
  """An error's text without what TensorFlow's runtime puts around it."""
  if not isinstance(error, tf.errors.OpError):
    # gin appends a line for each of its configurables that the error passes.
    return re.sub(r'\n\s*In call to configurable .*', '', str(error))
  text = error.message
  ours = re.search(r'assertion failed: \[(.*?)\]\s*\[\[', text, re.DOTALL)
  return ours[1] if ours else text.split('\n\n')[-1].split('\n\t [[')[0]
