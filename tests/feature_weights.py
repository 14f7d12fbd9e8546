"""Writes a folder of feature networks with random weights.

Names of files, tensors and variables, shapes and formats are those of the official
files, in both layouts. The graph keeps the official one's old batch normalization and
version. Only its layers between `Mul` and `pool_3` are others, and few, unless the
caller gives its own.
"""

import pathlib

import numpy as np
import tensorflow as tf

from yt8m_distill.features import vggish
from yt8m_distill.features import weights
from yt8m_distill.features import whitening

_VERSION = 8  # the last one that has BatchNormWithGlobalNormalization


def write(folder, body=None):
  """Writes all files; takes about 5 seconds, nearly all of it for VGGish.

  Args:
    folder: created if missing.
    body: as for `write_inception`.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  write_inception(folder, body)
  write_whitening(folder)
  write_vggish(folder)


def write_inception(folder, body=None):
  """Writes the graph.

  Args:
    folder: an existing one.
    body: takes pictures, float32 [N, 299, 299, 3] in [-1, 1), and returns what
      `pool_3` averages, float32 [N, S, S, 2048].
  """
  definition = inception_graph(body or small_body)
  (pathlib.Path(folder) / weights.INCEPTION).write_bytes(definition.SerializeToString())


def inception_graph(body):
  """Returns the GraphDef that `write_inception` writes."""
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    contents = tf.constant(b'', name='DecodeJpeg/contents')
    picture = tf.raw_ops.DecodeJpeg(contents=contents, channels=3, name='DecodeJpeg')
    x = tf.expand_dims(tf.cast(picture, tf.float32, name='Cast'), 0, name='ExpandDims')
    x = tf.raw_ops.ResizeBilinear(images=x, size=[299, 299], name='ResizeBilinear')
    x = tf.multiply(tf.subtract(x, 128.0, name='Sub'), 1 / 128, name='Mul')
    x = body(x)
    x = tf.nn.avg_pool2d(x, x.shape[1], 1, 'VALID', name='pool_3')
    tf.reshape(x, [1, whitening.INCEPTION_SIZE], name='pool_3/_reshape')
    session.run(tf.compat.v1.global_variables_initializer())
    definition = tf.compat.v1.graph_util.convert_variables_to_constants(
      session, session.graph.as_graph_def(), ['pool_3/_reshape']
    )
  for node in definition.node:
    if node.op.startswith('FusedBatchNorm'):
      _to_old_batch_norm(node)
  definition.versions.producer = _VERSION
  return definition


def small_body(pictures):
  """Returns 2048 positive values that depend on colors and places."""
  rng = np.random.default_rng(0)
  x = tf.nn.avg_pool2d(pictures, 37, 37, 'VALID')
  # As in the official graph, a convolution has many outputs per picture. If it had one,
  # it would be a product with a row per picture, which CPUs round by the batch's size.
  kernel = rng.normal(size=[5, 5, 3, whitening.INCEPTION_SIZE]) / 8
  x = tf.nn.conv2d(x, tf.constant(kernel, tf.float32), 1, 'VALID')
  scale, offset, mean = rng.random([3, whitening.INCEPTION_SIZE]).astype(np.float32)
  x = tf.compat.v1.nn.fused_batch_norm(
    x, scale, offset, mean, 1 + mean, is_training=False
  )[0]
  return tf.nn.relu(x)


def _to_old_batch_norm(node):
  x, scale, offset, mean, variance = node.input
  epsilon = node.attr['epsilon'].f
  node.op = 'BatchNormWithGlobalNormalization'
  node.input[:] = [x, mean, variance, offset, scale]
  node.attr.clear()
  node.attr['T'].type = tf.float32.as_datatype_enum
  node.attr['variance_epsilon'].f = epsilon
  node.attr['scale_after_normalization'].b = True


def write_whitening(folder):
  """Writes means and matrices; both layouts hold the same ones."""
  folder = pathlib.Path(folder)
  rng = np.random.default_rng(1)
  kept = whitening.RGB_SIZE
  mean = rng.random([whitening.INCEPTION_SIZE, 1])
  eigenvalues = np.sort(rng.random([kept + 1, 1]))[::-1] + 0.01
  vectors = rng.normal(size=[kept + 1, whitening.INCEPTION_SIZE]) / 30
  np.save(folder / weights.MEAN, mean)
  np.save(folder / weights.EIGENVALUES, eigenvalues)
  np.save(folder / weights.EIGENVECTORS, vectors)
  scaled = vectors[:kept] / np.sqrt(eigenvalues[:kept] + 1e-4)
  write_matrix_data(folder / weights.RGB_MEAN, mean)
  write_matrix_data(folder / weights.RGB_PROJECTION, scaled)
  mean = rng.normal(size=[whitening.AUDIO_SIZE, 1])
  vectors = rng.normal(size=[whitening.AUDIO_SIZE] * 2) / 6
  np.savez(folder / weights.AUDIO_PCA, pca_means=mean, pca_eigen_vectors=vectors)
  write_matrix_data(folder / weights.AUDIO_MEAN, mean)
  write_matrix_data(folder / weights.AUDIO_PROJECTION, vectors)


def write_matrix_data(path, matrix, rows=None, columns=None):
  """Writes a matrix as MediaPipe's MatrixData, in the order of columns.

  Args:
    path: of the file.
    matrix: of any float type.
    rows: declared number of rows, by default the true one.
    columns: likewise.
  """
  values = matrix.astype('<f4').tobytes(order='F')
  pathlib.Path(path).write_bytes(
    b'\x08'
    + _varint(matrix.shape[0] if rows is None else rows)
    + b'\x10'
    + _varint(matrix.shape[1] if columns is None else columns)
    + b'\x1a'
    + _varint(len(values))
    + values
  )


def _varint(number):
  """Returns a number in protobuf's encoding."""
  number %= 2**64
  encoded = bytearray()
  while number > 127:
    encoded.append(number & 127 | 128)
    number >>= 7
  return bytes([*encoded, number])


def write_vggish(folder, **changes):
  """Writes the checkpoint, one file in the format of TensorFlow's first version.

  Args:
    folder: an existing one.
    **changes: values to write instead, by the name of the variable; None leaves it out.
  """
  values = {**vggish_variables(vggish.VARIABLES), **changes}
  values = {name: value for name, value in values.items() if value is not None}
  tf.raw_ops.Save(
    filename=str(pathlib.Path(folder) / weights.VGGISH),
    tensor_names=list(values),
    data=list(values.values()),
  )


def vggish_variables(shapes):
  """Returns random values, scaled so that outputs stay near 1.

  Args:
    shapes: by name.
  """
  # Repeating few values takes a tenth of the time of drawing all.
  drawn = np.random.default_rng(2).normal(size=100_003).astype(np.float32)
  return {
    name: np.resize(drawn, shape) * np.float32((2 / max(np.prod(shape[:-1]), 1)) ** 0.5)
    if name.endswith('weights')
    else np.resize(drawn, shape) * np.float32(0.1)
    for name, shape in shapes.items()
  }


def narrow_variables():
  """Returns `vggish.VARIABLES` with a 32nd of the channels; the outputs are 128.

  A test that patches `vggish.VARIABLES` with them gets a checkpoint and a network of
  the same layers that take milliseconds.
  """
  return {
    name: tuple(size // 32 if size >= 64 else size for size in shape[:-1])
    + (shape[-1] // (1 if '/fc2/' in name else 32),)
    for name, shape in vggish.VARIABLES.items()
  }
