"""What the driver will make of the runs, looked at before any of them starts.

gin takes a macro that no file reads for one that is new, and a field that does
not exist ends a run only when its turn has come.
"""

from collections.abc import Sequence
import logging
import re
import tokenize

from official.core import config_definitions as cfg
from official.core import exp_factory

from experiments.study import expansion
import gin

_MACRO = re.compile(r'^\s*([A-Z][A-Z0-9_]*)\s*=', re.MULTILINE)


def _check_macros(run: expansion.Run):
  """Raises ValueError where gin's files, now parsed, lack a macro."""
  known = _MACRO.findall(gin.config_str())
  for name in _MACRO.findall('\n'.join(run.gin_params)):
    if name not in known:
      raise ValueError(
        f'it sets {name}, which its gin files ({", ".join(run.gin_file)}) do '
        f'not define: they define {", ".join(known)}.'
        if run.gin_file
        else f'it sets {name}, but it has no gin_file: give one, train.gin say.'
      )


def configuration(run: expansion.Run) -> cfg.ExperimentConfig:
  """Returns a run's configuration; gin is empty afterwards.

  Raises:
    ValueError: the run sets a gin macro that its gin files do not define, or a
      gin parameter or a field that does not exist; or its experiment does not.
    OSError: a gin file cannot be read.
  """
  with gin.unlock_config():
    gin.clear_config()
    try:
      gin.parse_config_files_and_bindings(run.gin_file, [], finalize_config=False)
      _check_macros(run)
      gin.parse_config(run.gin_params)
      params = exp_factory.get_exp_config(run.experiment)
      params.override(run.overrides, is_strict=True)
    # SyntaxError and TokenError are of gin's grammar, LookupError of unknown
    # experiments and fields, TypeError of an experiment's arithmetic.
    except (
      ValueError,
      LookupError,
      SyntaxError,
      tokenize.TokenError,
      TypeError,
    ) as error:
      # A KeyError as text is in quotes.
      reason = error.args[0] if isinstance(error, LookupError) else error
      raise ValueError(f'Run {run.name} of {run.experiment}: {reason}') from error
    finally:
      gin.clear_config()
  return params


def check(runs: Sequence[expansion.Run]):
  """Raises what configuration() raises, of the runs of one seed."""
  # gin logs an error for each folder in which it looks for a file in vain.
  logging.disable(logging.ERROR)
  try:
    for run in runs:
      if run.seed == runs[0].seed:
        configuration(run)
  finally:
    logging.disable(logging.NOTSET)
