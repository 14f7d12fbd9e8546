"""Text in Markdown."""

import pytest

from yt8m_distill.utils import markdown


def test_cell_ends_at_its_own_end():
  assert markdown.cell('a|b\r\nc') == r'a\|b c'
  assert markdown.cell('train*.tfrecord') == 'train*.tfrecord'


@pytest.mark.parametrize(
  ('text', 'expected'),
  [('a_*b*', '`a_*b*`'), ('a`b\nc', '`` a`b c ``'), ('``', '``` `` ```')],
)
def test_code_ends_at_its_own_end(text, expected):
  assert markdown.code(text) == expected
