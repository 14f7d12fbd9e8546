"""Imports a checkpoint of the authors' TensorFlow 1.3 code.

  yt8m-distill import-tf1 CHECKPOINT OUT --every_n=10

CHECKPOINT is a prefix or a folder. OUT becomes a run of this package, without
optimizer state: of teacher and student (`yt8m_distill`), or of the student only
(`yt8m_distill_finetune`), configured as in gin/original.gin and
gin/original_finetune.gin. Sizes are inferred from the shapes of the variables;
flags give the rest. Their defaults are those of the original.

The step of a teacher and student is half the original's global_step, because
both optimizers increment it. The step of a student only is its global_step:
fine-tuning increments it once a step, and how much of it parallel training had
counted before cannot be told.

The original stores variables by name: `model/...` for the teacher,
`model_student/...` for the student. It orders an LSTM's gates i, j, f, o; this
package orders them i, f, g, o, where g is the original's j. The original's cell
adds 1.0 to f at run time; here it is part of the bias. Shapes are the same.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import re

from absl import flags
import numpy as np
from official.core import config_definitions as cfg
import tensorflow as tf

from yt8m_distill.checkpoints import run_dir
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.configs import data
from yt8m_distill.configs import experiments
from yt8m_distill.configs import settings
from yt8m_distill.configs import validation
from yt8m_distill.modeling import distiller
from yt8m_distill.modeling import video_classifier
from yt8m_distill.utils import cli
from yt8m_distill.utils import files

FLAGS = flags.FLAGS
_SCOPES = {'teacher': 'model', 'student': 'model_student'}
_FORGET_BIAS = 1.0
# Optimizer state, and a scalar without a name of its own.
_IGNORED = re.compile(r'.*/Adam(_1)?|.*/beta[12]_power|global_step|Variable')
_ORIGINAL = "the authors' TensorFlow 1.3 code (HierarchicalLstmModel)"


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Sizes of a network, inferred from shapes; features: values per frame."""

  features: int
  num_cells: int
  num_layers: int
  num_classes: int
  num_mixtures: int


class Checkpoint:
  """An original checkpoint of teacher and student, or of the student only.

  Attributes:
    prefix: prefix of its files.
    networks: names of its networks, ('teacher', 'student') or ('student',).
    sizes: sizes of each network; teacher and student have the same.
    global_step: as stored; each optimizer adds 1 to it in every step.
  """

  def __init__(self, path: str):
    """Opens a checkpoint.

    Args:
      path: prefix, or a folder with a `checkpoint` file.

    Raises:
      ValueError: there is none, or other code wrote it.
    """
    try:
      self.prefix = run_dir.checkpoint(path)
    except ValueError as error:
      what = 'a folder without' if tf.io.gfile.isdir(path) else 'not the prefix of'
      raise ValueError(
        f'{path} is {what} a checkpoint. Name a checkpoint of {_ORIGINAL}, such as '
        '.../model.ckpt-1000, or its folder.'
      ) from error
    with run_dir.reading(self.prefix):
      self._reader = tf.train.load_checkpoint(self.prefix)
    shapes = self._reader.get_variable_to_shape_map()
    self._shapes = {
      name: shape for name, shape in shapes.items() if not _IGNORED.fullmatch(name)
    }
    self.networks = tuple(
      name
      for name, scope in _SCOPES.items()
      if name == 'student'
      or any(variable.startswith(f'{scope}/') for variable in self._shapes)
    )
    self.sizes = self._infer_sizes()
    if 'global_step' not in shapes:
      raise self._other_code(['global_step: absent'])
    self.global_step = int(self._value('global_step'))

  def load(self, networks: dict[str, video_classifier.VideoClassifier]):
    """Assigns all weights.

    Args:
      networks: a network of the sizes `sizes` for each name in `self.networks`.

    Raises:
      ValueError: names or shapes of variables differ from the original's.
    """
    variables: dict[str, tf.Variable] = {}
    for name, network in networks.items():
      variables.update(_variables(network, _SCOPES[name]))
    expected = {name: variable.shape.as_list() for name, variable in variables.items()}
    differences = [
      f'{name}: {self._shapes.get(name, "absent")} in the checkpoint, '
      f'{expected.get(name, "absent")} in the original'
      for name in sorted({**expected, **self._shapes})
      if expected.get(name) != self._shapes.get(name)
    ]
    if differences:
      raise self._other_code(differences)
    for name, variable in variables.items():
      variable.assign(_convert(name, self._value(name)))

  def _value(self, name: str) -> np.ndarray:
    with run_dir.reading(self.prefix):
      return self._reader.get_tensor(name)

  def _infer_sizes(self) -> Sizes:
    scope = _SCOPES['student']
    names = [
      f'{_cell(scope, "L1", 0)}/kernel',
      f'{scope}/classifier/gates/weights',
      f'{scope}/classifier/experts/weights',
    ]
    missing = [
      f'{name}: absent' for name in names if len(self._shapes.get(name, ())) != 2
    ]
    if missing:
      raise self._other_code(missing)
    kernel, gates, experts = (self._shapes[name] for name in names)
    cells, classes = kernel[1] // 4, gates[1] - experts[1]
    if cells < 1 or classes < 1:
      raise self._other_code([f'{name}: {self._shapes[name]}' for name in names])
    return Sizes(
      features=kernel[0] - cells,
      num_cells=cells,
      num_layers=experts[0] // (2 * cells),
      num_classes=classes,
      num_mixtures=experts[1] // classes,
    )

  def _other_code(self, differences) -> ValueError:
    return ValueError(
      f'{self.prefix} is not a checkpoint of {_ORIGINAL}. '
      f'{cli.some_of(differences)}. Name one that is; a run of this package needs '
      'no import.'
    )


def _cell(scope: str, level: str, layer: int) -> str:
  return f'{scope}/RNN_{level}/rnn/multi_rnn_cell/cell_{layer}/basic_lstm_cell'


def _variables(
  network: video_classifier.VideoClassifier, scope: str
) -> Iterator[tuple[str, tf.Variable]]:
  """Yields the original's name and the variable, for each one of a network."""
  for level, stack in (('L1', network.backbone.lower), ('L2', network.backbone.upper)):
    for layer, (kernel, bias) in enumerate(zip(stack.kernels, stack.biases)):
      yield f'{_cell(scope, level, layer)}/kernel', kernel
      yield f'{_cell(scope, level, layer)}/bias', bias
  yield f'{scope}/classifier/gates/weights', network.head.gates.kernel
  yield f'{scope}/classifier/experts/weights', network.head.experts.kernel
  yield f'{scope}/classifier/experts/biases', network.head.experts.bias


def _convert(name: str, value: np.ndarray) -> np.ndarray:
  """Converts a variable's value from the original's order of gates."""
  if '/basic_lstm_cell/' not in name:
    return value
  i, j, f, o = np.split(value, 4, axis=-1)
  if name.endswith('/bias'):
    f = f + _FORGET_BIAS
  return np.concatenate([i, f, j, o], axis=-1)


def convert(
  checkpoint: str,
  out: str,
  *,
  every_n: int,
  student_chunks: int,
  teacher_chunks: int,
  max_frames: int,
  features: Sequence[str],
):
  """Writes an original checkpoint as a run into `out`.

  Args:
    checkpoint: prefix or folder.
    out: folder to write; must not exist, or be empty.
    every_n: N; the student sees frames 0, N, 2N, ...
    student_chunks: number of chunks of the student's frames.
    teacher_chunks: number of chunks of all frames; unused without a teacher.
    max_frames: longer videos are cut to this number of frames.
    features: 'NAME:BYTES' of each feature of a frame, in concatenation order.

  Raises:
    ValueError: there is no checkpoint of the original code, features or chunks
      do not fit it, or `out` is not empty.
  """
  files.check_empty(out)
  source = Checkpoint(checkpoint)
  sizes = source.sizes
  parsed = data.parse_features(features)
  total = sum(feature.size for feature in parsed)
  if total != sizes.features:
    raise ValueError(
      f'--features={",".join(features)} are {total} values per frame, but '
      f'{source.prefix} has {sizes.features}. Name the features it was trained on.'
    )
  shared = settings.Settings(
    every_n=every_n,
    length='original',
    student_chunks=student_chunks,
    max_frames=max_frames,
    num_cells=sizes.num_cells,
    num_layers=sizes.num_layers,
    num_mixtures=sizes.num_mixtures,
    num_classes=sizes.num_classes,
    learning_rate_decay=1.0,
    adam_epsilon=1e-8,
  )
  if 'teacher' in source.networks:
    params = experiments.yt8m_distill(
      dataclasses.replace(
        shared,
        teacher_chunks=teacher_chunks,
        representation_weight=2.0,
        prediction_reduction='sum',
        train_steps=95834,
      )
    )
  else:
    params = experiments.yt8m_distill_finetune(
      dataclasses.replace(shared, train_steps=57500)
    )
  params.task.model.features = parsed
  validation.validate(params.task.model, 'task.model')
  model = _load(source, params)
  step = source.global_step // len(source.networks)
  trained_network.write(out, model, params, step)
  print(
    f'{source.prefix} -> {out}: {" and ".join(source.networks)}, '
    f'{model.count_params():,} parameters at step {step}'
  )


def _load(source: Checkpoint, params: cfg.ExperimentConfig):
  """Builds the model of a configuration and loads the weights of `source`."""
  config = params.task.model
  if 'teacher' in source.networks:
    model = distiller.build(config)
    source.load({'teacher': model.teacher, 'student': model.student})
  else:
    model = video_classifier.build(config, config.network, 'network')
    source.load({'student': model})
  return model


def _define_flags():
  flags.DEFINE_integer('every_n', 10, 'N; the student sees frames 0, N, 2N, ...')
  flags.DEFINE_integer('student_chunks', 5, "Number of chunks of the student's frames.")
  flags.DEFINE_integer(
    'teacher_chunks', 20, "Number of chunks of the teacher's frames."
  )
  flags.DEFINE_integer('max_frames', 300, 'Maximum number of frames of a video.')
  flags.DEFINE_list(
    'features',
    'rgb:1024,audio:128',
    'NAME:BYTES of each feature of a frame, in concatenation order.',
  )


def main(argv: Sequence[str]):
  """Runs the command."""
  convert(
    *argv,
    every_n=FLAGS.every_n,
    student_chunks=FLAGS.student_chunks,
    teacher_chunks=FLAGS.teacher_chunks,
    max_frames=FLAGS.max_frames,
    features=FLAGS.features,
  )


if __name__ == '__main__':
  _define_flags()
  cli.run(main, 'CHECKPOINT', 'OUT')
