"""Inception: from a picture to the 2048 values that its features are computed from.

The network is the graph classify_image_graph_def.pb of inception-2015-12-05.tgz.
Sources: google/youtube-8m, feature_extractor/feature_extractor.py, for `DecodeJpeg:0`,
which takes the picture, and `pool_3/_reshape:0`, which is `pool_3:0` reshaped for a
single one; TensorFlow 1.0, examples/image_retraining/retrain.py, for
`ResizeBilinear:0`.

The graph takes one picture and resizes it. This module cuts it there: it resizes
pictures of any sizes one by one, and computes the rest for a batch of them.

The graph runs in a session. Its batch normalization (BatchNormWithGlobalNormalization)
was removed from GraphDef version 9. A session keeps the version of the graph, while a
tf.function always has the current one.
"""

from google.protobuf import message
import numpy as np
import tensorflow as tf

from yt8m_distill.features import weights
from yt8m_distill.features import whitening
from yt8m_distill.utils import startup

_PICTURE = 'DecodeJpeg:0'  # uint8 [H, W, 3]
_RESIZED = 'ResizeBilinear:0'  # float32 [1, 299, 299, 3], values as in the picture
_POOLED = 'pool_3:0'  # float32 [1, 1, 1, 2048]
_SIDE = 299


class Inception:
  """The network, in a session of its own."""

  def __init__(self, folder: str):
    """Loads the graph.

    Args:
      folder: holds the official files.

    Raises:
      ValueError: the file is missing, or is not the official graph.
    """
    (path,) = weights.find(folder, (weights.INCEPTION,))
    try:
      definition = tf.compat.v1.GraphDef.FromString(weights.read(path))
    except message.DecodeError as error:
      raise weights.wrong(path, f'is not a whole GraphDef ({error})') from error
    graph = tf.Graph()
    with graph.as_default():
      picture = tf.compat.v1.placeholder(tf.uint8, [None, None, 3])
      batch = tf.compat.v1.placeholder(tf.float32, [None, _SIDE, _SIDE, 3])
      try:
        resized = _part(definition, _PICTURE, picture, _RESIZED)
        pooled = _part(definition, _RESIZED, batch, _POOLED)
        resized.set_shape([1, _SIDE, _SIDE, 3])
        pooled.set_shape([None, 1, 1, whitening.INCEPTION_SIZE])
      except (ValueError, tf.errors.OpError) as error:
        raise weights.wrong(path, f'is another graph ({error})') from error
      values = tf.reshape(pooled, [-1, whitening.INCEPTION_SIZE])
    session = tf.compat.v1.Session(graph=graph)
    self._resize = session.make_callable(resized, [picture])
    self._values = session.make_callable(values, [batch])
    black = np.zeros([1, 1, 3], np.uint8)
    try:
      with startup.loading():  # TensorFlow 2.20 prints a message on the first run.
        self(self.prepare(black)[np.newaxis])
    except tf.errors.OpError as error:
      raise weights.wrong(path, f'cannot be run ({error.message})') from error

  def prepare(self, picture: np.ndarray) -> np.ndarray:
    """Resizes a picture.

    Args:
      picture: uint8 RGB [H, W, 3].

    Returns:
      float32 [299, 299, 3].

    Raises:
      ValueError: it has another type or shape.
    """
    if picture.dtype != np.uint8 or picture.shape[2:] != (3,) or not picture.size:
      raise ValueError(
        f'A picture is {picture.dtype} {list(picture.shape)}: uint8 RGB [H, W, 3] is '
        'needed. Convert it.'
      )
    return self._resize(picture)[0]

  def __call__(self, resized: np.ndarray) -> np.ndarray:
    """Returns the values of a batch of resized pictures.

    Args:
      resized: float32 [N, 299, 299, 3]. No result depends on the rest of the batch.

    Returns:
      float32 [N, 2048].
    """
    return self._values(resized)


def _part(
  definition: tf.compat.v1.GraphDef, source: str, replacement: tf.Tensor, target: str
) -> tf.Tensor:
  """Imports the part of a graph that computes `target`, with another `source`.

  Raises:
    ValueError: the graph has no such part.
  """
  nodes = {node.name: node for node in definition.node}
  used, pending = set(), [target]
  while pending:
    # Inputs are 'node', 'node:output' or, where only the order counts, '^node'.
    name = pending.pop().removeprefix('^').partition(':')[0]
    if name == source.partition(':')[0]:
      continue
    if name not in nodes:
      raise ValueError(f'it has no node {name}')
    if name not in used:
      used.add(name)
      pending.extend(nodes[name].input)
  part = tf.compat.v1.GraphDef(
    versions=definition.versions, node=[nodes[name] for name in sorted(used)]
  )
  (result,) = tf.import_graph_def(part, {source: replacement}, [target])
  for operation in result.graph.get_operations():
    # What reads or writes files takes their names, or has a state.
    takes_text = any(tensor.dtype == tf.string for tensor in operation.inputs)
    has_state = operation.op_def.is_stateful and operation.type != 'CheckNumerics'
    if takes_text or has_state:
      raise ValueError(f'its operation {operation.type} does more than compute values')
  return result
