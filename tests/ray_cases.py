"""What tests run on the nodes of a Ray cluster."""

import dataclasses
import os
import pathlib
import time

from experiments.study import runner


def wait_until(condition):
  """Until it holds; 5 minutes at most, for a machine under load."""
  deadline = time.monotonic() + 300
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.05)


def write(shard, partial):
  """Writes where it ran and what it was told to, as the source says.

  Args:
    shard: its source is 'fail', 'hang', or the text to write.
    partial: path to write to.
  """
  path = pathlib.Path(partial)
  path.write_text(shard.source)
  with open(path.parent / 'started', 'a', encoding='utf-8') as file:
    file.write(f'{os.getpid()}\n')
  yield 0
  if shard.source == 'fail':
    wait_until(lambda: len((path.parent / 'started').read_text().splitlines()) >= 3)
    raise ValueError(f'{shard.output}: wrong.')
  while shard.source == 'hang':
    time.sleep(0.05)
    yield 0
  return len(shard.source)


@dataclasses.dataclass(frozen=True)
class Counting(runner.Job):
  """Counts to 2 in a file, and waits in between until `go` exists beside its folder."""

  @property
  def needs(self):
    """None."""
    return ()

  def specification(self):
    """Only its name."""
    return {}

  def execute(self, output_dir):
    """Continues at the last number."""
    count = pathlib.Path(runner.folder(output_dir, self.name), 'count')
    with count.open('a', encoding='utf-8') as file:
      print('start', file=file, flush=True)
    wait_until(pathlib.Path(output_dir, 'go').exists)
    with count.open('a', encoding='utf-8') as file:
      print('end', file=file)
