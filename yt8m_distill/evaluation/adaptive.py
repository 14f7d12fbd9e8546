"""Scores adaptive inference exactly, and calibrates when it stops.

A nested network answers at several numbers of frames, the counts. Adaptive inference
goes from one count to the next, and stops at a video where its answer is sure: where a
measure of confidence reaches a threshold, no frames are left, or the count is the last.
`Answers` holds the answers of a set of videos at every count, so the set is scored for
any threshold without running the network again.

Scores are those of `metrics.GlobalMetrics`. The frames of a video are those that were
seen, min(frames of the video, count). Its FLOPs are those of the count where it stops;
where its frames end before, of the count where they end.

N videos, A counts, K top k, V classes, P labels of all videos.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pandas as pd

from yt8m_distill.evaluation import metrics
from yt8m_distill.evaluation import video_metrics
from yt8m_distill.modeling import adaptive as inference
from yt8m_distill.utils import progress_bar

_THRESHOLDS = 50  # of a measure, besides 0 and 1
_EQUAL_GAP = 5e-4  # differences that are noise


def stops(
  confidences: np.ndarray,
  num_frames: np.ndarray,
  counts: Sequence[int],
  threshold: float,
) -> np.ndarray:
  """Returns the count at which each video stops, as an index; int64 [N].

  Args:
    confidences: of each answer, float32 [A, N], from 0 to 1.
    num_frames: frames of each video, integers [N].
    counts: ascending [A].
    threshold: a video stops where its confidence is at least this, from 0, which stops
      at once, to 1, which never does.
  """
  done = num_frames <= np.reshape(counts, [-1, 1])
  if threshold < 1:
    done |= confidences >= np.float32(threshold)
  done[-1] = True
  return done.argmax(axis=0)


@dataclasses.dataclass(frozen=True)
class Answers:
  """The answers of a nested network to a set of videos, at every count.

  Attributes:
    counts: ascending numbers of frames [A].
    num_classes: V.
    empty_classes: see `metrics.GlobalMetrics`.
    videos: outputs of `video_metrics.compute` by name: `hit_at_one` and `perr` [A, N];
      `scores`, `classes` and `hits` [A, N, K].
    confidences: by measure, float32 [A, N].
    num_frames: frames of each video, before any selection, int32 [N].
    labels: row of the video and class of each label, int64 [P, 2].
    flops: of a video that stops at each count, with the answers at smaller ones [A].
    fixed_flops: of a video that is only answered at each count [A].
  """

  counts: Sequence[int]
  num_classes: int
  empty_classes: str
  videos: Mapping[str, np.ndarray]
  confidences: Mapping[str, np.ndarray]
  num_frames: np.ndarray
  labels: np.ndarray
  flops: Sequence[int]
  fixed_flops: Sequence[int]

  def of(self, counts: Sequence[int]) -> 'Answers':
    """Returns the answers at some of the counts, which are neighbors."""
    first = self.counts.index(counts[0])
    part = slice(first, first + len(counts))
    confidences = {name: values[part] for name, values in self.confidences.items()}
    for name in inference.COMPARING:
      if name in confidences:
        confidences[name] = confidences[name].copy()
        confidences[name][0] = 0
    start = self.fixed_flops[first] - self.flops[first]
    return dataclasses.replace(
      self,
      counts=self.counts[part],
      videos={name: values[part] for name, values in self.videos.items()},
      confidences=confidences,
      flops=[start + cost for cost in self.flops[part]],
      fixed_flops=self.fixed_flops[part],
    )

  def stops(self, measure: str, threshold: float) -> np.ndarray:
    """Returns the count at which each video stops; see `stops`."""
    return stops(self.confidences[measure], self.num_frames, self.counts, threshold)

  def fixed(self, index: int) -> np.ndarray:
    """Returns the stops where all videos are seen up to one count."""
    return np.full(len(self.num_frames), index)

  def seen(self, stopped: np.ndarray) -> np.ndarray:
    """Returns how many frames of each video are seen; integers [N].

    Args:
      stopped: count at which each video stops, as an index [N].
    """
    return np.minimum(self.num_frames, np.take(self.counts, stopped))

  def metrics(
    self, stopped: np.ndarray, chosen: np.ndarray | None = None
  ) -> metrics.GlobalMetrics:
    """Returns the metrics of the videos, each answered where it stops.

    Args:
      stopped: see `seen`.
      chosen: which videos count, bool [N]; None for all.
    """
    rows, labels = np.arange(len(stopped)), self.labels
    if chosen is not None:
      rows, labels = rows[chosen], labels[chosen[labels[:, 0]]]
    evaluation = metrics.GlobalMetrics(self.num_classes, self.empty_classes)
    evaluation.update(
      positives=np.bincount(labels[:, 1], minlength=self.num_classes),
      **{key: values[stopped[rows], rows] for key, values in self.videos.items()},
    )
    return evaluation

  def adaptive(self, measure: str, threshold: float) -> dict[str, float]:
    """Returns mean `frames` and `flops`, and the scores, of adaptive inference."""
    # Where no video stops early, only the last answer is computed.
    flops = self.flops if threshold < 1 else self.fixed_flops
    return self.score(self.stops(measure, threshold), flops)

  def score(self, stopped: np.ndarray, flops: Sequence[int]) -> dict[str, float]:
    """Returns mean `frames` and `flops`, and the scores, of where videos stop.

    Args:
      stopped: see `seen`.
      flops: of a video that stops at each count [A].
    """
    ends = np.searchsorted(self.counts[:-1], self.num_frames)
    return {
      'frames': float(self.seen(stopped).mean()),
      'flops': float(np.take(flops, np.minimum(stopped, ends)).mean()),
      **self.metrics(stopped).result(),
    }


class Collector:
  """Collects the batches of a data set."""

  def __init__(self, **constants):
    """Starts an empty set.

    Args:
      **constants: those attributes of `Answers` that do not depend on the videos.
    """
    self._constants = constants
    self._batches: list[dict[str, Any]] = []
    self._labels: list[np.ndarray] = []
    self._size = 0

  def update(
    self,
    answers: Sequence[Mapping[str, np.ndarray]],
    num_frames: np.ndarray,
    labels: np.ndarray,
  ):
    """Adds a batch.

    Args:
      answers: at each count, the outputs of `video_metrics.compute` and, by the names
        of the measures, confidences float32 [B].
      num_frames: frames of each video, int32 [B].
      labels: bool [B, V].

    Raises:
      ValueError: a score is not finite.
    """
    batch = {key: np.stack([one[key] for one in answers]) for key in answers[0]}
    metrics.check_finite(batch['scores'])
    self._batches.append({**batch, 'num_frames': np.asarray(num_frames)[None]})
    self._labels.append(np.argwhere(labels) + [self._size, 0])
    self._size += len(num_frames)

  def result(self) -> Answers:
    """Returns the answers of all batches.

    Raises:
      ValueError: there was no video, or none has a label.
    """
    if not self._size:
      raise ValueError('there are no videos: name files that hold records.')
    labels = np.concatenate(self._labels)
    if not len(labels):
      raise ValueError(
        f'none of its {self._size:,} videos has a label: name records with labels.'
      )
    values = {
      key: np.concatenate([batch[key] for batch in self._batches], axis=1)
      for key in self._batches[0]
    }
    num_frames = values.pop('num_frames')[0]
    videos = {key: values.pop(key) for key in video_metrics.KEYS}
    return Answers(
      **self._constants,
      videos=videos,
      confidences=values,
      num_frames=num_frames,
      labels=labels,
    )


def fixed(answers: Answers) -> pd.DataFrame:
  """Scores each count for all videos.

  Returns:
    By count, ascending: `frames` and `flops` of a video, their means; and the scores.
  """
  return pd.DataFrame(
    [
      {'count': count, **answers.score(answers.fixed(index), answers.fixed_flops)}
      for index, count in enumerate(answers.counts)
    ]
  )


def curve(answers: Answers, measures: Sequence[str]) -> pd.DataFrame:
  """Scores many thresholds of each measure.

  They are 0, 1, and about 50 quantiles of the confidence where it matters: of answers
  to videos that have more frames.

  Returns:
    `counts`, all of them; `measure`, `threshold`, ascending, and as for `fixed`.
  """
  return _score([answers], measures)


def rules(answers: Answers, measures: Sequence[str]) -> pd.DataFrame:
  """Scores the thresholds of curve() for all counts, and for two or more neighbors.

  To start with more frames, or to end with fewer, is often better than to stop some
  videos at a count whose answers are poor.

  Returns:
    As for curve().
  """
  counts = answers.counts
  ends = itertools.combinations(range(len(counts)), 2)
  parts = [answers.of(counts[first : last + 1]) for first, last in ends]
  return _score(parts or [answers], measures)


def _score(parts: Sequence[Answers], measures: Sequence[str]) -> pd.DataFrame:
  points = []
  for part, measure in itertools.product(parts, measures):
    open_ = part.num_frames > np.reshape(part.counts[:-1], [-1, 1])
    inner = _thresholds(part.confidences[measure][:-1][open_])
    points += [(part, measure, float(t)) for t in np.unique([0.0, *inner, 1.0])]
  rows = []
  with progress_bar.start('Scoring thresholds', len(points), ' thresholds') as bar:
    for part, measure, threshold in points:
      rows.append(
        {
          'counts': tuple(part.counts),
          'measure': measure,
          'threshold': threshold,
          **part.adaptive(measure, threshold),
        }
      )
      bar.update()
  return pd.DataFrame(rows)


def _thresholds(confidences: np.ndarray) -> np.ndarray:
  """Returns thresholds at about 50 quantiles of confidences, which may be none.

  Each is midway between two neighbors, so that rounding does not decide whether a
  video stops: inference computes in other batches, and on other devices.
  """
  if not confidences.size:
    return confidences
  chosen = np.quantile(confidences, np.linspace(0, 1, _THRESHOLDS), method='lower')
  values = np.unique(confidences)
  below = values[np.maximum(np.searchsorted(values, chosen) - 1, 0)]
  return below + (chosen - below) / 2


def check_target(mean_frames: float | None, gap_loss: float | None):
  """Raises a ValueError unless exactly one target is given, within its bounds."""
  if (mean_frames is None) == (gap_loss is None):
    raise ValueError(
      f'mean_frames is {mean_frames} and gap_loss is {gap_loss}: give exactly one of '
      'them.'
    )
  if mean_frames is not None and not 0 < mean_frames < math.inf:
    raise ValueError(f'mean_frames is {mean_frames}: it must be finite and above 0.')
  if gap_loss is not None and not 0 <= gap_loss < 1:
    raise ValueError(f'gap_loss is {gap_loss}: it must be at least 0 and below 1.')


def check_reachable(counts: pd.DataFrame, mean_frames: float | None):
  """Raises a ValueError if videos see more frames than that at the smallest count.

  Args:
    counts: from `fixed`.
    mean_frames: the target; None for another one.
  """
  smallest = counts.iloc[0]
  if mean_frames is not None and smallest['frames'] > mean_frames:
    raise ValueError(
      f'mean_frames is {mean_frames:g}: at the smallest count, '
      f'{smallest["count"]:.0f}, the calibration already sees '
      f'{_up(smallest["frames"], 2):.2f} on average. Allow as many, or train with '
      'smaller counts.'
    )


def calibrate(
  points: pd.DataFrame,
  counts: pd.DataFrame,
  mean_frames: float | None = None,
  gap_loss: float | None = None,
) -> dict[str, Any]:
  """Chooses counts, a measure and a threshold for a target.

  Args:
    points: from `rules`, the choices.
    counts: from `fixed`, of the same videos.
    mean_frames: of those that see at most as many frames, the highest GAP is chosen;
      of GAPs within 0.0005 of it, the one with the fewest FLOPs.
    gap_loss: the fewest frames are chosen of those whose GAP is at most this below
      that of the largest count. Exactly one of the two is given.

  Returns:
    A row of `points`; among equal ones the first.

  Raises:
    ValueError: no threshold reaches the target, or not exactly one is given.
  """
  check_target(mean_frames, gap_loss)
  check_reachable(counts, mean_frames)
  if mean_frames is not None:
    reached = points[points['frames'] <= mean_frames]
    reached = reached[reached['gap'] >= reached['gap'].max() - _EQUAL_GAP]
    by, ascending = ['flops', 'gap'], [True, False]
  else:
    most = counts['gap'].iloc[-1]
    reached = points[points['gap'] >= most - gap_loss]
    by, ascending = ['frames', 'gap'], [True, False]
    if reached.empty:
      raise ValueError(
        f'gap_loss is {gap_loss:g}: GAP is {most:.4f} at {counts["count"].iloc[-1]} '
        f'frames, and at most {points["gap"].max():.4f} at any threshold. Allow a loss '
        f'of {_up(most - points["gap"].max(), 4)}.'
      )
  return reached.sort_values(by, ascending=ascending, kind='stable').iloc[0].to_dict()


def _up(value: float, digits: int) -> float:
  """Rounds up, so that a target of this value is reached."""
  return math.ceil(value * 10**digits) / 10**digits


def gains(points: pd.DataFrame, counts: pd.DataFrame) -> pd.DataFrame:
  """Compares GAP with that of fixed counts at equal mean cost.

  GAP between two counts is interpolated linearly, as if the smaller one were used for
  a part of the videos, drawn at random.

  Args:
    points: rows with `frames`, `flops` and `gap`.
    counts: from `fixed`, of the same videos.

  Returns:
    For each row `gain_at_frames` and `gain_at_flops`: how much its GAP is higher.
  """
  return pd.DataFrame(
    {
      f'gain_at_{cost}': points['gap']
      - np.interp(points[cost], counts[cost], counts['gap'])
      for cost in ('frames', 'flops')
    }
  )


def by_length(answers: Answers, stopped: np.ndarray) -> pd.DataFrame:
  """Shows for which videos frames are saved, by their length and number of labels.

  Args:
    answers: of the videos.
    stopped: count at which each video stops, as an index [N].

  Returns:
    A row for each quarter of the videos, by their `frames` and by their `labels`:
    smallest (`from`) and largest value (`to`), number of `videos`, mean frames `seen`,
    the share of the videos that stop at each count (`stop_at_6`, ...), and GAP at the
    smallest count, of adaptive inference, and at the largest count (`gap_smallest`,
    `gap_adaptive`, `gap_largest`). Quarters that equal values would divide are joined.
  """
  size, seen = len(stopped), answers.seen(stopped)
  num_labels = np.bincount(answers.labels[:, 0], minlength=size)
  rows = []
  for name, values in (('frames', answers.num_frames), ('labels', num_labels)):
    ends = np.unique(np.quantile(values, [0.25, 0.5, 0.75, 1], method='lower'))
    quarters = np.searchsorted(ends, values)
    for quarter in np.unique(quarters):
      chosen = quarters == quarter
      row = {
        'by': name,
        'from': values[chosen].min(),
        'to': values[chosen].max(),
        'videos': chosen.sum(),
        'seen': seen[chosen].mean(),
      }
      for index, count in enumerate(answers.counts):
        row[f'stop_at_{count}'] = (stopped[chosen] == index).mean()
      for kind, where in _compared(answers, stopped).items():
        row[f'gap_{kind}'] = answers.metrics(where, chosen).result()['gap']
      rows.append(row)
  return pd.DataFrame(rows)


def by_class(answers: Answers, stopped: np.ndarray) -> pd.DataFrame:
  """Shows for which classes frames are saved.

  Args:
    answers: of the videos.
    stopped: count at which each video stops, as an index [N].

  Returns:
    A row for each class: its `index`; `positives`, the number of videos that carry it;
    mean frames `seen` of these, NaN if there are none; and its average precision at the
    smallest count, of adaptive inference, and at the largest count (`ap_smallest`,
    `ap_adaptive`, `ap_largest`).
  """
  videos, classes = answers.labels.T
  positives = np.bincount(classes, minlength=answers.num_classes)
  seen = np.bincount(classes, answers.seen(stopped)[videos], answers.num_classes)
  return pd.DataFrame(
    {
      'index': np.arange(answers.num_classes),
      'positives': positives,
      'seen': np.divide(
        seen, positives, out=np.full(len(seen), np.nan), where=positives > 0
      ),
      **{
        f'ap_{kind}': answers.metrics(where).average_precisions()
        for kind, where in _compared(answers, stopped).items()
      },
    }
  )


def _compared(answers: Answers, stopped: np.ndarray) -> dict[str, np.ndarray]:
  return {
    'smallest': answers.fixed(0),
    'adaptive': stopped,
    'largest': answers.fixed(len(answers.counts) - 1),
  }
