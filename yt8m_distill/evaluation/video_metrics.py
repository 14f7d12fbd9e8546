"""YouTube-8M metrics of each video, on the device.

`compute` reduces all scores of a batch to two values and a top-k list per video.
From these, `metrics.GlobalMetrics` computes the metrics of an evaluation set.
`metrics` defines Hit@1 and PERR.

Shapes: B videos, V classes, K top k, N pairs.
"""

import numpy as np
import tensorflow as tf

KEYS = ('hit_at_one', 'perr', 'scores', 'classes', 'hits')  # of compute()


def compute(predictions, labels, top_k):
  """Computes Hit@1, PERR and the top-k list of every video.

  Args:
    predictions: scores [B, V] of any float type; B may be 0.
    labels: ground truth [B, V], bool, or numbers above 0 for a label.
    top_k: number of highest scores to list; K = min(top_k, V).

  Returns:
    A dict of `hit_at_one` and `perr`, float32 [B], and the top-k lists `scores`
    float32 [B, K], `classes` int32 [B, K] and `hits` bool [B, K], by descending
    score; at ties, the lower class comes first. A NaN is listed first, as infinity,
    so that `metrics.GlobalMetrics.update` sees it.

  Raises:
    ValueError: top_k is below 1.
  """
  if top_k < 1:
    raise ValueError(f'top_k is {top_k}: it must be at least 1.')
  predictions = tf.cast(predictions, tf.float32)
  predictions = tf.where(tf.math.is_nan(predictions), np.float32(np.inf), predictions)
  labels = tf.convert_to_tensor(labels)
  if labels.dtype != tf.bool:
    labels = labels > tf.zeros([], labels.dtype)

  # One top-k serves both the lists and PERR, which needs the longest label list.
  num_classes = predictions.shape[-1] or tf.shape(predictions)[-1]
  num_labels_B = tf.reduce_sum(tf.cast(labels, tf.int32), axis=-1)
  reach = tf.minimum(tf.maximum(top_k, tf.reduce_max(num_labels_B)), num_classes)
  scores, classes = tf.math.top_k(predictions, reach)
  hits = tf.gather(labels, classes, batch_dims=1)

  counted = hits & (scores > 0)
  counted &= tf.range(reach) < num_labels_B[:, tf.newaxis]
  num_counted_B = tf.reduce_sum(tf.cast(counted, tf.float32), axis=-1)

  num_videos, num_classes = predictions.shape
  static_BK = [num_videos, num_classes and min(top_k, num_classes)]
  return {
    'hit_at_one': tf.cast(hits[:, 0], tf.float32),
    'perr': tf.math.divide_no_nan(num_counted_B, tf.cast(num_labels_B, tf.float32)),
    'scores': tf.ensure_shape(scores[:, :top_k], static_BK),
    'classes': tf.ensure_shape(classes[:, :top_k], static_BK),
    'hits': tf.ensure_shape(hits[:, :top_k], static_BK),
  }


def batch_gap(scores, hits, num_positives):
  """Computes the GAP of one batch on the device, for training logs.

  Equal scores count in the given order, unlike in `metrics.GlobalMetrics`.

  Args:
    scores: top-k scores [B, K]; B may be 0.
    hits: whether each of their classes is a label, bool [B, K].
    num_positives: scalar, number of positive labels of the batch.

  Returns:
    float32 []; 0 without positive labels.
  """
  scores_N = tf.reshape(tf.cast(scores, tf.float32), [-1])
  hits_N = tf.reshape(tf.cast(hits, tf.float32), [-1])
  order_N = tf.argsort(scores_N, direction='DESCENDING', stable=True)
  hits_N = tf.gather(hits_N, order_N)
  places_N = tf.cast(tf.range(1, tf.size(hits_N) + 1), tf.float32)
  precision_sum = tf.reduce_sum(tf.cumsum(hits_N) / places_N * hits_N)
  return tf.math.divide_no_nan(precision_sum, tf.cast(num_positives, tf.float32))


def agreement(classes_a, classes_b):
  """Computes how much two networks agree in their top classes.

  Args:
    classes_a: top-k classes [B, K] by descending score, each at most once; B
      may be 0.
    classes_b: top-k classes of the other network, likewise.

  Returns:
    A dict of float32 [B]: `top1`, 1 if the first classes are equal, and `overlap`,
    the fraction of the K classes that are in both lists, in any order.

  Raises:
    ValueError: the shapes differ.
  """
  classes_a = tf.convert_to_tensor(classes_a)
  classes_b = tf.convert_to_tensor(classes_b)
  classes_a.shape.assert_is_compatible_with(classes_b.shape)
  same_BKK = classes_a[:, :, tf.newaxis] == classes_b[:, tf.newaxis, :]
  in_both_BK = tf.cast(tf.reduce_any(same_BKK, axis=-1), tf.float32)
  return {
    'top1': tf.cast(classes_a[:, 0] == classes_b[:, 0], tf.float32),
    'overlap': tf.reduce_mean(in_both_BK, axis=-1),
  }
