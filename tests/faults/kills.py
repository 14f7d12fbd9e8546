r"""Kills commands at random moments, repeats them, and compares what they write.

  python tests/faults/kills.py --kills=200

Of each command there is a run that nobody disturbs. Then, in each round, the command
is killed with SIGKILL: at a random time, or at a random change of its folder. Half of
the rounds kill its workers with it, as the end of a machine does; a quarter of them
kill the repeated command too. What it has written under final names by then, and all
that it has written after the last repetition, must be as if nobody had disturbed it.
"""

import collections
from collections.abc import Callable
import contextlib
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
from typing import NamedTuple
import zlib

from absl import app
from absl import flags
import numpy as np
import pandas as pd

_TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_TESTS), str(_TESTS.parent)]

import processes  # noqa: E402
import tiny  # noqa: E402

_POLL = 0.002  # seconds between two looks at a folder
_LIMIT = 300.0  # seconds of a command


def contents(folder: pathlib.Path) -> dict:
  """Returns the bytes of each complete file of a folder, by its relative path.

  Leaves out TensorFlow's `checkpoint`, which names times.
  """
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
    and path.name != 'checkpoint'
    and '.partial' not in str(path.relative_to(folder))
  }


def run_contents(folder: pathlib.Path) -> dict:
  """Returns what a run's folder holds, without what names times."""
  import tensorflow as tf

  found = {
    name: (folder / name).read_bytes()
    for name in ('params.yaml', 'evaluation.json', 'per_class.csv')
  }
  best = folder / 'best_ckpt'
  for key, place in (('last', folder), ('best', best)):
    checkpoint = tf.train.latest_checkpoint(str(place))
    for name, value in tiny.checkpoint_values(checkpoint).items():
      # Evaluated after the last step by a repetition, which trains no further, the best
      # checkpoint has no state of an optimizer.
      if key == 'last' or 'optimizer' not in name.lower():
        found[f'{key}: {name}'] = np.asarray(value).tobytes()
  found['info.json'] = (best / 'info.json').read_bytes()
  return found


def study_contents(folder: pathlib.Path) -> dict:
  """Returns what the runs of a study hold, and its table without the times."""
  found = {}
  for params in sorted(folder.glob('*/params.yaml')):
    for name, value in run_contents(params.parent).items():
      if name != 'params.yaml':  # Names the folder.
        found[f'{params.parent.name}: {name}'] = value
  table = pd.read_csv(folder / 'runs.csv')
  found['runs.csv'] = table.drop(columns='seconds').to_csv().encode()
  return found


class Command(NamedTuple):
  """A command to kill.

  Attributes:
    arguments: of a Python that runs it; '{out}' is the folder that it writes.
    contents: what a finished folder holds.
    appears_whole: whether all that it writes under a final name stays as it is.
    appears_at_once: whether its folder does; to repeat it is then an error.
  """

  arguments: list[str]
  contents: Callable[[pathlib.Path], dict] = contents
  appears_whole: bool = True
  appears_at_once: bool = False

  def start(self, out: pathlib.Path) -> processes.Started:
    """Starts it for an output folder."""
    return processes.Started([part.format(out=out) for part in self.arguments])

  def finish(self, out: pathlib.Path):
    """Runs it to its end, unless that was reached; returns what its folder holds."""
    if self.appears_at_once and out.exists():
      return self.contents(out)
    done = self.start(out).wait(_LIMIT)
    if done.returncode:
      raise AssertionError(f'{self.arguments[:2]}: {done.stderr[-2000:]}')
    return self.contents(out)


_STUDY = {
  'set': {
    'max_frames': tiny.MAX_FRAMES,
    'num_classes': tiny.CLASSES,
    'batch_size': 4,
    'train_steps': 2,
    'task.model.features': [{'name': 'rgb', 'size': 8}, {'name': 'audio', 'size': 4}],
    'task.model.network.backbone.type': 'yt8m_average',
    'task.model.network.head.type': 'logistic',
    'trainer.steps_per_loop': 1,
    'trainer.checkpoint_interval': 1,
    'trainer.validation_interval': 1,
    'runtime.run_eagerly': True,
  },
  'seeds': [1],
  'groups': [
    {'name': 'skyline', 'experiment': 'yt8m_distill_single', 'gin_file': 'skyline.gin'}
  ],
}


def commands(folder: pathlib.Path, with_videos: bool = True) -> dict[str, Command]:
  """Writes what the commands read into a folder; returns them by name.

  Args:
    folder: a new one.
    with_videos: whether `extract`, which needs the package av and 5 seconds more, is
      one of them.
  """
  import serving_cases

  (folder / 'records').mkdir(parents=True)
  for number, count in enumerate((5, 1, 7, 4)):
    path = folder / 'records' / f'test{number}.tfrecord'
    tiny.write_records(path, count, seed=number, ids=b'%d-%%d' % number)
  records = f"'{folder}/records/*.tfrecord'"
  run = serving_cases.write_run(folder / 'run', tiny.AVERAGES)
  (folder / 'study.yaml').write_text(json.dumps(_STUDY))
  (folder / 'averages.yaml').write_text(json.dumps(tiny.AVERAGES))
  module = ['-m', 'yt8m_distill']
  shards = [f'--input_path={folder}/records/*.tfrecord', '--output_dir={out}']
  found = {
    'train': Command(
      [
        *(*module, 'train', '--experiment=yt8m_distill', '--mode=train_and_eval'),
        '--model_dir={out}',
        f'--config_file={tiny.sizes_file(folder)}',
        f'--config_file={folder}/averages.yaml',
        tiny.override(
          task__train_data__input_path=records,
          task__train_data__global_batch_size=5,
          task__train_data__shuffle_buffer_size=4,
          task__model__student__frames__type='random',
          task__model__student__frames__random__k=4,
          task__model__student__dropout=0.5,
          task__validation_data__input_path=records,
          task__validation_data__global_batch_size=4,
          trainer__train_steps=4,
          trainer__steps_per_loop=1,
          trainer__checkpoint_interval=2,
          trainer__validation_interval=2,
          trainer__max_to_keep=2,
          trainer__optimizer_config__learning_rate__exponential__initial_learning_rate=0.1,
        ),
      ],
      run_contents,
      appears_whole=False,
    ),
    'extract-student': Command(
      [*module, 'extract-student', run, '{out}'], appears_at_once=True
    ),
    'export': Command([*module, 'export', run, '{out}'], appears_at_once=True),
    'predict': Command(
      [*module, 'predict', f'--model={run}', *shards, '--top_k=4', '--workers=2']
    ),
    'thin': Command([*module, 'thin', *shards, '--every_n=2']),
    'teach': Command([*module, 'teach', f'--model={run}', *shards, '--top_k=3']),
    'simulate': Command(
      [
        *(*module, 'simulate', '--output_dir={out}', '--num_videos=24'),
        *('--videos_per_shard=4', '--num_classes=12'),
      ]
    ),
    'study': Command(
      [
        *('-m', 'experiments.study', f'--config={folder}/study.yaml'),
        *('--output_dir={out}', '--workers=2'),
        f'--gin_params=yt8m_distill.train_path={records}',
        f'--gin_params=yt8m_distill.validation_path={records}',
      ],
      study_contents,
      appears_whole=False,
    ),
  }
  if with_videos:
    found['extract'] = Command(
      [
        *(*module, 'extract', f'--input={_videos(folder)}', '--output_dir={out}'),
        *(f'--weights={folder}/weights', '--videos_per_shard=1', '--workers=2'),
      ]
    )
  return found


def _videos(folder):
  """Writes small videos and the networks of their features; returns their pattern."""
  import feature_weights
  import video_files

  feature_weights.write(folder / 'weights')
  rng = np.random.default_rng(0)
  for number in range(4):
    video_files.write(
      folder / f'{number}.mp4',
      [rng.integers(0, 256, [48, 64, 3], np.uint8) for _ in range(3 + number)],
      rate=1,
    )
  return folder / '*.mp4'


class Moment(NamedTuple):
  """When to kill: after seconds, or when the folder has changed so many times."""

  seconds: float
  changes: int = 0

  def wait(self, started: processes.Started, watch: 'Watch'):
    """Returns at the moment, or when the process ends."""
    end = time.monotonic() + self.seconds
    while started.is_alive():
      if self.changes:
        if watch.changes() >= self.changes:
          return
      elif time.monotonic() >= end:
        return
      time.sleep(_POLL)


class Watch:
  """Counts how often the content of a folder changes."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._count = 0
    self._last: set = set()

  def changes(self) -> int:
    """Looks at the folder; returns how many changes were seen so far."""
    found = set()
    for place, _, names in os.walk(self._folder):
      for name in (*names, ''):
        path = os.path.join(place, name)
        with contextlib.suppress(OSError):
          state = os.stat(path)
          found.add((path, state.st_ino, state.st_size))
    parent, name = os.path.split(self._folder)
    found.update(other for other in os.listdir(parent) if other.startswith(f'{name}.'))
    if found != self._last:
      self._last = found
      self._count += 1
    return self._count


class Reference(NamedTuple):
  """An undisturbed run of a command.

  Attributes:
    contents: what its folder then holds.
    seconds: how long it took.
    changes: how often its folder changed.
  """

  contents: dict
  seconds: float
  changes: int


def undisturbed(command: Command, out: pathlib.Path) -> Reference:
  """Runs a command without disturbing it."""
  start, watch = time.monotonic(), Watch(out)
  started = command.start(out)
  Moment(0, changes=2**31).wait(started, watch)
  seconds = time.monotonic() - start
  done = started.wait()
  assert not done.returncode, done.stderr[-2000:]
  return Reference(command.contents(out), seconds, watch.changes())


def difference(found: dict, expected: dict) -> str:
  """Says how contents differ; '' if they do not."""
  parts = [f'{name} is missing' for name in sorted(expected.keys() - found.keys())]
  parts += [f'{name} is new' for name in sorted(found.keys() - expected.keys())]
  parts += [
    f'{name} differs' for name in sorted(found) if found[name] != expected.get(name)
  ]
  return '; '.join(parts[:4])


def kill(
  command: Command,
  out: pathlib.Path,
  expected: Reference,
  moments: list[Moment],
  with_workers: bool,
  number: int = signal.SIGKILL,
) -> int:
  """Kills a command at each moment in turn, and runs it to its end.

  Args:
    command: what to kill.
    out: a folder to write, which is new.
    expected: what it must end with.
    moments: when to kill the command and its repetitions.
    with_workers: whether to kill its workers too.
    number: the signal.

  Returns:
    How many of the kills came before its end.

  Raises:
    AssertionError: it left something else than an undisturbed command.
  """
  landed = 0
  for moment in moments:
    if command.appears_at_once and out.exists():
      break
    started = command.start(out)
    moment.wait(started, Watch(out))
    workers = started.workers()
    started.kill(number, with_workers)
    done = started.wait()
    landed += done.returncode == -number
    assert done.returncode in (0, -number), done.stderr[-2000:]
    _wait_for_end(workers)
    if command.appears_whole and out.exists():
      left = contents(out)
      wrong = difference(
        left, {name: v for name, v in expected.contents.items() if name in left}
      )
      assert not wrong, f'after the kill: {wrong}'
  wrong = difference(command.finish(out), expected.contents)
  assert not wrong, f'after the repetition: {wrong}'
  left = {*out.rglob('*.partial'), *out.parent.glob(f'{out.name}.*')}
  assert not left, f'{left} remain'
  return landed


def _wait_for_end(workers, limit=10.0):
  """Waits until processes have ended, and fails if they do not."""
  deadline = time.monotonic() + limit
  while left := [pid for pid in workers if os.path.exists(f'/proc/{pid}')]:
    assert time.monotonic() < deadline, f'the workers {left} did not end'
    time.sleep(0.01)


def moments(expected: Reference, rng) -> list[Moment]:
  """Draws when to kill a command, and in a quarter of cases its repetition."""
  drawn = []
  for _ in range(1 + (rng.random() < 0.25)):
    share = rng.choice([rng.random(), rng.random() * 0.1, 1 - rng.random() * 0.1])
    seconds = Moment(share * expected.seconds)
    changes = Moment(0, int(rng.integers(1, expected.changes + 1)))
    drawn.append(seconds if rng.random() < 0.5 else changes)
  return drawn


def _define_flags():
  # Not on import: the processes that this one starts import it too.
  flags.DEFINE_integer('kills', 200, 'Number of kills, over all commands.')
  flags.DEFINE_integer('moments_seed', 0, 'Of the random moments.')
  flags.DEFINE_list('only', [], 'Names of commands; all by default.')


def main(_):
  """Prints what was tried, and each failure."""
  values = flags.FLAGS
  failures = 0
  totals = collections.Counter()
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    table = commands(folder / 'data', not values.only or 'extract' in values.only)
    table = {key: table[key] for key in values.only or table}
    (folder / 'out').mkdir()
    for index, (key, command) in enumerate(table.items()):
      start, out = time.monotonic(), folder / 'out' / key
      expected = undisturbed(command, out)
      shutil.rmtree(out)
      kills = landed = rounds = 0
      share = values.kills * (index + 1) // len(table) - sum(totals.values())
      while kills < share:
        rng = np.random.default_rng(
          [values.moments_seed, zlib.crc32(key.encode()), rounds]
        )
        drawn = moments(expected, rng)[: share - kills]
        try:
          landed += kill(command, out, expected, drawn, bool(rng.random() < 0.5))
        except (AssertionError, TimeoutError) as error:
          failures += 1
          print(f'{key}, round {rounds}, {drawn}: {error}', flush=True)
        shutil.rmtree(out, ignore_errors=True)
        kills += len(drawn)
        rounds += 1
      totals[key] = kills
      print(
        f'{key}: {kills} kills in {rounds} rounds, {landed} before its end; alone it '
        f'takes {expected.seconds:.1f} s and changes its folder {expected.changes} '
        f'times; {time.monotonic() - start:.0f} s',
        flush=True,
      )
  print(f'{sum(totals.values())} kills, {failures} failures')
  sys.exit(failures > 0)


if __name__ == '__main__':
  _define_flags()
  app.run(main)
