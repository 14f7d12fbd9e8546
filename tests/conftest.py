"""What applies to all tests: their markers, and the order that they run in."""

import gc
import pathlib

import pytest
import tensorflow as tf

_DRIVER = pathlib.Path(__file__).resolve().parent / 'train'
_MARKERS = ('golden', 'end_to_end', 'gpu')


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
  """Marks tests without another marker as unit; puts the longest files first."""
  # This method of tf.test.TestCase is not a test.
  items[:] = [item for item in items if item.name != 'test_session']
  for item in items:
    if not any(map(item.get_closest_marker, _MARKERS)):
      item.add_marker('unit')
  # Files stay whole: the process that runs the longest one must not start last.
  long = {item.path for item in items if item.get_closest_marker('end_to_end')}
  # The driver's tests wait for tf.data to free iterators.
  items.sort(key=lambda item: (item.path not in long, item.path.parent != _DRIVER))


def pytest_collection_finish():
  """Exempts what the imports made from garbage collection, over a second each."""
  gc.collect()
  gc.freeze()


def pytest_runtest_setup(item):
  """Skips tests that need a GPU where there is none."""
  if item.get_closest_marker('gpu') and not tf.config.list_physical_devices('GPU'):
    pytest.skip('needs a GPU')
