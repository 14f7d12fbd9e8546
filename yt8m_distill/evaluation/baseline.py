"""Class-frequency baseline: predicts the training frequencies for every video.

What a network scores above the baseline comes from the frames.
"""

from collections.abc import Iterator
import itertools
import os
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_distill.configs import model as model_config
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import reader
from yt8m_distill.dataloaders import shards
from yt8m_distill.evaluation import metrics
from yt8m_distill.evaluation import video_metrics
from yt8m_distill.utils import files
from yt8m_distill.utils import progress_bar

_BATCH = 500  # videos; only one frame of each is decoded
# Enough for the frequencies of all but the rarest classes.
MAX_TRAIN_VIDEOS = 200_000


def _labels(model, data) -> Iterator[np.ndarray]:
  """Yields batches of labels, bool [B, V]: each record once, in order."""
  one_frame = model_config.FrameSelection(
    type='uniform', uniform=model_config.UniformFrames(every_n=model.max_frames)
  )
  params = data.replace(
    is_training=False,
    drop_remainder=False,
    global_batch_size=_BATCH,
    enable_tf_data_service=False,
    cache=False,
    bagging_seed=-1,
  )
  dataset = pipeline.build(
    params,
    reader.FrameReader(model.features, model.max_frames, model.num_classes, one_frame),
  )
  dataset = dataset.map(lambda inputs, labels: labels)
  with progress_bar.start('Reading labels', None, ' videos') as bar:
    for labels in dataset.as_numpy_iterator():
      yield labels
      bar.update(len(labels))


def class_frequency(task) -> dict[str, float]:
  """Scores the baseline on the validation set.

  Frequencies are those of the first MAX_TRAIN_VIDEOS of the training set.

  Args:
    task: a `configs.classification.VideoTask`.

  Returns:
    gap, map, hit_at_one, perr, and train_videos, the number of videos counted.
  """
  model = task.model
  counts, videos = np.zeros(model.num_classes, np.int64), 0
  for labels in itertools.islice(
    _labels(model, task.train_data), MAX_TRAIN_VIDEOS // _BATCH
  ):
    counts += labels.sum(axis=0)
    videos += len(labels)
  frequencies = tf.constant(counts / videos, tf.float32)

  scores = metrics.GlobalMetrics(model.num_classes, task.evaluation.empty_classes)

  @tf.function(autograph=False)
  def score(labels):
    predictions = tf.broadcast_to(frequencies, tf.shape(labels))
    return video_metrics.compute(predictions, labels, task.evaluation.top_k)

  for labels in _labels(model, task.validation_data):
    scores.update(positives=labels.sum(axis=0), **score(tf.constant(labels)))
  return {**scores.result(), 'train_videos': videos}


def of_run(run: str, task) -> dict[str, float]:
  """Returns class_frequency() of a run's task, cached in its baseline.json.

  Args:
    run: folder of the run.
    task: its `configs.classification.VideoTask`.
  """
  path = os.path.join(run, 'baseline.json')
  inputs = _inputs(task)
  cached = files.read_json(path, inputs=dict, scores=dict)
  if cached and cached['inputs'] == inputs:
    scores = cached['scores']
    numbers = dict.fromkeys(('train_videos', *scores), int | float)
    files.check_values(path, scores, **numbers)
    return scores
  scores = class_frequency(task)
  files.write_json(path, {'inputs': inputs, 'scores': scores})
  return scores


def of_run_or_reason(run: str, task) -> tuple[dict[str, float] | None, str]:
  """Returns of_run(); or None, and a line that says why it is missing."""
  try:
    return of_run(run, task), ''
  except ValueError as error:  # The records may have moved.
    return None, f'The class-frequency baseline is missing: {error}'


def _inputs(task) -> dict[str, Any]:
  """Returns everything that the scores depend on."""
  inputs = {
    'num_classes': task.model.num_classes,
    'top_k': task.evaluation.top_k,
    'empty_classes': task.evaluation.empty_classes,
  }
  for name in ('train_data', 'validation_data'):
    path = getattr(task, name).input_path
    inputs[name] = {'input_path': path, 'bytes': sum(shards.sizes(shards.find(path)))}
  return inputs
