"""Tests of the reader on mutated records of each format."""

import collections

import fuzz_records
import pytest

pytestmark = pytest.mark.end_to_end
_COUNT = 60


@pytest.mark.parametrize('name', fuzz_records.CASES)
def test_mutated_records_are_read_plainly_or_refused_by_name(name):
  outcomes = collections.Counter()
  for mutation, outcome, serialized in fuzz_records.run(name, _COUNT, seed=1):
    assert outcome in fuzz_records.OUTCOMES, (mutation, serialized)
    outcomes[outcome] += 1
  assert min(outcomes['read'], outcomes['refused']) > _COUNT // 20
