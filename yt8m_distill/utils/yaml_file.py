"""Reads YAML that anyone may have written: plain values only, of bounded size."""

from typing import Any

# Importing it also teaches yaml.FullLoader that 1e-3 is a number.
from official.modeling import hyperparams  # noqa: F401
import tensorflow as tf
import yaml

_MAX_CHARACTERS = 1_000_000  # A params.yaml has about 5,000.
_MAX_VALUES = 100_000
# The others where a tag contradicts its value, such as `!!bool 5`.
_INVALID = (
  yaml.YAMLError,
  ArithmeticError,
  AttributeError,
  LookupError,
  TypeError,
  ValueError,
)


class _Loader(yaml.SafeLoader):
  """Makes plain values only; refuses repeated keys, and more values than allowed."""

  # What reads as a number, a boolean or null: the same as for the Garden.
  yaml_implicit_resolvers = yaml.FullLoader.yaml_implicit_resolvers

  def get_single_node(self) -> yaml.Node | None:
    """Returns the root of the document, which is checked before values are made."""
    root = super().get_single_node()
    if root and _count(root, {}) > _MAX_VALUES:
      raise ValueError(f'it has more than {_MAX_VALUES:,} values, or contains itself')
    return root


def _tuple(loader: _Loader, node: yaml.SequenceNode) -> tuple:
  return tuple(loader.construct_sequence(node))


# The Garden writes a tuple that Python code set in this form.
_Loader.add_constructor('tag:yaml.org,2002:python/tuple', _tuple)


def _count(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
  """Returns the number of values in a node, those of an alias wherever it stands.

  Args:
    node: the node.
    known: the numbers of other nodes; receives that of this one.

  Raises:
    ValueError: a mapping repeats a key.
  """
  if node in known:
    return known[node]
  known[node] = _MAX_VALUES  # For an alias of the node within it.
  parts: list[yaml.Node] = []
  if isinstance(node, yaml.SequenceNode):
    parts = node.value
  elif isinstance(node, yaml.MappingNode):
    _check_keys([key for key, _ in node.value])
    parts = [part for pair in node.value for part in pair]
  known[node] = 1 + sum(_count(part, known) for part in parts)
  return known[node]


def _check_keys(keys: list[yaml.Node]):
  names = set()
  for key in keys:
    name = key.tag, key.value
    if not isinstance(key, yaml.ScalarNode):
      continue  # No field has such a name.
    if name in names:
      raise ValueError(f'line {key.start_mark.line + 1} repeats the key {key.value!r}')
    names.add(name)


def parse(text: str) -> Any:
  """Returns the value that a text in YAML describes.

  Raises:
    ValueError: the text is not YAML, is too large, repeats a key, or describes an
      object of Python.
  """
  try:
    if len(text) > _MAX_CHARACTERS:
      raise ValueError(f'it has more than {_MAX_CHARACTERS:,} characters')
    return yaml.load(text, _Loader)
  except RecursionError as error:
    raise _invalid('it is nested too deeply') from error
  except _INVALID as error:
    raise _invalid(str(error)) from error


def _invalid(reason: str) -> ValueError:
  return ValueError(
    f'it cannot be read as YAML: {" ".join(reason.split())}. Correct it.'
  )


def read(path: str) -> Any:
  """Returns the value that a file in YAML describes.

  Raises:
    ValueError: the file cannot be read; or see parse(). The message does not name it.
  """
  try:
    with tf.io.gfile.GFile(path, 'rb') as file:
      content = file.read(_MAX_CHARACTERS + 1)  # Never all of a huge file.
    text = content.decode()
  except tf.errors.OpError as error:
    raise ValueError(
      f'it cannot be read: {error.message}. Give the path of a YAML file.'
    ) from error
  except UnicodeDecodeError as error:
    raise _invalid(str(error)) from error
  return parse(text)
