"""A wrong value of any field ends in one line that names the field."""

import random

import pytest
import wrong_values

_COUNT = 500


@pytest.fixture(name='cases', scope='module')
def _cases():
  return random.Random(0).sample(wrong_values.cases(), _COUNT)


@pytest.mark.parametrize('part', range(10))
def test_wrong_values_are_refused_in_one_line(cases, part, tmp_path):
  for index, case in enumerate(cases[part::10]):
    # Half of them in a file.
    result, message = wrong_values.outcome(case, tmp_path if index % 2 else None)
    ends = result == 'taken' and wrong_values.reason_to_take(case)
    assert result == 'refused' or ends, (case, result, message)


def test_every_kind_of_value_meets_every_kind_of_field(cases):
  assert {case.kind for case in cases} == wrong_values.VALUES.keys()
  parts = {part for case in cases for part in case.path.split('.')}
  assert {'backbone', 'features[0]', 'ema', 'stepwise', 'runtime', 'losses'} < parts
