"""Shows a network only as many frames as a video needs.

A nested network answers at several numbers of frames. Here it starts with the smallest
one, and videos whose answer is not sure yet go on to the next; the others leave the
batch. Going on computes only what is new, if the backbone `extends`: of a hierarchical
LSTM, the chunks of the new frames and the upper stack's steps over them.

B videos, T frames, D features, V classes, R representation.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools
import math
from typing import NamedTuple

import tensorflow as tf
import tf_keras

from yt8m_distill.configs import fits
from yt8m_distill.modeling import video_classifier

_BEST = 20  # classes that `certainty` looks at


def _top(predictions, before):
  del before
  return tf.reduce_max(predictions, axis=1)


def _margin(predictions, before):
  del before
  best, _ = tf.math.top_k(predictions, min(2, predictions.shape[1]))
  return best[:, 0] - (best[:, 1] if best.shape[1] > 1 else 0.0)


def _certainty(predictions, before):
  del before
  best, _ = tf.math.top_k(predictions, min(_BEST, predictions.shape[1]))
  rest = 1.0 - best
  entropy = tf.math.xlogy(best, best) + tf.math.xlogy(rest, rest)
  return 1.0 + tf.reduce_mean(entropy, axis=1) / math.log(2)


def _agreement(predictions, before):
  if before is None:
    return tf.zeros_like(predictions[:, 0])
  return 1.0 - tf.reduce_max(tf.abs(predictions - before), axis=1)


# How sure an answer is. Each takes predictions, float32 [B, V] in [0, 1], and those at
# the number of frames before, None at the first, and returns float32 [B] in [0, 1].
#   top: the largest probability.
#   margin: how much the largest is above the second.
#   certainty: 1 minus the mean entropy, in bits, of the 20 best classes.
#   agreement: 1 minus the largest change of a probability; 0 at the first number.
MEASURES: dict[str, Callable] = {
  'top': _top,
  'margin': _margin,
  'certainty': _certainty,
  'agreement': _agreement,
}
# Those that compare with the number before, and so never stop at the first.
COMPARING = ('agreement',)


class Rule(NamedTuple):
  """When to stop looking at a video.

  Attributes:
    counts: ascending numbers of frames.
    measure: one of MEASURES.
    threshold: confidence that suffices, from 0 to 1.
  """

  counts: Sequence[int]
  measure: str
  threshold: float

  def check(self):
    """Raises a ValueError if counts, measure or threshold are invalid."""
    fits.check_counts(self.counts)
    if self.measure not in MEASURES:
      raise ValueError(
        f'measure is {self.measure!r}: choose one of {", ".join(MEASURES)}.'
      )
    if not 0 <= self.threshold <= 1:
      raise ValueError(f'threshold is {self.threshold}: it must be from 0 to 1.')


class AdaptiveClassifier(tf_keras.Model):
  """Runs a nested network until it is sure of a video.

  Takes {'frames': [B, T, D], in the order of nested frames; 'num_frames': int32 [B]}.
  Returns {'predictions': float32 [B, V], 'representation': float32 [B, R],
  'frames_seen': int32 [B]}.

  A video stops at the first of the rule's `counts` whose confidence is at least the
  threshold, or at which it has no further frames, or at the last. The threshold 0 stops
  all videos at the first; 1 lets all go to the last, without the answers before. Both
  equal the network on that many frames, bit for bit. A video's outputs do not depend on
  the others of its batch, except for rounding.
  """

  def __init__(self, network: video_classifier.VideoClassifier, rule: Rule):
    """Initializes the model.

    Args:
      network: a network that was trained at the rule's `counts`.
      rule: when to stop.

    Raises:
      ValueError: the measure is unknown, or the threshold is not from 0 to 1.
    """
    super().__init__(autocast=False, name='adaptive')
    rule.check()
    self.network = network
    counts, measure, self._threshold = rule
    self._measure = MEASURES[measure]
    if self._threshold in (0, 1):  # There is nothing to decide.
      counts = counts[-1:] if self._threshold == 1 else counts[:1]
    self._counts = tuple(counts)
    self.built = True

  def call(self, inputs, training=False):
    """Returns the outputs; see the class."""
    if training:
      raise ValueError('training is True: an AdaptiveClassifier is for inference.')
    frames, left = inputs['frames'], inputs['num_frames']
    rows = tf.range(tf.size(left))
    results: dict[str, tf.Tensor] = {}
    state = last = None
    before = 0
    for count in self._counts:
      new = {
        'frames': frames[:, before:count],
        'num_frames': tf.minimum(left, count) - before,
      }
      outputs, state = self.network.extend(new, state)
      answer = {
        'predictions': outputs['predictions'],
        'representation': outputs['representation'],
        'frames_seen': tf.minimum(left, count),
      }
      results = _replace(results, rows, answer)
      if count == self._counts[-1]:
        break
      confidence = self._measure(answer['predictions'], last)
      goes_on = (left > count) & (confidence < self._threshold)
      before, last = count, answer['predictions']
      keep = functools.partial(tf.boolean_mask, mask=goes_on)
      rows, frames, left, state, last = tf.nest.map_structure(
        keep, (rows, frames, left, state, last)
      )
    return results


def _replace(results, rows, values) -> dict[str, tf.Tensor]:
  """Replaces some rows of results [B, ...], of which there are none at first."""
  return {
    name: tf.tensor_scatter_nd_update(results[name], rows[:, tf.newaxis], value)
    if results
    else value
    for name, value in values.items()
  }


def flops_of(
  network: video_classifier.VideoClassifier, counts: Sequence[int]
) -> list[int]:
  """Returns the FLOPs of a video that stops at each number of frames.

  Args:
    network: the network.
    counts: ascending numbers of frames.

  Returns:
    For each number, 2 per multiply-add: those of the backbone, of all its calls unless
    it `extends`, and those of the head for this answer and each before.
  """
  backbone, head = network.backbone, network.head.flops()
  whole = [backbone.flops(count) for count in counts]
  return [
    (cost if backbone.extends else sum(whole[: index + 1])) + (index + 1) * head
    for index, cost in enumerate(whole)
  ]
