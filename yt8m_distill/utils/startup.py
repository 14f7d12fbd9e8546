"""Starts a command without what only a library needs: messages and Keras 3.

Importing the package as a library changes nothing: only commands call `hide_messages`
and `skip_keras_3`.
This module imports nothing that takes time.
"""

from collections.abc import Iterator
import contextlib
import faulthandler
import os
import sys
import tempfile

_LEVEL = 'TF_CPP_MIN_LOG_LEVEL'
# Tells worker processes, which inherit it, to hide their messages too.
_HIDDEN = 'YT8M_DISTILL_HIDES_MESSAGES'


def module() -> str:
  """Returns MODULE while Python imports the packages of `python -m MODULE`, or ''."""
  if sys.argv[:1] != ['-m']:
    return ''
  return sys.orig_argv[-len(sys.argv)].removeprefix('-m')


def hide_messages():
  """Hides TensorFlow's messages in this process unless the user chose their level.

  Must be called before TensorFlow is imported. Level 2 hides what TensorFlow's C++ code
  calls a warning: with 1, each evaluation that reaches the end of its data would print
  some. Trouble remains visible: libraries that cannot be loaded and failing GPUs are
  errors, and running out of memory is an exception.
  """
  if _LEVEL not in os.environ and sys.stderr is not None:
    os.environ.update({_LEVEL: '2', _HIDDEN: '1'})


def skip_keras_3():
  """Spares this process the import of Keras 3 unless the user chose a Keras.

  Must be called before TensorFlow is imported, which would take a second longer to
  import Keras 3 for tf.keras. Like the Garden, this package uses tf_keras only.
  Processes that a command starts inherit the choice.
  """
  os.environ.setdefault('TF_USE_LEGACY_KERAS', '1')


def use_no_accelerator():
  """Hides accelerators from this process and its workers, which compute nothing on one.

  Claiming one could block other processes. Call it before TensorFlow looks for them.
  """
  os.environ['CUDA_VISIBLE_DEVICES'] = '-1'


@contextlib.contextmanager
def loading() -> Iterator[None]:
  """Hides standard error while TensorFlow or a driver loads, after hide_messages().

  No level hides only the errors that TensorFlow logs at every start. If loading fails,
  everything is shown; if it aborts, at least the module at which it did.
  """
  if _HIDDEN not in os.environ:
    yield
    return
  sys.stderr.flush()
  stderr = os.dup(2)
  with tempfile.TemporaryFile() as hidden:
    os.dup2(hidden.fileno(), 2)
    faulthandler.enable(stderr)
    try:
      yield
    except KeyboardInterrupt:
      os.dup2(stderr, 2)
      # The command that a fork server works for reports the interrupt.
      sys.exit(1 if 'forkserver' in ' '.join(sys.orig_argv) else 'Interrupted.')
    except BaseException:
      hidden.seek(0)
      os.write(stderr, hidden.read())
      raise
    finally:
      os.dup2(stderr, 2)
      os.close(stderr)
      faulthandler.enable()  # As absl does in every command.
