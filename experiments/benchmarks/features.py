"""Measures how fast features are computed: of pictures and sounds, and of a video.

The networks have the official architectures, tensor names and sizes, and random
weights, because the official ones are not ours to ship. CPU time is that of all
threads, which other programs on the machine hardly affect. From the repository's root:

  python -m experiments.benchmarks.features --case=networks --pictures=32 --rounds=3
  python -m experiments.benchmarks.features --case=video --rounds=3

--case=networks tells which batches suit the networks; its cases take turns.
--case=video writes a video of H.264 and AAC and tells where the time goes from the file
to the predictions of a student, for all seconds and for every 10th.
"""

from collections.abc import Callable
import functools
import statistics
import tempfile
import time
from typing import Any

from absl import app
from absl import flags
import numpy as np
import tensorflow as tf
import tf_keras

from experiments.benchmarks import usage
from tests import feature_weights
from tests import video_files
from yt8m_distill.configs import experiments
from yt8m_distill.configs import settings
from yt8m_distill.evaluation import report
from yt8m_distill.features import decode
from yt8m_distill.features import inception
from yt8m_distill.features import networks
from yt8m_distill.features import vggish
from yt8m_distill.modeling import video_classifier

_CASES = flags.DEFINE_multi_enum(
  'case', ['networks', 'video'], ['networks', 'video'], 'What to measure.'
)
_PICTURES = flags.DEFINE_integer(
  'pictures', 32, 'Pictures, and sounds, of a case.', lower_bound=1
)
_SIZE = flags.DEFINE_list('size', ['360', '640'], 'Height and width of a picture.')
_BATCHES = flags.DEFINE_list('batches', ['1', '4', '16', '32'], 'Sizes of batches.')
_SECONDS = flags.DEFINE_integer(
  'seconds', 300, 'Length of the video.', lower_bound=10, upper_bound=300
)
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Times that a case runs.', lower_bound=1)

_PICTURE_RATE = 25  # of the video, per second
_SOUND_RATE = 44_100
_EVERY_N = 10
# Sizes of students: that of the quickstart, and that of the paper.
_CELLS = (64, 1024)


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


def _measure_networks(folder: str):
  """Prints inputs per second and CPU time of each, by the size of batches."""
  number = _PICTURES.value
  rng = np.random.default_rng(0)
  size = [int(side) for side in _SIZE.value]
  pictures = rng.integers(0, 256, [number, *size, 3], np.uint8)
  sounds = rng.uniform(-1, 1, [number, vggish.SAMPLES]).astype(np.float32)
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
  for case in cases.values():
    case()
  walls, cpus = _take_turns(cases)
  print(f'{"":26} {"inputs/s":>9} {"ms of CPU":>10}')
  for name in cases:
    wall, cpu = statistics.median(walls[name]), statistics.median(cpus[name])
    print(f'{name:26} {number / wall:9.1f} {1000 * cpu / number:10.1f}')


class _Pictures:
  """Pictures of a video: a pattern that moves, and noise."""

  def __init__(self):
    self._size = [int(side) for side in _SIZE.value]
    rows, columns = np.indices(self._size)
    waves = [np.sin(rows / 9 + columns / (15 + 7 * color)) for color in range(3)]
    self._pattern = (96 + 64 * np.stack(waves, -1)).astype(np.uint8)

  def __len__(self):
    return _SECONDS.value * _PICTURE_RATE

  def __getitem__(self, index: int) -> np.ndarray:
    if index >= len(self):
      raise IndexError
    noise = np.random.default_rng(index).integers(0, 24, [*self._size, 1], np.uint8)
    return np.roll(self._pattern, 3 * index, axis=1) + noise


def _student(cells: int) -> Callable[[], Any]:
  """Returns what classifies one video of 300 frames by every N-th."""
  model = experiments.yt8m_distill_single(
    settings.Settings(
      frames='uniform', every_n=_EVERY_N, student_chunks=5, num_cells=cells
    )
  ).task.model
  network = video_classifier.build(model, model.network, 'network')
  number = -(-model.max_frames // _EVERY_N)
  size = sum(feature.size for feature in model.features)
  video = {
    'frames': tf.zeros([1, number, size], tf.uint8),
    'num_frames': tf.constant([number]),
  }
  forward = tf.function(
    lambda: network(video, training=False)['predictions'], autograph=False
  ).get_concrete_function()
  return lambda: forward().numpy()


def _decode(path: str, what: str, seconds: range):
  """Opens a video and decodes its pictures or its sound."""
  for _ in getattr(decode.VideoFile(path), what)(seconds):
    pass


def _measure_video(folder: str):
  """Prints seconds of each part of a video's way, for all seconds and every N-th."""
  path = f'{folder}/video.mp4'
  tone = np.sin(np.arange(_SECONDS.value * _SOUND_RATE) / 20)
  video_files.write(
    path,
    _Pictures(),
    rate=_PICTURE_RATE,
    keyframes=250,  # the default of libx264
    options={'preset': 'veryfast'},
    sound=np.stack([tone, tone[::-1]]),
    sound_rate=_SOUND_RATE,
    layout='stereo',
  )
  features = networks.FeatureNetworks(folder)
  students = {f'student, {cells} cells': _student(cells) for cells in _CELLS}
  for student in students.values():
    student()
  video = decode.VideoFile(path)
  rows = []
  for step in (1, _EVERY_N):
    seconds = range(0, _SECONDS.value, step)
    pictures, sounds = list(video.pictures(seconds)), list(video.sound(seconds))
    parts: dict[str, Callable[[], Any]] = {
      'decode pictures': functools.partial(_decode, path, 'pictures', seconds),
      'decode sound': functools.partial(_decode, path, 'sound', seconds),
      'Inception': functools.partial(features.rgb, pictures),
      'VGGish': functools.partial(features.audio, sounds),
      **students,
    }
    features.rgb(pictures[:1])  # Loads the networks.
    features.audio(sounds[:1])
    walls, cpus = _take_turns(parts)
    total = sum(map(statistics.median, cpus.values()))
    for name in parts:
      wall, cpu = statistics.median(walls[name]), statistics.median(cpus[name])
      of = 'all' if step == 1 else f'every {step}th'
      rows.append([of, name, f'{wall:.3f}', f'{cpu:.3f}', f'{cpu / total:.1%}'])
  print(f'\na video of {_SECONDS.value} s, {"x".join(_SIZE.value)}\n')
  print(report.markdown([('seconds', 'part', 's', 's of CPU', 'share'), *rows]))


def _take_turns(
  cases: dict[str, Callable[[], Any]],
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
  """Runs all cases in each round; returns seconds and CPU seconds of each."""
  walls: dict[str, list[float]] = {name: [] for name in cases}
  cpus: dict[str, list[float]] = {name: [] for name in cases}
  for _ in range(_ROUNDS.value):
    for name, case in cases.items():
      wall, cpu = time.perf_counter(), time.process_time()
      case()
      walls[name].append(time.perf_counter() - wall)
      cpus[name].append(time.process_time() - cpu)
  return walls, cpus


def main(_):
  """Prints a table for each case, and the peak memory."""
  with tempfile.TemporaryDirectory() as folder:
    feature_weights.write(folder, _inception_v3)
    if 'networks' in _CASES.value:
      _measure_networks(folder)
    if 'video' in _CASES.value:
      _measure_video(folder)
  print(f'peak memory {usage.peak_mib():,.0f} MiB')


if __name__ == '__main__':
  app.run(main)
