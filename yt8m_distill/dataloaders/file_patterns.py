"""From what a user writes as input_path to the names of files.

What is written            What it names
train*.tfrecord            files that are there; * and ? are any characters
train{0000..3843}.tfrecord 3844 numbers, all of 4 digits; {0..99} has 1 or 2
train{00..zz}.tfrecord     3844 = 62 * 62 names: ends with a letter in them
                           count in the digits 0-9, then A-Z, then a-z
@urls.txt                  a text file, local or remote, of one path a line,
                           each taken as it stands

Ranges need no list of what is there, so they work over http, which has none.
"""

from collections.abc import Sequence
import itertools
import re
import string

import tensorflow as tf

from yt8m_distill.dataloaders import remote

# In the order of ASCII, so that a range comes sorted.
_CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANGE = re.compile(r'\{([^{}]*?)\.\.([^{}]*)\}')
_LISTLESS = ('http', 'https')


def expand(input_path: str | Sequence[str]) -> list[str]:
  """Returns the files that `input_path` names, as they are written.

  Args:
    input_path: what the table above has, several separated by commas, or a
      list of these. Files that a range or a list names need not be there.

  Raises:
    ValueError: a pattern matches nothing or cannot be listed, a range has no
      meaning, a list is empty or cannot be read, or no path is given.
  """
  given = [input_path] if isinstance(input_path, str) else input_path
  if not isinstance(given, (list, tuple)) or not all(
    isinstance(line, str) for line in given
  ):
    raise ValueError(
      f'input_path is {input_path!r}: give files or patterns, '
      'separated by commas or in a list.'
    )
  items = [item.strip() for line in given for item in line.split(',')]
  paths = [path for item in items if item for path in _expand_item(item)]
  if not paths:
    raise ValueError(
      'input_path is empty: set it to TFRecord files, for '
      "example '/data/train*.tfrecord'."
    )
  return paths


def _expand_item(item: str) -> list[str]:
  if item.startswith('@'):
    return _read_list(item[1:])
  paths = []
  for name in _expand_ranges(item):
    remote.ensure(name)
    paths += _glob(name) if '*' in name or '?' in name else [name]
  return paths


def _read_list(path: str) -> list[str]:
  def read():
    with tf.io.gfile.GFile(path) as file:
      return file.read()

  paths = [line.strip() for line in remote.retry(path, read).splitlines()]
  paths = [line for line in paths if line]
  if not paths:
    raise ValueError(f'{path} is empty: write one path or URL a line.')
  for name in paths:
    remote.ensure(name)
  return paths


def _glob(pattern: str) -> list[str]:
  scheme = remote.scheme(pattern)
  if scheme in _LISTLESS:
    raise ValueError(
      f'input_path is {pattern!r}: files cannot be listed over {scheme}, so '
      '* and ? match nothing. Write a range, as in train{0000..3843}.tfrecord'
      ' or train{00..zz}.tfrecord, or @FILE, a text file of one URL a line '
      '(also for a URL that has a ? of its own).'
    )
  paths = remote.retry(pattern, lambda: tf.io.gfile.glob(pattern))
  if not paths:
    raise ValueError(
      f'input_path is {pattern!r}: no file matches. Check the folder and the pattern.'
    )
  return paths


def _expand_ranges(item: str) -> list[str]:
  """All names of an item; of several ranges the last one changes first."""
  # A text, then per range its two ends and the text behind it.
  parts = _RANGE.split(item)
  choices = [parts[:1]]
  for first, last, text in zip(parts[1::3], parts[2::3], parts[3::3]):
    choices += [_range(item, first, last), [text]]
  return list(map(''.join, itertools.product(*choices)))


def _range(item: str, first: str, last: str) -> list[str]:
  """The names from `first` to `last`."""
  ends, width = first + last, len(first)
  names = []
  if not (first and last and ends.isascii() and ends.isalnum()):
    problem = 'its ends must be digits and letters'
  elif width != len(last) and not (ends.isdecimal() and first == str(int(first))):
    problem = 'its ends must have equally many characters'
  else:
    problem = 'its first end is behind the last (0-9, then A-Z, then a-z)'
    if ends.isdecimal():
      names = [f'{n:0{width}}' for n in range(int(first), int(last) + 1)]
    else:
      names = [_name(n, width) for n in range(_position(first), _position(last) + 1)]
  if not names:
    raise ValueError(
      f'input_path has {item!r}: {{{first}..{last}}} is no '
      f'range, for {problem}. Write it as {{0000..3843}} or '
      '{00..zz}.'
    )
  return names


def _position(name: str) -> int:
  position = 0
  for character in name:
    position = position * len(_CHARACTERS) + _CHARACTERS.index(character)
  return position


def _name(position: int, length: int) -> str:
  characters = []
  for _ in range(length):
    position, digit = divmod(position, len(_CHARACTERS))
    characters.append(_CHARACTERS[digit])
  return ''.join(reversed(characters))
