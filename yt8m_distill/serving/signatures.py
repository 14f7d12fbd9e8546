"""Signatures of an exported network.

They take all frames of a video and select those that the network sees, so that
callers need not know which ones these are.

B videos, T frames, D features, V classes, K best classes, R representation, W windows,
S frames seen of a window at most.
"""

from collections.abc import Sequence

from absl import flags
from official.core import export_base
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config
from yt8m_distill.dataloaders import reader
from yt8m_distill.modeling import adaptive
from yt8m_distill.modeling import frame_selection
from yt8m_distill.modeling import video_classifier
from yt8m_distill.serving import windows
from yt8m_distill.utils import cli

_REQUEST = 'request'  # name of a request's records in messages
# Seed of random frames of videos without ids: the same ones for equal lengths.
_SEEDS = (0,)
_Outputs = dict[str, tf.Tensor]


def define_flags():
  """Defines the flag that says how records store the features; see `stored_as`."""
  flags.DEFINE_list(
    'features',
    [],
    'NAME:SIZE:FORMAT of each feature, if the records store them differently from '
    'those the network was trained on.',
  )


class ServingModule(export_base.ExportModule):
  """Signatures of a SavedModel.

  All return `class_indices` int32 [B, K] and `probabilities` float32 [B, K] by
  descending probability, `class_names` string [B, K] if names are known,
  `predictions` float32 [B, V], and `representation` float32 [B, R], an embedding of
  the video. A network that stops looking at a video when it is sure also returns
  `frames_seen` int32 [B]; it sees all of its frames of windows. `segments` returns
  `class_indices`, `probabilities`, `class_names` and `predictions` for each window of 5
  frames of the videos, [W, ...], and `video`, `start` and `end` (see
  `windows.Windows`). A request without videos or with invalid tensors raises an
  InvalidArgumentError that says what is expected.

  Networks for features stored as floats have no signatures `frames` and `segments`.
  Networks for video-level features take serialized Examples; a video is a single frame
  and has no windows.
  Random frames of a record are drawn by its id, as in evaluation (without an id, by
  its position in the request). Videos passed to `frames` and `features` have no
  ids: their random frames depend only on num_frames. A network that sees a window of
  a record takes the first frames of such a video for the window.

  Attributes:
    frame_size: D.
    frame_dtype: dtype of a record's frames, uint8 or float32.
    context: frames before and after a window that the network also sees.
    network: the network, which sees all of its frames.
    stopping: when the network stops looking at a video; None for never.
  """

  def __init__(
    self,
    network: video_classifier.VideoClassifier,
    model: model_config.ClassifierModel,
    top_k: int = 20,
    names: Sequence[str] = (),
    context: int = 0,
    stopping: adaptive.Rule | None = None,
  ):
    """Initializes the module.

    Args:
      network: trained network.
      model: its configuration.
      top_k: K; all classes if there are fewer.
      names: names of the V classes; empty if unknown.
      context: as returned by `windows.context_of`.
      stopping: when to stop looking at a video; None to see all of its frames.

    Raises:
      ValueError: top_k is below 1, or there are not V names.
    """
    self.network = network
    self.stopping = stopping
    if stopping:
      network = adaptive.AdaptiveClassifier(network, stopping)
    super().__init__(params=model, model=network)
    cli.check_least(top_k=top_k)
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
    self.context = context
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
    if model.features[0].format == 'video':
      return
    # Selects frames of windows, so it reads all of a video.
    self._video_reader = reader.FrameReader(
      model.features,
      windows.last_frame(model.max_frames),
      model.num_classes,
      model_config.FrameSelection(),
      with_ids=True,
      with_labels=False,
    )
    indices = tf.TensorSpec([None], tf.int32)
    self._classify_windows = tf.function(  # Traced once for both that follow.
      self._windows,
      autograph=False,
      input_signature=[tf.TensorSpec(frames, self.frame_dtype), *[indices] * 5],
    )
    self.segments = tf.function(
      self._segments,
      autograph=False,
      input_signature=[tf.TensorSpec(frames, tf.uint8, 'frames'), counts],
    )
    self.record_windows = tf.function(
      self._record_windows,
      autograph=False,
      input_signature=[*self.records.input_signature, tf.TensorSpec([], tf.int32)],
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
    else:
      signatures['segments'] = self.segments
    return signatures

  def record_functions(self):
    """Returns the functions of records by name, which the export keeps."""
    functions = {'records': self.records}
    if hasattr(self, 'record_windows'):
      functions['record_windows'] = self.record_windows
    return functions

  def serve(self, frames: tf.Tensor, num_frames: tf.Tensor) -> _Outputs:
    """Classifies videos.

    Args:
      frames: selected frames, uint8 or float32 [B, T, D], padded with zeros.
      num_frames: int32 [B], number of valid frames.
    """
    outputs = self.model({'frames': frames, 'num_frames': num_frames}, training=False)
    extras = {'representation': outputs['representation']}
    if self.stopping:
      extras['frames_seen'] = outputs['frames_seen']
    return {**self.with_best(outputs['predictions']), **extras}

  def with_best(self, predictions: tf.Tensor) -> _Outputs:
    """Returns predictions, float32 [B, V], and their best classes."""
    probabilities, indices = tf.math.top_k(predictions, self._top_k)
    results = {
      'class_indices': indices,
      'probabilities': probabilities,
      'predictions': predictions,
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
    return self.serve(*self.select(*self._checked(frames, num_frames)))

  def select(self, frames, num_frames) -> tuple[tf.Tensor, tf.Tensor]:
    """Selects the frames that the network sees.

    Args:
      frames: all frames, [B, T, D].
      num_frames: int32 [B], number of valid frames, 0 to T.

    Returns:
      Frames [B, K, D] and how many of the K are valid, int32 [B].

    Raises:
      InvalidArgumentError: when run, if a selected frame holds NaN or infinity.
    """
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
    last = tf.shape(frames)[1] - 1
    frames = tf.gather(frames, tf.minimum(chosen, last), batch_dims=1)
    with tf.control_dependencies(_check_finite(frames, count)):
      return tf.ensure_shape(frames, [None, kept, self.frame_size]), count

  def _checked(self, frames, num_frames) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the tensors of a request once they are known to be valid."""
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
      return tf.identity(frames), tf.identity(num_frames)

  def _segments(self, frames, num_frames) -> _Outputs:
    """Classifies the windows of videos; takes what serve_all_frames() takes."""
    frames, num_frames = self._checked(frames, num_frames)
    found = windows.of_videos(num_frames, model_config.WINDOW)
    seeds = tf.zeros_like(found.video) + _SEEDS
    predictions, _ = self._classify_windows(frames, num_frames, *found, seeds)
    return {**found._asdict(), **self.with_best(predictions)}

  def _record_windows(self, paths, indices, serialized, length) -> _Outputs:
    """Classifies the windows of records.

    Random frames are drawn by `ID:START`, the id that `split-segments` gives a window.

    Args:
      paths: see _records().
      indices: see _records().
      serialized: see _records().
      length: int32 scalar, frames of a window.

    Returns:
      `id` string [B], those of `windows.Windows`, `predictions` float32 [W, V], and
      `frames` int32 [W, S], the frames that the network saw, -1 after the last one.
    """
    with tf.control_dependencies([_check_any(tf.size(serialized))]):
      inputs, _ = self._video_reader(paths, indices, tf.identity(serialized))
    found = windows.of_videos(inputs['num_frames'], length)
    ids = tf.gather(inputs['id'], found.video)
    ids = tf.strings.join([ids, tf.strings.as_string(found.start)], ':')
    predictions, seen = self._classify_windows(
      inputs['frames'], inputs['num_frames'], *found, reader.seeds_of(ids)
    )
    return {
      'id': inputs['id'],
      **found._asdict(),
      'predictions': predictions,
      'frames': seen,
    }

  def _windows(
    self, frames, num_frames, video, start, end, seeds
  ) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the predictions of windows and the frames seen; see _record_windows()."""
    found = windows.Windows(video, start, end)
    indices, count = windows.chosen_frames(
      self.params, self.context, num_frames, found, seeds
    )
    predictions = windows.classify(
      lambda inputs: self.network(inputs, training=False)['predictions'],
      self.params,
      frames,
      video,
      indices,
      count,
    )
    is_valid = tf.sequence_mask(count, tf.shape(indices)[1])
    return predictions, tf.where(is_valid, indices, -1)


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


def save(folder: str, weights: Sequence, signatures, **functions):
  """Writes a SavedModel that loads with TensorFlow only, without Keras.

  It holds neither the Keras model nor gradients: each would be traced once more.

  Args:
    folder: folder to write.
    weights: variables that the functions use: those of a network, or a list for each
      of several.
    signatures: tf.functions by signature name.
    **functions: tf.functions that become attributes.
  """
  saved = tf.Module()
  saved.weights = weights
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
