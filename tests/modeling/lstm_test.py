"""Tiled LSTM layers against a plain loop over sequences and steps.

N sequences, L steps, D features, H cells, P moments.
"""

import functools

import lstm_cases
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from yt8m_distill.modeling import lstm

_TILES = [1, 2, 3, 100, None]


class _Case(lstm_cases.Case):
  """Run by the function under test."""

  def run(self, tile=None, x=None, **options):
    """The same by the function under test."""
    return self.gradients(
      lambda *args: lstm.final_states(*args, tile=tile, **options),
      self.x if x is None else x,
      tf.constant(self.lengths, tf.int32),
    )


@pytest.fixture(scope='module')
def case():
  # 0, 1, L - 1 and L steps; two of the seven have none.
  return _Case([5, 0, 1, 4, 3, 0, 5], steps=5, layers=2)


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('tile', _TILES)
def test_equals_plain_loop(case, tile, training):
  case.check(case.run(tile, training=training))


@pytest.mark.parametrize('training', [False, True])
def test_graph(case, training):
  # One trace for all tiles: tracing is what takes time.
  run = tf.function(case.run, autograph=False)
  for tile in (1, 2, 3, 100):
    case.check(run(tf.constant(tile), training=training))


@pytest.mark.parametrize('tile', _TILES)
@pytest.mark.parametrize('steps', [1, 3])
def test_continues_from_states(case, tile, steps):
  case.continue_after(steps, functools.partial(lstm.final_states, tile=tile))


def test_states_to_continue_from_have_no_gradient(case):
  arguments = case.x, tf.constant(case.lengths), case.kernels, case.biases
  initial = tf.zeros([len(case.lengths), 8])
  with pytest.raises(ValueError, match='initial is given in training'):
    lstm.final_states(*arguments, training=True, initial=initial)
  with tf.GradientTape() as tape:
    tape.watch(case.kernels)
    states = lstm.final_states(*arguments, initial=initial)
  with pytest.raises(ValueError, match='`initial` have no gradient'):
    tape.gradient(states, case.kernels)


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('tile', _TILES)
def test_states_at_moments(case, tile, training):
  actual = case.run(tile, training=training, moments=case.moments)
  case.check(actual)
  real = case.moments[:, 1] < np.array(case.lengths)[case.moments[:, 0]]
  assert 0 < real.sum() < len(real)
  np.testing.assert_array_equal(np.any(actual[1], axis=1), real)


def test_gradients_of_moments_come_without_one_of_the_input(case):
  for tile in (2, None):
    states, at_moments, d_x, *d_weights = case.run(
      tile, training=True, input_gradient=False, moments=case.moments
    )
    case.check([states, at_moments, case.expected_moments[2], *d_weights])
    assert not np.any(d_x)


def test_few_moments_and_none(case):
  """Each has its state wherever others are asked for."""
  expected, everything, *_ = case.run(2, moments=case.moments)
  for count in (0, 1, 3):
    states, at_moments = lstm.final_states(
      case.x,
      tf.constant(case.lengths),
      case.kernels,
      case.biases,
      tile=2,
      moments=tf.constant(case.moments[:count]),
    )
    np.testing.assert_array_equal(at_moments, everything[:count])
    np.testing.assert_array_equal(states, expected)


def test_moments_in_a_graph(case):
  run = tf.function(case.run, autograph=False)
  for tile in (1, 3, 100):
    case.check(run(tf.constant(tile), training=True, moments=case.moments))


def _graph(case, batch, jit_compile=False, **options):
  """Compiled for a batch of known or unknown (None) size."""
  return tf.function(
    lambda x, lengths: case.gradients(
      lambda *args: lstm.final_states(*args, **options), x, lengths
    ),
    autograph=False,
    jit_compile=jit_compile,
    input_signature=[
      tf.TensorSpec([batch, *case.x.shape[1:]]),
      tf.TensorSpec([batch], tf.int32),
    ],
  )


@pytest.mark.parametrize(
  'batch, training, jit_compile, moments',
  [
    (None, False, False, False),
    (None, True, True, False),
    (7, False, True, False),
    (7, True, True, False),
    (7, True, True, True),
  ],
)
def test_static_graph(case, batch, training, jit_compile, moments):
  """No shape depends on the lengths, as XLA needs it."""
  run = _graph(
    case,
    batch,
    jit_compile,
    training=training,
    moments=case.moments if moments else None,
  )
  case.check(run(case.x, tf.constant(case.lengths)))


def test_static_graph_of_one():
  case = _Case([2], steps=3, layers=2)
  run = _graph(case, batch=1, training=True)
  case.check(run(case.x, tf.constant(case.lengths)))


@pytest.mark.parametrize('steps, layers', [(3, 1), (2, 3), (1, 2)])
@pytest.mark.parametrize('tile', [2, None])
def test_steps_and_layers(steps, layers, tile):
  case = _Case([steps, 0, 1], steps, layers)
  for training in (False, True):
    case.check(case.run(tile, training=training))


@pytest.mark.parametrize('tile', [2, None])
def test_one_step_in_a_graph(tile):
  case = _Case([1, 0, 1], steps=1, layers=2)
  case.check(tf.function(lambda: case.run(tile, training=True), autograph=False)())


@pytest.mark.parametrize('lengths', [[0, 0, 0], [0], []])
@pytest.mark.parametrize('tile', [1, 2, None])
def test_nothing_to_run(lengths, tile):
  case = _Case(lengths, steps=2, layers=2)
  for training in (False, True):
    actual = case.run(tile, training=training, moments=case.moments)
    shapes = [
      [len(lengths), 8],
      [len(case.moments), 8],
      case.x.shape,
      *(w.shape for w in case.kernels + case.biases),
    ]
    for value, shape in zip(actual, shapes, strict=True):
      np.testing.assert_array_equal(value, np.zeros(shape))
  assert case.run(tile)[0].shape == [len(lengths), 8]


def test_no_sequences_in_a_graph():
  """The last batch of a replica may be empty, which a graph cannot foresee."""
  case = _Case([], steps=2, layers=2)
  run = _graph(case, batch=None, tile=2, training=True, moments=case.moments)
  actual = run(case.x, tf.constant([], tf.int32))
  assert actual[0].shape == actual[1].shape == [0, 8]
  assert actual[2].shape == [0, 2, lstm_cases.FEATURES]
  assert not any(np.any(value) for value in actual)


@pytest.mark.parametrize('tile', [2, None])
def test_without_input_gradient(case, tile):
  value, d_x, *d_weights = case.run(tile, training=True, input_gradient=False)
  assert not np.any(d_x)
  expected_value, _, *expected = case.run(tile, training=True)
  for ours, theirs in zip((value, *d_weights), (expected_value, *expected)):
    np.testing.assert_array_equal(ours, theirs)

  with tf.GradientTape() as tape:
    tape.watch(case.x)
    value = lstm.final_states(
      case.x,
      tf.constant(case.lengths),
      case.kernels,
      case.biases,
      tile=tile,
      input_gradient=False,
    )
  assert tape.gradient(value, case.x) is None


@pytest.mark.parametrize('tile', [2, None])
def test_bfloat16(case, tile):
  """Products in 8 bits of mantissa: within 5 % of the largest value."""
  value, at_moments, d_x, *d_weights = case.run(
    tile, x=tf.cast(case.x, tf.bfloat16), training=True, moments=case.moments
  )
  assert d_x.dtype == tf.bfloat16
  for tensor in (value, at_moments, *d_weights):
    assert tensor.dtype == tf.float32
  actual = value, at_moments, tf.cast(d_x, tf.float32), *d_weights
  for ours, theirs in zip(actual, case.expected_moments, strict=True):
    difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert difference < 0.05
  assert np.abs(value - case.expected[0]).max() > 1e-5  # it is bfloat16


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('tile', _TILES)
def test_what_is_behind_the_end_changes_nothing(case, tile, training):
  behind = np.arange(5) >= np.array(case.lengths)[:, None]
  garbage = np.random.default_rng(1).normal(scale=1e6, size=case.x.shape)
  x = tf.where(behind[..., None], tf.cast(garbage, tf.float32), case.x)
  actual = case.run(tile, x=x, training=training, moments=case.moments)
  case.check(actual)
  assert not np.any(actual[2].numpy()[behind])


def test_equals_keras():
  """Gate order and state, by a third implementation."""
  case = _Case([4, 4, 4], steps=4, layers=2)
  outputs, finals, features = case.x, [], lstm_cases.FEATURES
  for kernel, bias in zip(case.kernels, case.biases):
    layer = tf_keras.layers.LSTM(
      lstm_cases.CELLS, return_sequences=True, return_state=True
    )
    layer.build((None, 4, features))
    layer.set_weights([kernel[:features], kernel[features:], bias])
    outputs, h, c = layer(outputs)
    finals += [c, h]
    features = lstm_cases.CELLS
  np.testing.assert_allclose(
    case.run(tile=2)[0], tf.concat(finals, 1), rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize('tile, jit_compile', [(2, False), (None, False), (None, True)])
def test_gradient_outside_of_the_graph(case, tile, jit_compile):
  run = tf.function(
    lambda *args: lstm.final_states(
      *args, tile=tile, training=True, moments=case.moments
    ),
    autograph=False,
    jit_compile=jit_compile,
  )
  case.check(case.gradients(run, case.x, tf.constant(case.lengths)))


@pytest.mark.parametrize('graph', [False, True])
@pytest.mark.parametrize('training, passes', [(True, 1), (False, 2)])
def test_keeps_what_a_gradient_needs(case, monkeypatch, graph, training, passes):
  calls = []
  forward_tile = lstm._forward_tile
  monkeypatch.setattr(
    lstm, '_forward_tile', lambda *args: (calls.append(args), forward_tile(*args))[1]
  )

  def run():
    return case.run(None, training=training)

  case.check((tf.function(run, autograph=False) if graph else run)())
  assert len(calls) == passes


def test_saved_model_may_hold_a_training_graph(tmp_path):
  """Saving a Keras model traces it for training too, wanted or not."""
  case = _Case([2, 1], steps=2, layers=1)
  module = tf.Module()
  module.run = tf.function(
    lambda x, lengths: lstm.final_states(
      x, lengths, case.kernels, case.biases, tile=2, training=True
    ),
    autograph=False,
    input_signature=[
      tf.TensorSpec([None, 2, lstm_cases.FEATURES]),
      tf.TensorSpec([None], tf.int32),
    ],
  )
  tf.saved_model.save(module, str(tmp_path))
  states = tf.saved_model.load(str(tmp_path)).run(case.x, tf.constant(case.lengths))
  np.testing.assert_allclose(states, case.expected[0], rtol=2e-6, atol=2e-6)
