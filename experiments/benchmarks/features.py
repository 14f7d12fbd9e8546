"""Measures how fast features of pictures and sounds are computed.

The networks have the official architectures, tensor names and sizes, and random
weights, because the official ones are not ours to ship. Cases take turns. CPU time is
that of all threads, which other programs on the machine hardly affect. From the
repository's root:

  python -m experiments.benchmarks.features --pictures=32 --rounds=3
"""

from collections.abc import Callable
import functools
import statistics
import tempfile
import time

from absl import app
from absl import flags
import numpy as np
import tensorflow as tf
import tf_keras

from experiments.benchmarks import usage
from tests import feature_weights
from yt8m_distill.features import inception
from yt8m_distill.features import vggish

_PICTURES = flags.DEFINE_integer(
  'pictures', 32, 'Pictures, and sounds, of a case.', lower_bound=1
)
_SIZE = flags.DEFINE_list('size', ['360', '640'], 'Height and width of a picture.')
_BATCHES = flags.DEFINE_list('batches', ['1', '4', '16', '32'], 'Sizes of batches.')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Times that a case runs.', lower_bound=1)


def _inception_v3(pictures: tf.Tensor) -> tf.Tensor:
  """Returns [N, 8, 8, 2048] of [N, 299, 299, 3] with the layers of Inception-v3."""
  network = tf_keras.applications.InceptionV3(
    include_top=False, weights=None, input_shape=(299, 299, 3)
  )
  return network(pictures, training=False)


def _in_batches(
  network: Callable[[np.ndarray], np.ndarray], inputs: np.ndarray, batch: int
) -> np.ndarray:
  return np.concatenate(
    [network(inputs[i : i + batch]) for i in range(0, len(inputs), batch)]
  )


def main(_):
  """Prints rates and CPU times."""
  number = _PICTURES.value
  rng = np.random.default_rng(0)
  size = [int(side) for side in _SIZE.value]
  pictures = rng.integers(0, 256, [number, *size, 3], np.uint8)
  sounds = rng.uniform(-1, 1, [number, vggish.SAMPLES]).astype(np.float32)
  with tempfile.TemporaryDirectory() as folder:
    feature_weights.write(folder, _inception_v3)
    rgb, audio = inception.Inception(folder), vggish.VGGish(folder)

  def resize():
    return np.stack([rgb.prepare(picture) for picture in pictures])

  resized = resize()
  cases: dict[str, Callable[[], np.ndarray]] = {'resize pictures': resize}
  for name, network, inputs in (
    ('Inception', rgb, resized),
    ('VGGish', audio, sounds),
  ):
    for batch in map(int, _BATCHES.value):
      cases[f'{name}, batches of {batch}'] = functools.partial(
        _in_batches, network, inputs, batch
      )
  walls: dict[str, list[float]] = {name: [] for name in cases}
  cpus: dict[str, list[float]] = {name: [] for name in cases}
  for case in cases.values():
    case()
  for _ in range(_ROUNDS.value):
    for name, case in cases.items():
      wall, cpu = time.perf_counter(), time.process_time()
      case()
      walls[name].append(time.perf_counter() - wall)
      cpus[name].append(time.process_time() - cpu)
  print(f'{"":26} {"inputs/s":>9} {"ms of CPU":>10}')
  for name in cases:
    wall, cpu = statistics.median(walls[name]), statistics.median(cpus[name])
    print(f'{name:26} {number / wall:9.1f} {1000 * cpu / number:10.1f}')
  print(f'peak memory {usage.peak_mib():,.0f} MiB')


if __name__ == '__main__':
  app.run(main)
