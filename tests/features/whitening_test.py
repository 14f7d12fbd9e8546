"""The whitening of pictures and sound, from both layouts of files."""

import io
import shutil
import zipfile

import feature_weights
import numpy as np
import pytest

from yt8m_distill.features import weights
from yt8m_distill.features import whitening

_FILES = {
  'rgb': (
    whitening.load_rgb,
    [weights.MEAN, weights.EIGENVALUES, weights.EIGENVECTORS],
    [weights.RGB_MEAN, weights.RGB_PROJECTION],
  ),
  'audio': (
    whitening.load_audio,
    [weights.AUDIO_PCA],
    [weights.AUDIO_MEAN, weights.AUDIO_PROJECTION],
  ),
}


def _copy(source, target, *names):
  for name in names:
    shutil.copy(source / name, target)
  return target


def _values(size, rows=5):
  return np.random.default_rng(3).random([rows, size]).astype(np.float32)


def test_pictures_follow_the_formula(weights_folder, tmp_path):
  _, names, _ = _FILES['rgb']
  mean, eigenvalues, eigenvectors = (np.load(weights_folder / name) for name in names)
  whiten = whitening.load_rgb(str(_copy(weights_folder, tmp_path, *names)))
  x = _values(2048)
  expected = np.stack(
    [
      [
        direction @ (row - mean[:, 0]) / np.sqrt(variance + 1e-4)
        for direction, variance in zip(eigenvectors[:1024], eigenvalues[:1024, 0])
      ]
      for row in x
    ]
  )
  assert abs(expected).max() > 2 > abs(expected).mean()
  np.testing.assert_allclose(whiten(x), np.clip(expected, -2, 2), atol=2e-5)
  assert whiten(x).dtype == np.float32


def test_sound_follows_the_formula(weights_folder):
  parameters = np.load(weights_folder / weights.AUDIO_PCA)
  x = _values(128)
  expected = [
    parameters['pca_eigen_vectors'] @ (row - parameters['pca_means'][:, 0]) for row in x
  ]
  whiten = whitening.load_audio(str(weights_folder))
  assert np.max(np.abs(expected)) > 2
  np.testing.assert_allclose(whiten(x), np.clip(expected, -2, 2), atol=1e-5)


@pytest.mark.parametrize('kind', _FILES)
def test_both_layouts_give_the_same(weights_folder, tmp_path, kind):
  load, _, mediapipe = _FILES[kind]
  first = load(str(weights_folder))
  second = load(str(_copy(weights_folder, tmp_path, *mediapipe)))
  np.testing.assert_allclose(second.mean, first.mean, rtol=1e-6)
  np.testing.assert_allclose(second.projection, first.projection, rtol=2e-6, atol=1e-6)


def test_a_row_does_not_depend_on_the_batch(weights_folder):
  whiten = whitening.load_rgb(str(weights_folder))
  x = _values(2048, rows=16)
  rows = whiten(x)
  for number in (1, 2, 7):
    np.testing.assert_array_equal(whiten(x[:number]), rows[:number])


def test_vectors_may_lack_the_last_axis(weights_folder, tmp_path):
  folder = _copy(weights_folder, tmp_path, *_FILES['rgb'][1])
  for name in (weights.MEAN, weights.EIGENVALUES):
    np.save(folder / name, np.load(folder / name)[:, 0])
  whiten = whitening.load_rgb(str(folder))
  np.testing.assert_array_equal(
    whiten.mean, whitening.load_rgb(str(weights_folder)).mean
  )


def test_reads_rows_first(weights_folder, tmp_path):
  folder = _copy(weights_folder, tmp_path, *_FILES['audio'][2])
  path = folder / weights.AUDIO_PROJECTION
  expected = whitening.load_audio(str(folder)).projection
  feature_weights.write_matrix_data(path, expected)  # Transposed, so by rows.
  path.write_bytes(path.read_bytes() + b'\x20\x01')
  np.testing.assert_array_equal(whitening.load_audio(str(folder)).projection, expected)


def _npy(array):
  file = io.BytesIO()
  np.save(file, array, allow_pickle=True)
  return file.getvalue()


def _declared(shape):
  """Returns a file whose header declares a shape, without values."""
  file = io.BytesIO()
  header = {'descr': '<f4', 'fortran_order': False, 'shape': shape}
  np.lib.format.write_array_header_1_0(file, header)
  return file.getvalue()


def _npz(**members):
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w') as archive:
    for name, content in members.items():
      archive.writestr(f'{name}.npy', content)
  return file.getvalue()


def _fails(folder, kind, name, content, match):
  (folder / name).write_bytes(content)
  load, _, _ = _FILES[kind]
  with pytest.raises(ValueError, match=match) as error:
    load(str(folder))
  message = str(error.value)
  assert message.startswith(str(folder / name))
  assert 'To get the official file, ' in message
  assert '\n' not in message


@pytest.mark.parametrize(
  ('name', 'content', 'match'),
  [
    (weights.MEAN, b'', 'is not a whole npy file'),
    (weights.MEAN, b'<html>Not found</html>', 'is not a whole npy file'),
    (weights.MEAN, _npy(np.zeros([2048, 1]))[:-1], 'is not a whole npy file'),
    (weights.MEAN, _npy(np.zeros([3, 1])), r'shape \[3, 1\] instead of \[2048, 1\]'),
    (weights.MEAN, _npy(np.zeros([2048, 1, 1])), r'\[2048, 1, 1\] instead of'),
    (weights.MEAN, _npy(np.zeros([2048, 1], int)), 'array of int64 instead of floats'),
    (weights.MEAN, _npy(np.full([2048, 1], 'x', object)), 'object instead of floats'),
    (weights.MEAN, _npy(np.full([2048, 1], np.nan)), 'holds NaN'),
    (weights.MEAN, _declared((2**40, 1)), r'shape \[1099511627776, 1\] instead of'),
    (weights.EIGENVALUES, _npy(np.zeros([1023, 1])), r'instead of \[1024 to 2048, 1\]'),
    (weights.EIGENVALUES, _npy(-np.ones([1024, 1])), 'holds -1, a negative variance'),
    (
      weights.EIGENVECTORS,
      _declared((2**40, 2048)),
      r'instead of \[1024 to 2048, 2048\]',
    ),
  ],
)
def test_wrong_arrays_are_named(weights_folder, tmp_path, name, content, match):
  folder = _copy(weights_folder, tmp_path, *_FILES['rgb'][1])
  _fails(folder, 'rgb', name, content, match)


_MEANS = _npy(np.zeros([128]))
_ARCHIVE = _npz(pca_means=_MEANS, pca_eigen_vectors=_npy(np.zeros([128, 128])))


@pytest.mark.parametrize(
  ('content', 'match'),
  [
    (b'', 'is not a whole npz file'),
    (_ARCHIVE[: len(_ARCHIVE) // 2], 'is not a whole npz file'),
    (_MEANS, 'is not a whole npz file'),
    (_npz(pca_means=_MEANS), 'pca_eigen_vectors'),
    (_npz(pca_means=_npy(np.zeros(127))), r"array 'pca_means' of shape \[127\]"),
    (_npz(pca_means=_npy(np.full(128, None))), "'pca_means' of object"),
    (
      _npz(pca_means=_MEANS, pca_eigen_vectors=_declared((2**40, 128))),
      r'\[1099511627776, 128\] instead of \[128, 128\]',
    ),
    (
      _npz(pca_means=_MEANS, pca_eigen_vectors=_declared((128, 128))),
      'is not a whole npy file',
    ),
  ],
)
def test_wrong_archives_are_named(tmp_path, content, match):
  _fails(tmp_path, 'audio', weights.AUDIO_PCA, content, match)


def test_damaged_archive_is_named(tmp_path):
  damaged = bytearray(_ARCHIVE)
  damaged[len(damaged) // 2] ^= 255
  _fails(tmp_path, 'audio', weights.AUDIO_PCA, damaged, 'Bad CRC-32')


@pytest.mark.parametrize(
  ('declared', 'match'),
  [
    ((127, 1), r'of shape \[127, 1\] instead of \[128, 1\]'),
    ((2**31 - 1, 2**31 - 1), r'\[2147483647, 2147483647\] instead of'),
    ((-128, -1), r'of shape \[-128, -1\]'),
    ((1, 128), r'of shape \[1, 128\]'),
  ],
)
def test_declared_sizes_are_checked(weights_folder, tmp_path, declared, match):
  folder = _copy(weights_folder, tmp_path, *_FILES['audio'][2])
  path = folder / weights.AUDIO_MEAN
  feature_weights.write_matrix_data(path, np.zeros([128, 1]), *declared)
  _fails(folder, 'audio', weights.AUDIO_MEAN, path.read_bytes(), match)


def test_wrong_matrices_are_named(weights_folder, tmp_path):
  folder = _copy(weights_folder, tmp_path, *_FILES['audio'][2])
  name = weights.AUDIO_PROJECTION
  whole = (folder / name).read_bytes()
  feature_weights.write_matrix_data(folder / 'short', np.zeros([127, 128]), rows=128)
  feature_weights.write_matrix_data(folder / 'nan', np.full([128, 128], np.nan))
  for content, match in [
    (b'', r'of shape \[0, 0\] instead of'),
    (whole[:-1], 'is not a whole MatrixData file'),
    (b'<html>Not found</html>', 'is not a whole MatrixData file'),
    # Packed values of declared 2**40 bytes.
    (whole[:6] + b'\x1a\x80\x80\x80\x80\x80\x20', 'is not a whole MatrixData file'),
    (whole + b'\x20\x07', 'in layout 7 instead of'),
    ((folder / 'short').read_bytes(), 'holds 16256 values .* instead of 16384'),
    ((folder / 'nan').read_bytes(), 'holds NaN'),
  ]:
    _fails(folder, 'audio', name, content, match)
