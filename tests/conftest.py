"""Markers and order of all tests, and runs that several files read."""

import functools
import gc

import pytest

_MARKERS = ('golden', 'end_to_end', 'gpu', 'faults')


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
  """Marks tests without another marker as unit; puts the longest files first."""
  # This method of tf.test.TestCase is not a test.
  items[:] = [item for item in items if item.name != 'test_session']
  for item in items:
    if not any(map(item.get_closest_marker, _MARKERS)):
      item.add_marker('unit')
  # Files stay whole: the process that runs the longest one must not start last.
  long = {item.path for item in items if item.get_closest_marker('long')}
  quick = {item.path for item in items} - {
    item.path for item in items if not item.get_closest_marker('unit')
  }
  items.sort(key=lambda item: (item.path not in long, item.path in quick))


def pytest_collection_finish():
  """Spares all tests what costs each of them time, and changes no result."""
  from official.modeling.hyperparams import base_config

  # What the imports made; collecting it takes over a second.
  gc.collect()
  gc.freeze()
  # The type of a field, which the Garden looks up each time the field is set: a
  # third of the time that it takes to build a configuration.
  config = base_config.Config
  config._get_subconfig_type = classmethod(
    functools.cache(config._get_subconfig_type.__func__)
  )


def pytest_runtest_setup(item):
  """Skips a test that needs a GPU where there is none."""
  if item.get_closest_marker('gpu'):
    import tensorflow as tf

    if not tf.config.list_physical_devices('GPU'):
      pytest.skip('needs a GPU')


# Below: files that no test may change; one that must works on a copy.


@pytest.fixture(scope='session')
def records(tmp_path_factory):
  """A file of 9 tiny videos."""
  import tiny

  path = tmp_path_factory.mktemp('records') / 'videos.tfrecord'
  tiny.write_records(path, 9)
  return path


@pytest.fixture(scope='session')
def distilled(records, tmp_path_factory):
  """A distillation run of 3 steps on them, evaluated."""
  import tiny

  run = tmp_path_factory.mktemp('distilled') / 'run'
  tiny.drive('train_and_eval', run, records)
  return run


@pytest.fixture(scope='session')
def converted(distilled):
  """The student taken out of that run, beside it."""
  from yt8m_distill.checkpoints import extract_student

  out = distilled.parent / 'converted'
  extract_student.extract(str(distilled), str(out))
  return out
