"""Reads checkpoints of the authors' TensorFlow 1.3 code.

They name variables, `model/...` the teacher's and `model_student/...` the
student's. An LSTM's columns are there the gates i, j, f, o, here i, f, g, o,
where g is their j; and the 1.0 that their cell adds to f when it runs is here
part of the bias. Shapes are the same. The optimizers' slots stay behind.
"""

from collections.abc import Iterator
import dataclasses
import re

import numpy as np
import tensorflow as tf

from yt8m_distill.checkpoints import restore
from yt8m_distill.checkpoints import run_dir
from yt8m_distill.modeling import video_classifier

_SCOPES = {'teacher': 'model', 'student': 'model_student'}
_FORGET_BIAS = 1.0
# Of the optimizers, and a scalar that the original leaves unnamed.
_LEFT_BEHIND = re.compile(r'.*/Adam(_1)?|.*/beta[12]_power|global_step|Variable')


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What the shapes tell of a network; features: values of a frame."""

  features: int
  num_cells: int
  num_layers: int
  num_classes: int
  num_mixtures: int


class Tf1Checkpoint:
  """A checkpoint of teacher and student, or of the student alone.

  Attributes:
    prefix: of its files.
    networks: 'teacher' and 'student', or 'student'.
    sizes: of its networks, which are alike.
    global_step: as stored; every optimizer adds 1 to it in a step.
  """

  def __init__(self, path: str):
    """Opens a checkpoint.

    Args:
      path: prefix, or a folder with a `checkpoint` file.

    Raises:
      ValueError: there is none, or it is not one of that code.
    """
    self.prefix = run_dir.checkpoint(path)
    try:
      self._reader = tf.train.load_checkpoint(self.prefix)
    except (RuntimeError, tf.errors.OpError) as error:
      raise ValueError(
        f'{self.prefix} cannot be read: {error}. Copy its files again.'
      ) from error
    shapes = self._reader.get_variable_to_shape_map()
    self._shapes = {
      name: shape for name, shape in shapes.items() if not _LEFT_BEHIND.fullmatch(name)
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
    self.global_step = int(self._reader.get_tensor('global_step'))

  def load(self, networks: dict[str, video_classifier.VideoClassifier]):
    """Assigns all weights.

    Args:
      networks: one of `sizes` for each of `self.networks`.

    Raises:
      ValueError: names or shapes differ from those of that code.
    """
    variables = {}
    for name, network in networks.items():
      variables.update(_variables(network, _SCOPES[name]))
    expected = {name: variable.shape.as_list() for name, variable in variables.items()}
    differences = [
      f'{name}: {self._shapes.get(name, "absent")} in the checkpoint, '
      f'{expected.get(name, "absent")} there'
      for name in sorted({**expected, **self._shapes})
      if expected.get(name) != self._shapes.get(name)
    ]
    if differences:
      raise self._other_code(differences)
    for name, variable in variables.items():
      variable.assign(_convert(name, self._reader.get_tensor(name)))

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
      f"{self.prefix} is not a checkpoint of the authors' TensorFlow 1.3 "
      f'code (HierarchicalLstmModel). {restore.some_of(differences)}. '
      'Choose one that is; a run of this package needs no import.'
    )


def _cell(scope: str, level: str, layer: int) -> str:
  return f'{scope}/RNN_{level}/rnn/multi_rnn_cell/cell_{layer}/basic_lstm_cell'


def _variables(
  network: video_classifier.VideoClassifier, scope: str
) -> Iterator[tuple[str, tf.Variable]]:
  """Yields each variable of a network with the original's name of it."""
  for level, stack in (('L1', network.backbone.lower), ('L2', network.backbone.upper)):
    for layer, (kernel, bias) in enumerate(zip(stack.kernels, stack.biases)):
      yield f'{_cell(scope, level, layer)}/kernel', kernel
      yield f'{_cell(scope, level, layer)}/bias', bias
  yield f'{scope}/classifier/gates/weights', network.head.gates.kernel
  yield f'{scope}/classifier/experts/weights', network.head.experts.kernel
  yield f'{scope}/classifier/experts/biases', network.head.experts.bias


def _convert(name: str, value: np.ndarray) -> np.ndarray:
  """From the original's gates to ours."""
  if '/basic_lstm_cell/' not in name:
    return value
  i, j, f, o = np.split(value, 4, axis=-1)
  if name.endswith('/bias'):
    f = f + _FORGET_BIAS
  return np.concatenate([i, f, j, o], axis=-1)
