"""Signatures of an exported network.

They take all frames of a video and select those that the network sees, so that
callers need not know which ones these are.

B videos, T frames, D features, V classes, K best classes, R representation.
"""

from collections.abc import Sequence

from official.core import export_base
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config
from yt8m_distill.dataloaders import reader
from yt8m_distill.modeling import frame_selection
from yt8m_distill.modeling import video_classifier

_REQUEST = 'request'  # name of a request's records in messages
# Seed of random frames of videos without ids: the same ones for equal lengths.
_SEEDS = (0,)
_Outputs = dict[str, tf.Tensor]


class ServingModule(export_base.ExportModule):
  """Signatures of a SavedModel.

  All return `class_indices` int32 [B, K] and `probabilities` float32 [B, K] by
  descending probability, `class_names` string [B, K] if names are known,
  `predictions` float32 [B, V], and `representation` float32 [B, R], an embedding of
  the video. A request without videos or with invalid tensors raises an
  InvalidArgumentError that says what is expected.

  Networks for features stored as floats have no signature `frames`. Networks for
  video-level features take serialized Examples, and a video is a single frame.
  Random frames of a record are drawn by its id, as in evaluation (without an id, by
  its position in the request). Videos passed to `frames` and `features` have no
  ids: their random frames depend only on num_frames. A network that sees a window of
  a record takes the first frames of such a video for the window.

  Attributes:
    frame_size: D.
    frame_dtype: dtype of a record's frames, uint8 or float32.
  """

  def __init__(
    self,
    network: video_classifier.VideoClassifier,
    model: model_config.ClassifierModel,
    top_k: int = 20,
    names: Sequence[str] = (),
  ):
    """Initializes the module.

    Args:
      network: trained network.
      model: its configuration.
      top_k: K; all classes if there are fewer.
      names: names of the V classes; empty if unknown.

    Raises:
      ValueError: top_k is below 1, or there are not V names.
    """
    super().__init__(params=model, model=network)
    if top_k < 1:
      raise ValueError(f'top_k is {top_k}: it must be 1 or more.')
    if names and len(names) != model.num_classes:
      raise ValueError(
        f'vocabulary has {len(names)} names for {model.num_classes} classes: name '
        'the vocabulary of the same release.'
      )
    self._top_k = min(top_k, model.num_classes)
    self._names = tf.constant(names) if names else None
    self.frame_size = sum(feature.size for feature in model.features)
    self._reader = reader.FrameReader(
      model.features,
      model.max_frames,
      model.num_classes,
      model.network.frames,
      with_ids=True,
      with_labels=False,
    )
    self.frame_dtype = self._reader.dtype
    strings = tf.TensorSpec([None], tf.string)
    counts = tf.TensorSpec([None], tf.int32, 'num_frames')
    # D is left open, so that a wrong one gets the message below.
    frames = [None, None, None]
    self.records = tf.function(
      self._records,
      autograph=False,
      input_signature=[strings, tf.TensorSpec([None], tf.int64), strings],
    )
    self.sequence_examples = tf.function(
      self._sequence_examples,
      autograph=False,
      input_signature=[tf.TensorSpec([None], tf.string, 'examples')],
    )
    self.frames = tf.function(
      self.serve_all_frames,
      autograph=False,
      input_signature=[tf.TensorSpec(frames, tf.uint8, 'frames'), counts],
    )
    self.features = tf.function(
      self.serve_all_frames,
      autograph=False,
      input_signature=[tf.TensorSpec(frames, tf.float32, 'features'), counts],
    )

  def get_inference_signatures(self, function_keys=None):
    """Returns the signatures by name; the export calls it."""
    del function_keys
    signatures = {
      'serving_default': self.sequence_examples,
      'frames': self.frames,
      'features': self.features,
    }
    if self.frame_dtype == tf.float32:
      del signatures['frames']
    return signatures

  def serve(self, frames: tf.Tensor, num_frames: tf.Tensor) -> _Outputs:
    """Classifies videos.

    Args:
      frames: selected frames, uint8 or float32 [B, T, D], padded with zeros.
      num_frames: int32 [B], number of valid frames.
    """
    outputs = self.model({'frames': frames, 'num_frames': num_frames}, training=False)
    predictions = outputs['predictions']
    probabilities, indices = tf.math.top_k(predictions, self._top_k)
    results = {
      'class_indices': indices,
      'probabilities': probabilities,
      'predictions': predictions,
      'representation': outputs['representation'],
    }
    if self._names is not None:
      results['class_names'] = tf.gather(self._names, indices)
    return results

  def _records(self, paths, indices, serialized) -> _Outputs:
    """Classifies records of files; also returns `id` string [B].

    Args:
      paths: string [B], their files, for messages and for missing ids.
      indices: int64 [B], their positions in the files.
      serialized: string [B], SequenceExamples; labels may be missing.
    """
    with tf.control_dependencies([_check_any(tf.size(serialized))]):
      inputs, _ = self._reader(paths, indices, tf.identity(serialized))
    return {'id': inputs['id'], **self.serve(inputs['frames'], inputs['num_frames'])}

  def _sequence_examples(self, examples) -> _Outputs:
    """Classifies the records of a request, serialized SequenceExamples [B]."""
    # Servers do not check ranks.
    examples = tf.ensure_shape(examples, [None])
    count = tf.size(examples)
    return self.records(
      tf.fill([count], _REQUEST), tf.range(count, dtype=tf.int64), examples
    )

  def serve_all_frames(self, frames, num_frames) -> _Outputs:
    """Selects frames and classifies videos.

    Args:
      frames: all frames, uint8 as stored or dequantized float32, [B, T, D] with any
        T.
      num_frames: int32 [B], number of valid frames, 1 to T.
    """
    frames = tf.ensure_shape(frames, [None, None, None])
    num_frames = tf.ensure_shape(num_frames, [None])
    batch, length, size = tf.unstack(tf.shape(frames))
    checks = [
      _check_any(batch),
      tf.debugging.Assert(
        size == self.frame_size,
        [
          'frames have',
          size,
          'values each: they must have '
          f'{self.frame_size}, '
          + ' and then '.join(f'{f.size} of {f.name}' for f in self.params.features),
        ],
      ),
      tf.debugging.Assert(
        tf.size(num_frames) == batch,
        [
          'num_frames has',
          tf.size(num_frames),
          'values for',
          batch,
          'videos: send one for each',
        ],
      ),
      tf.debugging.Assert(
        tf.reduce_all((num_frames >= 1) & (num_frames <= length)),
        [
          'num_frames is',
          num_frames,
          'for videos padded to',
          length,
          'frames: each must be from 1 to that number',
        ],
      ),
    ]
    with tf.control_dependencies(checks):
      num_frames = tf.minimum(num_frames, self.params.max_frames)
    chosen, count = frame_selection.frame_indices(
      num_frames,
      self.params.network.frames,
      self.params.max_frames,
      _SEEDS,
      tf.zeros_like(num_frames),
    )
    kept = chosen.shape[-1]
    # Indices after the first `count` are ignored, so any valid one will do.
    frames = tf.gather(frames, tf.minimum(chosen, length - 1), batch_dims=1)
    with tf.control_dependencies(_check_finite(frames, count)):
      frames = tf.ensure_shape(frames, [None, kept, self.frame_size])
    return self.serve(frames, count)


def stored_as(
  model: model_config.ClassifierModel, features: Sequence[data.Feature]
) -> model_config.ClassifierModel:
  """Returns the configuration for records that store features differently.

  Args:
    model: configuration as trained.
    features: features of the records, in the model's order; empty if as trained.

  Raises:
    ValueError: sizes differ from the model's, or frame-level features are given for
      video-level ones or vice versa.
  """
  if not features:
    return model
  names = ', '.join(f.name for f in model.features)
  sizes, trained = ([f.size for f in which] for which in (features, model.features))
  if sizes != trained:
    raise ValueError(
      f'--features have the sizes {sizes}: they must be {trained}, as in training '
      f'({names}).'
    )
  are_video, were_video = (
    [f.format == 'video' for f in which] for which in (features, model.features)
  )
  if are_video != were_video:
    raise ValueError(
      f'--features have the formats {[f.format for f in features]}, but the '
      f'network was trained on {[f.format for f in model.features]} ({names}): '
      'video-level features (format video) and frame-level features do not replace '
      'each other. Name records of the kind it was trained on.'
    )
  return model.replace(features=list(features))


def rebuilt(
  network: video_classifier.VideoClassifier,
  model: model_config.ClassifierModel,
  **options,
) -> video_classifier.VideoClassifier:
  """Builds a network again with other options of its backbone.

  Args:
    network: trained network.
    model: its configuration.
    **options: fields of the backbone's configuration. Those it lacks are ignored.

  Returns:
    A new network with the same weights.
  """
  config = model.network.replace()
  backbone = config.backbone.get()
  for name, value in options.items():
    if hasattr(backbone, name):
      setattr(backbone, name, value)
  again = video_classifier.build(model, config, 'network')
  again.set_weights(network.get_weights())
  return again


def save(
  folder: str, network: video_classifier.VideoClassifier, signatures, **functions
):
  """Writes a SavedModel that loads with TensorFlow only, without Keras.

  It holds neither the Keras model nor gradients: each would be traced once more.

  Args:
    folder: folder to write.
    network: network whose weights the functions use.
    signatures: tf.functions by signature name.
    **functions: tf.functions that become attributes.
  """
  saved = tf.Module()
  saved.weights = network.variables
  for name, function in functions.items():
    setattr(saved, name, function)
  tf.saved_model.save(
    saved,
    folder,
    signatures,
    tf.saved_model.SaveOptions(experimental_custom_gradients=False),
  )


def _check_any(batch):
  return tf.debugging.Assert(
    batch > 0, ['the request holds no videos: send at least 1']
  )


def _check_finite(frames, num_frames):
  """Returns operations that reject NaN and infinity in the valid frames."""
  if frames.dtype.is_integer:
    return []
  padding = ~tf.sequence_mask(num_frames, frames.shape[1])[..., None]
  return [
    tf.debugging.Assert(
      tf.reduce_all(tf.math.is_finite(frames) | padding),
      ['features hold NaN or infinity: send dequantized values'],
    )
  ]
