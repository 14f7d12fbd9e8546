"""Which sizes of a network fit together.

Both the configuration and the layers, which can be built without one, ask here.
"""

from collections.abc import Sequence
import heapq
import itertools
import math


def check_chunks(chunks: int, frames: int, name: str = 'chunks'):
  """Raises where chunks would not have the same length.

  Args:
    chunks: number of chunks.
    frames: number of frames that they divide.
    name: of the number of chunks, for the message.

  Raises:
    ValueError: names the nearest numbers that divide the frames.
  """
  if chunks < 1 or frames % chunks:
    divisors = [n for n in range(1, frames + 1) if frames % n == 0]
    near = heapq.nsmallest(2, divisors, key=lambda n: abs(n - chunks))
    raise ValueError(
      f'{name} is {chunks}: it must divide the {frames} frames that the network sees. '
      f'Set it to {" or ".join(map(str, sorted(near)))}.'
    )


def check_counts(counts: Sequence[int], name: str = 'counts'):
  """Raises where numbers of frames do not ascend.

  Args:
    counts: the numbers.
    name: of the numbers, for the message.

  Raises:
    ValueError: there is none, or they do not ascend from 1 or more.
  """
  if not counts or counts[0] < 1 or any(a >= b for a, b in itertools.pairwise(counts)):
    raise ValueError(
      f'{name} is {list(counts)}: it must list numbers of frames, 1 or more, each '
      'larger than the one before, such as [6, 12, 18, 30].'
    )


def check_chunk_ends(chunks: int, counts: Sequence[int], name: str = 'chunks'):
  """Raises where a number of frames would end within a chunk.

  Args:
    chunks: number of chunks, which divides the last of `counts`.
    counts: ascending numbers of frames, of each of which whole chunks are read.
    name: of the number of chunks, for the message.

  Raises:
    ValueError: names the fewest chunks that fit.
  """
  if any(count % (counts[-1] // chunks) for count in counts):
    raise ValueError(
      f'{name} is {chunks}: chunks of {counts[-1] // chunks} frames do not end at each '
      f'of {list(counts)} frames. Set it to {counts[-1] // math.gcd(*counts)}.'
    )


def check_shares(value: int, features: int, name: str):
  """Raises where further features would get none of a quantity.

  Args:
    value: share of the first feature; each further one gets half of it.
    features: number of features.
    name: of the quantity, for the message.

  Raises:
    ValueError: there are several features, and the value is below 2.
  """
  if features > 1 and value < 2:
    raise ValueError(
      f'{name} is {value}: it must be at least 2, since features after the first have '
      'half as many.'
    )


def check_groups(groups: int, size: int, expansion: int, name: str = 'groups'):
  """Raises where the groups of a feature would not have the same size.

  Args:
    groups: number of groups into which the feature is split.
    size: number of its values.
    expansion: factor by which it is widened before.
    name: of the number of groups, for the message.

  Raises:
    ValueError: the groups do not divide the widened feature.
  """
  width = expansion * size
  if width % groups:
    raise ValueError(
      f'{name} is {groups} for a feature of {size} values with expansion {expansion}: '
      f'it must divide their product, {width}.'
    )
