"""Averages the predictions of several networks.

Source: the original's ensembles, which average over models.

B videos, V classes, W windows.
"""

from collections.abc import Callable
from collections.abc import Sequence
import math
from typing import Any

from absl import flags
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config
from yt8m_distill.serving import signatures
from yt8m_distill.serving import windows


def define_flags():
  """Defines the flags that weight the networks of a command."""
  flags.DEFINE_list(
    'model_weights',
    [],
    'Weight of each network in the mean, separated by commas, in the order of the '
    'networks. They are divided by their sum. Default: equal weights.',
  )


def read_weights(texts: Sequence[str], count: int) -> tuple[float, ...]:
  """Returns the weights of networks, divided by their sum; () if all are equal.

  Args:
    texts: the weights; empty if none are given.
    count: number of networks.

  Raises:
    ValueError: there are not `count` weights, one is not a finite number of at least 0,
      all are 0, or their sum is not finite.
  """
  if not texts:
    return ()
  given = f'model_weights is {",".join(map(str, texts))}'
  if len(texts) != count:
    raise ValueError(
      f'{given}, {len(texts)} of them for {count} networks: give one weight for each, '
      'in the order of the networks.'
    )
  try:
    weights = [float(text) for text in texts]
  except ValueError as error:
    raise ValueError(f'{given}: {error}. Give numbers, such as 2,1,1.') from error
  total = sum(weights)
  if min(weights) < 0 or not 0 < total < math.inf:
    raise ValueError(
      f'{given}: weights must be finite, 0 or more, and not all 0, as 2,1,1.'
    )
  # The plain mean, bit for bit.
  return tuple(w / total for w in weights) if len({*weights}) > 1 else ()


def shares(weights: Sequence[float], count: int) -> Sequence[float]:
  """Returns the weight of each of `count` networks, also of those that are equal."""
  return weights or [1 / count] * count


def mean(predictions: Sequence[tf.Tensor], weights: Sequence[float]) -> tf.Tensor:
  """Returns the mean of predictions.

  Args:
    predictions: of each network, float32 [B, V].
    weights: as returned by `read_weights`.
  """
  if not weights:
    return tf.add_n(predictions) / len(predictions)
  return tf.add_n([weight * each for weight, each in zip(weights, predictions)])


def check_classes(sources: Sequence[str], counts: Sequence[int]):
  """Raises a ValueError if networks predict different numbers of classes."""
  for source, count in zip(sources, counts):
    if count != counts[0]:
      raise ValueError(
        f'{sources[0]} predicts {counts[0]} classes and {source} {count}: name '
        'networks for the same classes.'
      )


def check_alike(sources: Sequence[str], models: Sequence[model_config.ClassifierModel]):
  """Raises a ValueError unless networks can be exported as one.

  Args:
    sources: names of the networks in the message.
    models: their configurations, which must have the same classes and features.
  """
  check_classes(sources, [model.num_classes for model in models])
  read = [data.format_features(model.features) for model in models]
  for source, features in zip(sources, read):
    if features != read[0]:
      raise ValueError(
        f'{sources[0]} reads {read[0]} and {source} {features}: name networks for the '
        'same features.'
      )


class EnsembleModule:
  """Signatures that return the mean of several networks' predictions.

  They take and return what those of `signatures.ServingModule` do, except a
  `representation`, which several networks do not have in common. Each network selects
  the frames that it sees; `frames` of `record_windows` are those of all networks,
  with -1 where there is none. Without `record_windows` if the networks predict windows
  up to different frames.

  Attributes:
    modules: of the networks.
    weights: as returned by `read_weights`.
    context: frames before and after a window that a network also sees, at most.
  """

  def __init__(
    self,
    modules: Sequence[signatures.ServingModule],
    weights: Sequence[float],
  ):
    """Initializes the module.

    Args:
      modules: of the networks, which pass `check_alike`, for the same number of best
        classes and with the same names.
      weights: as returned by `read_weights`.
    """
    self.modules, self.weights = modules, weights
    self.context = max(module.context for module in modules)
    self._signatures = self._averages([m.get_inference_signatures() for m in modules])
    self._record_functions = self._averages([m.record_functions() for m in modules])
    if len({windows.last_frame(module.params.max_frames) for module in modules}) > 1:
      self._record_functions.pop('record_windows', None)

  def get_inference_signatures(self) -> dict[str, Any]:
    """Returns the signatures, tf.functions, by name."""
    return self._signatures

  def record_functions(self) -> dict[str, Any]:
    """Returns the functions of records by name, which the export keeps."""
    return self._record_functions

  def _averages(self, functions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns what averages the functions that all networks have by the same names."""
    return {
      name: tf.function(
        self._average([each[name] for each in functions]),
        autograph=False,
        input_signature=function.input_signature,
      )
      for name, function in functions[0].items()
    }

  def _average(self, functions: Sequence[Callable]) -> Callable:
    def serve(*inputs):
      outputs = [function(*inputs) for function in functions]
      results = dict(outputs[0])
      results['predictions'] = mean([o['predictions'] for o in outputs], self.weights)
      results.pop('representation', None)
      if 'class_indices' in results:
        results.update(self.modules[0].with_best(results['predictions']))
      if 'frames' in results:
        results['frames'] = tf.concat([o['frames'] for o in outputs], axis=1)
      return results

    return serve
