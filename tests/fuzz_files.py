"""Damages files that commands read, and checks how each command ends.

A damaged file is either still readable, or it is refused with one line that names it.
Run it from the repository's root:

  PYTHONPATH=.:tests python tests/fuzz_files.py --count=200
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import functools
import pathlib
import shutil
import sys
import tempfile
import time
from typing import NamedTuple
from unittest import mock

from absl import app
from absl import flags
import feature_weights
import numpy as np
import paths
import serving_cases
import tiny

from experiments.study import runner
from yt8m_distill.checkpoints import import_tf1
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.evaluation import baseline
from yt8m_distill.evaluation import report
from yt8m_distill.evaluation import results
from yt8m_distill.features import decode
from yt8m_distill.features import inception
from yt8m_distill.features import vggish
from yt8m_distill.features import weights
from yt8m_distill.features import whitening
from yt8m_distill.modeling import adaptive
from yt8m_distill.serving import ensemble
from yt8m_distill.serving import export
from yt8m_distill.serving import stopping
from yt8m_distill.trainer import screen
from yt8m_distill.utils import cli
from yt8m_distill.utils import files

_WORDS = (b'', b'null', b'[]', b'{}', b'-1', b'1e999', b'"x"', b'"../../x"', b'NaN')
DAMAGES = ('flipped', 'cut', 'zeroed', 'inserted', 'word')


class Case(NamedTuple):
  """Files, and what reads one of them.

  Attributes:
    make: fills a folder, which exists, with valid files.
    file: path in the folder of the one to damage.
    read: reads the folder.
  """

  make: Callable[[pathlib.Path], object]
  file: str
  read: Callable[[pathlib.Path], object]


def _run(folder):
  serving_cases.write_run(folder / 'run')


@functools.cache
def _exported():
  """Returns a temporary folder, which the cache keeps, with a run and its export."""
  kept = tempfile.TemporaryDirectory()
  folder = pathlib.Path(kept.name)
  serving_cases.write_run(folder / 'run', tiny.AVERAGES)
  export.export(str(folder / 'run'), str(folder / 'export'), vocabulary='')
  return kept


def _export(folder):
  shutil.copytree(_exported().name, folder, dirs_exist_ok=True)


def _ensemble(folder):
  return ensemble.Ensemble([str(folder / 'export')], None, 4)


def _network(folder):
  return trained_network.Network(str(folder / 'run'))


def _rule(folder):
  run = serving_cases.write_nested_run(folder, [2, 4])
  rule = adaptive.Rule([2, 4], 'top', 0.5)
  stopping.write(str(folder / 'stopping.json'), rule, trained_network.Network(run))


@functools.cache
def _nested_network(run):
  return trained_network.Network(run)


def _vocabulary(folder):
  lines = ['Index,Name', *(f'{n},"Class, {n}"' for n in range(tiny.CLASSES))]
  (folder / 'vocabulary.csv').write_text('\n'.join(lines))


def _tf1(folder):
  shutil.copytree(paths.GOLDEN / 'tf1_checkpoint' / 'student', folder / 'tf1')


def _read_tf1(folder):
  import_tf1.convert(
    str(folder / 'tf1'),
    str(folder / f'out{time.monotonic_ns()}'),
    every_n=10,
    student_chunks=3,
    teacher_chunks=4,
    max_frames=60,
    features=['rgb:12', 'audio:4'],
  )


def _rgb(folder):
  return whitening.load_rgb(str(folder))


def _mediapipe(folder):
  feature_weights.write_whitening(folder)
  for name in (weights.MEAN, weights.EIGENVALUES, weights.EIGENVECTORS):
    (folder / name).unlink(missing_ok=True)


def _info(folder):
  params = tiny.experiment()
  metric = params.trainer.best_checkpoint_eval_metric
  (folder / 'best_ckpt').mkdir()
  files.write_json(
    str(folder / 'best_ckpt/info.json'), {'best_ckpt_global_step': 7.0, metric: 0.5}
  )


def _read_info(folder):
  with contextlib.redirect_stdout(None):
    screen.show_end(tiny.experiment(), str(folder))


def _baseline(folder):
  records = str(folder / 'records.tfrecord')
  tiny.write_records(records, 3)
  baseline.of_run(str(folder), _baseline_task(folder))


def _baseline_task(folder):
  task = tiny.experiment().task
  task.train_data.input_path = str(folder / 'records.tfrecord')
  task.validation_data.input_path = task.train_data.input_path
  return task


def _finished(folder):
  files.write_json(str(folder / 'finished.json'), {'seconds': 12.5})


def _video(folder):
  import video_files  # Needs PyAV.

  video_files.write(
    folder / 'video.mp4', [video_files.numbered(n) for n in range(30)], rate=10
  )


def _read_video(folder):
  for _ in decode.VideoFile(str(folder / 'video.mp4')).pictures():
    pass


def _narrow(function):
  """Returns a function that sees a small VGGish."""

  def call(folder):
    with mock.patch.object(vggish, 'VARIABLES', feature_weights.narrow_variables()):
      return function(folder)

  return call


CASES = {
  'checkpoint, index': Case(_run, 'run/ckpt-7.index', _network),
  'checkpoint, data': Case(_run, 'run/ckpt-7.data-00000-of-00001', _network),
  'checkpoint, name': Case(_run, 'run/checkpoint', _network),
  'params.yaml': Case(_run, 'run/params.yaml', _network),
  'evaluation.json': Case(
    _run, 'run/evaluation.json', lambda folder: report.table([str(folder / 'run')])
  ),
  'evaluation.json of a network': Case(_run, 'run/evaluation.json', _network),
  'vocabulary.csv': Case(
    _vocabulary,
    'vocabulary.csv',
    lambda folder: results.read_vocabulary(
      str(folder / 'vocabulary.csv'), tiny.CLASSES
    ),
  ),
  'stopping.json': Case(
    _rule,
    'stopping.json',
    lambda folder: stopping.read(
      str(folder / 'stopping.json'), _nested_network(str(folder / 'run'))
    ),
  ),
  'TensorFlow 1, index': Case(_tf1, 'tf1/model.ckpt-6.index', _read_tf1),
  'TensorFlow 1, data': Case(_tf1, 'tf1/model.ckpt-6.data-00000-of-00001', _read_tf1),
  'SavedModel, graph': Case(_export, 'export/saved_model.pb', _ensemble),
  'SavedModel, index': Case(_export, 'export/variables/variables.index', _ensemble),
  'SavedModel, data': Case(
    _export, 'export/variables/variables.data-00000-of-00001', _ensemble
  ),
  'input.json': Case(_export, 'export/input.json', _ensemble),
  'Inception': Case(
    feature_weights.write_inception,
    weights.INCEPTION,
    lambda folder: inception.Inception(str(folder)),
  ),
  'mean.npy': Case(feature_weights.write_whitening, weights.MEAN, _rgb),
  'matrix of MediaPipe': Case(_mediapipe, weights.RGB_MEAN, _rgb),
  'VGGish': Case(
    _narrow(feature_weights.write_vggish),
    weights.VGGISH,
    _narrow(lambda folder: vggish.VGGish(str(folder))),
  ),
  'baseline.json': Case(
    _baseline,
    'baseline.json',
    lambda folder: baseline.of_run(str(folder), _baseline_task(folder)),
  ),
  'info.json': Case(_info, 'best_ckpt/info.json', _read_info),
  'finished.json': Case(
    _finished, 'finished.json', lambda folder: runner.finished(str(folder))
  ),
  'video': Case(_video, 'video.mp4', _read_video),
  'vggish_pca_params.npz': Case(
    feature_weights.write_whitening,
    weights.AUDIO_PCA,
    lambda folder: whitening.load_audio(str(folder)),
  ),
}


def damage(content: bytes, kind: str, rng: np.random.Generator) -> bytes:
  """Returns a file's content with one damage, one of DAMAGES."""
  place = int(rng.integers(max(1, len(content))))
  before, after = content[:place], content[place:]
  if kind == 'flipped':
    return before + bytes([after[0] ^ 1 << rng.integers(8)]) + after[1:]
  if kind == 'cut':
    return before
  if kind == 'zeroed':
    return before + bytes(min(8, len(after))) + after[8:]
  if kind == 'inserted':
    return before + rng.bytes(rng.integers(1, 9)) + after
  # Replaces what looks like a value of JSON, YAML or CSV.
  parts = before.rpartition(b' ')
  value = (parts[2] + after).split(b'\n')[0].split(b',')[0]
  return parts[0] + parts[1] + rng.choice(_WORDS) + (parts[2] + after)[len(value) :]


def run(name: str, folder: pathlib.Path, count: int, seed: int) -> Iterator[tuple]:
  """Damages the file of a case, again and again.

  Args:
    name: of the case.
    folder: an empty one.
    count: number of damaged files.
    seed: of the damage.

  Yields:
    The kind of damage, the outcome ('read', 'refused', or what is wrong) and the
    damaged content.
  """
  case, rng = CASES[name], np.random.default_rng(seed)
  case.make(folder)
  path = folder / case.file
  content = path.read_bytes()
  case.read(folder)  # It is valid.
  for number in range(count):
    kind = DAMAGES[number % len(DAMAGES)]
    damaged = damage(content, kind, rng)
    path.write_bytes(damaged)
    yield kind, _outcome(case, folder), damaged


def _names(file: str) -> Iterator[str]:
  """Yields what a message may call a file: a checkpoint, an export, or a file."""
  yield file.split('.index')[0].split('.data-')[0]
  if file.startswith('export/'):
    yield 'export'
  if file == 'run/checkpoint':  # It says which checkpoint the folder holds.
    yield 'run'


def _outcome(case: Case, folder: pathlib.Path) -> str:
  try:
    case.read(folder)
  except cli.REPORTED as error:
    message = cli.message(error)
    if not any(str(folder / name) in message for name in _names(case.file)):
      return f'does not name the file: {message}'
    if len(message) > 1500:
      return f'is long: {message[:1500]}'
    return 'refused'
  except Exception as error:
    return f'{type(error).__name__}: {error}'
  return 'read'


def main(_):
  """Prints counts, and all outcomes that are wrong."""
  wrong = 0
  for name in CASES:
    counts = collections.Counter[str]()
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
      for kind, outcome, damaged in run(
        name, pathlib.Path(folder), flags.FLAGS.count, flags.FLAGS.seed
      ):
        is_right = outcome in ('read', 'refused')
        counts[outcome if is_right else 'wrong'] += 1
        if not is_right:
          wrong += 1
          print(f'{name}, {kind}: {outcome}\n  {damaged[:80]!r}')
    print(f'{name}: {dict(counts)}, {time.process_time() - start:.1f} s', flush=True)
  sys.exit(wrong > 0)


if __name__ == '__main__':
  # Not on import, because other commands define flags of the same names.
  flags.DEFINE_integer('count', 200, 'Damaged files per case.')
  flags.DEFINE_integer('seed', 0, 'Seed of the damage.')
  app.run(main)
