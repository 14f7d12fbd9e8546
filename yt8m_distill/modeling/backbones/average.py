"""The mean over the frames, as in FrameLevelLogisticModel.

Source: the YouTube-8M starter code. Frames are normalized; their mean is not.
A video-level record is one frame: its features pass unchanged.

B videos, T frames, D features.
"""

import tensorflow as tf

from yt8m_distill.modeling.backbones import base


@base.register('yt8m_average')
class Average(base.Backbone):
  """Mean over {'frames': float [B, T, D], 'num_frames': int32 [B]}.

  Returns {'representation': float32 [B, D]}, zero for a video without frames.
  """

  def __init__(self, input_specs, **kwargs):
    """Initializes the backbone.

    Args:
      input_specs: see Backbone.
      **kwargs: arguments of a Backbone.
    """
    super().__init__(input_specs, autocast=False, **kwargs)
    self.built = True

  def call(self, inputs, training=False):
    """Returns the mean; see the class."""
    frames = tf.cast(inputs['frames'], tf.float32)
    return {'representation': mean(frames, inputs['num_frames'])}

  @property
  def representation_size(self) -> int:
    """D."""
    return self.num_features

  def flops(self, num_frames: int | None = None) -> int:
    """Returns the FLOPs of `num_frames` frames (T); an addition counts as 2."""
    return 2 * (num_frames or self.num_frames) * self.num_features


def mean(frames: tf.Tensor, num_frames: tf.Tensor) -> tf.Tensor:
  """Returns the mean over the real frames.

  Args:
    frames: float [B, T, D].
    num_frames: int32 [B], how many of the T frames are real.

  Returns:
    As `frames`, [B, D]; zero for a video without frames.
  """
  real = tf.sequence_mask(num_frames, frames.shape[1])[..., None]
  # Multiplying by 0 is not enough: padding might hold NaN.
  total = tf.reduce_sum(tf.where(real, frames, tf.zeros([], frames.dtype)), axis=1)
  return total / tf.cast(tf.maximum(num_frames, 1), frames.dtype)[:, None]
