"""Rates the windows of simulated videos, as YouTube-8M Segments does; numpy only.

Windows of 5 frames start at frames 0, 5, 10, ...; the last one may have fewer. A class
holds in a window if more than half of the window's frames, so 3 of 5, are of shots that
show the class. At most one class therefore holds in a window. Every label of a video
holds in at least one, because a shot has at least 5 frames.
"""

from typing import NamedTuple

import numpy as np

WINDOW = 5  # frames, one a second
# sparse: few windows of each video, as in the release. dense: all of them.
KINDS = ('sparse', 'dense')

# Windows that a sparse rating draws for a score of 1, and for a score of 0 only.
_ONES, _ZEROS = 3, 2


class Ratings(NamedTuple):
  """Ratings of one video, in the order of start and class.

  Attributes:
    starts: int64 [ratings], first frame of the rated window.
    classes: int64 [ratings], class that the window is rated for.
    scores: float32 [ratings], 1 if the class holds in the window, otherwise 0.
  """

  starts: np.ndarray
  classes: np.ndarray
  scores: np.ndarray


def _held(lengths: np.ndarray, shown: np.ndarray, class_ids: np.ndarray) -> np.ndarray:
  """Returns which of the classes hold in which window, bool [windows, classes]."""
  shows = np.repeat(shown, lengths)[:, None] == class_ids
  starts = np.arange(0, len(shows), WINDOW)
  sizes = np.minimum(WINDOW, len(shows) - starts)[:, None]
  return 2 * np.add.reduceat(shows, starts, axis=0, dtype=np.int64) > sizes


def _draw(rng: np.random.Generator, held: np.ndarray) -> np.ndarray:
  """Draws pairs to rate from [windows, classes]; int64 [ratings, 2], unordered."""
  order = rng.permutation(len(held))
  ones = order[held[order].any(1)][:_ONES]
  # Windows with a class that does not hold. One that is rated 1 is rated 0 as well, for
  # another label, so that scores are even.
  free = order[~held[order].all(1)]
  again = np.isin(free, ones)
  zeros = np.concatenate([free[~again][:_ZEROS], free[again][:1]])
  return np.array(
    [(window, rng.choice(np.flatnonzero(held[window]))) for window in ones]
    + [(window, rng.choice(np.flatnonzero(~held[window]))) for window in zeros]
  )


def rate(
  rng: np.random.Generator,
  kind: str,
  labels: np.ndarray,
  known: np.ndarray,
  lengths: np.ndarray,
  shown: np.ndarray,
) -> Ratings:
  """Rates windows of one video.

  Args:
    rng: source of randomness.
    kind: 'sparse' rates 5 windows for one of the video's labels each: 3 for the label
      that holds, 2 for one that does not. One of the 3 is also rated for a second
      label, which does not hold. Fewer if the video has too few such windows, or a
      single label. 'dense' rates every window for all of the video's labels, and for as
      many other classes.
    labels: the video's labels, distinct, int64 [labels].
    known: classes that videos can have, int64 [known classes].
    lengths: [shots], frames of each shot, as from `frames.shot_plan`.
    shown: [shots], label of each shot, as from `frames.shot_plan`.

  Returns:
    The ratings. Each pair of window and class occurs once.
  """
  if kind == 'sparse':
    class_ids = np.sort(labels)
    held = _held(lengths, shown, class_ids)
    pairs = _draw(rng, held)
  else:
    others = rng.permutation(np.setdiff1d(known, labels))[: len(labels)]
    class_ids = np.union1d(labels, others)
    held = _held(lengths, shown, class_ids)
    pairs = np.argwhere(np.ones_like(held))
  windows, columns = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].T
  return Ratings(
    WINDOW * windows, class_ids[columns], held[windows, columns].astype(np.float32)
  )
