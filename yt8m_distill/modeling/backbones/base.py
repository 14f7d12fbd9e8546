"""The base class of backbones, and how the Garden builds them.

B videos, T frames, D features, R representation.
"""

from official.vision.modeling.backbones import factory
import tensorflow as tf
import tf_keras


class Backbone(tf_keras.Model):
  """From frames to the representation of a video.

  `call` takes {'frames': float [B, T, D], normalized and zero after a video's
  last frame; 'num_frames': int32 [B]; further inputs of the network} and
  returns a dictionary with 'representation', float32 [B, R].

  A subclass creates all variables in its constructor and sets `self.built`, defines
  `call`, `representation_size` and `flops`, and is registered with register(). Its
  constructor takes the fields of its configuration, which cannot be called `name`,
  `options` or `kernel_regularizer`, and passes them on as `options`.

  So that a run repeats itself, random numbers follow from inputs['seed'], int32 [B]:
  see `utils.per_video_random.dropout`. The seed is there in training if the method
  draws() of the configuration returns True. The random layers of Keras, such as
  Dropout, work, but no two runs are then equal.

  Attributes:
    num_frames: T.
    num_features: D.
    feature_sizes: sizes of the features of a frame, which sum to D.
    extends: whether extend() computes only what is new.
    takes_stored_frames: whether `call` also takes uint8 frames as stored, and
      normalizes them itself.
    regularizer: of the layers' kernels, None for none.
  """

  extends = False
  takes_stored_frames = False

  def __init__(self, input_specs, kernel_regularizer=None, options=None, **kwargs):
    """Initializes the backbone.

    Args:
      input_specs: {'frames': InputSpec of [None, T, D], 'features': one of
        [None, T, size] for each feature of a frame; without it, there is one}.
      kernel_regularizer: of the layers' kernels.
      options: other arguments of the subclass, by their names.
      **kwargs: arguments of a Keras model.
    """
    super().__init__(**kwargs)
    _, self.num_frames, self.num_features = input_specs['frames'].shape
    features = input_specs.get('features', [input_specs['frames']])
    self.feature_sizes = tuple(spec.shape[-1] for spec in features)
    self.regularizer = tf_keras.regularizers.get(kernel_regularizer)
    self._options = options or {}

  @classmethod
  def create(cls, input_specs, kernel_regularizer=None, **fields) -> 'Backbone':
    """Builds the backbone from the fields of its configuration.

    A subclass whose arguments are not those fields overrides it.

    Args:
      input_specs: see __init__().
      kernel_regularizer: see __init__().
      **fields: fields of the backbone's dataclass in `configs.model`.

    Returns:
      The backbone, with its variables.
    """
    return cls(input_specs, kernel_regularizer=kernel_regularizer, **fields)

  @property
  def representation_size(self) -> int:
    """R."""
    raise NotImplementedError(
      f'{type(self).__name__} has no property representation_size: it must be the '
      'width of the representation, an int.'
    )

  def at_counts(self, inputs, counts, training=False) -> list:
    """Returns the outputs at several numbers of frames, of the first ones each.

    A subclass overrides it where that saves computing frames again.

    Args:
      inputs: see call().
      counts: ascending numbers of frames.
      training: see call().

    Returns:
      For each number, what call() returns.
    """
    return [
      self(
        {
          **inputs,
          'frames': inputs['frames'][:, :count],
          'num_frames': tf.minimum(inputs['num_frames'], count),
        },
        training=training,
      )
      for count in counts
    ]

  def extend(self, inputs, state=None) -> tuple:
    """Continues with further frames of the same videos, in inference.

    This method reads all frames again. A subclass that need not overrides it, and
    sets `extends`.

    Args:
      inputs: {'frames': further frames, [B, K, D]; 'num_frames': int32 [B], how many
        of them are real}. All frames before are real, and the last is the last of one
        of the numbers that the network was trained for.
      state: as returned for the frames before; None for none.

    Returns:
      What call() returns for all frames so far, and a nest of tensors [B, ...] to
      continue from.
    """
    frames, before = inputs['frames'], 0
    if state is not None:
      before, frames = state.shape[1], tf.concat([state, frames], 1)
    outputs = self({'frames': frames, 'num_frames': before + inputs['num_frames']})
    return outputs, frames

  def flops(self, num_frames: int | None = None) -> int:
    """Returns the FLOPs of a video: 2 per multiply-add.

    Args:
      num_frames: frames of the video; None for T. Only a network that answers at
        several numbers of frames is asked for fewer than T.
    """
    raise NotImplementedError(
      f'{type(self).__name__} has no method flops(): it must return the FLOPs of a '
      'video of full length.'
    )

  def get_config(self):
    """Returns what from_config() rebuilds the backbone from."""
    return {
      'name': self.name,
      'num_frames': self.num_frames,
      'feature_sizes': list(self.feature_sizes),
      'kernel_regularizer': tf_keras.regularizers.serialize(self.regularizer),
      **self._options,
    }

  @classmethod
  def from_config(cls, config, custom_objects=None):
    """Rebuilds a backbone, with new variables, from its get_config()."""
    config = dict(config)
    frames, sizes = config.pop('num_frames'), config.pop('feature_sizes')
    return cls(input_specs(frames, sizes), **config)


def input_specs(num_frames: int, feature_sizes) -> dict:
  """Returns the specifications of a backbone's input.

  Args:
    num_frames: T.
    feature_sizes: of the features that are joined in a frame.

  Returns:
    What `Backbone` takes.
  """

  def spec(*shape):
    return tf_keras.layers.InputSpec(shape=[None, *shape])

  return {
    'frames': spec(num_frames, sum(feature_sizes)),
    'num_frames': spec(),
    'features': [spec(num_frames, size) for size in feature_sizes],
  }


def register(name: str):
  """Registers a subclass of `Backbone` with the Garden and with Keras.

  Args:
    name: the type of the backbone in a configuration.

  Returns:
    A class decorator.
  """

  def decorate(cls):
    package = cls.__module__.partition('.')[0]
    cls = tf_keras.utils.register_keras_serializable(package=package)(cls)

    @factory.register_backbone_builder(name)
    def build(
      input_specs, backbone_config, norm_activation_config=None, l2_regularizer=None
    ):
      del norm_activation_config  # Norms and activations are as published.
      return cls.create(input_specs, l2_regularizer, **backbone_config.get().as_dict())

    return cls

  return decorate
