"""Checks a whole configuration before anything is built from it.

A field is checked where it is declared: its annotation says which type it has,
`number` and `choice` which values, and a method `check(path)` of its dataclass,
if there is one, raises a ValueError for conditions that span several fields.
Of a one-of configuration, only the chosen alternative is checked.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import math
import types
import typing
from typing import Any

from official.core import config_definitions as cfg
from official.modeling import hyperparams
from official.modeling.optimization.configs import learning_rate_config
from official.modeling.optimization.configs import optimizer_config

_BOUNDS = 'bounds'
_NAMES = {int: 'a whole number', float: 'a finite number', str: 'a string'}


@dataclasses.dataclass(frozen=True)
class Bounds:
  """Which values a field may have.

  Attributes:
    least: inclusive lower bound of a number.
    above: exclusive lower bound.
    below: exclusive upper bound.
    choices: the allowed values, if only a few are.
    null: whether the field may be null, where its annotation allows that.
  """

  least: float | None = None
  above: float | None = None
  below: float | None = None
  choices: Sequence[str] = ()
  null: bool = True

  def contain(self, value) -> bool:
    """Whether a value of the field's type is within the bounds."""
    if value is None:
      return self.null
    if self.choices:
      return value in self.choices
    return (
      (self.least is None or value >= self.least)
      and (self.above is None or value > self.above)
      and (self.below is None or value < self.below)
    )

  def __str__(self) -> str:
    limits = (
      ('of at least', self.least),
      ('above', self.above),
      ('below', self.below),
    )
    return ' and '.join(
      f'{word} {limit}' for word, limit in limits if limit is not None
    )


def number(
  default: float | None,
  least: float | None = None,
  above: float | None = None,
  below: float | None = None,
) -> Any:
  """Declares a dataclass field that holds a number within bounds.

  Args:
    default: value of the field.
    least: inclusive lower bound.
    above: exclusive lower bound.
    below: exclusive upper bound.

  Returns:
    The field.
  """
  return dataclasses.field(
    default=default, metadata={_BOUNDS: Bounds(least, above, below)}
  )


def choice(default: str | None, *choices: str) -> Any:
  """Declares a dataclass field that holds one of a few strings.

  Args:
    default: value of the field.
    *choices: the allowed values.

  Returns:
    The field.
  """
  return dataclasses.field(default=default, metadata={_BOUNDS: Bounds(choices=choices)})


_COUNT = Bounds(least=0)
_POSITIVE_COUNT = Bounds(least=1)
_POSITIVE = Bounds(above=0)
_DECAY = Bounds(least=0, below=1)
_REQUIRED = Bounds(least=0, null=False)
# Bounds of fields that the Garden declares. Its optimizers and schedules have
# no base class that holds the fields they share.
_GARDEN_BOUNDS: dict[type, dict[str, Bounds]] = {
  cfg.DataConfig: {
    'block_length': _POSITIVE_COUNT,
    'ram_budget': _POSITIVE_COUNT,
  },
  cfg.RuntimeConfig: {
    'num_gpus': _COUNT,
    'dataset_num_private_threads': _POSITIVE_COUNT,
    'mixed_precision_dtype': Bounds(choices=('float32', 'float16', 'bfloat16')),
  },
  cfg.TrainerConfig: {
    'steps_per_loop': _POSITIVE_COUNT,
    'summary_interval': _POSITIVE_COUNT,
    'checkpoint_interval': _POSITIVE_COUNT,
    'max_to_keep': _POSITIVE_COUNT,
    'continuous_eval_timeout': _COUNT,
    'train_steps': _COUNT,
    'validation_steps': Bounds(least=-1),
    'validation_interval': _COUNT,
    'best_checkpoint_metric_comp': Bounds(choices=('higher', 'lower')),
    'recovery_begin_steps': _COUNT,
    'recovery_max_trials': _COUNT,
  },
  optimizer_config.BaseOptimizerConfig: {
    'clipnorm': _POSITIVE,
    'clipvalue': _POSITIVE,
    'global_clipnorm': _COUNT,
    'beta_1': _DECAY,
    'beta_2': _DECAY,
    'momentum': _DECAY,
    'rho': _DECAY,
    'average_decay': _DECAY,
    'epsilon': _COUNT,
    'weight_decay_rate': _COUNT,
  },
}
_SCHEDULE_BOUNDS = {
  'learning_rate': _REQUIRED,
  'initial_learning_rate': _REQUIRED,
  'warmup_learning_rate': _REQUIRED,
  # Null where the driver computes them from epochs.
  'decay_steps': _POSITIVE_COUNT,
  'decay_rate': Bounds(above=0, null=False),
  'warmup_steps': _POSITIVE_COUNT,
}
for _schedule in (
  learning_rate_config.ConstantLrConfig,
  learning_rate_config.ExponentialLrConfig,
  learning_rate_config.PolynomialLrConfig,
  learning_rate_config.CosineLrConfig,
  learning_rate_config.LinearWarmupConfig,
  learning_rate_config.PolynomialWarmupConfig,
):
  _GARDEN_BOUNDS[_schedule] = _SCHEDULE_BOUNDS


def validate(config, path: str = ''):
  """Raises where a field of a configuration has an invalid value.

  Args:
    config: a dataclass, perhaps of dataclasses, such as an ExperimentConfig.
    path: of `config` in the configuration, for the message: 'task', or '' for
      an ExperimentConfig.

  Raises:
    ValueError: names the field by its full path, its value and what is allowed.
  """
  hints = typing.get_type_hints(type(config))
  for field in _used_fields(config, path):
    place = _join(path, field.name)
    value = getattr(config, field.name)
    if value is None and field.default == '':
      continue  # --params_override=NAME= gives null; both say that there is none.
    _check_field(value, hints[field.name], _bounds(config, field), place)
    if dataclasses.is_dataclass(value):
      validate(value, place)
    elif isinstance(value, list | tuple):
      for index, item in enumerate(value):
        if dataclasses.is_dataclass(item):
          validate(item, f'{place}[{index}]')
  if hasattr(type(config), 'check'):
    config.check(path)


def _join(path: str, name: str) -> str:
  return f'{path}.{name}' if path else name


def _used_fields(config, path: str) -> Iterator[dataclasses.Field]:
  """Yields all fields; of a one-of configuration its type and what it chooses."""
  fields = {field.name: field for field in dataclasses.fields(config)}
  if not isinstance(config, hyperparams.OneOfConfig):
    yield from fields.values()
    return
  yield fields.pop('type')
  if config.type not in fields and config.type is not None:
    _fail(_join(path, 'type'), config.type, f'choose one of {", ".join(fields)}')
  if config.type is not None:
    yield fields[config.type]


def _bounds(config, field: dataclasses.Field) -> Bounds:
  declared = field.metadata.get(_BOUNDS)
  if declared:
    return declared
  for owner, bounds in _GARDEN_BOUNDS.items():
    if isinstance(config, owner) and field.name in bounds:
      return bounds[field.name]
  return Bounds()


def _check_field(value, hint, bounds: Bounds, path: str):
  if _has_type(value, hint) and bounds.contain(value):
    return
  if bounds.choices:
    _fail(path, value, f'choose one of {", ".join(bounds.choices)}')
  allowed = ' '.join(filter(None, (_describe(_not_null(hint)), str(bounds))))
  if _has_type(None, hint) and bounds.null:
    allowed += ', or null'
  _fail(path, value, f'it must be {allowed}', _remedy(value))


def _fail(path: str, value, allowed: str, remedy: str = ''):
  raise ValueError(f'{path} is {value!r}: {allowed}.{remedy}')


def _remedy(value) -> str:
  """What to do about a number that is text, '' about other values."""
  if not isinstance(value, str):
    return ''
  try:
    float(value)
  except ValueError:
    return ''
  return (
    ' Here it is text: leave out quotes, and write a point before an exponent, as '
    'in 1.0e-3.'
  )


def _alternatives(hint) -> tuple[Any, ...]:
  """The members of a union; of another annotation, that alone."""
  if typing.get_origin(hint) in (typing.Union, types.UnionType):
    return typing.get_args(hint)
  return (hint,)


def _not_null(hint) -> list[Any]:
  return [option for option in _alternatives(hint) if option is not type(None)]


def _is_list(hint) -> bool:
  origin = typing.get_origin(hint) or hint
  return isinstance(origin, type) and issubclass(origin, Sequence) and origin is not str


def _has_type(value, hint) -> bool:
  """Whether a value fits an annotation; those of other kinds fit everything."""
  options = _alternatives(hint)
  if len(options) > 1:
    return any(_has_type(value, option) for option in options)
  if _is_list(hint):
    items = typing.get_args(hint) or (Any,)
    return isinstance(value, list | tuple) and all(
      any(_has_type(v, item) for item in items if item is not ...) for v in value
    )
  if hint is float:
    return _is_number(value, (int, float)) and math.isfinite(value)
  if hint is int:
    return _is_number(value, int)
  if hint in (bool, str, type(None)) or dataclasses.is_dataclass(hint):
    return isinstance(value, hint)
  return True


def _is_number(value, kinds) -> bool:
  return isinstance(value, kinds) and not isinstance(value, bool)


def _describe(options: Sequence[Any]) -> str:
  return ' or '.join(map(_describe_one, options))


def _describe_one(hint) -> str:
  if hint is bool:
    return 'true or false'
  if _is_list(hint):
    items = [item for item in typing.get_args(hint) if item is not ...]
    return f'a list, each item {_describe(items)}' if items else 'a list'
  if dataclasses.is_dataclass(hint):
    names = ', '.join(field.name for field in dataclasses.fields(hint))
    return f'a mapping with the keys {names}' if names else 'a mapping'
  return _NAMES.get(hint, str(hint))
