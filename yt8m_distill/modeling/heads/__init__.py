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

  Returns:
    The head.
  """
  # The fields of a configuration are the arguments of its head.
  return _HEADS[config.type](num_classes, name='head', **config.get().as_dict())
