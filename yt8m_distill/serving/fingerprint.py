"""Tells networks apart by their weights and what they read."""

from collections.abc import Iterable
from collections.abc import Sequence
import hashlib
import json
from typing import Any

import tensorflow as tf

from yt8m_distill.configs import model as model_config


def reads_of(model: model_config.ClassifierModel) -> dict[str, Any]:
  """Returns what a network reads: its features and frames, as in input.json."""
  frames = model.network.frames
  return {
    'features': [feature.as_dict() for feature in model.features],
    'max_frames': model.max_frames,
    'frames_read': {
      'at_most': frames.max_selected(model.max_frames),
      'type': frames.type,
      **frames.get().as_dict(),
    },
  }


def of(
  networks: Iterable[tuple[dict[str, Any], Sequence[tf.Variable]]],
  shares: Sequence[float] = (),
) -> str:
  """Returns a text that differs where weights or the frames that are seen differ.

  Args:
    networks: of each, what it reads, as returned by `reads_of`, and its
      variables.
    shares: weights of the networks in their mean; () if equal.
  """
  digest = hashlib.sha256()
  for reads, variables in networks:
    digest.update(json.dumps(reads, sort_keys=True).encode())
    for variable in variables:
      digest.update(variable.numpy().tobytes())
  if len({*shares}) > 1:
    digest.update(json.dumps(shares).encode())
  return digest.hexdigest()[:16]
