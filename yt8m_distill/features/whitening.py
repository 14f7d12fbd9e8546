"""Whitening: from the outputs of a network to the features of YouTube-8M.

Sources: for pictures, google/youtube-8m, feature_extractor/feature_extractor.py; for
sound, tensorflow/models, research/audioset/vggish/vggish_postprocess.py; for both in
MediaPipe's form, mediapipe/graphs/youtube8m/feature_extraction.pbtxt and
mediapipe/framework/formats/matrix_data.proto.

Deviation: features are always clipped, as the starter code and VGGish do on quantizing;
MediaPipe does not clip them.
"""

from collections.abc import Collection
from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import io
from typing import IO
import zipfile
import zlib

from google.protobuf import descriptor_pb2
from google.protobuf import descriptor_pool
from google.protobuf import message
from google.protobuf import message_factory
import numpy as np

from yt8m_distill.features import weights

INCEPTION_SIZE = 2048  # values per picture, before the whitening
RGB_SIZE = 1024
AUDIO_SIZE = 128
LIMIT = 2.0  # features are clipped to [-LIMIT, LIMIT]
# feature_extractor.py adds it to the eigenvalues. The matrices of VGGish and MediaPipe
# are already scaled.
_EPSILON = 1e-4
_COLUMN_MAJOR, _ROW_MAJOR = 0, 1  # layouts of a MatrixData
_HEADER_READERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}
# What zipfile, zlib, numpy and protobuf raise on files that are not whole.
_DAMAGED = (
  EOFError,
  KeyError,
  NotImplementedError,
  OSError,
  RuntimeError,
  ValueError,
  message.DecodeError,
  zipfile.BadZipFile,
  zlib.error,
)


@dataclasses.dataclass(frozen=True)
class Whitening:
  """A PCA that also scales features to unit variance.

  Attributes:
    mean: float32 [D].
    projection: float32 [D, K]: the first K principal directions, scaled.
  """

  mean: np.ndarray
  projection: np.ndarray

  def __call__(self, outputs: np.ndarray) -> np.ndarray:
    """Returns features, clipped to [-LIMIT, LIMIT].

    Args:
      outputs: float32 [N, D] of a network, N > 0.

    Returns:
      float32 [N, K].
    """
    # Row by row: a matrix product may round a row differently for another N.
    features = [row @ self.projection for row in outputs - self.mean]
    return np.clip(features, -LIMIT, LIMIT)


def load_rgb(folder: str) -> Whitening:
  """Returns the whitening of pictures, 2048 to 1024 values.

  Raises:
    ValueError: a file is missing, or is not the official one.
  """
  paths = weights.find(
    folder,
    (weights.MEAN, weights.EIGENVALUES, weights.EIGENVECTORS),
    (weights.RGB_MEAN, weights.RGB_PROJECTION),
  )
  if len(paths) == 2:
    return _load_matrix_data(paths, INCEPTION_SIZE, RGB_SIZE)
  # The rows of eigenvecs.npy are directions, in the order of their eigenvalues.
  directions = range(RGB_SIZE, INCEPTION_SIZE + 1)
  mean = _load_npy(paths[0], [INCEPTION_SIZE], [1])
  eigenvalues = _load_npy(paths[1], directions, [1])[:RGB_SIZE, 0]
  eigenvectors = _load_npy(paths[2], directions, [INCEPTION_SIZE])[:RGB_SIZE]
  if eigenvalues.min() <= -_EPSILON:
    raise weights.wrong(paths[1], f'holds {eigenvalues.min():g}, a negative variance')
  return Whitening(mean[:, 0], eigenvectors.T / np.sqrt(eigenvalues + _EPSILON))


def load_audio(folder: str) -> Whitening:
  """Returns the whitening of sound, 128 to 128 values; raises as `load_rgb`."""
  paths = weights.find(
    folder, (weights.AUDIO_PCA,), (weights.AUDIO_MEAN, weights.AUDIO_PROJECTION)
  )
  if len(paths) == 2:
    return _load_matrix_data(paths, AUDIO_SIZE, AUDIO_SIZE)
  (path,) = paths
  content = weights.read(path)
  with _reading(path, 'npz'):
    archive = zipfile.ZipFile(io.BytesIO(content))

  def array(name, *allowed):
    with _reading(path, 'npz'):
      member = archive.open(f'{name}.npy')
    return _read_npy(path, f"an array '{name}'", member, allowed)

  # vggish_params.py names the arrays.
  mean = array('pca_means', [AUDIO_SIZE], [1])
  eigenvectors = array('pca_eigen_vectors', [AUDIO_SIZE], [AUDIO_SIZE])
  return Whitening(mean[:, 0], eigenvectors.T)


@contextlib.contextmanager
def _reading(path: str, form: str) -> Iterator[None]:
  """Turns the errors of a damaged file into one about `path`."""
  try:
    yield
  except _DAMAGED as error:
    raise weights.wrong(path, f'is not a whole {form} file ({error})') from error


def _load_npy(path: str, *allowed: Collection[int]) -> np.ndarray:
  return _read_npy(path, 'an array', io.BytesIO(weights.read(path)), allowed)


def _read_npy(
  path: str, what: str, file: IO[bytes], allowed: tuple[Collection[int], ...]
) -> np.ndarray:
  """Returns an array as float32; checks its header before it reads further.

  Args:
    path: for errors.
    what: likewise.
    file: content in numpy's format.
    allowed: for each axis its allowed lengths. An axis of length 1 may be missing at
      the end.
  """
  with _reading(path, 'npy'):
    version = np.lib.format.read_magic(file)
    shape, _, dtype = _HEADER_READERS[version](file)
  whole = (*shape, *[1] * (len(allowed) - len(shape)))
  if len(shape) > len(allowed) or any(
    size not in sizes for size, sizes in zip(whole, allowed)
  ):
    raise _wrong_shape(path, what, shape, allowed)
  if dtype.kind != 'f':
    raise weights.wrong(path, f'holds {what} of {dtype} instead of floats')
  with _reading(path, 'npy'):
    file.seek(0)
    values = np.lib.format.read_array(file, allow_pickle=False)
  return weights.finite(path, values.reshape(whole))


def _wrong_shape(path, what, shape, allowed) -> ValueError:
  official = [
    f'{min(sizes)} to {max(sizes)}' if len(sizes) > 1 else str(min(sizes))
    for sizes in allowed
  ]
  return weights.wrong(
    path,
    f'holds {what} of shape [{", ".join(map(str, shape))}] instead of '
    f'[{", ".join(official)}]',
  )


def _load_matrix_data(paths: list[str], inputs: int, outputs: int) -> Whitening:
  """Returns the whitening of MediaPipe's files: mean, transposed projection."""
  mean_path, projection_path = paths
  mean = _read_matrix_data(mean_path, inputs, 1)
  return Whitening(mean[:, 0], _read_matrix_data(projection_path, outputs, inputs).T)


def _read_matrix_data(path: str, rows: int, columns: int) -> np.ndarray:
  """Returns a matrix of the given shape as float32."""
  content = weights.read(path)
  with _reading(path, 'MatrixData'):
    matrix = _matrix_data_class().FromString(content)
  values = np.array(matrix.packed_data, np.float32)
  shape = matrix.rows, matrix.cols
  if shape != (rows, columns):
    raise _wrong_shape(path, 'a MatrixData', shape, ([rows], [columns]))
  if len(values) != rows * columns or matrix.layout not in (_COLUMN_MAJOR, _ROW_MAJOR):
    raise weights.wrong(
      path,
      f'holds {len(values)} values in layout {matrix.layout} instead of '
      f'{rows * columns} in layout {_COLUMN_MAJOR} or {_ROW_MAJOR}',
    )
  values = weights.finite(path, values)
  if matrix.layout == _ROW_MAJOR:
    return values.reshape(rows, columns)
  return values.reshape(columns, rows).T


@functools.cache
def _matrix_data_class():
  """Returns the class of matrix_data.proto; `layout` is an enumeration there."""
  field = descriptor_pb2.FieldDescriptorProto
  file = descriptor_pb2.FileDescriptorProto(name='matrix_data.proto')
  matrix = file.message_type.add(name='MatrixData')
  for number, (name, kind, label) in enumerate(
    [
      ('rows', field.TYPE_INT32, field.LABEL_OPTIONAL),
      ('cols', field.TYPE_INT32, field.LABEL_OPTIONAL),
      ('packed_data', field.TYPE_FLOAT, field.LABEL_REPEATED),
      ('layout', field.TYPE_INT32, field.LABEL_OPTIONAL),
    ],
    start=1,
  ):
    matrix.field.add(name=name, number=number, type=kind, label=label)
  # Not the default one, into which MediaPipe may have put its own.
  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  return message_factory.GetMessageClass(pool.FindMessageTypeByName('MatrixData'))
