"""Collects what validation steps return, and scores a whole set exactly."""

from collections.abc import Sequence
import dataclasses
import json
import os
from typing import Any

from absl import logging
import numpy as np
import pandas as pd
import tensorflow as tf

from yt8m_distill.dataloaders import shards
from yt8m_distill.evaluation import metrics
from yt8m_distill.utils import class_csv
from yt8m_distill.utils import files

SCORES = ('gap', 'map', 'hit_at_one', 'perr')
_VIDEO_KEYS = ('hit_at_one', 'perr', 'scores', 'classes', 'hits')


def read_vocabulary(path: str, num_classes: int) -> list[str]:
  """Reads class names from a CSV with the columns Index and Name.

  Rows may come in any order, as in the official files; classes without a row
  have the name ''.

  Raises:
    ValueError: no such columns, or indices that are not those of num_classes
      classes.
  """
  rows = class_csv.read(path, 'vocabulary', 'Name', num_classes, complete=True)
  names = [''] * num_classes
  for index, name in rows.items():
    names[index] = name
  return names


def read(folder: str) -> dict[str, Any] | None:
  """Returns the evaluation.json of a run, None before its first evaluation."""
  path = os.path.join(folder, 'evaluation.json')
  if not tf.io.gfile.exists(path):
    return None
  with tf.io.gfile.GFile(path) as file:
    return json.load(file)


def key_prefix(network: str) -> str:
  """Returns what a network's keys begin with: '' of a single one."""
  return '' if network == 'network' else f'{network}/'


def networks(results: dict[str, Any]) -> dict[str, dict[str, float]]:
  """Returns the SCORES and the cost of each network of an evaluation.json.

  The cost is frames, flops (per video) and parameters.
  """
  return {
    name: {
      **cost,
      **{key: results['metrics'][f'{key_prefix(name)}{key}'] for key in SCORES},
    }
    for name, cost in results['networks'].items()
  }


class LeftOut:
  """Counts what one evaluation leaves out as corrupt.

  The trainer takes it for a metric: these alone it resets before an evaluation
  reads its first record. What is read ahead for training meanwhile counts too.
  """

  name = 'left_out'

  def __init__(self):
    self.reset_states()

  def reset_states(self):
    self._before = shards.skipped()

  def value(self) -> shards.Skipped:
    """Records and ends of shards since the evaluation began."""
    now = shards.skipped()
    return shards.Skipped(
      now.records - self._before.records, now.shard_tails - self._before.shard_tails
    )

  def result(self) -> int:
    return self.value().total


class Evaluation:
  """State of one evaluation on the host.

  Attributes:
    left_out: of this evaluation, as corrupt.
  """

  def __init__(self, prefixes: Sequence[str], task_config):
    """Initialises an empty evaluation.

    Args:
      prefixes: of the networks' keys: '' of a single one, else 'NAME/'.
      task_config: a `configs.classification.VideoTask`.
    """
    params = task_config.evaluation
    self._input_path = task_config.validation_data.input_path
    self._num_classes = task_config.model.num_classes
    self._names = params.vocabulary and read_vocabulary(
      params.vocabulary, self._num_classes
    )
    self._metrics = {
      prefix: metrics.GlobalMetrics(self._num_classes, params.empty_classes)
      for prefix in prefixes
    }
    self._sums: dict[str, float] = {}
    self.left_out = shards.Skipped()

  def update(self, step_outputs):
    """Adds a step: {key: tuple of the replicas' tensors}."""
    logs = {
      key: [np.asarray(v) for v in values] for key, values in step_outputs.items()
    }
    positives = sum(logs.pop('positives'))
    logs.pop('loss')
    for prefix, scores in self._metrics.items():
      scores.update(
        positives=positives,
        **{key: np.concatenate(logs.pop(f'{prefix}{key}')) for key in _VIDEO_KEYS},
      )
    for key, values in logs.items():
      self._sums[key] = self._sums.get(key, 0.0) + float(
        sum(v.sum(dtype=np.float64) for v in values)
      )

  def merge(self, other: 'Evaluation'):
    """Adds what another worker has of the same evaluation."""
    for prefix, scores in self._metrics.items():
      scores.merge(other._metrics[prefix])
    for key, value in other._sums.items():
      self._sums[key] += value
    self.left_out += other.left_out

  def result(self) -> dict[str, float]:
    """Metrics of each network, and means of what else steps returned."""
    results = {
      f'{prefix}{key}': value
      for prefix, scores in self._metrics.items()
      for key, value in scores.result().items()
    }
    results.update({k: v / self._num_videos() for k, v in self._sums.items()})
    return results

  def _num_videos(self) -> int:
    return next(iter(self._metrics.values())).num_videos

  def write(
    self,
    folder: str,
    results: dict[str, float],
    step: int,
    costs: dict[str, dict[str, int]],
  ):
    """Writes per_class.csv and evaluation.json.

    per_class.csv has a row per class: index, name if there is a vocabulary,
    positives, and the average precision of each network.

    Args:
      folder: of the run.
      results: of result().
      step: of the checkpoint.
      costs: per network, frames, FLOPs per video and parameters.
    """
    if self.left_out.total:
      logging.warning(
        'Evaluation at step %d left out %d corrupt records and %d ends of shards.',
        step,
        self.left_out.records,
        self.left_out.shard_tails,
      )
    table = {'index': np.arange(self._num_classes)}
    if self._names:
      table['name'] = self._names
    for prefix, scores in self._metrics.items():
      table['positives'] = scores.positives
      table[f'{prefix}average_precision'] = scores.average_precisions()
    files.write_text(
      os.path.join(folder, 'per_class.csv'), pd.DataFrame(table).to_csv(index=False)
    )
    files.write_text(
      os.path.join(folder, 'evaluation.json'),
      json.dumps(
        {
          'step': step,
          'input_path': self._input_path,
          'videos': self._num_videos(),
          'left_out': dataclasses.asdict(self.left_out),
          'metrics': results,
          'networks': costs,
        },
        indent=2,
      )
      + '\n',
    )
