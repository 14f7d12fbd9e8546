"""The registry of heads.

B videos, R representation, V classes.
"""

from collections.abc import Callable

from official.core import registry
import tf_keras

_HEADS: dict[str, type[tf_keras.layers.Layer]] = {}


def register(name: str) -> Callable:
  """Registers the class of a head, also with Keras.

  A head is a Keras layer from a representation [B, R] to predictions float32 [B, V]
  in [0, 1]. Its arguments are the number of classes and, by name, the fields of its
  configuration, which cannot be called `name` or `num_classes`. Its method `flops()`
  returns the FLOPs of a video: 2 per multiply-add.

  Args:
    name: the type of the head in a configuration.

  Returns:
    A class decorator.
  """

  def decorate(cls):
    package = cls.__module__.partition('.')[0]
    cls = tf_keras.utils.register_keras_serializable(package=package)(cls)
    return registry.register(_HEADS, name)(cls)

  return decorate


def build(config, num_classes: int) -> tf_keras.layers.Layer:
  """Builds a head.

  Args:
    config: a `configs.model.Head`.
    num_classes: V.

  Returns:
    The head, without variables.

  Raises:
    LookupError: no head is registered under the type.
  """
  head = registry.lookup(_HEADS, config.type)
  return head(num_classes, name='head', **config.get().as_dict())
