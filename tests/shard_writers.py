"""Writers of shards for worker processes, which import them by name."""

import os
import pathlib
import signal
import time

import tensorflow as tf


def write(shard, partial):
  """Writes the source; if that is 'kill', ends its own process once others wait."""
  if shard.source == 'kill':
    folder = pathlib.Path(shard.output).parent
    while not (folder / 'finished').exists() or not [*folder.glob('hang.*.partial')]:
      time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
  pathlib.Path(partial).write_text(shard.source)
  if shard.source == 'fail':
    raise tf.errors.DataLossError(None, None, 'no record')
  while shard.source == 'hang':
    time.sleep(0.01)
    yield 0
  yield 1


def open_together(shards):
  """Notes in the folder which shards are opened together; returns them."""
  path = pathlib.Path(shards[0].output).parent / 'opened'
  with path.open('a') as file:
    file.write(' '.join(shard.source for shard in shards) + '\n')
  return iter(shards)
