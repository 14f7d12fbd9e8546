"""Exchange of Python values between the worker processes of a run.

Under `MultiWorkerMirroredStrategy` a run has one or more worker processes. Under
any other strategy, one process holds all replicas and is the chief.
"""

import pickle
from typing import Any

import numpy as np
import tensorflow as tf

_Word = np.int64  # Collectives do not support bytes.


def is_chief() -> bool:
  """Returns whether this process is the one that writes to the run's folder."""
  return tf.distribute.get_strategy().extended.should_checkpoint


def index() -> int:
  """Returns this process' position in the workers' order."""
  strategy = tf.distribute.get_strategy()
  if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
    return 0
  replicas = strategy.experimental_local_results(
    strategy.experimental_distribute_values_from_function(
      lambda context: tf.constant(context.replica_id_in_sync_group)
    )
  )
  return int(replicas[0]) // len(replicas)


def gather_objects(value: Any) -> list[Any]:
  """Returns the values of all workers, in the workers' order, on each worker.

  All workers must call it, outside of replica functions. It returns when the
  last one has called it. Values are pickled; a single worker's value is returned
  as it is.

  Args:
    value: this worker's, of any size and any picklable type.
  """
  strategy = tf.distribute.get_strategy()
  if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
    return [value]
  # A value is sent with its length first, by the worker's first replica only.
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
