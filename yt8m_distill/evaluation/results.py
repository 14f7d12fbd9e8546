"""Collects the outputs of validation steps and scores the whole set exactly."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import os
from typing import Any

from absl import logging
import numpy as np
import pandas as pd

from yt8m_distill.checkpoints import run_dir
from yt8m_distill.configs import model as model_config
from yt8m_distill.dataloaders import skipped
from yt8m_distill.evaluation import metrics
from yt8m_distill.evaluation import segment_metrics
from yt8m_distill.evaluation import video_metrics
from yt8m_distill.utils import class_csv
from yt8m_distill.utils import files

SCORES = ('gap', 'map', 'hit_at_one', 'perr')
SEGMENT_SCORES = ('map_at_k',)  # if labels are ratings
# Of these scores, in tables and plots.
TITLES = {
  'gap': 'GAP',
  'map': 'mAP',
  'hit_at_one': 'Hit@1',
  'perr': 'PERR',
  'map_at_k': 'MAP@K',
}


def read_vocabulary(path: str, num_classes: int) -> list[str]:
  """Reads class names from a CSV with the columns Index and Name.

  Args:
    path: the CSV. Rows may have any order. A class without a row has the name ''.
    num_classes: V; indices are 0 to V - 1.

  Raises:
    ValueError: a column is missing, or an index is not that of a class.
  """
  rows = class_csv.read(path, 'vocabulary', 'Name', num_classes, complete=True)
  names = [''] * num_classes
  for index, name in rows.items():
    names[index] = name
  return names


def networks(results: dict[str, Any]) -> dict[str, dict[str, float]]:
  """Returns scores and costs of each network in an evaluation.json.

  Args:
    results: content of the file.

  Returns:
    By network, those of SCORES and SEGMENT_SCORES that it has, and frames, flops (per
    video) and parameters.
  """
  metrics = results['metrics']
  return {
    name: {
      **cost,
      **{
        key: metrics[f'{model_config.key_prefix(name)}{key}']
        for key in (*SCORES, *SEGMENT_SCORES)
        if f'{model_config.key_prefix(name)}{key}' in metrics
      },
    }
    for name, cost in results['networks'].items()
  }


def map_classes(results: dict[str, Any]) -> str:
  """Says which classes mAP or MAP@K is the mean of.

  Args:
    results: content of an evaluation.json; '' is returned for one of version 0.2 or
      before, which does not hold the numbers.
  """
  if 'classes_with_positives' not in results:
    return ''
  classes, present = results['num_classes'], results['classes_with_positives']
  if 'max_windows' in results:
    return (
      f'MAP@{results["max_windows"]:,} over the {present:,} of {classes:,} classes '
      'with rated positives'
    )
  if results['empty_classes'] == 'skip':
    return f'mAP over the {present:,} of {classes:,} classes with positives'
  return (
    f'mAP over {classes:,} classes, {present:,} of them with positives (the others '
    'count as 0)'
  )


class SkippedRecords:
  """Counts the records that one evaluation skips, corrupt or malformed.

  It acts as a Keras metric, because the trainer resets metrics just before an
  evaluation reads its first record. Records that training prefetches during the
  evaluation count too.
  """

  name = 'skipped'

  def __init__(self):
    self.reset_states()

  def reset_states(self):
    """Restarts the count; the trainer calls it before an evaluation."""
    self._before = skipped.total()

  def value(self) -> skipped.Skipped:
    """Returns what was skipped since the evaluation began."""
    return skipped.total() - self._before

  def result(self) -> int:
    """Returns the total; the trainer calls it after an evaluation."""
    return self.value().total


class Evaluation:
  """State of one evaluation on the host.

  If labels are ratings, a video is a window, and the metric is MAP@K: the others would
  count classes that were not rated as negatives.

  Attributes:
    skipped: what it skipped.
  """

  def __init__(self, prefixes: Sequence[str], task_config):
    """Initializes an empty evaluation.

    Args:
      prefixes: prefix of each network's keys: '' for a single one,
        otherwise 'NAME/'.
      task_config: a `configs.classification.VideoTask`.

    Raises:
      ValueError: evaluation.top_k is below 1, or the vocabulary or the classes are
        invalid.
    """
    params = task_config.evaluation
    self._input_path = task_config.validation_data.input_path
    self._num_classes = task_config.model.num_classes
    self._empty_classes = params.empty_classes
    self._names = params.vocabulary and read_vocabulary(
      params.vocabulary, self._num_classes
    )
    self._label_losses = [f'{prefix}label_loss' for prefix in prefixes]
    self._rated = task_config.labels == 'segments'
    self._max_windows = params.max_windows
    self._scored = segment_metrics.read_classes(params.classes, self._num_classes)
    self._metrics: dict[str, Any] = {  # GlobalMetrics or SegmentMetrics
      prefix: segment_metrics.SegmentMetrics(self._scored, params.max_windows)
      if self._rated
      else metrics.GlobalMetrics(self._num_classes, self._empty_classes)
      for prefix in prefixes
    }
    self._num_videos = 0
    self._positives = np.zeros(self._num_classes, np.int64)
    self._sums: dict[str, float] = {}
    self.skipped = skipped.Skipped()

  def update(self, step_outputs):
    """Adds the outputs of a validation step.

    Args:
      step_outputs: for each key, a tuple of the replicas' tensors.
    """
    logs = {
      key: [np.asarray(v) for v in values] for key, values in step_outputs.items()
    }
    positives = sum(logs.pop('positives'))
    self._positives += positives
    self._num_videos += sum(map(len, logs[self._label_losses[0]]))
    logs.pop('loss', None)
    if self._rated:
      rated, holds = (self._columns(logs.pop(key)) for key in ('rated', 'holds'))
    for prefix, scores in self._metrics.items():
      if self._rated:
        scores.update(self._columns(logs.pop(f'{prefix}predictions')), rated, holds)
      else:
        scores.update(
          positives=positives,
          **{
            key: np.concatenate(logs.pop(f'{prefix}{key}'))
            for key in video_metrics.KEYS
          },
        )
    for key, values in logs.items():
      self._sums[key] = self._sums.get(key, 0.0) + float(
        sum(v.sum(dtype=np.float64) for v in values)
      )

  def _columns(self, values: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the scored classes of all replicas' windows."""
    return np.concatenate(values)[:, self._scored]

  def prune(self, gather: Callable[[Any], list[Any]], index: int):
    """Drops windows that other workers do not need; see SegmentMetrics.prune()."""
    if self._rated:
      for scores in self._metrics.values():
        scores.prune(gather, index)

  def merge(self, other: 'Evaluation'):
    """Adds the part of the same evaluation that another worker has collected."""
    for prefix, scores in self._metrics.items():
      scores.merge(other._metrics[prefix])
    self._num_videos += other._num_videos
    self._positives += other._positives
    for key, value in other._sums.items():
      self._sums[key] += value
    self.skipped += other.skipped

  def result(self) -> dict[str, float]:
    """Returns the metrics of each network, and means of all other outputs."""
    results = {
      f'{prefix}{key}': value
      for prefix, scores in self._metrics.items()
      for key, value in scores.result().items()
    }
    sums = dict(self._sums)
    pairs = sums.pop('pair_weights', self._num_videos)
    for key, value in sums.items():
      count = pairs if key in self._label_losses else self._num_videos
      results[key] = value / count
    return results

  def write(
    self,
    folder: str,
    results: dict[str, float],
    step: int,
    costs: dict[str, dict[str, int]],
  ):
    """Writes per_class.csv and evaluation.json.

    per_class.csv has a row per class: its index, its name if there is a
    vocabulary, its number of positive labels, and its average precision by network.

    Args:
      folder: folder of the run.
      results: from result().
      step: step of the checkpoint.
      costs: frames, FLOPs per video and parameters by network.
    """
    if self.skipped.total:
      logging.warning('Evaluation at step %d skipped %s.', step, self.skipped)
    table: dict[str, Any] = {'index': np.arange(self._num_classes)}
    if self._names:
      table['name'] = self._names
    table['positives'] = self._positives
    for prefix, scores in self._metrics.items():
      # NaN for a class that MAP@K leaves out.
      column = table[f'{prefix}average_precision'] = np.full(self._num_classes, np.nan)
      column[self._scored] = scores.average_precisions()
    files.write_text(
      os.path.join(folder, 'per_class.csv'), pd.DataFrame(table).to_csv(index=False)
    )
    evaluation = {
      'step': step,
      'input_path': self._input_path,
      'videos': self._num_videos,
      'num_classes': len(self._scored),
      'classes_with_positives': int(np.count_nonzero(self._positives[self._scored])),
      **(
        {'max_windows': self._max_windows}
        if self._rated
        else {'empty_classes': self._empty_classes}
      ),
      'skipped': dataclasses.asdict(self.skipped),
      'metrics': results,
      'networks': costs,
    }
    found = filter(None, (f'{self._num_videos} videos', map_classes(evaluation)))
    logging.info('Evaluation at step %d: %s.', step, ', '.join(found))
    run_dir.write_evaluation(folder, evaluation)
