"""One network: frames, a backbone and a head.

B videos, T frames, D features, R representation, V classes.
"""

from collections.abc import Sequence
import inspect

from official.vision.modeling.backbones import factory as backbone_factory
import tensorflow as tf
import tf_keras

from yt8m_distill.modeling import frame_normalization
from yt8m_distill.modeling.backbones import base
from yt8m_distill.modeling.heads import factory as head_factory
from yt8m_distill.utils import per_video_random


@tf_keras.utils.register_keras_serializable(package='yt8m_distill')
class VideoClassifier(tf_keras.Model):
  """Classifies videos by frames that were chosen before.

  Takes {'frames': uint8 (or dequantized float) [B, T, D], 'num_frames': int32
  [B], how many of the T are real; 'seed': int32 [B], for dropout in training}.
  Returns {'predictions': float32 [B, V], 'representation': [B, R]} and further
  outputs of the backbone.
  A nested network answers at several numbers of frames. Called with `answers`, it also
  returns 'answers': for each number, the outputs for a video of which it saw that many
  of the first frames. The others are those of the last answer, at T frames.

  Attributes:
    counts: the numbers of frames, ascending; () for a network with one answer.
  """

  def __init__(
    self,
    backbone: tf_keras.Model,
    head: tf_keras.layers.Layer,
    dropout: float = 0.0,
    counts: Sequence[int] = (),
    **kwargs,
  ):
    """Initializes and builds the network.

    Args:
      backbone: a Backbone, or a built model with its `call` and `representation_size`.
        Counting its cost also needs `flops`.
      head: from 'representation' to 'predictions'.
      dropout: fraction of the representation that training hides from the head.
      counts: see the class.
      **kwargs: arguments of a Keras model.

    Raises:
      ValueError: the backbone has no representation_size.
    """
    if not isinstance(getattr(backbone, 'representation_size', None), int):
      raise ValueError(
        f'{type(backbone).__name__} has no property representation_size: it must be '
        'the width of the representation, an int.'
      )
    # Keras must not cast float features before they are normalized.
    super().__init__(autocast=False, **kwargs)
    self._dropout = dropout
    self.backbone = backbone
    self.head = head
    self.counts = tuple(counts)
    if not head.built:
      head.build([None, backbone.representation_size])
    self.built = True

  def call(self, inputs, training=False, answers=False):
    """Returns predictions and the backbone's outputs; see the class."""
    seen = self._prepared(inputs)
    if not answers:
      outputs = self.backbone(seen, training=training)
      return self._answer(outputs, inputs, training)
    found = [
      self._answer(outputs, inputs, training)
      for outputs in self.backbone.at_counts(seen, self.counts, training=training)
    ]
    return {**found[-1], 'answers': found}

  def extend(self, inputs, state=None) -> tuple:
    """Continues with further frames of the same videos, in inference.

    Args:
      inputs: see `Backbone.extend`, but with frames as for call().
      state: as returned for the frames before; None for none.

    Returns:
      What call() returns for all frames so far, and the state to continue from.
    """
    outputs, state = self.backbone.extend(self._prepared(inputs), state)
    return self._answer(outputs, inputs, training=False), state

  def _prepared(self, inputs):
    """Returns the inputs of the backbone."""
    frames = inputs['frames']
    if frames.dtype.is_integer and getattr(self.backbone, 'takes_stored_frames', False):
      return inputs
    frames = frame_normalization.normalize_videos(frames, inputs['num_frames'])
    return {**inputs, 'frames': frames}

  def _answer(self, outputs, inputs, training):
    """Returns a backbone's outputs and what the head makes of them."""
    representation = visible = self._checked(outputs)
    if training and self._dropout:
      visible = per_video_random.dropout(
        visible,
        inputs.get('seed'),
        self._dropout,
        per_video_random.Salt.REPRESENTATION_DROPOUT,
      )
    return {
      **outputs,
      'representation': representation,
      'predictions': self.head(visible, training=training),
    }

  def _checked(self, outputs):
    """Returns the representation, float32 [B, R]; raises ValueError without one."""
    name, size = type(self.backbone).__name__, self.backbone.representation_size
    if not isinstance(outputs, dict) or 'representation' not in outputs:
      found = list(outputs) if isinstance(outputs, dict) else type(outputs).__name__
      raise ValueError(
        f'{name}.call() returned {found}: it must return a dictionary with the key '
        "'representation'."
      )
    representation = outputs['representation']
    if not representation.shape.is_compatible_with([None, size]):
      raise ValueError(
        f'{name}.call() returned a representation of the shape {representation.shape}: '
        f'it must be (None, {size}), since representation_size is {size}.'
      )
    return tf.cast(representation, tf.float32)  # whatever the mixed-precision policy

  def flops(self, num_frames: int | None = None) -> int:
    """Returns the FLOPs of a video: 2 per multiply-add.

    Args:
      num_frames: frames of the video; None for T.
    """
    # A backbone of another project may lack the argument: see build().
    frames = () if num_frames is None else (num_frames,)
    return self.backbone.flops(*frames) + self.head.flops()

  def get_config(self):
    """Returns what from_config() rebuilds the network from."""
    return {
      'name': self.name,
      'backbone': tf_keras.layers.serialize(self.backbone),
      'head': tf_keras.layers.serialize(self.head),
      'dropout': self._dropout,
      'counts': list(self.counts),
    }

  @classmethod
  def from_config(cls, config, custom_objects=None):
    """Rebuilds a network, with new variables, from its get_config()."""
    return cls(
      tf_keras.layers.deserialize(config['backbone'], custom_objects),
      tf_keras.layers.deserialize(config['head'], custom_objects),
      dropout=config['dropout'],
      counts=config['counts'],
      name=config['name'],
    )


def build(model_config, network, name: str) -> VideoClassifier:
  """Builds a network from its configuration.

  Args:
    model_config: a `configs.model.VideoModel`.
    network: a `configs.model.Network`.
    name: name of the model.

  Returns:
    The network, with its variables.

  Raises:
    ValueError: a size does not fit, such as chunks that do not divide the frames, or
      the type of the backbone or head is not registered.
  """
  frames = network.frames.max_selected(model_config.max_frames)
  try:
    head = head_factory.build(network.head, model_config.num_classes)
    with tf.name_scope(name):
      backbone = backbone_factory.build_backbone(
        input_specs=base.input_specs(
          frames, [feature.size for feature in model_config.features]
        ),
        backbone_config=network.backbone,
        norm_activation_config=None,
      )
      counts = network.frames.counts()
      if counts:
        _check_nested(backbone, f"task.model.{name}.frames.type is 'nested'")
      return VideoClassifier(backbone, head, network.dropout, counts, name=name)
  except LookupError as error:
    raise ValueError(
      f'No code is registered for the backbone {network.backbone.type!r} or the head '
      f'{network.head.type!r} of task.model: {error} Import the module that registers '
      'it, for example with --import=MODULE.'
    ) from error
  except ValueError as error:
    # A layer names its argument, which is a field of its configuration.
    for part, config in (('backbone', network.backbone), ('head', network.head)):
      if hasattr(config.get(), str(error).partition(' ')[0]):
        place = f'task.model.{name}.{part}.{config.type}'
        raise ValueError(f'{place}.{error}') from error
    raise


def _check_nested(backbone, found: str):
  """Raises a ValueError if a backbone cannot answer at several numbers of frames."""
  name = type(backbone).__name__
  if not isinstance(backbone, base.Backbone):
    raise ValueError(
      f'{found}, but {name} is no subclass of '
      'yt8m_distill.modeling.backbones.base.Backbone. Make it one, or choose other '
      'frames.'
    )
  if 'num_frames' not in inspect.signature(backbone.flops).parameters:
    raise ValueError(
      f'{found}, but {name}.flops() has no argument num_frames. Add it as in '
      'yt8m_distill.modeling.backbones.base.Backbone, or choose other frames.'
    )
