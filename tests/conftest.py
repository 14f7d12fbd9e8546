"""Puts this folder on the path, so that tests share its helpers."""

import gc
import pathlib

_DRIVER = pathlib.Path(__file__).resolve().parent / 'train'


def pytest_collection_modifyitems(items):
  """Leaves out a method of tf.test.TestCase, and starts with the longest."""
  items[:] = [item for item in items if item.name != 'test_session']
  # Files stay whole: a process that starts the longest last ends last.
  slow = {item.path for item in items if item.get_closest_marker('slow')}
  # Those of the driver wait for tf.data to free iterators.
  items.sort(key=lambda item: (item.path not in slow, item.path.parent != _DRIVER))


def pytest_collection_finish():
  """Spares the collector what the imports made: over a second each time."""
  gc.collect()
  gc.freeze()
