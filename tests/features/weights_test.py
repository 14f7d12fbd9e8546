"""Finding and reading the files of the networks."""

import pytest
import tensorflow as tf

from yt8m_distill.features import weights

_FIRST = (weights.MEAN, weights.EIGENVALUES, weights.EIGENVECTORS)
_SECOND = (weights.RGB_MEAN, weights.RGB_PROJECTION)


def _write(folder, *names):
  for name in names:
    (folder / name).write_bytes(b'content')


def _find(folder):
  return weights.find(str(folder), _FIRST, _SECOND)


def test_finds_the_alternative_that_is_complete(tmp_path):
  _write(tmp_path, *_SECOND, weights.MEAN)
  assert _find(tmp_path) == [str(tmp_path / name) for name in _SECOND]


def test_of_two_complete_alternatives_takes_the_first(tmp_path):
  _write(tmp_path, *_SECOND, *_FIRST)
  assert _find(tmp_path) == [str(tmp_path / name) for name in _FIRST]


@pytest.mark.parametrize(
  ('present', 'missing', 'source'),
  [
    (_FIRST[:2], weights.EIGENVECTORS, 'yt8m_pca.tgz'),
    (_SECOND[1:], weights.RGB_MEAN, 'http://data.yt8m.org/pca_matrix_data'),
  ],
)
def test_names_what_is_missing_and_where_to_get_it(tmp_path, present, missing, source):
  _write(tmp_path, *present)
  with pytest.raises(ValueError) as error:
    _find(tmp_path)
  message = str(error.value)
  assert message.startswith(f'{tmp_path / missing} does not exist. ')
  assert source in message
  assert '\n' not in message


def test_folder_that_does_not_exist(tmp_path):
  with pytest.raises(ValueError, match='nowhere/mean.npy does not exist'):
    _find(tmp_path / 'nowhere')


def test_reads_remote_files():
  with tf.io.gfile.GFile(f'ram://weights/{weights.INCEPTION}', 'wb') as file:
    file.write(b'content')
  (path,) = weights.find('ram://weights', (weights.INCEPTION,))
  assert weights.read(path) == b'content'


def test_every_file_has_a_source():
  names = {
    value
    for key, value in vars(weights).items()
    if key.isupper() and not key.startswith('_')
  }
  assert len(names) == 10
  for name in names:
    assert 'official file' in str(weights.wrong(f'folder/{name}', 'is wrong'))
