"""What the driver will make of the runs, looked at before any of them starts.

A setting or a field that does not exist would otherwise end a run only when its
turn has come.
"""

from collections.abc import Sequence
import logging

from official.core import config_definitions as cfg
from official.core import exp_factory

from experiments.study import expansion
import gin
from yt8m_distill.configs import settings


def configuration(run: expansion.Run) -> cfg.ExperimentConfig:
  """Returns a run's configuration; gin is empty afterwards.

  Raises:
    ValueError: the run sets a setting or a field that does not exist; or its
      experiment does not.
    OSError: a gin file cannot be read.
  """
  with gin.unlock_config():
    gin.clear_config()
    try:
      settings.parse_gin(run.gin_file, run.gin_params)
      params = exp_factory.get_exp_config(run.experiment)
      params.override(run.overrides, is_strict=True)
    # LookupError is of unknown experiments and fields.
    except (ValueError, LookupError) as error:
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
