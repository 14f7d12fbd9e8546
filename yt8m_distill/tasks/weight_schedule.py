"""A factor on the weights of the distillation losses, over training."""

import math

import tensorflow as tf
import tf_keras

from yt8m_distill.configs import distillation as config

_schedules = tf_keras.optimizers.schedules
# From 1 at step 0 to 0 at the last one.
_FALLS = {
  'linear': lambda steps: _schedules.PolynomialDecay(1.0, steps, 0.0),
  'cosine': lambda steps: _schedules.CosineDecay(1.0, steps),
}


class WeightSchedule:
  """From the step of training to the factor."""

  def __init__(self, params: config.WeightSchedule):
    """Initialises the schedule.

    Raises:
      ValueError: no such type, or a value out of its range.
    """
    allowed = ('constant', *_FALLS)
    if params.type not in allowed:
      raise ValueError(
        f'losses.schedule.type is {params.type!r}: choose one of {", ".join(allowed)}.'
      )
    for name in ('start', 'end'):
      value = getattr(params, name)
      if not 0 <= value < math.inf:
        raise ValueError(
          f'losses.schedule.{name} is {value}: a factor must be finite, and at least 0.'
        )
    self.constant = params.type == 'constant'
    if not self.constant and params.steps < 1:
      raise ValueError(
        f'losses.schedule.steps is {params.steps}: the way from start to end '
        'takes at least 1 step. Set it, or type to constant.'
      )
    self._params = params

  def __call__(self, step: tf.Tensor) -> tf.Tensor:
    """Returns the factor, float32, of the update behind `step` others."""
    params = self._params
    if self.constant:
      return tf.constant(params.start, tf.float32)
    left = _FALLS[params.type](params.steps)(tf.cast(step, tf.float32))
    return params.end + (params.start - params.end) * left
