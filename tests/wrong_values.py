"""Single wrong values for every field of the registered experiments.

  PYTHONPATH=.:tests python tests/wrong_values.py

tries all of them and counts how each ends.
"""

from collections.abc import Iterator
import copy
import dataclasses
import functools
import math
import typing
from typing import Any, NamedTuple

from official.core import train_utils
from official.modeling import hyperparams
import tiny
import yaml

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


# By alternative: fields without a valid default.
_RATE = {'initial_learning_rate': 0.1}
_NEEDED = {
  'optimizer.adamw': {'gradient_clip_norm': 0.0},
  'optimizer.adamw_experimental': {'global_clipnorm': 0.0},
  'learning_rate.cosine': {**_RATE, 'decay_steps': 9},
  'learning_rate.exponential': {**_RATE, 'decay_steps': 9, 'decay_rate': 0.5},
  'learning_rate.polynomial': {**_RATE, 'decay_steps': 9},
  'learning_rate.power': _RATE,
  'learning_rate.power_linear': {**_RATE, 'total_decay_steps': 9},
  'learning_rate.power_with_offset': _RATE,
  'learning_rate.step_cosine_with_offset': {
    'boundaries': [2, 4],
    'values': [0.1, 0.2],
  },
  'learning_rate.stepwise': {'boundaries': [2, 4], 'values': [0.1, 0.2, 0.3]},
  'warmup.linear': {'warmup_steps': 2},
  'warmup.polynomial': {'warmup_steps': 2},
}
_NOT_IMPLEMENTED = ('adafactor', 'slide')  # Optimizers of the Garden.


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
    if name in _NOT_IMPLEMENTED:
      continue
    if isinstance(value, hyperparams.Config):
      one_of = isinstance(config, hyperparams.OneOfConfig)
      chosen = {'type': name} if one_of else {}
      needed = _NEEDED.get('.'.join(place.split('.')[-2:]), {})
      yield from _leaves(
        value,
        place,
        lambda v, n=name, c=chosen, m=needed, w=wrap: w({**c, n: {**m, **v}}),
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
    for leaf in _leaves(_base(experiment), '', lambda v: v):
      name = leaf.path.rpartition('.')[2]
      for kind, value in VALUES.items():
        path = leaf.path
        key = name
        if kind == 'misspelt':
          key, path = f'{name}x', f'{path}x'
        found.append(Case(experiment, path, kind, leaf.values(key, value), leaf.hint))
  return found


@functools.cache
def _base(experiment):
  """A tiny experiment before it is overridden."""
  return tiny.experiment(experiment=experiment)


class _Parser(train_utils.ExperimentParser):
  """The Garden's, but builds each experiment once, which takes most of the time."""

  def base_experiment(self):
    return copy.deepcopy(_base(self._flags_obj.experiment))


def parse(case: Case, folder=None):
  """Configures the case's experiment as a driver does.

  Args:
    case: the case.
    folder: where a YAML file is written; None uses --params_override.

  Returns:
    The configuration.
  """
  files, override = [], case.text()
  if folder:
    path = folder / 'own.yaml'
    path.write_text(yaml.safe_dump(case.values))
    files, override = [str(path)], ''
  params = _Parser(
    train_utils.ParseConfigOptions(
      experiment=case.experiment, config_file=files, params_override=override
    )
  ).parse()
  params.validate()
  return params
