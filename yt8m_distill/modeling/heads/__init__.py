"""Heads: from the representation of a video to its classes."""

import tf_keras

from yt8m_distill.modeling.heads.logistic import LogisticHead
from yt8m_distill.modeling.heads.moe import MoeHead

_HEADS = {'moe': MoeHead, 'logistic': LogisticHead}


def build(config, num_classes: int) -> tf_keras.layers.Layer:
  """Builds a head.

  Args:
    config: a `configs.model.Head`.
    num_classes: V.

  Raises:
    ValueError: no such head, or a field of it is out of its range.
  """
  if config.type not in _HEADS:
    raise ValueError(
      f'head.type is {config.type!r}: choose one of {", ".join(_HEADS)}.'
    )
  # The fields of a configuration are the arguments of its head.
  return _HEADS[config.type](num_classes, name='head', **config.get().as_dict())
