"""Registers experiments so that their runs can be read again.

A run's params.yaml names the experiment that built its configuration. Commands
that read the run call the experiment's factory again, so they read it with that
experiment's classes, which may belong to another project.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import ClassVar

from official.core import config_definitions as cfg
from official.core import exp_factory
from official.modeling import hyperparams

from yt8m_distill.configs import overrides
from yt8m_distill.configs import settings
from yt8m_distill.configs import validation

_packages: dict[str, str] = {}


@dataclasses.dataclass
class Experiment(cfg.ExperimentConfig):
  """A configuration that records its experiment and is checked as a whole.

  Attributes:
    experiment: name under which the experiment is registered. It does not change
      if a params.yaml of another experiment overrides the configuration.
  """

  experiment: str = ''
  # The Garden keeps attributes with these names out of params.yaml.
  RESERVED_ATTR: ClassVar[list[str]] = [*cfg.ExperimentConfig.RESERVED_ATTR, '_given']

  def override(self, override_params, is_strict=True):
    """Overrides fields; the Garden calls it for each source of values.

    Args:
      override_params: a dictionary or a configuration.
      is_strict: whether unknown fields are an error; always True but for defaults.

    Raises:
      ValueError: a field does not exist, or a value has another type.
    """
    if isinstance(override_params, hyperparams.Config):
      override_params = override_params.as_dict()
    if is_strict:
      try:
        override_params = overrides.checked(self, override_params)
      except ValueError as error:
        other = isinstance(override_params, dict) and override_params.get('experiment')
        if not isinstance(other, str) or other in ('', self.experiment):
          raise
        raise ValueError(
          f'it is a configuration of the experiment {other}, not of {self.experiment}: '
          f'{error}'
        ) from error
    values = {k: v for k, v in override_params.items() if k != 'experiment'}
    self._given = [*getattr(self, '_given', ()), *overrides.leaves(values)]
    super().override(values, is_strict)

  def check(self, path: str):
    """Raises where fields exclude each other; see `validation`."""
    del path  # It is the root.
    overrides.check_alternatives(self, self._given)
    if hasattr(self.task, 'check_trainer'):
      self.task.check_trainer(self.trainer)

  def validate(self):
    """Checks all fields; the drivers call it before they build anything.

    Raises:
      ValueError: a field is invalid, or `experiment` has other fields.
    """
    validation.validate(self)
    super().validate()
    try:
      defaults(self.experiment).override(self.as_dict())
    except (LookupError, ValueError) as error:
      raise ValueError(
        f'experiment is {self.experiment!r}, whose factory builds a configuration with '
        f'other fields: {error} Runs could not be read again. Register your factory '
        'with yt8m_distill.configs.registry.register.'
      ) from error


def defaults(name: str) -> cfg.ExperimentConfig:
  """Returns the configuration of an experiment without what gin binds.

  Args:
    name: the experiment.

  Raises:
    LookupError: it is not registered.
  """
  with settings.without_gin():
    return exp_factory.get_exp_config(name)


def module(name: str) -> str:
  """Returns the package whose import registers an experiment; '' if unknown."""
  return _packages.get(name, '')


def register(name: str) -> Callable:
  """Registers the factory of an experiment with the Garden.

  Args:
    name: the experiment, as --experiment names it.

  Returns:
    A decorator of a function that takes no required arguments and returns an
    ExperimentConfig. The decorated function returns an `Experiment`.
  """

  def decorate(factory):
    package = factory.__module__.partition('.')[0]
    _packages[name] = '' if package == '__main__' else package

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
