"""The class-frequency baseline: every video gets the training frequencies.

What a network scores above it, it has learned from the frames.
"""

from typing import Dict, Iterator

import numpy as np
import tensorflow as tf
import tqdm

from yt8m_distill import metrics
from yt8m_distill.configs import model as model_config
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import reader

# Labels alone are needed: one frame is decoded of each video.
_BATCH = 512


def _labels(model, data) -> Iterator[np.ndarray]:
  """Yields batches of labels bool [B, V], each record once, in order."""
  one_frame = model_config.FrameSelection(
      type='uniform',
      uniform=model_config.UniformFrames(every_n=model.max_frames))
  params = data.replace(
      is_training=False, drop_remainder=False, global_batch_size=_BATCH,
      enable_tf_data_service=False, cache=False)
  dataset = pipeline.build(params, reader.FrameReader(
      model.features, model.max_frames, model.num_classes, one_frame))
  dataset = dataset.map(lambda inputs, labels: labels)
  with tqdm.tqdm(desc='Reading labels', unit='video', disable=None) as bar:
    for labels in dataset.as_numpy_iterator():
      yield labels
      bar.update(len(labels))


def class_frequency(task) -> Dict[str, float]:
  """Scores the baseline on the validation set.

  Args:
    task: a `configs.classification.VideoTask`.

  Returns:
    gap, map, hit_at_one and perr.
  """
  model = task.model
  counts, videos = np.zeros(model.num_classes, np.int64), 0
  for labels in _labels(model, task.train_data):
    counts += labels.sum(axis=0)
    videos += len(labels)
  frequencies = tf.constant(counts / videos, tf.float32)

  scores = metrics.GlobalMetrics(model.num_classes,
                                 task.evaluation.empty_classes)

  @tf.function(autograph=False)
  def score(labels):
    predictions = tf.broadcast_to(frequencies, tf.shape(labels))
    return metrics.video_metrics(predictions, labels, task.evaluation.top_k)

  for labels in _labels(model, task.validation_data):
    scores.update(positives=labels.sum(axis=0), **score(tf.constant(labels)))
  return scores.result()
