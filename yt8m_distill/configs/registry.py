"""Registers experiments so that their runs can be read again.

A run's params.yaml names the experiment that built its configuration. Commands
that read the run call the experiment's factory again, so they read it with that
experiment's classes, which may belong to another project.
"""

from collections.abc import Callable
import dataclasses
import functools

from official.core import config_definitions as cfg
from official.core import exp_factory
from official.modeling import hyperparams

from yt8m_distill.configs import validation


@dataclasses.dataclass
class Experiment(cfg.ExperimentConfig):
  """A configuration that records its experiment and is checked as a whole.

  Attributes:
    experiment: name under which the experiment is registered. It does not change
      if a params.yaml of another experiment overrides the configuration.
  """

  experiment: str = ''

  def override(self, override_params, is_strict=True):
    """Overrides fields; the Garden calls it for each source of values.

    Args:
      override_params: a dictionary or a configuration.
      is_strict: whether unknown fields are an error.

    Raises:
      ValueError: a source, such as an empty YAML file, holds no fields.
    """
    if isinstance(override_params, hyperparams.Config):
      override_params = override_params.as_dict()
    if not hasattr(override_params, 'items'):
      raise ValueError(
        f'A --config_file or --params_override is {override_params!r}: it must hold '
        'fields of the configuration, such as trainer.train_steps=1000.'
      )
    values = {k: v for k, v in override_params.items() if k != 'experiment'}
    super().override(values, is_strict)

  def validate(self):
    """Checks all fields; the drivers call it before they build anything.

    Raises:
      ValueError: a field is invalid.
    """
    validation.validate(self)
    super().validate()


def register(name: str) -> Callable:
  """Registers the factory of an experiment with the Garden.

  Args:
    name: the experiment, as --experiment names it.

  Returns:
    A decorator of a function that takes no required arguments and returns an
    ExperimentConfig. The decorated function returns an `Experiment`.
  """

  def decorate(factory):
    @exp_factory.register_config_factory(name)
    @functools.wraps(factory)
    def build(*args, **kwargs) -> Experiment:
      params = factory(*args, **kwargs)
      return Experiment(
        task=params.task,
        trainer=params.trainer,
        runtime=params.runtime,
        experiment=name,
      )

    return build

  return decorate
