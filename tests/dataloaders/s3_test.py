"""Records over S3 and HTTPS, and how a process that has read S3 ends.

Each case is a function that runs in a process of its own, as a command would, because
its exit status is tested, and because the clients read the environment only once.
"""

import json
import os
import pathlib
import shutil
import signal
import sys
from typing import NamedTuple

import http_files
import processes
import pytest
import s3_files
import tensorflow as tf
import tiny

from yt8m_distill import train
from yt8m_distill.dataloaders import remote
from yt8m_distill.dataloaders import shards
from yt8m_distill.utils import cli

pytestmark = pytest.mark.end_to_end

_SHARDS = 's3://bucket/videos/{0000..0003}.tfrecord'
_PATH = 's3://bucket/videos/0000.tfrecord'
_OUTPUT = 'x' * 1_000_000


def _read(path):
  [size] = shards.sizes([path])
  records = shards.read(
    tf.constant(path),
    tf.constant(size, tf.int64),
    retry=remote.needs_tensorflow_io(path),
  )
  return [(index, serialized) for _, index, serialized in records.as_numpy_iterator()]


def _reads(folder):
  with http_files.serving(folder, s3_files.Handler) as server:
    os.environ.update(s3_files.environment(server.url))
    paths = [f's3://bucket/videos/{i:04}.tfrecord' for i in range(4)]
    files = [str(folder / path[len('s3://') :]) for path in paths]
    assert shards.find(_SHARDS) == paths
    assert shards.find('s3://bucket/videos/*.tfrecord') == paths
    assert shards.find('s3://bucket/videos/000?.tfrecord') == paths
    assert shards.sizes(paths) == shards.sizes(files)
    assert shards.count_records(paths) == 4 * 4
    for path, file in zip(paths, files):
      assert _read(path) == _read(file)
    # The client asks for 100 names at a time.
    assert len(shards.find('s3://bucket/many/*')) == 101
    for path in (f'{paths[0]}.other', 's3://other/0000.tfrecord'):
      with pytest.raises(ValueError, match=f'{path}: no such file'):
        shards.sizes([path])
    with pytest.raises(ValueError, match='no file matches'):
      shards.find('s3://bucket/videos/*.csv')
    # The client itself tries again.
    server.failures = 3
    assert shards.find('s3://bucket/videos/*.tfrecord') == paths
    assert not server.failures
    for action in (shards.sizes, shards.count_records):
      server.failures = 3
      assert action(paths[:1]) == action(files[:1]) and not server.failures
  sys.stdout.write(_OUTPUT)


def _encrypts(folder):
  certificate = str(folder / 'certificate.pem')
  http_files.certify(certificate)
  file = str(folder / 'bucket' / 'videos' / '0000.tfrecord')
  for handler, trusts, prefix in (
    (s3_files.Handler, 'S3_CA_FILE', 's3:/'),
    (http_files.Handler, 'CURL_CA_BUNDLE', None),
  ):
    with http_files.serving(folder, handler) as server:
      server.encrypt(certificate)
      os.environ.update({**s3_files.environment(server.url), trusts: certificate})
      path = f'{prefix or server.url}/bucket/videos/0000.tfrecord'
      assert _read(path) == _read(file) and server.requests


def _trains(folder):
  tiny.drive('train_and_eval', folder / 'run', f"'{_SHARDS}'", 'yt8m_distill_single')
  results = json.loads((folder / 'run' / 'evaluation.json').read_text())
  assert results['input_path'] == _SHARDS and results['videos'] == 4 * 4


def _reads_on(folder):
  """Ends while a thread of tf.data is still reading."""
  del folder
  remote.ensure_file_system(_PATH)
  contents = tf.data.Dataset.range(1_000_000).map(lambda i: (i, tf.io.read_file(_PATH)))
  global _iterator  # For the end of the process to delete.
  _iterator = iter(contents.filter(lambda i, _: i < 1).prefetch(1))
  next(_iterator)


def _exits(folder):
  del folder
  shards.sizes([_PATH])
  raise ValueError('as expected.')


def _raises(folder):
  del folder
  shards.sizes([_PATH])
  raise RuntimeError('as expected')


def _ends_training(folder):
  """Ends as `yt8m_distill.train` does after an error."""
  train.run = lambda _: _exits(folder)
  del sys.argv[1:]
  cli.run(train.main)


def _ends_unaided(folder):
  """Ends without `process_exit.end_process`."""
  del folder
  shards.sizes([_PATH])


_COMMANDS = (_reads, _encrypts, _trains, _reads_on, _exits, _raises)
_CASES = {case.__name__: case for case in (*_COMMANDS, _ends_training, _ends_unaided)}


def _run_cases(folder):
  """Runs each case in a fork, which spares it the imports."""
  remote.ensure_file_system('http://host/path')  # Imports what all need; not S3.
  names = {}
  for name, case in _CASES.items():
    process = os.fork()
    if not process:
      signal.alarm(300)  # One that hangs is told by its name.
      for stream, kind in ((sys.stdout, 'out'), (sys.stderr, 'err')):
        with open(folder / f'{name}.{kind}', 'wb') as file:
          os.dup2(file.fileno(), stream.fileno())
      if case in _COMMANDS:
        cli.run(lambda _, case=case: case(folder), 'FOLDER')
      case(folder)
      return
    names[process] = name
  for process, name in names.items():
    _, status = os.waitpid(process, 0)
    (folder / f'{name}.status').write_text(str(os.waitstatus_to_exitcode(status)))


class _End(NamedTuple):
  status: int
  output: str
  errors: str


@pytest.fixture(name='ends', scope='module')
def _ends(tmp_path_factory):
  """Runs all cases; returns how each ended, by its name."""
  try:
    remote.ensure_file_system('http://host/path')
  except ValueError as error:
    pytest.skip(str(error))
  folder = tmp_path_factory.mktemp('s3')
  videos, many = (folder / 'bucket' / name for name in ('videos', 'many'))
  for place in (videos, many, videos / 'deeper'):
    place.mkdir(parents=True)
  for i in range(4):
    tiny.write_records(videos / f'{i:04}.tfrecord', 4, i)
  (videos / 'deeper' / '0000.tfrecord').write_bytes(b'')
  for i in range(101):
    (many / f'{i:03}').write_bytes(b'')
  with (
    pytest.MonkeyPatch.context() as patch,
    http_files.serving(folder, s3_files.Handler) as server,
  ):
    for name, value in s3_files.environment(server.url).items():
      patch.setenv(name, value)
    processes.python(__file__, folder)
  return {
    name: _End(
      int((folder / f'{name}.status').read_text()),
      (folder / f'{name}.out').read_text(),
      (folder / f'{name}.err').read_text(),
    )
    for name in _CASES
  }


@pytest.mark.parametrize(
  'case',
  [
    _reads,
    _trains,
    _reads_on,
    pytest.param(
      _encrypts,
      marks=pytest.mark.skipif(
        not shutil.which('openssl'), reason='no openssl command'
      ),
    ),
  ],
)
def test_reads_and_ends_with_status_0(ends, case):
  end = ends[case.__name__]
  assert end.status == 0, end.errors[-4000:]


def test_all_output_arrives(ends):
  assert ends['_reads'].output == _OUTPUT


@pytest.mark.parametrize(
  'case, last',
  [
    (_exits, 'Error: as expected.'),
    (_raises, 'RuntimeError: as expected'),
    (_ends_training, 'Error: as expected.'),
  ],
)
def test_errors_keep_status_and_message(ends, case, last):
  end = ends[case.__name__]
  assert end.status == 1 and end.errors.splitlines()[-1] == last


def test_without_end_process_the_process_aborts(ends):
  """If this fails, tensorflow-io is repaired and `process_exit` has no more use."""
  assert ends['_ends_unaided'].status == -signal.SIGABRT


if __name__ == '__main__':
  _run_cases(pathlib.Path(sys.argv[1]))
