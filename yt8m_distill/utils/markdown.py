"""Text from files and paths in Markdown, where it must not act as markup."""

import re


def line(text: str) -> str:
  """Returns text on one line."""
  return ' '.join(text.splitlines())


def cell(text: str) -> str:
  """Returns text for a cell of a table, which a line break or a `|` would end."""
  return line(text).replace('|', r'\|')


def code(text: str) -> str:
  """Returns text as inline code, between more backticks than stand together in it."""
  text = line(text)
  fence = '`' * (1 + max(map(len, re.findall('`+', text)), default=0))
  space = ' ' if '`' in text else ''
  return f'{fence}{space}{text}{space}{fence}'
