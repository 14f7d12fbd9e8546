"""Tests of records over HTTP: valid, corrupt, and from servers that fail."""

import frame_readers
import http_files
import pytest
import records
import tensorflow as tf
from tensorflow.python.lib.io import file_io

from yt8m_distill.configs import data
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import remote
from yt8m_distill.dataloaders import shards
from yt8m_distill.dataloaders import skipped

_PAYLOADS = [bytes([65 + i]) * 3000 for i in range(20)]
_RECORD = 3016  # bytes in the file
_BUFFER = 4 * _RECORD


@pytest.fixture(name='server')
def _server(tmp_path, monkeypatch):
  """Serves a.tfrecord; retries do not wait, and the read buffer is small."""
  monkeypatch.setattr(remote, '_WAIT', 0.0)
  monkeypatch.setattr(shards, '_REMOTE_BUFFER', _BUFFER)
  records.write(tmp_path / 'a.tfrecord', _PAYLOADS)
  with http_files.serving(tmp_path) as server:
    yield server


def _records(path, skip_corrupt=False):
  [size] = shards.sizes(shards.find(path))
  return shards.read(
    tf.constant(path), tf.constant(size, tf.int64), skip_corrupt, retry=True
  )


def _read(path, skip_corrupt=False):
  read = list(_records(path, skip_corrupt).as_numpy_iterator())
  assert all(name.decode() == path for name, _, _ in read)
  return [(index, serialized) for _, index, serialized in read]


def _numbered(indices):
  return [(i, _PAYLOADS[i]) for i in indices]


def _attempts(messages, path):
  return [m for m in messages if m.startswith(path) and 'attempt' in m]


@http_files.needs_http
@pytest.mark.parametrize('skip_corrupt', [False, True])
def test_reads_in_large_pieces(server, monkeypatch, skip_corrupt):
  path = f'{server.url}/a.tfrecord'
  assert _read(path, skip_corrupt) == _numbered(range(20))
  pieces = [wanted for _, wanted in server.requests if wanted]
  assert pieces[0] == f'bytes=0-{_BUFFER - 1}'
  monkeypatch.undo()
  del server.requests[:]
  assert _read(path, skip_corrupt) == _numbered(range(20))
  assert server.requests[1:] == [('/a.tfrecord', f'bytes=0-{(8 << 20) - 1}')]


@http_files.needs_http
@pytest.mark.parametrize('failure', [503, 'cut'])
@pytest.mark.parametrize('skip_corrupt', [False, True])
def test_a_request_that_fails_is_retried(server, caplog, failure, skip_corrupt):
  path, server.failure = f'{server.url}/a.tfrecord', failure
  before = skipped.total()
  records = _records(path, skip_corrupt).as_numpy_iterator()
  read = [next(records)]
  server.failures = 4
  with caplog.at_level('WARNING', 'absl'):
    read += records
  assert [(i, serialized) for _, i, serialized in read] == _numbered(range(20))
  assert skipped.total() == before and server.failures == 0
  lines = _attempts(caplog.messages, path)
  # Delivered records are not read again.
  assert f'at byte {8 * _RECORD} of {20 * _RECORD}' in lines[0]
  assert 'attempt 2 of 5 failed' in lines[1] and 'node' not in lines[1]


@http_files.needs_http
@pytest.mark.parametrize('skip_corrupt', [False, True])
def test_reading_gives_up_with_one_message(server, skip_corrupt):
  path = f'{server.url}/a.tfrecord'
  records = _records(path, skip_corrupt).as_numpy_iterator()
  next(records)
  server.failures = 100
  with pytest.raises(
    tf.errors.InvalidArgumentError,
    match=(rf'{path}: not readable in {remote.ATTEMPTS} attempts\. .*503'),
  ):
    list(records)


@http_files.needs_http
def test_stat_and_counting_are_retried(server, caplog):
  path = f'{server.url}/a.tfrecord'
  with caplog.at_level('WARNING', 'absl'):
    server.failures = 2
    sizes = shards.sizes([path])
    server.failures = 2
    assert shards.count_records([path]) == 20
    server.failures = 2
    assert shards.first_record([path], sizes) == (path, 0, _PAYLOADS[0])
  assert sizes == [20 * _RECORD]
  lines = _attempts(caplog.messages, path)
  assert '1 of 5' in lines[0] and '2 of 5' in lines[1] and '503' in lines[1]
  server.failures = 100
  with pytest.raises(ValueError, match=f'{path}: not readable in 5 attempts'):
    shards.sizes([path])


@http_files.needs_http
@pytest.mark.parametrize('status', [404, 403])
def test_permanent_errors_are_not_retried(server, status):
  server.failures, server.failure = 100, status
  with pytest.raises(ValueError, match=f'a.tfrecord: no such file.*{status}'):
    shards.sizes(shards.find(f'{server.url}/a.tfrecord'))
  assert len(server.requests) == 1


@http_files.needs_http
def test_one_missing_file_of_a_range_is_named(server):
  with pytest.raises(ValueError, match='/b.tfrecord: no such file.*404'):
    shards.sizes(shards.find(f'{server.url}/{{a..b}}.tfrecord'))


@http_files.needs_http
def test_a_server_without_range_requests_is_named(server):
  path = f'{server.url}/a.tfrecord'
  server.honours_range = False
  with pytest.raises(
    tf.errors.InvalidArgumentError, match=f'{path}: its server ignores Range requests'
  ):
    _read(path)


@http_files.needs_http
@pytest.mark.parametrize(
  'where, left, lost',
  [
    (9 * _RECORD + 20, [*range(9), *range(10, 20)], (1, 0)),
    (9 * _RECORD, range(9), (0, 1)),
  ],
)
def test_corrupt_remote_files_are_treated_like_local_ones(server, where, left, lost):
  file = server.folder / 'a.tfrecord'
  content = bytearray(file.read_bytes())
  content[where] ^= 0xFF
  file.write_bytes(content)
  path = f'{server.url}/a.tfrecord'
  with pytest.raises(
    tf.errors.InvalidArgumentError,
    match=(f'{path}: unreadable from byte {9 * _RECORD} of {20 * _RECORD}'),
  ):
    _read(path)
  before = skipped.total()
  assert _read(path, skip_corrupt=True) == _numbered(left)
  after = skipped.total()
  assert (
    after.records - before.records,
    after.shard_tails - before.shard_tails,
  ) == lost


@http_files.needs_http
def test_lists_may_be_remote_and_name_signed_urls(server):
  urls = [f'{server.url}/a.tfrecord?signature=x,y*', f'{server.url}/a.tfrecord']
  (server.folder / 'urls.txt').write_text('\n'.join(urls))
  assert shards.find(f'@{server.url}/urls.txt') == sorted(urls)


@http_files.needs_http
@pytest.mark.parametrize('pattern', ['*.tfrecord', 'a.tfrecord?signature=x'])
def test_patterns_cannot_be_listed_over_http(server, pattern):
  with pytest.raises(
    ValueError, match='cannot be listed over http.*{0000..3843}.*@FILE'
  ):
    shards.find(f'{server.url}/{pattern}')


def test_file_name():
  for path in (
    'https://host/a/b.tfrecord?key=/x#y',
    '/a/b.tfrecord',
    's3://a/b.tfrecord',
  ):
    assert remote.file_name(path) == 'b.tfrecord'
  assert remote.file_name('/a/b?.tfrecord') == 'b?.tfrecord'


@pytest.mark.parametrize(
  'error', [tf.errors.UnavailableError, tf.errors.PermissionDeniedError]
)
def test_listing_is_retried_or_named(monkeypatch, error):
  answers = [error(None, None, 'busy'), ['s3://a/b0.tfrecord']]

  def glob(_):
    answer = answers.pop(0)
    if isinstance(answer, Exception):
      raise answer
    return answer

  monkeypatch.setattr(remote, 'ensure_file_system', lambda _: None)
  monkeypatch.setattr(remote.time, 'sleep', lambda _: None)
  monkeypatch.setattr(tf.io.gfile, 'glob', glob)
  if error is tf.errors.UnavailableError:
    assert shards.find('s3://a/b*.tfrecord') == ['s3://a/b0.tfrecord']
  else:
    with pytest.raises(ValueError, match=r's3://a/b\*.tfrecord.*busy'):
      shards.find('s3://a/b*.tfrecord')


@http_files.needs_http
def test_a_tf_data_service_cannot_read_them(server):
  params = data.VideoData(
    input_path=f'{server.url}/a.tfrecord',
    is_training=True,
    global_batch_size=1,
    enable_tf_data_service=True,
    tf_data_service_address='grpc://host:1',
  )
  with pytest.raises(
    ValueError,
    match='enable_tf_data_service is True: .*http://.*a.tfrecord, which needs tensorf',
  ):
    pipeline.build(params, frame_readers.reader())


@pytest.mark.parametrize(
  'path', ['http://host/x{0..1}', '@http://host/list', 's3://bucket/*.tfrecord']
)
def test_a_missing_file_system_names_the_versions(monkeypatch, path):
  monkeypatch.setattr(file_io, 'get_registered_schemes', lambda: ['', 'gs'])
  with pytest.raises(
    ValueError,
    match=(
      'no file system (http|s3)://.*tensorflow 2.16 with tensorflow-io 0.37.1.*'
      f'Installed are tensorflow {tf.__version__}'
    ),
  ):
    shards.find(path)


@pytest.mark.skipif(http_files.HAS_HTTP, reason='tensorflow-io has http here')
def test_newer_tensorflow_names_the_versions():
  with pytest.raises(
    ValueError,
    match='no file system https://.*tensorflow 2.16 with tensorflow-io 0.37.1',
  ):
    shards.find('https://host/train{0000..3843}.tfrecord')
