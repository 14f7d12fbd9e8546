"""Expands an input_path into file names.

input_path                 files
train*.tfrecord            existing files; * and ? match any characters
train{0000..3843}.tfrecord 3844 numbers of 4 digits; {0..99} have 1 or 2 digits
train{00..zz}.tfrecord     3844 = 62 * 62 names; if an end of a range holds a letter,
                           characters count in the order 0-9, A-Z, a-z
@urls.txt                  a local or remote text file with one path per line; these
                           paths are not expanded

A range needs no directory listing, so it also works over http, which has none.
"""

from collections.abc import Sequence
import itertools
import re
import string

import tensorflow as tf

from yt8m_distill.dataloaders import remote

# In ASCII order, so that the names of a range are sorted.
_CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANGE = re.compile(r'\{([^{}]*?)\.\.([^{}]*)\}')
_SCHEMES_WITHOUT_LISTING = ('http', 'https')


def expand(input_path: str | Sequence[str]) -> list[str]:
  """Returns the files that `input_path` names, in the order given.

  Args:
    input_path: one of the forms above, several separated by commas, or a list of
      these. Files named by a range or a list are not checked for existence.

  Raises:
    ValueError: a pattern matches nothing or cannot be listed, a range is invalid, a
      list is empty or unreadable, or no path is given.
  """
  lines = [input_path] if isinstance(input_path, str) else input_path
  if not isinstance(lines, (list, tuple)) or not all(
    isinstance(line, str) for line in lines
  ):
    raise ValueError(
      f'input_path is {input_path!r}: it must be a string or a list of strings. Set it '
      'to files or patterns.'
    )
  items = [item.strip() for line in lines for item in line.split(',')]
  paths = [path for item in items if item for path in _expand_item(item)]
  if not paths:
    raise ValueError(
      'input_path is empty: it must name TFRecord files. Set it, for example, to '
      "'/data/train*.tfrecord'."
    )
  return paths


def _expand_item(item: str) -> list[str]:
  if item.startswith('@'):
    return _read_list(item[1:])
  paths = []
  for name in _expand_ranges(item):
    remote.ensure_file_system(name)
    paths += _glob(name) if '*' in name or '?' in name else [name]
  return paths


def _read_list(path: str) -> list[str]:
  def read():
    with tf.io.gfile.GFile(path, 'rb') as file:
      return file.read()

  try:
    text = remote.retry(path, read).decode()
  except UnicodeDecodeError as error:
    raise ValueError(
      f'@{path}: not a text file. It must hold one path or URL per line; @ is for such '
      'lists only.'
    ) from error
  paths = [line.strip() for line in text.splitlines()]
  paths = [line for line in paths if line]
  if not paths:
    raise ValueError(f'{path} is empty: it must hold one path or URL per line.')
  for name in paths:
    remote.ensure_file_system(name)
  return paths


def _glob(pattern: str) -> list[str]:
  scheme = remote.scheme(pattern)
  if scheme in _SCHEMES_WITHOUT_LISTING:
    raise ValueError(
      f'input_path is {pattern!r}: files cannot be listed over {scheme}, so * and ? '
      'are not allowed. Write a range, such as train{0000..3843}.tfrecord or '
      'train{00..zz}.tfrecord, or @FILE, a text file with one URL per line (also for a '
      'URL that contains ?).'
    )
  paths = remote.retry(pattern, lambda: tf.io.gfile.glob(pattern))
  if not paths:
    raise ValueError(
      f'input_path is {pattern!r}: no file matches. Check the folder and the pattern.'
    )
  return paths


def _expand_ranges(item: str) -> list[str]:
  """Returns all names of an item; of several ranges, the last changes fastest."""
  # re.split returns: text, first, last, text, first, last, text, ...
  parts = _RANGE.split(item)
  choices = [parts[:1]]
  for first, last, text in zip(parts[1::3], parts[2::3], parts[3::3]):
    choices += [_expand_range(item, first, last), [text]]
  return list(map(''.join, itertools.product(*choices)))


def _expand_range(item: str, first: str, last: str) -> list[str]:
  """Returns the names from `first` to `last`."""
  ends, width = first + last, len(first)
  names = []
  if not (first and last and ends.isascii() and ends.isalnum()):
    problem = 'its ends must be digits and letters'
  elif width != len(last) and not (ends.isdecimal() and first == str(int(first))):
    problem = 'its ends must have the same number of characters'
  else:
    problem = 'its first end must not come after its last (order: 0-9, A-Z, a-z)'
    if ends.isdecimal():
      names = [f'{n:0{width}}' for n in range(int(first), int(last) + 1)]
    else:
      names = [_to_name(n, width) for n in range(_to_int(first), _to_int(last) + 1)]
  if not names:
    raise ValueError(
      f'input_path has {item!r}: the range {{{first}..{last}}} is invalid, {problem}. '
      'Write it as in {0000..3843} or {00..zz}.'
    )
  return names


def _to_int(name: str) -> int:
  """Reads a name as a number in base 62."""
  number = 0
  for character in name:
    number = number * len(_CHARACTERS) + _CHARACTERS.index(character)
  return number


def _to_name(number: int, width: int) -> str:
  """Writes a number in base 62."""
  characters = []
  for _ in range(width):
    number, digit = divmod(number, len(_CHARACTERS))
    characters.append(_CHARACTERS[digit])
  return ''.join(reversed(characters))
