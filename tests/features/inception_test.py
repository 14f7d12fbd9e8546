"""The frozen graph of Inception: cut after resizing, it computes what it did whole."""

import feature_weights
import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill.features import inception
from yt8m_distill.features import weights

_SIZES = [(48, 64), (299, 299), (1, 1), (720, 405), (64, 48)]


def _pictures(sizes=_SIZES):
  """Noise around a random color each."""
  rng = np.random.default_rng(4)
  return [
    (rng.integers(0, 200, 3) + rng.integers(0, 56, [*size, 3])).astype(np.uint8)
    for size in sizes
  ]


def _values(network, pictures):
  return network(np.stack([network.prepare(picture) for picture in pictures]))


@pytest.fixture(scope='module')
def network(weights_folder):
  return inception.Inception(str(weights_folder))


def _whole_graph(folder, pictures):
  """Runs the graph as the official extractor does, picture by picture."""
  content = (folder / weights.INCEPTION).read_bytes()
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    tf.import_graph_def(tf.compat.v1.GraphDef.FromString(content), name='')
    return np.concatenate(
      [
        session.run('pool_3/_reshape:0', {'DecodeJpeg:0': picture})
        for picture in pictures
      ]
    )


def test_graph_has_the_old_batch_normalization(weights_folder):
  definition = tf.compat.v1.GraphDef.FromString(
    (weights_folder / weights.INCEPTION).read_bytes()
  )
  assert 'BatchNormWithGlobalNormalization' in {node.op for node in definition.node}
  assert definition.versions.producer < 9


def test_equals_the_whole_graph(network, weights_folder):
  pictures = _pictures()
  expected = _whole_graph(weights_folder, pictures)
  assert expected.shape == (5, 2048)
  assert expected.std(axis=0).mean() > 0.1
  np.testing.assert_allclose(_values(network, pictures), expected, rtol=1e-5, atol=1e-5)
  # Bit by bit, without the rounding of a batch.
  np.testing.assert_array_equal(_values(network, pictures[:1]), expected[:1])


def test_a_picture_does_not_depend_on_the_batch(network):
  pictures = _pictures(_SIZES * 4)
  expected = _values(network, pictures)
  for number in (2, 3, 7, 16):
    np.testing.assert_array_equal(
      _values(network, pictures[:number]), expected[:number]
    )


def test_resizes_as_tensorflow_1(network):
  """A pixel of the result lies at its index times the scale, without half pixels."""
  (picture,) = _pictures([(50, 80)])
  rows, columns = (np.arange(299) * size / 299 for size in (50, 80))

  def along(values, places):
    first = places.astype(int)
    second = np.minimum(first + 1, len(values) - 1)
    part = (places - first)[:, np.newaxis, np.newaxis]
    return values[first] * (1 - part) + values[second] * part

  expected = along(picture.astype(float), rows)
  expected = along(expected.swapaxes(0, 1), columns).swapaxes(0, 1)
  np.testing.assert_allclose(network.prepare(picture), expected, atol=5e-3)


def test_channels_are_red_green_blue(tmp_path):
  def means(pictures):
    """Value c is the mean of channel c."""
    mean = tf.reduce_mean(pictures, [1, 2], keepdims=True)
    return tf.concat([mean, tf.zeros([1, 1, 1, 2045])], axis=-1)

  feature_weights.write_inception(tmp_path, means)
  network = inception.Inception(str(tmp_path))
  picture = np.full([20, 30, 3], [255, 128, 0], np.uint8)
  values = network(network.prepare(picture)[np.newaxis])
  np.testing.assert_allclose(values[0, :4], [127 / 128, 0, -1, 0], atol=1e-6)


@pytest.mark.parametrize(
  'picture',
  [
    np.zeros([20, 30, 3], np.float32),
    np.zeros([20, 30], np.uint8),
    np.zeros([20, 30, 4], np.uint8),
    np.zeros([1, 20, 30, 3], np.uint8),
    np.zeros([0, 30, 3], np.uint8),
  ],
)
def test_wrong_pictures_are_refused(network, picture):
  shape = list(picture.shape)
  with pytest.raises(ValueError) as error:
    network.prepare(picture)
  assert f'A picture is {picture.dtype} {shape}: uint8 RGB [H, W, 3]' in str(
    error.value
  )


def _fails(folder, match):
  with pytest.raises(ValueError, match=match) as error:
    inception.Inception(str(folder))
  message = str(error.value)
  assert message.startswith(str(folder / weights.INCEPTION))
  assert 'inception-2015-12-05.tgz' in message
  assert '\n' not in message


def _graph(**renamed):
  """Returns the graph with other names of nodes."""
  definition = feature_weights.inception_graph(feature_weights.small_body)
  for node in definition.node:
    node.name = renamed.get(node.name, node.name)
    node.input[:] = [renamed.get(name, name) for name in node.input]
  return definition.SerializeToString()


def test_missing_graph_is_named(tmp_path):
  with pytest.raises(ValueError, match='classify_image_graph_def.pb does not exist'):
    inception.Inception(str(tmp_path))


@pytest.mark.parametrize(
  ('content', 'match'),
  [
    (b'', 'has no node ResizeBilinear'),
    (b'<html>Not found</html>', 'is not a whole GraphDef'),
    (_graph()[:-10], 'is not a whole GraphDef'),
    (_graph(DecodeJpeg='input'), 'DecodeJpeg:0'),
    (_graph(ResizeBilinear='resized'), 'has no node ResizeBilinear'),
    (_graph(pool_3='pool'), 'has no node pool_3'),
  ],
)
def test_other_files_are_named(tmp_path, content, match):
  (tmp_path / weights.INCEPTION).write_bytes(content)
  _fails(tmp_path, match)


def test_graph_that_reads_files_is_refused(tmp_path):
  secret = tmp_path / 'secret'
  secret.write_text('1')

  def reading(pictures):
    number = tf.strings.to_number(tf.io.read_file(str(secret)))
    return feature_weights.small_body(pictures * number)

  feature_weights.write_inception(tmp_path, reading)
  _fails(tmp_path, 'operation (ReadFile|StringToNumber) does more than compute')


def test_graph_that_cannot_be_run_is_named(tmp_path):
  def failing(pictures):
    return feature_weights.small_body(tf.debugging.check_numerics(pictures / 0, 'x'))

  feature_weights.write_inception(tmp_path, failing)
  _fails(tmp_path, 'cannot be run')


@pytest.mark.parametrize(
  ('change', 'match'),
  [
    ({'op': 'AveragePool'}, "not registered 'AveragePool'"),
    ({'input': ['Mul']}, 'is another graph'),
  ],
)
def test_other_layers_are_named(tmp_path, change, match):
  definition = feature_weights.inception_graph(feature_weights.small_body)
  (pool,) = (node for node in definition.node if node.name == 'pool_3')
  if 'input' in change:
    pool.ClearField('input')
  pool.MergeFrom(tf.compat.v1.NodeDef(**change))
  (tmp_path / weights.INCEPTION).write_bytes(definition.SerializeToString())
  _fails(tmp_path, match)
