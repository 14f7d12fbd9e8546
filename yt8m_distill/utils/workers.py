"""What the workers of a job have, brought together.

A worker is a process under `MultiWorkerMirroredStrategy`; under any other
strategy one process holds all replicas, and is the chief of itself.
"""

import pickle
from typing import Any

import numpy as np
import tensorflow as tf

_Word = np.int64  # collectives know no bytes


def is_chief() -> bool:
  """Whether this process is the one that writes to the run's folder."""
  return tf.distribute.get_strategy().extended.should_checkpoint


def objects(value: Any) -> list[Any]:
  """Returns the value of every worker, on each of them, in their order.

  All workers must call it, from outside of replicas; none returns before the
  last has called. Values are pickled, and are handed on as they are where there
  is one worker.

  Args:
    value: of this worker; any size and type.
  """
  strategy = tf.distribute.get_strategy()
  if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
    return [value]
  # Each with its length before it; a worker's first replica carries it.
  data = pickle.dumps(value)
  data += bytes(-len(data) % _Word().nbytes)
  words = np.frombuffer(data, _Word)
  mine = tf.constant(np.append(_Word(words.size), words))
  local = len(strategy.extended.worker_devices)
  all_words = strategy.gather(
    strategy.experimental_distribute_values_from_function(
      lambda context: (
        mine if context.replica_id_in_sync_group % local == 0 else mine[:0]
      )
    ),
    axis=0,
  ).numpy()
  values, start = [], 0
  while start < all_words.size:
    end = start + 1 + all_words[start]
    values.append(pickle.loads(all_words[start + 1 : end].tobytes()))
    start = end
  return values
