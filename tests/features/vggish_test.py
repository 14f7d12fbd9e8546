"""Log-mel spectrograms and the network of VGGish."""

import feature_weights
import numpy as np
import pytest
import scipy.signal
import tensorflow as tf
import tf_keras

from yt8m_distill.features import vggish
from yt8m_distill.features import weights

_TIME = np.arange(vggish.SAMPLES) / vggish.SAMPLE_RATE
_SOUNDS = {
  'silence': 0 * _TIME,
  'tone': 0.5 * np.sin(2 * np.pi * 440 * _TIME),
  'low_tone': np.sin(2 * np.pi * 60 * _TIME),
  'high_tone': np.sin(2 * np.pi * 7900 * _TIME),
  'chirp': 0.8 * scipy.signal.chirp(_TIME, 50, _TIME[-1], 8000),
  'noise': np.random.default_rng(5).uniform(-1, 1, vggish.SAMPLES),
  'click': np.eye(1, vggish.SAMPLES, 7000)[0],
  'constant': 1 + 0 * _TIME,
}


def _mel(hertz):
  return 1127 * np.log(1 + np.asarray(hertz) / 700)


def _plain_log_mel(samples):
  """The definition that VGGish gives, in float64, [96, 64]."""
  window = scipy.signal.get_window('hann', 400, fftbins=True)
  spectrum = np.array(
    [
      np.abs(np.fft.rfft(window * samples[first : first + 400], 512))
      for first in range(0, len(samples) - 399, 160)
    ]
  )
  places = _mel(np.arange(257) * 16000 / 512)
  edges = np.linspace(_mel(125), _mel(7500), 66)
  bands = []
  for low, middle, high in zip(edges, edges[1:], edges[2:]):
    rising = (places - low) / (middle - low)
    falling = (high - places) / (high - middle)
    bands.append(np.maximum(0, np.minimum(rising, falling)))
    bands[-1][0] = 0  # 0 Hz counts in no band.
  return np.log(spectrum @ np.transpose(bands) + 0.01)


@pytest.mark.parametrize('name', _SOUNDS)
def test_log_mel_follows_the_definition(name):
  samples = _SOUNDS[name]
  patch = vggish.log_mel(tf.constant(samples[np.newaxis], tf.float32))[0].numpy()
  assert patch.shape == (96, 64)
  np.testing.assert_allclose(patch, _plain_log_mel(samples), atol=1e-3)


def test_log_mel_of_sounds_at_once_equals_each():
  sounds = np.array([*_SOUNDS.values()], np.float32)
  together = vggish.log_mel(sounds).numpy()
  for sound, patch in zip(sounds, together):
    np.testing.assert_array_equal(vggish.log_mel(sound[np.newaxis])[0], patch)


def test_log_mel_of_silence_is_the_offset():
  np.testing.assert_array_equal(
    vggish.log_mel(tf.zeros([1, vggish.SAMPLES])),
    np.full([1, 96, 64], np.log(0.01), 'f'),
  )


def test_variables_are_those_of_the_checkpoint():
  # 72,141,184 parameters up to the embedding.
  assert sum(np.prod(shape) for shape in vggish.VARIABLES.values()) == 72_141_184
  assert vggish.VARIABLES['vggish/conv3/conv3_1/weights'] == (3, 3, 128, 256)
  assert vggish.VARIABLES['vggish/fc1/fc1_1/weights'] == (12288, 4096)
  assert vggish.VARIABLES['vggish/fc2/biases'] == (128,)
  assert len(vggish.VARIABLES) == 18


def _keras(variables):
  """The same layers, built by Keras."""
  layers = tf_keras.layers
  model = tf_keras.Sequential([layers.Input([96, 64, 1])])
  convolutions = 'conv1 conv2 conv3/conv3_1 conv3/conv3_2 conv4/conv4_1 conv4/conv4_2'
  for scope in convolutions.split():
    channels = variables[f'vggish/{scope}/biases'].shape[0]
    model.add(layers.Conv2D(channels, 3, padding='same', activation='relu'))
    if not scope.endswith('_1'):
      model.add(layers.MaxPool2D(2, padding='same'))
  model.add(layers.Flatten())
  for scope, activation in (
    ('fc1/fc1_1', 'relu'),
    ('fc1/fc1_2', 'relu'),
    ('fc2', None),
  ):
    units = variables[f'vggish/{scope}/biases'].shape[0]
    model.add(layers.Dense(units, activation))
  model.set_weights(list(variables.values()))
  return model


def test_network_equals_layers_of_keras(narrow_vggish):
  variables = feature_weights.vggish_variables(vggish.VARIABLES)
  patches = vggish.log_mel(np.array([*_SOUNDS.values()], np.float32))
  outputs = vggish.embed(variables, patches).numpy()
  assert outputs.shape == (len(_SOUNDS), 128)
  assert outputs.std() > 0.1 and outputs.min() < -0.1
  expected = _keras(variables)(patches[..., tf.newaxis])
  np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)


def test_loads_the_checkpoint(narrow_vggish, tmp_path):
  feature_weights.write_vggish(tmp_path)
  sounds = np.array([*_SOUNDS.values()], np.float32)
  expected = vggish.embed(
    feature_weights.vggish_variables(vggish.VARIABLES), vggish.log_mel(sounds)
  )
  network = vggish.VGGish(str(tmp_path))
  np.testing.assert_allclose(network(sounds), expected, rtol=1e-5, atol=1e-5)


def test_other_variables_of_the_checkpoint_are_ignored(narrow_vggish, tmp_path):
  feature_weights.write_vggish(tmp_path, global_step=np.int64(7))
  vggish.VGGish(str(tmp_path))


def _fails(folder, match):
  with pytest.raises(ValueError, match=match) as error:
    vggish.VGGish(str(folder))
  message = str(error.value)
  assert message.startswith(str(folder / weights.VGGISH))
  assert 'https://storage.googleapis.com/audioset/vggish_model.ckpt' in message
  assert '\n' not in message


def test_missing_checkpoint_is_named(tmp_path):
  _fails(tmp_path, 'does not exist')


@pytest.mark.parametrize(
  ('name', 'value', 'match'),
  [
    (
      'conv1/weights',
      np.zeros([3, 3, 1, 7], 'f'),
      r'\[3, 3, 1, 7\] instead of',
    ),
    ('fc2/biases', None, r'vggish/fc2/biases is absent instead of \[128\]'),
    ('fc2/biases', np.full(128, np.inf, 'f'), 'holds NaN or infinite values'),
  ],
)
def test_wrong_variables_are_named(narrow_vggish, tmp_path, name, value, match):
  feature_weights.write_vggish(tmp_path, **{f'vggish/{name}': value})
  _fails(tmp_path, match)


def test_narrow_checkpoint_is_not_the_official_one(monkeypatch, tmp_path):
  with monkeypatch.context() as patch:
    patch.setattr(vggish, 'VARIABLES', feature_weights.narrow_variables())
    feature_weights.write_vggish(tmp_path)
  _fails(tmp_path, 'has other variables: .* and [0-9]+ more')


@pytest.mark.parametrize('kind', ['empty', 'page', 'cut', 'flipped'])
def test_damaged_checkpoints_are_named(narrow_vggish, tmp_path, kind):
  feature_weights.write_vggish(tmp_path)
  path = tmp_path / weights.VGGISH
  content = bytearray(path.read_bytes())
  flipped = content.copy()
  flipped[len(content) // 2] ^= 255
  path.write_bytes(
    {
      'empty': b'',
      'page': b'<html>Not found</html>' * 9,
      'cut': content[: len(content) // 2],
      'flipped': flipped,
    }[kind]
  )
  _fails(tmp_path, 'is not a whole checkpoint')


@pytest.mark.parametrize(
  ('sound', 'match'),
  [
    (np.zeros(15600), r'A sound is float64 \[15600\]: float32 \[15600\] is needed'),
    (np.zeros(15360, np.float32), r'A sound is float32 \[15360\]'),
    (np.zeros([1, 15600], np.float32), r'A sound is float32 \[1, 15600\]'),
    (np.full(15600, np.nan, np.float32), 'A sound holds NaN'),
  ],
)
def test_wrong_sounds_are_refused(narrow_vggish, tmp_path, sound, match):
  feature_weights.write_vggish(tmp_path)
  with pytest.raises(ValueError, match=match):
    vggish.VGGish(str(tmp_path)).prepare(sound)
