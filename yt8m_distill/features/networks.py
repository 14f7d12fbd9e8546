"""From pictures and sounds of a video to the rows of its record, uint8."""

from collections.abc import Iterable
import functools
import itertools

import numpy as np

from yt8m_distill.features import inception
from yt8m_distill.features import vggish
from yt8m_distill.features import whitening
from yt8m_distill.utils import quantization

_BATCH = 16  # experiments/benchmarks/README.md has the gain


class FeatureNetworks:
  """Computes the features of YouTube-8M, quantized as in its records.

  Each network is loaded when it is first used, also in a process that gets a pickle.
  Pictures and sounds are taken from their iterables batch by batch.
  """

  def __init__(self, folder: str):
    """Does not read the folder yet.

    Args:
      folder: holds the official files that `weights` lists; may be remote.
    """
    self._folder = folder

  def __reduce__(self):
    return _of_folder, (self._folder,)

  def rgb(self, pictures: Iterable[np.ndarray]) -> np.ndarray:
    """Returns the rows of pictures.

    Args:
      pictures: uint8 RGB [H, W, 3], of any sizes.

    Returns:
      uint8 [N, 1024], a row per picture.

    Raises:
      ValueError: a file is missing or wrong, or a picture is invalid.
    """
    return _rows(*self._picture, pictures)

  def audio(self, sounds: Iterable[np.ndarray]) -> np.ndarray:
    """Returns the rows of sounds.

    Args:
      sounds: float32 [15600] in [-1, 1], the mono sound at 16 kHz that begins with a
        second of the video.

    Returns:
      uint8 [N, 128], a row per sound.

    Raises:
      ValueError: a file is missing or wrong, or a sound is invalid.
    """
    return _rows(*self._sound, sounds)

  @functools.cached_property
  def _picture(self) -> tuple[inception.Inception, whitening.Whitening]:
    whiten = whitening.load_rgb(self._folder)
    return inception.Inception(self._folder), whiten

  @functools.cached_property
  def _sound(self) -> tuple[vggish.VGGish, whitening.Whitening]:
    whiten = whitening.load_audio(self._folder)
    return vggish.VGGish(self._folder), whiten


@functools.cache
def _of_folder(folder: str) -> FeatureNetworks:
  return FeatureNetworks(folder)


def no_audio(num_rows: int) -> np.ndarray:
  """Returns the rows of seconds without sound, uint8 [num_rows, 128].

  They hold the byte that stands for the value nearest to 0. The starter code writes
  byte 0, which stands for -1.99.
  """
  silence = np.zeros([num_rows, whitening.AUDIO_SIZE], np.float32)
  return quantization.quantize(silence).numpy()


def _rows(
  network: inception.Inception | vggish.VGGish,
  whiten: whitening.Whitening,
  inputs: Iterable[np.ndarray],
) -> np.ndarray:
  """Returns the rows of a network's inputs, computed in batches."""
  prepared = map(network.prepare, inputs)
  rows = [np.zeros([0, whiten.projection.shape[1]], np.uint8)]
  while batch := list(itertools.islice(prepared, _BATCH)):
    # Matrix products round a single row differently, so a batch has at least two.
    values = network(np.stack(batch * 2 if len(batch) == 1 else batch))
    if not np.isfinite(values).all():
      raise ValueError(
        'A network computed NaN or infinite values: its weights are not the official '
        'ones. Get them again as yt8m_distill/features/README.md says.'
      )
    rows.append(quantization.quantize(whiten(values[: len(batch)])).numpy())
  return np.concatenate(rows)
