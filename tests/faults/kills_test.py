"""Commands that are killed or terminated, that share a folder, or whose disk is full.

What they end with is what an undisturbed command writes. kills.py is the long form.
"""

import os
import re
import shutil
import signal
import subprocess
import time

from faults import kills
import pytest
import tensorflow as tf

pytestmark = [pytest.mark.faults, pytest.mark.end_to_end, pytest.mark.long]

# Training has a test of its own; the study takes too long here.
_COMMANDS = (
  'extract-student',
  'export',
  'predict',
  'thin',
  'teach',
  'simulate',
  'extract',
)


@pytest.fixture(name='folder', scope='module')
def _folder(tmp_path_factory):
  return tmp_path_factory.mktemp('faults')


@pytest.fixture(name='commands', scope='module')
def _commands(folder):
  try:
    import av  # noqa: F401
  except ImportError:
    return kills.commands(folder / 'data', with_videos=False)
  return kills.commands(folder / 'data')


@pytest.fixture(name='reference', scope='module')
def _reference(folder, commands):
  """Runs a command undisturbed, once."""
  known = {}

  def reference(name):
    if name not in commands:
      pytest.skip('needs the package av')
    if name not in known:
      known[name] = kills.undisturbed(commands[name], folder / name)
    return known[name]

  return reference


@pytest.mark.parametrize('name', _COMMANDS)
def test_killed_commands_end_like_undisturbed_ones(name, commands, reference, tmp_path):
  expected = reference(name)
  moments = [kills.Moment(0, changes) for changes in (1, expected.changes // 2 + 1)]
  kills.kill(commands[name], tmp_path / 'out', expected, moments, with_workers=True)


def test_workers_end_with_a_terminated_command(commands, reference, tmp_path):
  expected = reference('thin')
  moments = [kills.Moment(0, changes) for changes in (2, 3)]
  kills.kill(
    commands['thin'], tmp_path / 'out', expected, moments, False, signal.SIGTERM
  )


def _wait_for(path, started):
  while not path.exists():
    assert started.is_alive()
    time.sleep(0.002)


def test_training_that_is_killed_and_terminated_resumes(commands, reference, tmp_path):
  out, train = tmp_path / 'out', commands['train']
  killed = train.start(out)
  _wait_for(out / 'params.yaml', killed)
  refused = train.start(out).wait()
  assert refused.returncode == 1
  assert refused.stderr.splitlines()[-1] == (
    f'Error: --model_dir={out} is being trained by another process. Wait until it '
    'ends, or choose another folder.'
  )
  _wait_for(out / 'ckpt-1.index', killed)
  killed.kill()
  assert killed.wait().returncode == -signal.SIGKILL

  terminated = train.start(out)
  _wait_for(out / 'ckpt-3.index', terminated)
  terminated.kill(signal.SIGTERM)
  done = terminated.wait()
  assert done.returncode == 128 + signal.SIGTERM, done.stderr[-2000:]
  step = re.fullmatch(
    r'Terminated at step (\d): a checkpoint was written\. Repeat the command to '
    r'continue\.',
    done.stderr.splitlines()[-1],
  )[1]
  assert tf.train.latest_checkpoint(str(out)).endswith(f'ckpt-{step}')
  expected = reference('train').contents
  assert not kills.difference(train.finish(out), expected)


@pytest.mark.parametrize('name', ['predict', 'thin', 'simulate'])
def test_two_processes_may_do_the_same_job(name, commands, reference, tmp_path):
  out = tmp_path / 'out'
  both = [commands[name].start(out) for _ in range(2)]
  for done in [started.wait() for started in both]:
    assert done.returncode == 0, done.stderr[-2000:]
  assert not kills.difference(kills.contents(out), reference(name).contents)
  assert not list(out.glob('*.partial'))


def test_of_two_exports_one_is_refused(commands, reference, tmp_path):
  out = tmp_path / 'out'
  both = [commands['export'].start(out) for _ in range(2)]
  done = sorted((started.wait() for started in both), key=lambda d: d.returncode)
  assert [d.returncode for d in done] == [0, 1]
  assert done[1].stderr.splitlines()[-1] == (
    f'Error: {out} is not empty. Name another folder, or remove it.'
  )
  assert not kills.difference(kills.contents(out), reference('export').contents)
  assert os.listdir(tmp_path) == ['out']


@pytest.fixture(name='disk')
def _disk(tmp_path):
  """Mounts a small disk at a folder; returns a function that sets its options."""
  place = tmp_path / 'disk'
  place.mkdir()

  def mount(options):
    subprocess.run(
      ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', place],
      check=True,
      capture_output=True,
    )
    return place

  try:
    mount('size=4k')
  except (OSError, subprocess.CalledProcessError) as error:
    pytest.skip(f'no disk can be mounted here: {error}')

  def remount(options):
    while True:
      try:
        return mount(f'remount,{options}')
      except subprocess.CalledProcessError as error:
        # Killed workers close their files a little later.
        assert 'busy' in error.stderr.decode()
        time.sleep(0.05)

  yield remount
  subprocess.run(['umount', '-l', place], check=True)


@pytest.mark.parametrize(
  'name, size, path',
  [
    ('train', '60k', 'out/best_ckpt'),
    ('predict', '8k', r'out/test\d.csv'),
    ('export', '100k', 'out'),
    ('simulate', '100k', r'out/train\d+.tfrecord'),
    ('thin', '12k', r'out/test\d.tfrecord'),
  ],
)
def test_a_full_disk_is_one_line(name, size, path, commands, reference, disk):
  place = disk(f'size={size}')
  failed = commands[name].start(place / 'out').wait()
  assert failed.returncode == 1
  assert re.fullmatch(
    rf'Error: {place}/{path} cannot be written: No space left on device\. Free space '
    r'there, and repeat the command\.',
    failed.stderr.splitlines()[-1],
  )
  disk('size=64m')
  assert not kills.difference(
    commands[name].finish(place / 'out'), reference(name).contents
  )


@pytest.mark.parametrize('name', ['predict', 'thin', 'simulate'])
def test_a_disk_that_became_read_only_is_one_line(name, commands, reference, disk):
  out = disk('size=64m') / 'out'
  started = commands[name].start(out)
  while not list(out.glob('*0*.*')):  # The first shard, whole or partial.
    assert started.is_alive()
    time.sleep(0.002)
  started.kill(with_workers=True)
  started.wait()
  disk('ro')
  failed = commands[name].start(out).wait()
  assert failed.returncode == 1
  assert re.fullmatch(
    rf'Error: {out}/\w+\.\w+ cannot be written: Read-only file system\. Make it '
    r'writable, and repeat the command\.',
    failed.stderr.splitlines()[-1],
  )
  disk('rw')
  assert not kills.difference(commands[name].finish(out), reference(name).contents)


def test_training_names_a_folder_that_is_read_only(commands, folder, reference, disk):
  reference('train')
  place = disk('size=64m')
  shutil.copytree(folder / 'train', place / 'out')
  disk('ro')
  failed = commands['train'].start(place / 'out').wait()
  assert failed.stderr.splitlines()[-1] == (
    f'Error: --model_dir={place}/out cannot be written. Choose a writable folder.'
  )
