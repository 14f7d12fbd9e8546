"""A stack of LSTM layers: its variables, what it computes and costs."""

import numpy as np
import tensorflow as tf
import tf_keras

from yt8m_distill.modeling import lstm
from yt8m_distill.modeling import lstm_stack


def test_owns_the_variables():
  rng = np.random.default_rng(0)
  x = tf.constant(rng.normal(size=[3, 5, 4]), tf.float32)
  lengths = tf.constant([5, 0, 2])
  stack = lstm_stack.LSTMStack(
    num_cells=2, num_layers=2, tile=2, kernel_regularizer=tf_keras.regularizers.L2(0.5)
  )
  stack.build(x.shape)
  for bias in stack.biases:  # That of the forget gate is 1.
    np.testing.assert_array_equal(bias, [0, 0, 1, 1, 0, 0, 0, 0])
  for variable in stack.kernels + stack.biases:
    variable.assign(rng.normal(size=variable.shape))
  np.testing.assert_allclose(
    stack(x, lengths),
    lstm.final_states(x, lengths, stack.kernels, stack.biases, tile=2),
    rtol=2e-6,
    atol=2e-6,
  )
  assert stack.state_size == 8
  kernels = [kernel.numpy() for kernel in stack.kernels]
  assert stack.flops(5) == 2 * 5 * sum(k.size for k in kernels)
  np.testing.assert_allclose(
    tf.add_n(stack.losses), 0.5 * sum(np.sum(k**2) for k in kernels), rtol=1e-5
  )


def test_round_trip():
  stack = lstm_stack.LSTMStack(
    num_cells=3,
    num_layers=1,
    static_shapes=True,
    input_gradient=False,
    kernel_regularizer=tf_keras.regularizers.L2(0.25),
    tile=4,
    use_cudnn=False,
    recompute=True,
    name='lower',
  )
  again = lstm_stack.LSTMStack.from_config(stack.get_config())
  assert again.get_config() == stack.get_config()
  assert again.name == 'lower' and again.state_size == 6
  assert not again.get_config()['use_cudnn']
  assert again.get_config()['recompute']


def test_recompute_keeps_no_steps(monkeypatch):
  """What a training step returns is the same; see lstm_test for gradients."""
  asked = []
  final_states = lstm.final_states
  monkeypatch.setattr(
    lstm,
    'final_states',
    lambda *args, **options: (
      asked.append(options['training']),
      final_states(*args, **options),
    )[1],
  )
  x, lengths = tf.random.stateless_normal([4, 3, 2], [0, 1]), [3, 0, 2, 1]
  kept, again = (
    lstm_stack.LSTMStack(2, recompute=recompute) for recompute in (False, True)
  )
  for stack in (kept, again):
    stack.build([None, 3, 2])
  again.set_weights(kept.get_weights())
  results = []
  for stack in (kept, again):
    with tf.GradientTape() as tape:
      states = stack(x, tf.constant(lengths), training=True)
      loss = tf.reduce_sum(tf.sin(states))
    results.append([states, *tape.gradient(loss, stack.trainable_weights)])
  tf.nest.map_structure(np.testing.assert_array_equal, *results)
  assert asked == [True, False]
