"""Checks a whole configuration before anything is built from it.

A field is checked where it is declared: its annotation says which type it has,
`number` and `choice` which values, and a method `check(path)` of its dataclass,
if there is one, raises a ValueError for conditions that span several fields.
What the Garden declares is checked by `garden`. Of a one-of configuration, only
the chosen alternative is checked.
"""

from collections.abc import Iterator
import dataclasses
import typing
from typing import Any

from official.modeling import hyperparams

from yt8m_distill.configs import allowed
from yt8m_distill.configs import garden

_BOUNDS = 'bounds'
MAX_SEED = 2**63 - 1  # TensorFlow's seeds are int64.


def number(
  default: float | None,
  least: float | None = None,
  most: float | None = None,
  above: float | None = None,
  below: float | None = None,
) -> Any:
  """Declares a dataclass field that holds a number within bounds.

  Args:
    default: value of the field.
    least: inclusive lower bound.
    most: inclusive upper bound; without one, a whole number fits 32 bits.
    above: exclusive lower bound.
    below: exclusive upper bound.

  Returns:
    The field.
  """
  bounds = allowed.Bounds(least, most, above, below)
  return dataclasses.field(default=default, metadata={_BOUNDS: bounds})


def choice(default: str | None, *choices: str) -> Any:
  """Declares a dataclass field that holds one of a few strings.

  Args:
    default: value of the field.
    *choices: the allowed values.

  Returns:
    The field.
  """
  bounds = allowed.Bounds(choices=choices)
  return dataclasses.field(default=default, metadata={_BOUNDS: bounds})


def fields(owner: type) -> dict[str, allowed.Allowed]:
  """Returns what the fields of a class of configurations allow, by name."""
  hints = typing.get_type_hints(owner)
  return {
    field.name: allowed.Allowed(
      hints[field.name],
      field.metadata.get(_BOUNDS) or garden.bounds(owner, field.name),
    )
    for field in dataclasses.fields(owner)
  }


def validate(config, path: str = ''):
  """Raises where a field of a configuration has an invalid value.

  Args:
    config: a dataclass, perhaps of dataclasses, such as an ExperimentConfig.
    path: of `config` in the configuration, for the message: 'task', or '' for
      an ExperimentConfig.

  Raises:
    ValueError: names the field by its full path, its value and what is allowed.
  """
  for name, field in _used_fields(config, path):
    place, value = allowed.join(path, name), getattr(config, name)
    if not field.accepts(value):
      field.refuse(value, place)
    for index, item in enumerate(value if isinstance(value, list | tuple) else ()):
      if dataclasses.is_dataclass(item):
        validate(item, f'{place}[{index}]')
    if dataclasses.is_dataclass(value):
      validate(value, place)
  garden.check(config, path)
  if hasattr(type(config), 'check'):
    config.check(path)


def _used_fields(config, path: str) -> Iterator[tuple[str, allowed.Allowed]]:
  """Yields all fields; of a one-of configuration its type and what it chooses."""
  known = dict(fields(type(config)))
  if not isinstance(config, hyperparams.OneOfConfig):
    yield from known.items()
    return
  yield 'type', known.pop('type')
  if config.type is not None:
    if config.type not in known:
      allowed.fail(
        allowed.join(path, 'type'), config.type, f'choose one of {", ".join(known)}'
      )
    yield config.type, known[config.type]
