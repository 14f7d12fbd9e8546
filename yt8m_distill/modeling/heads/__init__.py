"""Heads: from the representation of a video to its classes."""

import tf_keras

from yt8m_distill.modeling.heads.moe import MoeHead


def build(config, num_classes: int) -> tf_keras.layers.Layer:
  """Builds a head.

  Args:
    config: a `configs.model.Head`.
    num_classes: V.

  Raises:
    ValueError: no such head, or a field of it is out of its range.
  """
  if config.type == 'moe':
    moe = config.moe
    return MoeHead(num_classes, num_mixtures=moe.num_mixtures,
                   l2_weight_decay=moe.l2_weight_decay, name='head')
  raise ValueError(f'head.type is {config.type!r}: choose moe.')
