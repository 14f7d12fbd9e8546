"""Feature networks with random weights, and videos for them."""

import shutil

import feature_weights
import numpy as np
import pytest

from yt8m_distill.features import vggish

_RATE = 8_000  # of sound


@pytest.fixture(scope='session')
def weights_folder(tmp_path_factory):
  """All files but the checkpoint of VGGish; no test may change them."""
  folder = tmp_path_factory.mktemp('weights')
  feature_weights.write_inception(folder)
  feature_weights.write_whitening(folder)
  return folder


@pytest.fixture
def narrow_vggish(monkeypatch):
  """Makes VGGish small enough for a unit test."""
  monkeypatch.setattr(vggish, 'VARIABLES', feature_weights.narrow_variables())


@pytest.fixture
def folder(weights_folder, narrow_vggish, tmp_path):
  """All files, with a narrow VGGish."""
  folder = shutil.copytree(weights_folder, tmp_path / 'weights')
  feature_weights.write_vggish(folder)
  return folder


@pytest.fixture
def videos(tmp_path):
  """A list of three videos: sound that ends early, no sound, sound that goes on."""
  pytest.importorskip('av')
  import video_files

  rng = np.random.default_rng(0)
  rows = []
  for number, (pictures, seconds) in enumerate([(40, 7.3), (22, None), (17, 9.0)]):
    sound = None
    if seconds:
      sound = rng.uniform(-0.5, 0.5, [1, int(seconds * _RATE)])
    video_files.write(
      tmp_path / f'{number}.mp4',
      [rng.integers(0, 256, [48, 64, 3], np.uint8) for _ in range(pictures)],
      rate=4,
      keyframes=6,
      sound=sound,
      sound_rate=_RATE,
    )
    rows.append(f'{number}.mp4,{number} {number + 5}')
  (tmp_path / 'list.csv').write_text('\n'.join(['path,labels', *rows]))
  return tmp_path / 'list.csv'
