"""Rows of a record from pictures and sounds."""

import shutil

import feature_weights
import http_files
import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill.features import inception
from yt8m_distill.features import networks
from yt8m_distill.features import vggish
from yt8m_distill.features import weights
from yt8m_distill.features import whitening
from yt8m_distill.utils import quantization

_RNG = np.random.default_rng(6)
_PICTURES = [
  _RNG.integers(0, 256, [40 + i % 3, 60, 3], np.uint8) // (1 + i % 5) for i in range(19)
]
_SOUNDS = _RNG.uniform(-1, 1, [19, vggish.SAMPLES]).astype(np.float32)


def test_pictures_become_rows(weights_folder):
  features = networks.FeatureNetworks(str(weights_folder))
  rows = features.rgb(iter(_PICTURES))
  assert rows.dtype == np.uint8
  assert rows.shape == (19, 1024)
  assert rows.std(axis=0).mean() > 5  # Pictures differ.
  # As the formula says, from the network's own outputs.
  network = inception.Inception(str(weights_folder))
  values = network(np.stack([network.prepare(picture) for picture in _PICTURES[:3]]))
  expected = whitening.load_rgb(str(weights_folder))(values)
  np.testing.assert_array_equal(rows[:3], quantization.quantize(expected))


def test_sounds_become_rows(folder):
  features = networks.FeatureNetworks(str(folder))
  rows = features.audio(_SOUNDS)
  assert rows.dtype == np.uint8
  assert rows.shape == (19, 128)
  network, _ = features._sound
  values = network(_SOUNDS)
  expected = whitening.load_audio(str(folder))(values)
  np.testing.assert_array_equal(rows, quantization.quantize(expected))


def test_a_row_does_not_depend_on_the_others(folder):
  features = networks.FeatureNetworks(str(folder))
  for compute, inputs in ((features.rgb, _PICTURES), (features.audio, _SOUNDS)):
    rows = compute(inputs)
    for number in (1, 2, 5, 16, 17):
      np.testing.assert_array_equal(compute(inputs[-number:]), rows[-number:])


def test_nothing_becomes_no_rows(folder):
  features = networks.FeatureNetworks(str(folder))
  assert features.rgb([]).shape == (0, 1024)
  assert features.audio([]).shape == (0, 128)


def test_takes_inputs_batch_by_batch(weights_folder):
  taken, computed = [], []
  features = networks.FeatureNetworks(str(weights_folder))
  network, whiten = features._picture

  def pictures():
    for i in range(40):
      taken.append(i)
      assert len(taken) - sum(computed) <= 16
      yield _PICTURES[0]

  def counting(values):
    computed.append(len(values))
    return whiten(values)

  counting.projection = whiten.projection
  features.__dict__['_picture'] = network, counting
  features.rgb(pictures())
  assert computed == [16, 16, 8]


def test_loads_only_what_it_needs(weights_folder, tmp_path):
  for name in (weights.INCEPTION, weights.RGB_MEAN, weights.RGB_PROJECTION):
    shutil.copy(weights_folder / name, tmp_path)
  features = networks.FeatureNetworks(str(tmp_path))
  assert features.rgb(_PICTURES[:1]).shape == (1, 1024)
  with pytest.raises(ValueError, match='vggish_pca_params.npz does not exist'):
    features.audio(_SOUNDS[:1])


def test_networks_are_loaded_once(weights_folder):
  features = networks.FeatureNetworks(str(weights_folder))
  assert features._picture is features._picture


def test_no_audio_is_nearest_to_zero():
  rows = networks.no_audio(3)
  assert rows.dtype == np.uint8
  assert rows.shape == (3, 128)
  assert np.unique(rows) == [127]
  values = np.abs(quantization.dequantize(tf.range(256)))
  assert np.argmin(values) == 127


def test_values_that_are_not_finite_are_refused(weights_folder, tmp_path):
  def infinite(pictures):
    return feature_weights.small_body(pictures) / 0.0

  shutil.copytree(weights_folder, tmp_path, dirs_exist_ok=True)
  feature_weights.write_inception(tmp_path, infinite)
  with pytest.raises(ValueError, match='computed NaN or infinite values'):
    networks.FeatureNetworks(str(tmp_path)).rgb(_PICTURES[:1])


def test_reads_a_remote_folder(weights_folder):
  tf.io.gfile.makedirs('ram://networks')
  for path in weights_folder.iterdir():
    tf.io.gfile.copy(str(path), f'ram://networks/{path.name}', overwrite=True)
  rows = networks.FeatureNetworks('ram://networks').rgb(_PICTURES[:2])
  expected = networks.FeatureNetworks(str(weights_folder)).rgb(_PICTURES[:2])
  np.testing.assert_array_equal(rows, expected)


@pytest.mark.skipif(
  not tf.__version__.startswith('2.16.'),
  reason='tensorflow-io has http only for TensorFlow 2.16',
)
def test_reads_over_http(folder):
  with http_files.serving(folder) as server:
    features = networks.FeatureNetworks(server.url)
    rows = features.rgb(_PICTURES[:2]), features.audio(_SOUNDS[:2])
  features = networks.FeatureNetworks(str(folder))
  np.testing.assert_array_equal(rows[0], features.rgb(_PICTURES[:2]))
  np.testing.assert_array_equal(rows[1], features.audio(_SOUNDS[:2]))


@pytest.mark.end_to_end
def test_networks_of_the_official_size(tmp_path):
  feature_weights.write(tmp_path)
  features = networks.FeatureNetworks(str(tmp_path))
  assert features.rgb(_PICTURES[:2]).shape == (2, 1024)
  rows = features.audio(_SOUNDS)
  assert rows.shape == (19, 128)
  np.testing.assert_array_equal(features.audio(_SOUNDS[-1:]), rows[-1:])
