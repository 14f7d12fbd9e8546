"""One network: frames, a backbone and a head.

B videos, T frames, D features, R representation, V classes.
"""

import tensorflow as tf
import tf_keras

from official.vision.modeling.backbones import factory
from yt8m_distill import selection
from yt8m_distill.modeling import frames as frames_lib
from yt8m_distill.modeling.heads import moe


@tf_keras.utils.register_keras_serializable(package='yt8m_distill')
class VideoClassifier(tf_keras.Model):
  """Classifies videos by frames that were already chosen.

  Takes {'frames': uint8 (or dequantised float) [B, T, D], 'num_frames': int32
  [B], how many of the T are real}. Returns {'predictions': float32 [B, V],
  'representation': [B, R]} and what else the backbone returns.
  """

  def __init__(self, backbone: tf_keras.Model, head: tf_keras.layers.Layer,
               **kwargs):
    """Initialises and builds the network.

    Args:
      backbone: from {'frames': float [B, T, D], 'num_frames'} to a dictionary
        with 'representation' [B, R]; it says `representation_size`, and
        `takes_stored_frames` if it normalises uint8 frames itself.
      head: from 'representation' to 'predictions'.
      **kwargs: of a Keras model.
    """
    super().__init__(**kwargs)
    self.backbone = backbone
    self.head = head
    if not head.built:
      head.build([None, backbone.representation_size])
    self.built = True

  def call(self, inputs, training=False):
    frames, num_frames = inputs['frames'], inputs['num_frames']
    if not (frames.dtype.is_integer and
            getattr(self.backbone, 'takes_stored_frames', False)):
      frames = frames_lib.preprocess(frames, num_frames)
    outputs = self.backbone({'frames': frames, 'num_frames': num_frames},
                            training=training)
    return {**outputs,
            'predictions': self.head(outputs['representation'])}

  def flops(self) -> int:
    """FLOPs of a video of full length: 2 per multiply-add."""
    return self.backbone.flops() + self.head.flops()

  def get_config(self):
    return {
        'name': self.name,
        'backbone': tf_keras.layers.serialize(self.backbone),
        'head': tf_keras.layers.serialize(self.head),
    }

  @classmethod
  def from_config(cls, config, custom_objects=None):
    return cls(
        tf_keras.layers.deserialize(config['backbone'], custom_objects),
        tf_keras.layers.deserialize(config['head'], custom_objects),
        name=config['name'])


def build(model_config, network, name: str) -> VideoClassifier:
  """Builds a network from its configuration.

  Args:
    model_config: a `configs.model.VideoModel`.
    network: a `configs.model.Network`.
    name: of the model.

  Returns:
    The network, with its variables.

  Raises:
    ValueError: the configuration does not fit together.
  """
  features = sum(feature.size for feature in model_config.features)
  frames = selection.max_selected(network.frames, model_config.max_frames)
  if network.head.type != 'moe':
    raise ValueError(f'head.type is {network.head.type!r}: choose moe.')
  head = moe.MoeHead(
      model_config.num_classes, num_mixtures=network.head.moe.num_mixtures,
      l2_weight_decay=network.head.moe.l2_weight_decay, name='head')
  with tf.name_scope(name):
    backbone = factory.build_backbone(
        input_specs={
            'frames': tf_keras.layers.InputSpec(shape=[None, frames, features]),
            'num_frames': tf_keras.layers.InputSpec(shape=[None]),
        },
        backbone_config=network.backbone,
        norm_activation_config=None)
    return VideoClassifier(backbone, head, name=name)
