"""Files of the networks that made YouTube-8M's features, which the user supplies.

They lie in one folder under their official names. Means and matrices of the whitening
are published twice: by the YouTube-8M starter code and VGGish, and by MediaPipe. Any
of the two will do; of two complete ones the first is read.

Sources of the names: google/youtube-8m, feature_extractor/feature_extractor.py;
tensorflow/models, research/audioset/vggish/README.md; MediaPipe,
mediapipe/examples/desktop/youtube8m/README.md.
"""

from collections.abc import Iterator
import contextlib
import os
import tempfile

import numpy as np
import tensorflow as tf

from yt8m_distill.dataloaders import remote

INCEPTION = 'classify_image_graph_def.pb'
VGGISH = 'vggish_model.ckpt'
# Of each whitening, the alternatives: the files of one are read together.
MEAN, EIGENVALUES, EIGENVECTORS = 'mean.npy', 'eigenvals.npy', 'eigenvecs.npy'
RGB_MEAN = 'inception3_mean_matrix_data.pb'
RGB_PROJECTION = 'inception3_projection_matrix_data.pb'
AUDIO_PCA = 'vggish_pca_params.npz'
AUDIO_MEAN = 'vggish_mean_matrix_data.pb'
AUDIO_PROJECTION = 'vggish_projection_matrix_data.pb'

_INCEPTION_URL = (
  'http://download.tensorflow.org/models/image/imagenet/inception-2015-12-05.tgz'
)
_PCA_URL = 'http://data.yt8m.org/yt8m_pca.tgz'
_MEDIAPIPE_URL = 'http://data.yt8m.org/pca_matrix_data'
_AUDIOSET_URL = 'https://storage.googleapis.com/audioset'
_SOURCES = {
  INCEPTION: f'extract it from {_INCEPTION_URL}',
  VGGISH: f'download {_AUDIOSET_URL}/{VGGISH}',
  AUDIO_PCA: f'download {_AUDIOSET_URL}/{AUDIO_PCA}',
  **dict.fromkeys((MEAN, EIGENVALUES, EIGENVECTORS), f'extract it from {_PCA_URL}'),
  **{
    name: f'download {_MEDIAPIPE_URL}/{name}'
    for name in (RGB_MEAN, RGB_PROJECTION, AUDIO_MEAN, AUDIO_PROJECTION)
  },
}


def find(folder: str, *alternatives: tuple[str, ...]) -> list[str]:
  """Returns the paths of the first alternative whose files all exist.

  Args:
    folder: local or remote.
    *alternatives: names of files that are read together.

  Raises:
    ValueError: no alternative is complete; names a missing file of the one that has
      most of its files, and where to get it.
  """
  remote.ensure_file_system(folder)
  most, first_missing = -1, ''
  for names in alternatives:
    paths = [os.path.join(folder, name) for name in names]
    missing = [path for path in paths if not tf.io.gfile.exists(path)]
    if not missing:
      return paths
    if len(paths) - len(missing) > most:
      most, first_missing = len(paths) - len(missing), missing[0]
  raise ValueError(
    f'{first_missing} does not exist. Set weights to the folder that holds it. '
    f'{_remedy(first_missing)}'
  )


def read(path: str) -> bytes:
  """Returns the content of a file; raises ValueError if it cannot be read."""

  def content():
    with tf.io.gfile.GFile(path, 'rb') as file:
      return file.read()

  return remote.retry(path, content)


@contextlib.contextmanager
def local_copy(path: str) -> Iterator[str]:
  """Yields a path to a file that TensorFlow reads without tensorflow-io.

  Others are copied to a temporary folder.

  Raises:
    ValueError: it cannot be read.
  """
  if not remote.needs_tensorflow_io(path):
    yield path
    return
  with tempfile.TemporaryDirectory() as folder:
    copy = os.path.join(folder, os.path.basename(path))
    remote.retry(path, lambda: tf.io.gfile.copy(path, copy, overwrite=True))
    yield copy


def wrong(path: str, what: str) -> ValueError:
  """Returns the error about a file that is not the official one.

  Args:
    path: as `find` returned it.
    what: completes the sentence that begins with the path; becomes one line.
  """
  return ValueError(f'{path} {" ".join(what.split())}. {_remedy(path)}')


def finite(path: str, values: np.ndarray) -> np.ndarray:
  """Returns values of a file as float32; raises ValueError if one is not finite."""
  values = values.astype(np.float32)
  if not np.isfinite(values).all():
    raise wrong(path, 'holds NaN or infinite values')
  return values


def _remedy(path: str) -> str:
  source = _SOURCES[os.path.basename(path)]
  return (
    f'To get the official file, {source}; yt8m_distill/features/README.md lists all '
    'files.'
  )
