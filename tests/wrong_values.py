"""Single wrong values for every field of the registered experiments.

  PYTHONPATH=.:tests python tests/wrong_values.py

tries all of them and counts how each ends.
"""

import collections
from collections.abc import Iterator
import dataclasses
import math
import re
import sys
import typing
from typing import Any, NamedTuple

from official.core import exp_factory
from official.core import train_utils
from official.modeling import hyperparams
import tiny
import yaml

import gin

EXPERIMENTS = ('yt8m_distill', 'yt8m_distill_single', 'yt8m_distill_finetune')
# By kind: no field means these, except for those that TAKEN lists.
VALUES = {
  'word': 'maybe',
  'null': None,
  'negative': -3,
  'zero': 0,
  'huge': 10**12,
  'fraction': 1.5,
  'infinity': math.inf,
  'nan': math.nan,
  'boolean': True,
  'number': 7,
  'text': '5',
  'list': [1, 'a'],
  'mapping': {'a': 1},
  'misspelt': 0,
}


class Case(NamedTuple):
  """A wrong value.

  Attributes:
    experiment: its experiment.
    path: of the field.
    kind: a key of VALUES.
    values: what overrides the experiment: the value, and what makes it count.
    hint: annotation of the field.
  """

  experiment: str
  path: str
  kind: str
  values: dict[str, Any]
  hint: Any

  @property
  def name(self) -> str:
    """The field without what leads to it."""
    return self.path.rpartition('.')[2]

  def text(self) -> str:
    """Returns `values` as YAML in one line, as --params_override takes it."""
    return yaml.safe_dump(self.values, default_flow_style=True, width=math.inf)


class _Leaf(NamedTuple):
  path: str
  values: Any  # A function from the field's name and value to overrides.
  hint: Any


def _leaves(config, path, wrap) -> Iterator[_Leaf]:
  """Yields the plain fields below a configuration, of all alternatives."""
  hints = typing.get_type_hints(type(config))
  for field in dataclasses.fields(config):
    name, hint = field.name, hints[field.name]
    value = getattr(config, name)
    place = f'{path}.{name}' if path else name
    if value is None:  # A configuration that is optional.
      options = [o for o in typing.get_args(hint) if dataclasses.is_dataclass(o)]
      value = options[0]() if options else None
    if isinstance(value, hyperparams.Config):
      chosen = (
        {'type': name}
        if isinstance(config, hyperparams.OneOfConfig)
        else {}
      )
      yield from _leaves(
        value, place, lambda v, n=name, c=chosen, w=wrap: w({**c, n: v})
      )
    elif isinstance(value, list) and value and dataclasses.is_dataclass(value[0]):
      others = [item.as_dict() for item in value[1:]]
      yield from _leaves(
        value[0],
        f'{place}[0]',
        lambda v, n=name, w=wrap, o=others, f=value[0].as_dict(): w({n: [{**f, **v}, *o]}),
      )
    else:
      yield _Leaf(place, lambda n, v, w=wrap: w({n: v}), hint)


def cases() -> list[Case]:
  """Returns all wrong values of all fields."""
  found = []
  for experiment in EXPERIMENTS:
    with gin.unlock_config():
      gin.clear_config()
    params = exp_factory.get_exp_config(experiment)
    params.override(tiny.sizes(experiment))
    for leaf in _leaves(params, '', lambda v: v):
      name = leaf.path.rpartition('.')[2]
      for kind, value in VALUES.items():
        path = leaf.path
        key = name
        if kind == 'misspelt':
          key, path = f'{name}x', f'{path}x'
        found.append(Case(experiment, path, kind, leaf.values(key, value), leaf.hint))
  return found


def parse(case: Case, folder=None):
  """Configures the case's experiment as a driver does.

  Args:
    case: the case.
    folder: where a YAML file is written; None uses --params_override.

  Returns:
    The configuration.
  """
  with gin.unlock_config():
    gin.clear_config()
  sizes = yaml.safe_dump(tiny.sizes(case.experiment), default_flow_style=True)
  files, override = [sizes], case.text()
  if folder:
    path = folder / 'own.yaml'
    path.write_text(yaml.safe_dump(case.values))
    files, override = [sizes, str(path)], ''
  params = train_utils.ExperimentParser(
    train_utils.ParseConfigOptions(
      experiment=case.experiment, config_file=files, params_override=override
    )
  ).parse()
  params.validate()
  return params
