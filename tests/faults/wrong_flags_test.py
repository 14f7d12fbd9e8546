"""Wrong values of flags and arguments end in one line."""

import pytest
import wrong_flags

pytestmark = pytest.mark.faults

_EVERY = 4  # wrong_flags.py tries all values


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  place = tmp_path_factory.mktemp('inputs')
  wrong_flags.write_inputs(place)
  return place


@pytest.mark.parametrize('title', wrong_flags.COMMANDS)
def test_wrong_value_is_refused_in_one_line_or_rightly_taken(folder, title):
  wrong = {
    f'{name}={value} {complaint}: {message}'
    for name, kind, value, message in wrong_flags.tried(title, folder, _EVERY)
    if (complaint := wrong_flags.complaint(name, kind, value, message))
  }
  assert not wrong
