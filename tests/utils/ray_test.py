"""Shards and jobs on a Ray cluster: the same bytes, whatever happens to its nodes."""

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
from unittest import mock

import processes
import pytest
import ray_cases
import serving_cases
import tiny

from experiments.cluster import ray_nodes
from experiments.study import runner
from yt8m_distill.dataloaders import thin
from yt8m_distill.features import extract
from yt8m_distill.features import video_list
from yt8m_distill.serving import ensemble
from yt8m_distill.simulation import write_shards
from yt8m_distill.utils import parallel
from yt8m_distill.utils import ray_jobs


@pytest.fixture(name='cluster', scope='module')
def _cluster():
  """Three nodes."""
  pytest.importorskip('ray', reason='ray is not installed')
  with (
    mock.patch.dict(
      os.environ, {**processes.ENVIRONMENT, 'RAY_USAGE_STATS_ENABLED': '0'}
    ),
    contextlib.closing(ray_nodes.Cluster(3)) as nodes,
  ):
    yield nodes


def _shards(folder, *sources):
  return [
    parallel.Shard(source, 1, str(folder / f'{number}-{source}'))
    for number, source in enumerate(sources)
  ]


def _write(address, shards):
  return parallel.write_shards(
    ray_cases.write, shards, 'Writing', 'B', ray_address=address
  )


def _simulate(folder, **options):
  write_shards.simulate(
    str(folder), 'train', 160, videos_per_shard=8, num_classes=10, **options
  )


def _files(folder):
  return {
    path.name: path.read_bytes()
    for path in folder.iterdir()
    if not path.name.endswith('.partial')
  }


@pytest.mark.parametrize(
  'address, error',
  [
    ('', 'invalid literal'),
    ('head', 'invalid literal'),
    ('127.0.0.1:1', 'refused'),
    ('auto', 'no cluster answers in 0 s'),
  ],
)
def test_address_without_a_cluster_is_one_line_at_once(monkeypatch, address, error):
  ray = pytest.importorskip('ray', reason='ray is not installed')
  monkeypatch.setattr(ray_jobs, '_TIMEOUT', 0.1)
  monkeypatch.setattr(ray, 'init', lambda *_, **__: time.sleep(0.2))
  with pytest.raises(
    ValueError, match=rf'--ray_address is {address}: .*{error}.* auto'
  ):
    ray_jobs.Executor(address)


def test_ray_that_is_missing_names_the_extra(monkeypatch):
  monkeypatch.setitem(sys.modules, 'ray', None)
  with pytest.raises(
    ImportError, match=r'extra cluster .*pip install .*"\.\[cluster\]"'
  ):
    ray_jobs.Executor('auto')


@pytest.mark.parametrize(
  'amounts, workers, share',
  [
    ([8, 16], 2, 4),
    ([8], 3, 2),
    ([1], 8, 0.125),
    ([1], 3, 0.3333),
    ([0, 4], 4, 1),
    ([], 2, 0),
  ],
)
def test_workers_share_the_smallest_node(amounts, workers, share):
  nodes = [{'GPU': amount} for amount in amounts] + [{'CPU': 2}]
  assert ray_jobs._share(nodes, 'GPU', workers) == share


def test_video_that_a_node_does_not_see_is_no_corrupt_one(tmp_path):
  videos = [video_list.Video(str(tmp_path / 'a.mp4'), 'a', None, 'input')]
  with pytest.raises(ValueError, match=r'a\.mp4 does not exist there'):
    extract._seen([parallel.Shard(videos, 1, 'out')])


def test_pickled_networks_are_read_again_unless_they_have_changed(tmp_path):
  sources = [serving_cases.write_run(tmp_path / 'run')]
  networks = ensemble.Ensemble(sources, 'student', 3)
  function = pickle.loads(pickle.dumps(networks.__call__))
  assert function.__self__ is pickle.loads(pickle.dumps(networks)) is not networks
  networks.versions = ['another']
  with pytest.raises(
    ValueError, match=r"read, but the command began with \(\['another"
  ):
    pickle.loads(pickle.dumps(networks))


@pytest.mark.end_to_end
@pytest.mark.long
def test_commands_write_the_same_bytes(cluster, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)  # Relative paths mean the same on all nodes.
  run = serving_cases.write_run(tmp_path / 'run')
  tiny.write_records(tmp_path / 'a.tfrecord', 5)
  tiny.write_records(tmp_path / 'b.tfrecord', 3)
  for folder, options in ('one', {}), ('ray', {'ray_address': cluster.address}):
    serving_cases.predict_lib.predict(
      ['run'], '*.tfrecord', f'{folder}/csv', top_k=4, **options
    )
    thin.thin('*.tfrecord', f'{folder}/thin', 2, 8, workers=1, **options)
  assert run
  for name in ('csv', 'thin'):
    assert _files(tmp_path / 'one' / name) == _files(tmp_path / 'ray' / name)


@pytest.mark.end_to_end
@pytest.mark.long
def test_error_names_the_node_and_stops_the_others(cluster, tmp_path):
  shards = _shards(tmp_path, 'a', 'hang', 'fail', *'bcdef')
  with pytest.raises(
    ValueError, match=r'^Node 127\.0\.0\.\d: .*2-fail: wrong\.$'
  ) as error:
    _write(cluster.address, shards)
  assert 'ray_cases.py' in str(error.value.__cause__)  # Where it was raised.
  assert not {'1-hang', '2-fail'} & {*os.listdir(tmp_path)}
  assert not list(tmp_path.glob('*.partial'))
  shards = [shard._replace(source='again') for shard in shards]
  written = _write(cluster.address, shards)
  assert {shard.returned for shard in written} == {5}
  assert (tmp_path / '1-hang').read_text() == 'again'


@pytest.mark.end_to_end
@pytest.mark.long
def test_interrupt_stops_all_nodes(cluster, tmp_path, request):
  handler = signal.signal(signal.SIGINT, signal.default_int_handler)
  request.addfinalizer(lambda: signal.signal(signal.SIGINT, handler))

  def interrupt():
    ray_cases.wait_until((tmp_path / 'started').exists)
    signal.raise_signal(signal.SIGINT)

  thread = threading.Thread(target=interrupt)
  thread.start()
  with pytest.raises(KeyboardInterrupt):
    _write(cluster.address, _shards(tmp_path, *['hang'] * 4))
  thread.join()
  assert os.listdir(tmp_path) == ['started']


@pytest.mark.end_to_end
@pytest.mark.long
def test_other_code_and_folders_that_nodes_lack_are_refused(
  cluster, tmp_path, monkeypatch
):
  with pytest.raises(ValueError, match=r'Node .*missing does not exist there'):
    _write(cluster.address, _shards(tmp_path / 'missing', 'a'))
  monkeypatch.setattr(ray_jobs, '_versions', lambda: 'TensorFlow 1.3')
  with pytest.raises(ValueError, match=r'Node .*CRC.*command TensorFlow 1\.3: install'):
    _write(cluster.address, _shards(tmp_path, 'a'))


@pytest.mark.end_to_end
@pytest.mark.long
def test_dead_node_changes_no_byte_and_no_job(cluster, tmp_path):
  jobs = [ray_cases.Counting(name) for name in 'abc']

  def starts():
    return [
      path.read_text().count('start') for path in sorted(tmp_path.glob('study/*/count'))
    ]

  def kill():
    ray_cases.wait_until(lambda: len(list(tmp_path.glob('ray/*.tfrecord'))) >= 3)
    cluster.kill_node()
    ray_cases.wait_until(lambda: starts() == [1, 1])
    cluster.kill_node()
    (tmp_path / 'study' / 'go').touch()

  thread = threading.Thread(target=kill)
  thread.start()
  _simulate(tmp_path / 'ray', ray_address=cluster.address)
  failed = runner.execute(jobs, str(tmp_path / 'study'), 1, ray_address=cluster.address)
  thread.join()
  _simulate(tmp_path / 'one', workers=1)
  assert _files(tmp_path / 'ray') == _files(tmp_path / 'one')
  assert failed == {} and sum(starts()) == 4
  assert all((tmp_path / 'study' / name / 'finished.json').exists() for name in 'abc')
