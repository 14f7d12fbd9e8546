"""Tells networks apart by their weights and what they read."""

from collections.abc import Iterable
from collections.abc import Sequence
import hashlib
import json
from typing import Any

import tensorflow as tf


def of(
  networks: Iterable[tuple[dict[str, Any], Sequence[tf.Variable]]],
  shares: Sequence[float] = (),
) -> str:
  """Returns a text that differs where weights or the frames that are seen differ.

  Args:
    networks: of each, what it reads, as returned by `model_card.read_frames`, and its
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
