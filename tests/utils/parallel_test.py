"""Writing shards in parallel: what is kept, and what ends it."""

import os
import signal
import threading

import pytest
import shard_writers
import tensorflow as tf

from yt8m_distill.utils import parallel


def _shards(folder, *names):
  return [parallel.Shard(name, 2, str(folder / name)) for name in names]


def _write(shards, **options):
  parallel.write_shards(shard_writers.write, shards, 'Writing', 'B', **options)


@pytest.mark.parametrize(
  'options', [dict(workers=1), dict(workers=3, threads=True), dict(workers=2)]
)
def test_missing_outputs_are_written(tmp_path, capfd, options):
  (tmp_path / 'b').write_text('kept')
  _write(_shards(tmp_path, 'a', 'b', 'c'), **options)
  contents = {path.name: path.read_text() for path in tmp_path.iterdir()}
  assert contents == {'a': 'a', 'b': 'kept', 'c': 'c'}
  shown = capfd.readouterr().err
  assert 'Writing: 100% 4.00/4.00' in shown and '3/3 shards' in shown


def test_nothing_is_left_to_do(tmp_path):
  (tmp_path / 'a').touch()
  _write(_shards(tmp_path, 'a'), workers=4)
  assert os.listdir(tmp_path) == ['a']


@pytest.mark.parametrize(
  'options, error',
  [
    (dict(workers=2, threads=True), tf.errors.DataLossError),
    (dict(workers=2), ValueError),
  ],
)
def test_failure_stops_the_others_and_keeps_what_is_finished(tmp_path, options, error):
  shards = _shards(tmp_path, 'hang', 'a', 'fail', 'b', 'c', 'd')
  with pytest.raises(error, match='no record'):
    _write(shards, **options)
  left = set(os.listdir(tmp_path))
  assert 'a' in left and not left & {'hang', 'fail'}
  assert not list(tmp_path.glob('*.partial'))


@pytest.mark.parametrize('options', [dict(workers=2, threads=True), dict(workers=2)])
def test_many_shards_are_opened_in_few_groups(tmp_path, capfd, options):
  names = [f'{number:03d}' for number in range(201)]
  _write(_shards(tmp_path, *names), open=shard_writers.open_together, **options)
  opened = (tmp_path / 'opened').read_text().splitlines()
  assert sorted(' '.join(sorted(opened)).split()) == names
  assert len(opened) == 16 and {len(group.split()) for group in opened} == {12, 13}
  assert all((tmp_path / name).read_text() == name for name in names)
  assert '201/201 shards' in capfd.readouterr().err


@pytest.mark.parametrize('options', [dict(workers=1), dict(workers=2)])
def test_shards_of_a_group_are_kept_up_to_the_one_that_fails(tmp_path, options):
  names = [f'{number:03d}' for number in range(100)]
  shards = _shards(tmp_path, *names)
  shards[3] = shards[3]._replace(source='fail')
  with pytest.raises((tf.errors.DataLossError, ValueError), match='no record'):
    _write(shards, **options)
  left = set(os.listdir(tmp_path))
  assert {'000', '001', '002'} <= left and '003' not in left and len(left) < 99
  assert not list(tmp_path.glob('*.partial'))
  _write(_shards(tmp_path, *names), **options)
  assert all((tmp_path / name).read_text() == name for name in names)


def test_killed_worker_is_one_error_that_names_its_shard(tmp_path):
  shards = _shards(tmp_path, 'finished', 'hang', 'kill', 'never')
  with pytest.raises(
    ChildProcessError,
    match=rf'while it wrote {tmp_path}/kill \(exit status -9\)\. .*repeat the command',
  ):
    _write(shards, workers=2)
  left = [path.name.split('.')[0] for path in tmp_path.glob('*.partial')]
  assert sorted(left) == ['hang', 'kill']
  assert {*os.listdir(tmp_path)} - {p.name for p in tmp_path.glob('*.partial')} == {
    'finished'
  }
  shards = [shard._replace(source='again') for shard in shards]
  _write(shards, workers=2)
  assert (tmp_path / 'finished').read_text() == 'finished'
  for name in ('hang', 'kill', 'never'):
    assert (tmp_path / name).read_text() == 'again'


def test_interrupt_stops_all_workers(tmp_path, request):
  handler = signal.signal(signal.SIGINT, signal.default_int_handler)
  request.addfinalizer(lambda: signal.signal(signal.SIGINT, handler))
  timer = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
  timer.start()
  with pytest.raises(KeyboardInterrupt):
    _write(_shards(tmp_path, 'hang', 'a'), workers=1)
  assert os.listdir(tmp_path) == []
