"""Writes the SavedModel that MediaPipe's YouTube-8M graphs load.

Source: TensorFlowSessionFromSavedModelCalculator and TensorFlowInferenceCalculator of
MediaPipe, and its graphs youtube8m/local_video_model_inference.pbtxt and
yt8m_dataset_model_inference.pbtxt. They feed the tensors of the signature
serving_default in a session of TensorFlow 1.

N segments of a batch, S frames of a segment, V classes.
"""

from collections.abc import Sequence
import os

import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import video_classifier
from yt8m_distill.serving import signatures
from yt8m_distill.utils import files
from yt8m_distill.utils import quantization

FOLDER = 'mediapipe'
LABEL_MAP = 'label_map.txt'
_SIZES = [1024, 128]


def check(model: model_config.ClassifierModel):
  """Raises a ValueError unless MediaPipe's graphs compute a network's features.

  Args:
    model: configuration of the network, as trained.
  """
  features = model.features
  if [f.size for f in features] != _SIZES or features[0].format == 'video':
    raise ValueError(
      'mediapipe is True, but the features of the network are '
      f'{data.format_features(features)}: MediaPipe sends 1024 values of rgb and then '
      '128 of audio for each frame. Omit --mediapipe.'
    )


def save(
  folder: str,
  network: video_classifier.VideoClassifier,
  model: model_config.ClassifierModel,
  names: Sequence[str],
):
  """Writes the SavedModel, and the label map if there are names.

  Its signature takes `rgb_and_audio` float32 [N, S, 1152], neither clipped nor
  quantized, and `num_frames` int32 [N, 1], and returns `predictions` float32 [N, V].
  Frames after the first S or max_frames do not count.

  Args:
    folder: folder to write.
    network: trained network.
    model: its configuration, as trained.
    names: names of the V classes; empty if unknown.
  """
  module = signatures.ServingModule(network, model)

  def serve(rgb_and_audio, num_frames):
    num_frames = tf.clip_by_value(num_frames[:, 0], 0, tf.shape(rgb_and_audio)[1])
    frames, count = module.select(rgb_and_audio, num_frames)
    if module.frame_dtype == tf.uint8:
      frames = quantization.quantize(frames)
    return {'predictions': module.serve(frames, count)['predictions']}

  function = tf.function(
    serve,
    autograph=False,
    input_signature=[
      tf.TensorSpec([None, None, module.frame_size], tf.float32, 'rgb_and_audio'),
      tf.TensorSpec([None, 1], tf.int32, 'num_frames'),
    ],
  )
  signatures.save(folder, network.variables, {'serving_default': function})
  if names:
    # A line per class, also for one without a name.
    lines = [' '.join(name.split()) or str(index) for index, name in enumerate(names)]
    files.write_text(os.path.join(folder, LABEL_MAP), '\n'.join(lines) + '\n')
