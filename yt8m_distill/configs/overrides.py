"""Checks values before they override a configuration.

The Garden would not name the path of an unknown field, would take any key for a
configuration that is null, and would replace a configuration by a plain value.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import difflib
import math
import operator
from typing import Any

from official.modeling import hyperparams

from yt8m_distill.configs import allowed
from yt8m_distill.configs import validation


def checked(config: hyperparams.Config, values, path: str = '') -> dict[str, Any]:
  """Checks names and types of values that override a configuration.

  Args:
    config: the configuration.
    values: what overrides it, by field; mappings for configurations in it.
    path: of `config`, for the message.

  Returns:
    The values as the configuration takes them: text such as '1e-3' is a number
    where one is expected; null is '' where that is the default.

  Raises:
    ValueError: a field does not exist, or a value has another type.
  """
  # The Garden's base class also has fields that are not declared.
  names = [name for name in vars(config) if name not in config.RESERVED_ATTR]
  if not isinstance(values, dict):
    allowed.fail(
      path or 'The configuration',
      values,
      f'it must be a mapping with the keys {", ".join(names)}',
      _choose(config, values, path),
    )
  for name, value in values.items():
    if name not in names:
      allowed.fail(
        allowed.join(path, name),
        value,
        'there is no such field',
        _near(name, names, path),
      )
  declared = validation.fields(type(config))
  return {
    name: _checked_field(
      declared.get(name, allowed.Allowed(Any)),
      getattr(config, name),
      '' if value is None and getattr(type(config), name, None) == '' else value,
      allowed.join(path, name),
    )
    for name, value in values.items()
  }


def _checked_field(field: allowed.Allowed, current, value, path: str):
  """Returns a value as the field takes it; see checked()."""
  if isinstance(value, hyperparams.Config):
    value = value.as_dict()
  # The class of the configuration may be a subclass of the annotated one.
  is_config = isinstance(current, hyperparams.Config)
  annotated = allowed.config_class(allowed.alternatives(field.hint))
  owner = type(current) if is_config else annotated
  if owner and (isinstance(value, dict) or not field.has_type(value)):
    if owner is hyperparams.Config and not is_config:
      return value  # Any fields.
    return checked(current if is_config else owner(), value, path)
  item = allowed.config_class(allowed.items(field.hint))
  if item and isinstance(value, list) and all(isinstance(v, dict) for v in value):
    return [checked(item(), v, f'{path}[{i}]') for i, v in enumerate(value)]
  value = _to_number(value, field.hint)
  if not field.has_type(value):
    field.refuse(value, path)
  return value


def _to_number(value, hint):
  """Returns text as a number where one is expected: YAML 1.1 reads 1e-3 as text."""
  if isinstance(value, list):
    return [_to_number(v, allowed.item_hint(hint)) for v in value]
  if isinstance(value, str) and float in allowed.alternatives(hint):
    try:
      number = float(value)
    except ValueError:
      return value
    return number if math.isfinite(number) else value
  return value


def _near(name, names: Sequence[str], path: str) -> str:
  """Says which fields are spelled like a name, or which ones exist."""
  if name == 'yt8m_distill':
    return ' It holds the settings of gin: set them with --gin_params.'
  near = difflib.get_close_matches(str(name), names)
  if near:
    return f' Did you mean {" or ".join(allowed.join(path, n) for n in near)}?'
  return f' The fields of {path or "the configuration"} are {", ".join(names)}.'


def _choose(config, value, path: str) -> str:
  """Says how to choose an alternative, where its name stands for all of them."""
  if isinstance(config, hyperparams.OneOfConfig) and hasattr(config, str(value)):
    return f' To choose {value}, set {path}.type.'
  return ''


def leaves(values: dict[str, Any], path: str = '') -> Iterator[str]:
  """Yields the paths of the plain values in nested mappings."""
  for name, value in values.items():
    place = allowed.join(path, name)
    if isinstance(value, dict):
      yield from leaves(value, place)
    else:
      yield place


def check_alternatives(root, given: Sequence[str]):
  """Raises where values were given for an alternative that is not chosen.

  Not where its type was given too: then all alternatives may be configured, and a
  later source chooses.

  Args:
    root: the whole configuration.
    given: paths of the values that were given.

  Raises:
    ValueError: a value has no effect.
  """
  for path in given:
    *owners, _ = path.split('.')
    for depth in range(1, len(owners)):
      place = '.'.join(owners[:depth])
      config = operator.attrgetter(place)(root)
      if (
        isinstance(config, hyperparams.OneOfConfig)
        and config.type != owners[depth]
        and f'{place}.type' not in given
      ):
        raise ValueError(
          f'{path} is {operator.attrgetter(path)(root)!r}: it has no effect, since '
          f'{place}.type is {config.type!r}. Set that to {owners[depth]}, or leave '
          'the field out.'
        )
