"""Evaluations from all scores, for tests of the metrics."""

import numpy as np

from yt8m_distill.evaluation import metrics
from yt8m_distill.evaluation import video_metrics


def add(evaluation, predictions, labels, top_k):
  """Runs both stages on one batch."""
  values = video_metrics.compute(predictions, labels, top_k)
  positives = (np.asarray(labels) > 0).sum(axis=0)
  evaluation.update(**values, positives=positives)


def evaluate(predictions, labels, top_k=20, sizes=None, **options):
  """GlobalMetrics over batches of the given sizes (one batch if None)."""
  evaluation = metrics.GlobalMetrics(predictions.shape[1], **options)
  ends = np.cumsum([len(predictions)] if sizes is None else sizes)
  for start, end in zip(np.append(0, ends[:-1]), ends):
    add(evaluation, predictions[start:end], labels[start:end], top_k)
  return evaluation


def random_case(seed, num_videos=60, num_classes=12, levels=None):
  """Scores (tied if rounded to levels) and labels; some have none."""
  rng = np.random.default_rng(seed)
  predictions = rng.random([num_videos, num_classes]).astype(np.float32)
  if levels:
    predictions = np.floor(predictions * levels) / np.float32(levels)
  labels = rng.random([num_videos, num_classes]) < 0.15 + 0.3 * predictions
  labels[::7] = False
  labels[:, ::5] = False
  return predictions, labels
