"""The mean over the frames, as FrameLevelLogisticModel has it.

Source: the YouTube-8M starter code. Frames are normalised, their mean is not.
The mean feature of a video-level record passes as it is, for it is one frame.

B videos, T frames, D features.
"""

from official.vision.modeling.backbones import factory
import tensorflow as tf
import tf_keras


@tf_keras.utils.register_keras_serializable(package='yt8m_distill')
class Average(tf_keras.Model):
  """Mean over {'frames': float [B, T, D], 'num_frames': int32 [B]}.

  Returns {'representation': float32 [B, D]}, zero for a video without frames.
  """

  def __init__(self, input_specs, **kwargs):
    """Initialises the backbone.

    Args:
      input_specs: {'frames': InputSpec of [None, T, D], ...}.
      **kwargs: of a Keras model.
    """
    super().__init__(autocast=False, **kwargs)
    _, self._max_frames, self._features = input_specs['frames'].shape
    self.built = True

  def call(self, inputs, training=False):
    return {
      'representation': mean(
        tf.cast(inputs['frames'], tf.float32), inputs['num_frames']
      )
    }

  @property
  def representation_size(self) -> int:
    """D."""
    return self._features

  def flops(self) -> int:
    """FLOPs of a video of full length: an addition counts as multiply-add."""
    return 2 * self._max_frames * self._features

  def get_config(self):
    return {'name': self.name, 'frames_shape': [None, self._max_frames, self._features]}

  @classmethod
  def from_config(cls, config, custom_objects=None):
    return cls(
      {'frames': tf_keras.layers.InputSpec(shape=config['frames_shape'])},
      name=config['name'],
    )


def mean(frames: tf.Tensor, num_frames: tf.Tensor) -> tf.Tensor:
  """Mean of real frames, float [B, D] of [B, T, D]; zero where none is."""
  real = tf.sequence_mask(num_frames, frames.shape[1])[..., None]
  # Times 0 what a padded frame holds might still be NaN.
  total = tf.reduce_sum(tf.where(real, frames, tf.zeros([], frames.dtype)), axis=1)
  return total / tf.cast(tf.maximum(num_frames, 1), frames.dtype)[:, None]


@factory.register_backbone_builder('yt8m_average')
def build_average(
  input_specs, backbone_config, norm_activation_config=None, l2_regularizer=None
) -> Average:
  """Builder for the Garden's registry.

  Args:
    input_specs: {'frames': InputSpec of [None, T, D], ...}.
    backbone_config: not used, nothing is to be chosen.
    norm_activation_config: not used, there is neither.
    l2_regularizer: not used, there are no weights.

  Returns:
    The backbone.
  """
  del backbone_config, norm_activation_config, l2_regularizer
  return Average(input_specs)
