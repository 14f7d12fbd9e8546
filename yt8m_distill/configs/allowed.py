"""Which values a field of a configuration may have, and how to say so.

A field's annotation gives its type, `Bounds` which values of that type.
"""

from collections.abc import Sequence
import dataclasses
import math
import types
import typing
from typing import Any
from typing import NoReturn

from official.modeling import hyperparams

_NAMES = {int: 'a whole number', float: 'a finite number', str: 'a string'}
# TensorFlow counts in int32 and computes in float32.
_INT32 = 2**31 - 1
_FLOAT32 = 3.4e38
_LONGEST = 100  # characters of a value in a message


@dataclasses.dataclass(frozen=True)
class Bounds:
  """Which values a field may have; of a list, each item.

  Attributes:
    least: inclusive lower bound of a number.
    most: inclusive upper bound; without one, a whole number fits 32 bits.
    above: exclusive lower bound.
    below: exclusive upper bound.
    choices: the allowed strings, if only a few are.
    null: whether the field may be null, where its annotation allows that.
  """

  least: float | None = None
  most: float | None = None
  above: float | None = None
  below: float | None = None
  choices: Sequence[str] = ()
  null: bool = True

  def accepts(self, value) -> bool:
    """Whether a value of the field's type is within the bounds."""
    if value is None:
      return self.null
    if isinstance(value, str):
      return not self.choices or value in self.choices
    if isinstance(value, list | tuple):
      return all(map(self.accepts, value))
    return not is_number(value) or (
      (self.least is None or value >= self.least)
      and (self.most is None or value <= self.most)
      and (self.above is None or value > self.above)
      and (self.below is None or value < self.below)
    )

  def __str__(self) -> str:
    most = None if self.most and self.most > _INT32 else self.most
    if self.least is not None and most is not None:
      return f'from {self.least} to {most}'
    limits = (
      ('of at least', self.least),
      ('of at most', most),
      ('above', self.above),
      ('below', self.below),
    )
    return ' and '.join(
      f'{word} {limit}' for word, limit in limits if limit is not None
    )


@dataclasses.dataclass(frozen=True)
class Allowed:
  """What a field allows.

  Attributes:
    hint: its annotation.
    bounds: its bounds.
  """

  hint: Any
  bounds: Bounds = Bounds()

  def has_type(self, value) -> bool:
    """Whether a value is of the annotated type."""
    return _has_type(value, self.hint)

  def accepts(self, value) -> bool:
    """Whether the field may have a value."""
    return (
      self.has_type(value) and self.bounds.accepts(value) and not self._is_huge(value)
    )

  def _is_huge(self, value) -> bool:
    """Whether a whole number, or one in a list, is above a limit that is not shown."""
    if isinstance(value, list | tuple):
      return any(map(self._is_huge, value))
    whole = is_number(value, int) and float not in alternatives(self.hint)
    return whole and abs(value) > self._limit()

  def _limit(self) -> float:
    return _INT32 if self.bounds.most is None else max(self.bounds.most, _INT32)

  def refuse(self, value, path: str) -> NoReturn:
    """Raises a ValueError that says what is allowed instead of a value.

    Args:
      value: the value.
      path: of the field.
    """
    bounds, options = self.bounds, _not_null(self.hint)
    if bounds.choices and options == [str]:
      fail(path, value, f'choose one of {", ".join(bounds.choices)}', _remedy(value))
    if bounds.choices:
      options = [*bounds.choices, *(option for option in options if option is not str)]
    words = filter(None, (_describe(options), str(bounds)))
    allowed = f'it must be {" ".join(words)}'
    if _has_type(None, self.hint) and bounds.null:
      allowed += ', or null'
    remedy = f' It may be at most {self._limit()}.' if self._is_huge(value) else ''
    fail(path, value, allowed, remedy or _remedy(value, options))


def fail(path: str, value, allowed: str, remedy: str = '') -> NoReturn:
  """Raises a ValueError of one line about a value.

  Args:
    path: of the field.
    value: its value.
    allowed: what is allowed, without a point at its end.
    remedy: further sentences, each after a space.
  """
  shown = repr(value)
  if len(shown) > _LONGEST:
    shown = f'{shown[:_LONGEST]}...'
  raise ValueError(f'{path} is {shown}: {allowed}.{remedy}')


def join(path: str, name) -> str:
  """Returns the path of a field below a configuration at a path."""
  name = name if isinstance(name, str) and name.isprintable() else repr(name)
  return f'{path}.{name}' if path else name


def alternatives(hint) -> tuple[Any, ...]:
  """Returns the members of a union; of another annotation, that alone."""
  if typing.get_origin(hint) in (typing.Union, types.UnionType):
    return typing.get_args(hint)
  return (hint,)


def items(hint) -> tuple[Any, ...]:
  """Returns the annotations of the items of a list; () where none is annotated."""
  return tuple(
    item
    for option in alternatives(hint)
    if _is_list(option)
    for item in typing.get_args(option)
    if item is not ...
  )


def item_hint(hint) -> Any:
  """Returns the annotation of any item of a list."""
  annotated = items(hint)
  return typing.Union[annotated] if annotated else Any  # noqa: UP007


def config_class(hints: Sequence[Any]) -> type | None:
  """Returns the first class of configurations among annotations, if any."""
  for hint in hints:
    if isinstance(hint, type) and issubclass(hint, hyperparams.Config):
      return hint
  return None


def is_number(value, kinds=(int, float)) -> bool:
  """Whether a value is a number; true and false are none."""
  return isinstance(value, kinds) and not isinstance(value, bool)


def _remedy(value, options: Sequence[Any] = (str,)) -> str:
  """What to do about a value that YAML reads as another type than is meant."""
  if isinstance(value, str) and int in options and _is_text_of_number(value):
    return ' Here it is text: write digits only, without quotes.'
  if is_number(value, float) and int in options and value.is_integer():
    return f' Write {int(value)}, without a point or an exponent.'
  if str in options and isinstance(value, bool):
    return ' YAML reads on, off, yes and no as true and false: put it in quotes.'
  if str in options and is_number(value):
    return ' YAML reads it as a number: put it in quotes.'
  return ''


def _is_text_of_number(text: str) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return True


def _not_null(hint) -> list[Any]:
  return [option for option in alternatives(hint) if option is not type(None)]


def _is_list(hint) -> bool:
  origin = typing.get_origin(hint) or hint
  return isinstance(origin, type) and issubclass(origin, Sequence) and origin is not str


def _has_type(value, hint) -> bool:
  """Whether a value fits an annotation; those of other kinds fit everything."""
  options = alternatives(hint)
  if len(options) > 1:
    return any(_has_type(value, option) for option in options)
  if _is_list(hint):
    return isinstance(value, list | tuple) and all(
      any(_has_type(v, item) for item in items(hint) or (Any,)) for v in value
    )
  if hint is float:
    return is_number(value) and math.isfinite(value) and abs(value) <= _FLOAT32
  if hint is int:
    return is_number(value, int)
  if hint in (bool, str, type(None)) or dataclasses.is_dataclass(hint):
    return isinstance(value, hint)
  return True


def _describe(options: Sequence[Any]) -> str:
  return ' or '.join(map(_describe_one, options))


def _describe_one(hint) -> str:
  if isinstance(hint, str):
    return hint
  if hint is bool:
    return 'true or false'
  if _is_list(hint):
    described = _describe(items(hint))
    return f'a list, each item {described}' if described else 'a list'
  if dataclasses.is_dataclass(hint):
    names = ', '.join(field.name for field in dataclasses.fields(hint))
    return f'a mapping with the keys {names}' if names else 'a mapping'
  return _NAMES.get(hint, str(hint))
