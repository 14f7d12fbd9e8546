"""VGGish: from 0.975 seconds of sound to the 128 values that audio features come from.

Source: tensorflow/models, research/audioset/vggish: vggish_params.py (constants),
mel_features.py (log-mel spectrogram), vggish_slim.py (network, names of variables). The
values are those of `vggish/fc2/BiasAdd:0`, without an activation, as in MediaPipe's
mediapipe/graphs/youtube8m/feature_extraction.pbtxt.

Deviation: MediaPipe computes its spectrogram with C++ code of its own. Here it is the
one that VGGish publishes, by `tf.signal`, whose mel matrix has the same definition.
"""

import numpy as np
import tensorflow as tf

from yt8m_distill.features import decode
from yt8m_distill.features import weights
from yt8m_distill.utils import cli

SAMPLE_RATE, SAMPLES = decode.SAMPLE_RATE, decode.PATCH_SAMPLES
_WINDOW = 400  # 25 ms, periodic Hann
_HOP = 160  # 10 ms
_FFT = 512  # the next power of two
_FRAMES = 96
_BANDS = 64
_LOWEST, _HIGHEST = 125.0, 7500.0  # Hz
_LOG_OFFSET = 0.01

# A stride-2 max pooling follows the convolutions of each tuple.
_CONVOLUTIONS = (
  ('conv1',),
  ('conv2',),
  ('conv3/conv3_1', 'conv3/conv3_2'),
  ('conv4/conv4_1', 'conv4/conv4_2'),
)
_DENSE = ('fc1/fc1_1', 'fc1/fc1_2', 'fc2')
_SHAPES = {
  'conv1': (3, 3, 1, 64),
  'conv2': (3, 3, 64, 128),
  'conv3/conv3_1': (3, 3, 128, 256),
  'conv3/conv3_2': (3, 3, 256, 256),
  'conv4/conv4_1': (3, 3, 256, 512),
  'conv4/conv4_2': (3, 3, 512, 512),
  'fc1/fc1_1': (6 * 4 * 512, 4096),
  'fc1/fc1_2': (4096, 4096),
  'fc2': (4096, 128),
}
# Name in the checkpoint -> shape.
VARIABLES = {
  f'vggish/{layer}/{name}': part
  for layer, shape in _SHAPES.items()
  for name, part in (('weights', shape), ('biases', shape[-1:]))
}


def log_mel(samples: tf.Tensor) -> tf.Tensor:
  """Returns log-mel spectrograms.

  Args:
    samples: float32 [N, 15600] in [-1, 1].

  Returns:
    float32 [N, 96, 64].
  """
  spectrogram = tf.abs(tf.signal.stft(samples, _WINDOW, _HOP, _FFT))
  mel = tf.signal.linear_to_mel_weight_matrix(
    _BANDS, _FFT // 2 + 1, SAMPLE_RATE, _LOWEST, _HIGHEST
  )
  return tf.math.log(tf.matmul(spectrogram, mel) + _LOG_OFFSET)


def embed(variables: dict[str, tf.Tensor], patches: tf.Tensor) -> tf.Tensor:
  """Returns the network's outputs, float32 [N, 128].

  Args:
    variables: named as VARIABLES.
    patches: float32 [N, 96, 64], see `log_mel`.
  """
  x = patches[..., tf.newaxis]
  for layers in _CONVOLUTIONS:
    for layer in layers:
      kernel, bias = _of(variables, layer)
      x = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, 'SAME') + bias)
    x = tf.nn.max_pool2d(x, 2, 2, 'SAME')
  x = tf.reshape(x, [-1, np.prod(x.shape[1:])])
  for layer in _DENSE:
    kernel, bias = _of(variables, layer)
    x = tf.matmul(x, kernel) + bias
    if layer != _DENSE[-1]:
      x = tf.nn.relu(x)
  return x


def _of(variables, layer):
  return [variables[f'vggish/{layer}/{name}'] for name in ('weights', 'biases')]


class VGGish:
  """The network with the weights of the official checkpoint."""

  def __init__(self, folder: str):
    """Loads the weights.

    Args:
      folder: holds the official files.

    Raises:
      ValueError: the checkpoint is missing, or is not the official one.
    """
    (path,) = weights.find(folder, (weights.VGGISH,))
    variables = _load(path)

    @tf.function(input_signature=[tf.TensorSpec([None, SAMPLES])])
    def values(samples):
      return embed(variables, log_mel(samples))

    self._values = values

  def prepare(self, sound: np.ndarray) -> np.ndarray:
    """Returns a sound unchanged.

    Args:
      sound: float32 [15600] in [-1, 1].

    Raises:
      ValueError: it has another type or shape, or is not finite.
    """
    if sound.dtype != np.float32 or sound.shape != (SAMPLES,):
      raise ValueError(
        f'A sound is {sound.dtype} {list(sound.shape)}: float32 [{SAMPLES}] is needed, '
        f'{SAMPLES / SAMPLE_RATE} seconds of {SAMPLE_RATE} Hz. Convert it.'
      )
    if not np.isfinite(sound).all():
      raise ValueError(
        'A sound holds NaN or infinite samples: samples from -1 to 1 are needed. '
        'Convert its file to a format of integers.'
      )
    return sound

  def __call__(self, samples: np.ndarray) -> np.ndarray:
    """Returns the values of a batch of sounds.

    Args:
      samples: float32 [N, 15600] in [-1, 1].

    Returns:
      float32 [N, 128].
    """
    return self._values(samples).numpy()


def _load(path: str) -> dict[str, tf.Tensor]:
  """Returns the variables of a checkpoint; raises ValueError if it has others."""
  with weights.local_copy(path) as copy:
    try:
      reader = tf.train.load_checkpoint(copy)
      shapes = reader.get_variable_to_shape_map()
      differences = [
        f'{name} is {shapes.get(name, "absent")} instead of {list(shape)}'
        for name, shape in VARIABLES.items()
        if shapes.get(name) != list(shape)
      ]
      names = () if differences else VARIABLES
      values = {name: reader.get_tensor(name) for name in names}
    except (IndexError, RuntimeError, tf.errors.OpError) as error:
      raise weights.wrong(path, f'is not a whole checkpoint ({error})') from error
  if differences:
    raise weights.wrong(path, f'has other variables: {cli.some_of(differences)}')
  return {
    name: tf.constant(weights.finite(path, value)) for name, value in values.items()
  }
