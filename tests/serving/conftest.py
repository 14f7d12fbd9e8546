"""What tests of prediction share."""

import pytest
import serving_cases
import tiny


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Two runs; the students see different frames."""
  where = tmp_path_factory.mktemp('runs')
  every_second = {
    'task': {
      'model': {
        'student': {
          **tiny.sizes()['task']['model']['student'],
          'frames': {'uniform': {'every_n': 2}},
        }
      }
    }
  }
  return [
    serving_cases.write_run(where / 'a'),
    serving_cases.write_run(where / 'b', every_second),
  ]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """A folder of shards; every video has an id of its own."""
  where = tmp_path_factory.mktemp('data')
  for number, count in enumerate(serving_cases.COUNTS):
    path = where / f'test{number}.tfrecord'
    tiny.write_records(path, count, seed=number, ids=b'%d-%%d' % number)
  return where
