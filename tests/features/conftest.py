"""Feature networks with random weights."""

import shutil

import feature_weights
import pytest

from yt8m_distill.features import vggish


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
