"""Batch normalization of what is real, against numpy over just that."""

import numpy as np
import processes
import pytest
import tensorflow as tf
import tf_keras

from yt8m_distill.modeling import masked_batch_norm

_REAL = np.array([[1, 1, 0], [0, 0, 0], [1, 1, 1], [1, 0, 0]], bool)


def _inputs():
  return np.random.default_rng(0).normal(3.0, 2.0, size=[*_REAL.shape, 5]).astype('f')


def _layer(**options):
  layer = masked_batch_norm.MaskedBatchNormalization(**options)
  layer.build([None, None, 5])
  rng = np.random.default_rng(1)
  layer.set_weights([rng.uniform(0.5, 2.0, w.shape) for w in layer.weights])
  return layer


def _normalized(layer, mean, variance, inputs):
  return layer.gamma * (inputs - mean) / np.sqrt(variance + layer.epsilon) + layer.beta


def test_training_counts_real_positions_only():
  layer = _layer(momentum=0.75)
  old_mean, old_variance = (layer.moving_mean.numpy(), layer.moving_variance.numpy())
  inputs = _inputs()
  mean, variance = inputs[_REAL].mean(0), inputs[_REAL].var(0)
  outputs = layer(inputs, _REAL, training=True)
  np.testing.assert_allclose(
    outputs, _normalized(layer, mean, variance, inputs), rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(
    layer.moving_mean, 0.75 * old_mean + 0.25 * mean, rtol=1e-5
  )
  np.testing.assert_allclose(
    layer.moving_variance, 0.75 * old_variance + 0.25 * variance, rtol=1e-5
  )


def test_all_real_equals_keras():
  layer, keras = _layer(), tf_keras.layers.BatchNormalization()
  keras.build([None, None, 5])
  keras.set_weights(layer.get_weights())
  inputs = tf.constant(_inputs())
  real = tf.ones(inputs.shape[:2], tf.bool)
  results = []
  for run in (
    lambda: layer(inputs, real, training=True),
    lambda: keras(inputs, training=True),
  ):
    with tf.GradientTape() as tape:
      tape.watch(inputs)
      outputs = run()
      loss = tf.reduce_sum(outputs * tf.cast(tf.range(5), tf.float32) ** 2 * inputs)
    results.append((outputs, tape.gradient(loss, inputs)))
  for ours, theirs in zip(*results):
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
  for ours, theirs in zip(layer.weights, keras.weights):
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize('frozen', [False, True])
def test_moving_averages_normalise_without_training(frozen):
  layer = _layer(trainable=not frozen)
  before = layer.get_weights()
  np.testing.assert_allclose(
    layer(_inputs(), _REAL, training=frozen),
    _normalized(layer, layer.moving_mean, layer.moving_variance, _inputs()),
    rtol=1e-5,
    atol=1e-5,
  )
  tf.nest.map_structure(np.testing.assert_array_equal, layer.get_weights(), before)


@pytest.mark.parametrize('rows', [0, 4])
def test_nothing_real(rows):
  """No NaN anywhere, and the moving averages stay."""
  layer = _layer()
  before = layer.get_weights()
  inputs = tf.constant(_inputs()[:rows])
  with tf.GradientTape() as tape:
    tape.watch(inputs)
    outputs = layer(inputs, tf.zeros([rows, 3], tf.bool), training=True)
  gradients = tape.gradient(outputs, [inputs, *layer.trainable_weights])
  assert all(np.isfinite(value).all() for value in (outputs, *gradients))
  tf.nest.map_structure(np.testing.assert_array_equal, layer.get_weights(), before)


def test_float32_under_mixed_precision():
  inputs = tf.cast(_inputs(), tf.bfloat16)
  expected = _layer()(tf.cast(inputs, tf.float32), _REAL, training=True)
  before = tf_keras.mixed_precision.global_policy()
  tf_keras.mixed_precision.set_global_policy('mixed_bfloat16')
  try:
    layer = _layer()
  finally:
    tf_keras.mixed_precision.set_global_policy(before)
  outputs = layer(inputs, _REAL, training=True)
  assert outputs.dtype == tf.float32
  np.testing.assert_array_equal(outputs, expected)


def _check_replicas():
  """A replica of 3 videos, one of them empty, and one of a single video."""
  tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices('CPU')[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
  )
  one = _layer()
  expected = one(_inputs(), _REAL, training=True)
  strategy = tf.distribute.MirroredStrategy(['cpu:0', 'cpu:1'])
  with strategy.scope():
    layer = _layer()
  shares = (slice(0, 3), slice(3, 4))

  def share(values):
    return strategy.experimental_distribute_values_from_function(
      lambda context: tf.constant(values[shares[context.replica_id_in_sync_group]])
    )

  step = tf.function(
    lambda *values: strategy.run(
      lambda inputs, real: layer(inputs, real, training=True), values
    )
  )
  outputs = strategy.experimental_local_results(step(share(_inputs()), share(_REAL)))
  np.testing.assert_allclose(tf.concat(outputs, 0), expected, rtol=1e-5, atol=1e-5)
  for ours, theirs in zip(layer.weights, one.weights):
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5)


@pytest.mark.end_to_end
def test_replicas_equal_one():
  """In another Python: devices must be set before TensorFlow starts."""
  processes.forked(__file__)


def test_config_round_trip():
  layer = _layer(momentum=0.5, epsilon=0.25, name='some')
  again = tf_keras.layers.deserialize(tf_keras.layers.serialize(layer))
  assert isinstance(again, masked_batch_norm.MaskedBatchNormalization)
  assert again.get_config() == layer.get_config()


if __name__ == '__main__':
  _check_replicas()
