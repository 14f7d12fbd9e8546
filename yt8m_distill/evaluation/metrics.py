"""Exact YouTube-8M metrics: Hit@1, PERR, GAP and mAP of an evaluation set.

On the device, `video_metrics.compute` reduces all scores of a batch to two values
and a top-k list per video. Here, on the host, `GlobalMetrics` keeps the lists, 8
bytes for each (score, hit) pair, and sorts all of them at the end. It never
averages values of batches.

Definitions follow google/youtube-8m (eval_util.py,
average_precision_calculator.py, mean_average_precision_calculator.py):

* Hit@1: whether the class with the highest score is a label; at ties, the first.
* PERR: for a video with n labels, the fraction of labels among its n highest
  scores. A hit counts only if its score is above 0. A video without labels counts
  as 0, here and in Hit@1.
* GAP: pool the (score, hit) pairs of every video's top k and sort them by score.
  Sum the precision at each hit; divide by the number of positive labels, including
  those outside the top k.
* mAP: the same for the pairs of each class with its own number of positive labels;
  the unweighted mean over classes.

Deviations, all about equal scores, rounding or empty classes:

* The original shuffles equal scores with a fixed seed before sorting, so its GAP
  and mAP depend on the order of the videos. Here a group of equal scores counts
  with its expected value over all orders, so the order of batches, replicas and
  workers does not matter.
* In PERR and at the top-k cut, the lower class comes first among equal scores. The
  original takes an arbitrary one.
* GAP and AP are summed in float64; under Python 3 the original uses float32.
* A class without positive labels counts as AP 0 in mAP, as in the original until
  May 2019 and in the Model Garden, or is excluded, as in the original since then:
  `empty_classes`.

Shapes: B videos, V classes, K top k, N pairs, H hits, G groups of equal scores.
"""

import numpy as np

# A pair is one uint64 key: 31 bits of class, 32 of score (high scores first), 1 of
# hit. Sorted keys are the lists of all classes; without the class bits, GAP's list.
_HIT = np.uint64(1)
_SCORE_BITS = np.uint64(32)
_CLASS_SHIFT = np.uint64(33)
_NO_CLASS = np.uint64(2**33 - 1)


class GlobalMetrics:
  """Hit@1, PERR, GAP and mAP over all videos of an evaluation, on the host.

  Results do not depend on the order of videos or their split into updates.
  """

  def __init__(self, num_classes, empty_classes='zero'):
    """Starts an empty evaluation.

    Args:
      num_classes: V, below 2 ** 31.
      empty_classes: how a class without positive labels counts in mAP: 'zero'
        (AP 0) or 'skip' (excluded).

    Raises:
      ValueError: empty_classes is neither 'zero' nor 'skip'.
    """
    if empty_classes not in ('zero', 'skip'):
      raise ValueError(f'empty_classes is {empty_classes!r}: choose zero or skip.')
    self._num_classes = num_classes
    self._empty_classes = empty_classes
    self._num_videos = 0
    self._hit_at_one_sum = 0.0
    self._perr_sum = 0.0
    self._positives_V = np.zeros(num_classes, np.int64)
    self._blocks = []  # Keys of pairs, uint64 [N] each.

  @property
  def num_videos(self):
    """Number of videos added so far."""
    return self._num_videos

  @property
  def positives(self):
    """Positive labels of each class so far, int64 [V] (a copy)."""
    return self._positives_V.copy()

  def update(self, hit_at_one, perr, scores, classes, hits, positives):
    """Adds the outputs of `video_metrics.compute` for a batch.

    Args:
      hit_at_one: [B]; B may be 0.
      perr: [B].
      scores: top-k scores [B, K]; K may differ between updates.
      classes: classes of the scores, integers [B, K].
      hits: whether these classes are labels, bool [B, K].
      positives: number of positive labels of each class in the batch [V],
        including those outside the top k.

    Raises:
      ValueError: shapes do not match, a score is not finite, a class is not in
        0..V-1, or there are more hits than positive labels. Nothing is added.
    """
    hit_at_one = np.asarray(hit_at_one, np.float64)
    perr = np.asarray(perr, np.float64)
    scores = np.asarray(scores, np.float32)
    classes = np.asarray(classes)
    hits = np.asarray(hits, bool)
    positives = np.asarray(positives).astype(np.int64)
    self._check(hit_at_one, perr, scores, classes, hits, positives)

    # Sums of float32 values in float64 are exact for millions of videos, so their
    # order does not matter.
    self._num_videos += len(hit_at_one)
    self._hit_at_one_sum += hit_at_one.sum()
    self._perr_sum += perr.sum()
    self._positives_V += positives
    self._blocks.append(_pack(scores.ravel(), classes.ravel(), hits.ravel()))

  def merge(self, other):
    """Adds everything that was added to another instance of the same classes."""
    self._num_videos += other._num_videos
    self._hit_at_one_sum += other._hit_at_one_sum
    self._perr_sum += other._perr_sum
    self._positives_V += other._positives_V
    self._blocks += other._blocks

  def average_precisions(self):
    """Returns the AP of each class, float64 [V]; 0 without positive labels."""
    return self._average_precisions(self._sorted_keys())

  def result(self):
    """Computes the metrics of everything added so far; more may be added later.

    Returns:
      A dict of floats `hit_at_one`, `perr`, `gap` and `map`, from 0 to 1. All are 0
      if no video has a label.

    Raises:
      ValueError: no video was added.
    """
    if not self._num_videos:
      raise ValueError(
        'No videos were evaluated: check that task.validation_data.input_path '
        'matches files with records and that trainer.validation_steps is not 0.'
      )
    keys_N = self._sorted_keys()
    precisions = self._average_precisions(keys_N)
    if self._empty_classes == 'skip':
      precisions = precisions[self._positives_V > 0]
    keys_N &= _NO_CLASS
    keys_N.sort()
    gap_sum = _precision_sums(keys_N, 1)[0]
    return {
      'hit_at_one': float(self._hit_at_one_sum / self._num_videos),
      'perr': float(self._perr_sum / self._num_videos),
      'gap': float(gap_sum / max(self._positives_V.sum(), 1)),
      'map': float(precisions.mean()) if precisions.size else 0.0,
    }

  def _sorted_keys(self):
    """Returns the sorted keys of all pairs, a new uint64 [N]."""
    # The empty block is for evaluations without any.
    keys_N = np.concatenate([np.zeros(0, np.uint64), *self._blocks])
    keys_N.sort()
    return keys_N

  def _average_precisions(self, keys_N):
    """Computes `average_precisions` from the sorted keys."""
    sums_V = _precision_sums(keys_N, self._num_classes)
    return sums_V / np.maximum(self._positives_V, 1)

  def _check(self, hit_at_one, perr, scores, classes, hits, positives):
    """Raises a ValueError for an invalid batch; see `update`."""
    videos, pairs = hit_at_one.shape, scores.shape
    if not (
      len(videos) == 1
      and perr.shape == videos
      and len(pairs) == 2
      and pairs[:1] == videos
      and classes.shape == hits.shape == pairs
      and positives.shape == self._positives_V.shape
    ):
      raise ValueError(
        'expected hit_at_one [B], perr [B], scores [B, K], classes [B, K], '
        f'hits [B, K] and positives [{self._num_classes}], not {videos}, '
        f'{perr.shape}, {pairs}, {classes.shape}, {hits.shape} and '
        f'{positives.shape}.'
      )
    check_finite(scores)
    if scores.size and not (classes.min() >= 0 and classes.max() < self._num_classes):
      raise ValueError(
        f'classes must be from 0 to {self._num_classes - 1}, '
        f'not {classes.min()} to {classes.max()}.'
      )
    if hits.sum() > positives.sum():
      raise ValueError(
        f'{hits.sum()} hits, but only {positives.sum()} positive labels: '
        'positives must count all labels of the same batch.'
      )


def check_finite(scores):
  """Raises a ValueError if some scores are NaN or infinite."""
  if not np.isfinite(scores).all():
    raise ValueError(
      'scores must be finite, but some are NaN or infinite: '
      'the network has probably diverged.'
    )


def descending_bits(scores):
  """Maps finite float32 scores to uint32, so that ascending means descending scores."""
  bits = (scores + np.float32(0)).view(np.int32)  # + 0 turns -0 into 0.
  # The bits of floats from 0 up ascend as integers, those of negative ones descend.
  return np.where(bits < 0, bits, ~bits & 0x7FFFFFFF).view(np.uint32)


def _pack(scores_N, classes_N, hits_N):
  """Packs pairs into keys, uint64 [N]."""
  keys_N = classes_N.astype(np.uint64) << _SCORE_BITS | descending_bits(scores_N)
  return keys_N << _HIT | hits_N


def _precision_sums(keys_N, num_segments):
  """Sums the precision at each hit, expected over all orders of equal scores.

  Consider a group of m equal scores with g hits, after n pairs with h hits. Its
  j-th place is a hit with probability g / m. If so, each of the j - 1 places before
  it is a hit with probability (g - 1) / (m - 1). So the place adds
    g / m * (h + 1 + (j - 1) * (g - 1) / (m - 1)) / (n + j).

  Args:
    keys_N: sorted keys, uint64 [N]. The keys of a class form a segment; keys
      without class bits form a single one.
    num_segments: number of segments.

  Returns:
    float64 [num_segments]; 0 for a segment without hits.
  """
  is_hit_N = np.empty(keys_N.shape, bool)  # Faster than 8 bytes per pair.
  np.bitwise_and(keys_N, _HIT, out=is_hit_N, casting='unsafe')
  positions_H = np.flatnonzero(is_hit_N)
  if not positions_H.size:
    return np.zeros(num_segments)
  # Most groups have no hits and add nothing. G counts only those with hits.
  scores_H = keys_N[positions_H] >> _HIT
  first_G = np.flatnonzero(np.append(True, scores_H[1:] != scores_H[:-1]))
  hits_G = np.diff(first_G, append=positions_H.size)
  scores_G = scores_H[first_G]
  starts_G = np.searchsorted(keys_N, scores_G << _HIT)
  # A group's hits are its last pairs, so its end needs no search.
  sizes_G = positions_H[first_G + hits_G - 1] + 1 - starts_G

  segments_G = (scores_G >> _SCORE_BITS).astype(np.int64)
  segment_starts = np.searchsorted(
    keys_N, np.arange(num_segments, dtype=np.uint64) << _CLASS_SHIFT
  )
  segment_hits = np.searchsorted(positions_H, segment_starts)
  pairs_before_G = starts_G - segment_starts[segments_G]
  hits_before_G = first_G - segment_hits[segments_G]

  # From here on, N counts the pairs of these groups.
  first_G = np.cumsum(sizes_G) - sizes_G
  before_N = np.arange(sizes_G.sum()) - np.repeat(first_G, sizes_G)  # j - 1.
  share_G = (hits_G - 1) / np.maximum(sizes_G - 1, 1)
  precision_N = before_N * np.repeat(share_G, sizes_G)
  precision_N += np.repeat(hits_before_G + 1, sizes_G)
  precision_N /= np.repeat(pairs_before_G + 1, sizes_G) + before_N
  sums_G = np.add.reduceat(precision_N, first_G) * (hits_G / sizes_G)
  return np.bincount(segments_G, weights=sums_G, minlength=num_segments)
