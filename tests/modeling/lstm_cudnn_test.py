"""LSTM layers on cuDNN against a plain loop and the tiled ones.

Where there is a GPU cuDNN itself runs as well:

  python -m pytest tests/modeling/lstm_cudnn_test.py

N sequences, L steps, D features, H cells.
"""

import fake_cudnn
import lstm_cases
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras.src.layers.rnn import lstm as keras_lstm

from yt8m_distill.modeling import frame_normalization
from yt8m_distill.modeling import lstm
from yt8m_distill.modeling import lstm_cudnn
from yt8m_distill.modeling import lstm_stack
from yt8m_distill.modeling.backbones import hierarchical_lstm

_OP = 'CudnnRNNV3'


@pytest.fixture(name='fake')
def _fake(monkeypatch):
  fake = fake_cudnn.Fake()
  monkeypatch.setattr(tf.raw_ops, _OP, fake)
  return fake


@pytest.fixture(name='pretended_gpu')
def _pretended_gpu(monkeypatch):
  """Makes TensorFlow report a GPU."""
  monkeypatch.setattr(tf.test, 'is_built_with_cuda', lambda: True)
  monkeypatch.setattr(
    tf.config, 'list_logical_devices', lambda kind=None: [f'/device:{kind}:0']
  )


@pytest.fixture(name='case', scope='module')
def _case():
  # 0, 1, L - 1 and L steps; two of the seven have none.
  return lstm_cases.Case([5, 0, 1, 4, 3, 0, 5], steps=5, layers=2)


def _run(case, x=None, **options):
  """Value and gradients."""
  return case.gradients(
    lambda *args: lstm_cudnn.final_states(*args, **options),
    case.x if x is None else x,
    tf.constant(case.lengths, tf.int32),
  )


def _graph(case, batch, **options):
  """A function of x and lengths, compiled for a batch of that size or any."""
  return tf.function(
    lambda x, lengths: case.gradients(
      lambda *args: lstm_cudnn.final_states(*args, **options), x, lengths
    ),
    autograph=False,
    input_signature=[
      tf.TensorSpec([batch, *case.x.shape[1:]]),
      tf.TensorSpec([batch], tf.int32),
    ],
  )


@pytest.mark.usefixtures('fake')
@pytest.mark.parametrize('training', [False, True])
def test_equals_plain_loop(case, training):
  case.check(_run(case, training=training))


@pytest.mark.usefixtures('fake')
@pytest.mark.parametrize('training', [False, True])
def test_graph(case, training):
  run = _graph(case, batch=None, training=training)
  case.check(run(case.x, tf.constant(case.lengths)))


@pytest.mark.usefixtures('fake')
@pytest.mark.parametrize('steps, layers', [(3, 1), (2, 3), (1, 2)])
def test_steps_and_layers(steps, layers):
  case = lstm_cases.Case([steps, 0, 1], steps, layers)
  for training in (False, True):
    case.check(_run(case, training=training))


@pytest.mark.usefixtures('fake')
@pytest.mark.parametrize('lengths', [[0, 0, 0], [0], []])
@pytest.mark.parametrize('training', [False, True])
def test_nothing_to_run(lengths, training):
  case = lstm_cases.Case(lengths, steps=2, layers=2)
  shapes = [
    [len(lengths), 8],
    case.x.shape,
    *(w.shape for w in case.kernels + case.biases),
  ]
  for value, shape in zip(_run(case, training=training), shapes, strict=True):
    np.testing.assert_array_equal(value, np.zeros(shape))


@pytest.mark.usefixtures('fake')
def test_no_sequences_in_a_graph():
  """The batch of a replica may be empty, which a graph cannot foresee."""
  case = lstm_cases.Case([], steps=2, layers=2)
  run = _graph(case, batch=None, training=True)
  states, d_x, *d_weights = run(case.x, tf.constant([], tf.int32))
  assert states.shape == [0, 8] and d_x.shape == case.x.shape
  assert not any(np.any(value) for value in d_weights)


@pytest.mark.usefixtures('fake')
@pytest.mark.parametrize('steps', [1, 3])
def test_continues_from_states(case, steps):
  case.continue_after(steps, lstm_cudnn.final_states)


def test_keeps_for_gradients_in_training_alone(case, fake):
  for training in (False, True):
    fake.calls.clear()
    lstm_cudnn.final_states(
      case.x, tf.constant(case.lengths), case.kernels, case.biases, training=training
    )
    assert [call['is_training'] for call in fake.calls] == [training] * 2


@pytest.mark.usefixtures('fake')
@pytest.mark.parametrize('training', [False, True])
def test_without_input_gradient(case, training):
  value, d_x, *d_weights = _run(case, training=training, input_gradient=False)
  case.check([value, case.expected[1], *d_weights])
  assert not np.any(d_x)


@pytest.mark.usefixtures('fake')
@pytest.mark.parametrize('training', [False, True])
def test_what_is_behind_the_end_changes_nothing(case, training):
  behind = np.arange(5) >= np.array(case.lengths)[:, None]
  x = tf.where(behind[..., None], np.float32('nan'), case.x)
  actual = _run(case, x=x, training=training)
  case.check(actual)
  assert not np.any(actual[1].numpy()[behind])


# Mantissas of 11 bits; those of bfloat16 are no worse, for it runs in float32.
@pytest.mark.parametrize(
  'dtype, tolerance, core',
  [('float16', 0.02, 'float16'), ('bfloat16', 2e-6, 'float32')],
)
def test_mixed_precision(case, fake, dtype, tolerance, core):
  actual = _run(case, training=True, dtype=dtype)
  case.check(actual, tolerance)
  assert all(value.dtype == tf.float32 for value in actual)
  assert {call['input'].dtype.name for call in fake.calls} == {core}
  x = tf.cast(case.x, dtype)
  assert _run(case, x=x, training=True)[1].dtype == x.dtype


def test_other_types_are_refused(case):
  with pytest.raises(ValueError, match='dtype is float64: cuDNN takes float32'):
    _run(case, dtype='float64')


@pytest.mark.usefixtures('fake')
@pytest.mark.parametrize('training', [False, True])
def test_prepares_inputs(case, training):
  x = tf.constant(np.random.default_rng(0).integers(256, size=case.x.shape), tf.uint8)

  def run(function, **options):
    return case.gradients(
      lambda *args: function(
        *args,
        training=training,
        input_gradient=False,
        dtype=tf.float32,
        prepare=frame_normalization.normalize,
        **options,
      ),
      x,
      tf.constant(case.lengths),
    )

  ours, theirs = run(lstm_cudnn.final_states), run(lstm.final_states, tile=3)
  for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
    if k != 1:  # Of the integers.
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_calls_what_keras_calls(case, fake, monkeypatch):
  """All that reaches the operation, weights included, is what Keras sends."""
  # Keras has the same operation in a module of its own.
  monkeypatch.setattr(keras_lstm.tf.raw_ops, _OP, fake)
  lengths = tf.maximum(case.lengths, 1)
  kernel, bias = case.kernels[0], case.biases[0]
  states = lstm_cudnn.final_states(case.x, lengths, [kernel], [bias], training=True)
  zeros = tf.zeros([len(lengths), lstm_cases.CELLS])
  real = tf.sequence_mask(lengths, case.x.shape[1])
  inputs = tf.where(real[..., None], case.x, 0)
  _, _, h, c, _ = keras_lstm.gpu_lstm(
    inputs,
    zeros,
    zeros,
    kernel[: lstm_cases.FEATURES],
    kernel[lstm_cases.FEATURES :],
    bias,
    mask=None,
    time_major=False,
    go_backwards=False,
    sequence_lengths=lengths,
    return_sequences=False,
  )
  ours, theirs = fake.calls
  assert ours.keys() == theirs.keys()
  for name, value in theirs.items():
    np.testing.assert_array_equal(ours[name], value, name)
  np.testing.assert_array_equal(states, tf.concat([c, h], 1))


@pytest.mark.parametrize('dtype', lstm_cudnn.DTYPES)
@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('batch', [None, 7])
def test_operation_accepts_its_arguments(case, batch, training, dtype):
  """Its shapes, types and gradient, in a graph that does not run."""
  run = _graph(case, batch, training=training, dtype=dtype)
  traced = run.get_concrete_function()
  states, d_x, *d_weights = traced.structured_outputs
  assert states.shape.as_list() == [batch, 8] and states.dtype == tf.float32
  assert d_x.shape.as_list() == [batch, *case.x.shape[1:]]
  for ours, weight in zip(d_weights, case.kernels + case.biases, strict=True):
    assert (ours.shape, ours.dtype) == (weight.shape, weight.dtype)
  operations = traced.graph.get_operations()
  forward = [op for op in operations if op.type == _OP]
  # Without training a gradient runs the layers again.
  assert [op.get_attr('is_training') for op in forward] == (
    [True] * 2 if training else [False] * 2 + [True] * 2
  )
  for op in forward:
    assert op.outputs[0].shape.as_list() == [batch, 5, lstm_cases.CELLS]
    assert op.get_attr('T') == ('float16' if dtype == 'float16' else 'float32')
  assert len([o for o in operations if o.type == 'CudnnRNNBackpropV3']) == 2


def _stack(**options):
  stack = lstm_stack.LSTMStack(num_cells=2, num_layers=2, **options)
  stack.build([None, 5, lstm_cases.FEATURES])
  return stack


@pytest.mark.usefixtures('pretended_gpu')
@pytest.mark.parametrize(
  'options, moments, layers',
  [
    ({}, None, 2),
    ({'dtype': 'mixed_float16'}, None, 2),
    ({'dtype': 'mixed_bfloat16'}, None, 2),
    ({'use_cudnn': False}, None, 0),
    ({'static_shapes': True}, None, 0),
    ({'tile': 3}, None, 0),
    ({}, [[0, 1]], 0),
  ],
  ids=str,
)
def test_stack_chooses(case, fake, options, moments, layers):
  stack = _stack(**options)
  stack(case.x, tf.constant(case.lengths), moments=moments and tf.constant(moments))
  assert len(fake.calls) == layers
  assert stack.runs_on_cudnn() == (layers > 0 or moments is not None)


def test_no_cudnn_without_its_gpu(pretended_gpu, monkeypatch):
  del pretended_gpu
  assert _stack().runs_on_cudnn()
  assert not _stack(dtype='float64').runs_on_cudnn()
  with tf.distribute.OneDeviceStrategy('/cpu:0').scope():
    assert not _stack().runs_on_cudnn()
  monkeypatch.setattr(tf.test, 'is_built_with_cuda', lambda: False)
  assert not _stack().runs_on_cudnn()
  monkeypatch.undo()
  if not tf.config.list_physical_devices('GPU'):
    assert not _stack().runs_on_cudnn()


@pytest.mark.usefixtures('pretended_gpu')
@pytest.mark.parametrize('with_moments', [False, True])
@pytest.mark.parametrize('training', [False, True])
def test_whole_network(fake, with_moments, training):
  """Frames as stored, videos of every length, states on the way or not."""
  rng = np.random.default_rng(0)
  inputs = {
    'frames': tf.constant(rng.integers(256, size=[13, 12, 3]), tf.uint8),
    'num_frames': tf.range(13),
  }
  if with_moments:
    inputs['moments'] = tf.tile(tf.constant([[0, 5, 11]]), [13, 1])

  def outputs_and_gradients(**options):
    network = hierarchical_lstm.HierarchicalLstm(
      {'frames': tf_keras.layers.InputSpec(shape=[None, 12, 3])},
      chunks=4,
      num_cells=2,
      num_layers=2,
      **options,
    )
    network.set_weights(
      [np.random.default_rng(1).normal(size=w.shape) for w in network.weights]
    )
    with tf.GradientTape() as tape:
      outputs = network(inputs, training=training)
      loss = sum(tf.reduce_sum(tf.sin(v)) for v in outputs.values())
    return outputs, tape.gradient(loss, network.trainable_weights)

  actual = outputs_and_gradients()
  # Twice where the gradient computes them again.
  assert len(fake.calls) == (2 if with_moments else 4) * (1 if training else 2)
  tf.nest.map_structure(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6),
    actual,
    outputs_and_gradients(tile=3),
  )


@pytest.mark.gpu
@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize(
  'dtype, tolerance', [('float32', 1e-4), ('bfloat16', 1e-4), ('float16', 0.02)]
)
def test_cudnn_itself(dtype, tolerance, training):
  """Differences are to the largest value; float32 without TF32."""
  tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
  tf.config.experimental.enable_tensor_float_32_execution(False)
  rng = np.random.default_rng(0)

  def normal(*shape):
    return tf.constant(rng.normal(size=shape, scale=0.1), tf.float32)

  weights = (
    [normal(96 + 64, 4 * 64), normal(2 * 64, 4 * 64)],
    [normal(4 * 64), normal(4 * 64)],
  )

  @tf.function(autograph=False)
  def both(x, lengths):
    results = []
    for function, options in (
      (lstm_cudnn.final_states, {'dtype': dtype}),
      (lstm.final_states, {'tile': 100}),
    ):
      with tf.GradientTape() as tape:
        sources = [x, *weights[0], *weights[1]]
        tape.watch(sources)
        states = function(x, lengths, *weights, training=training, **options)
        loss = tf.reduce_sum(tf.sin(3 * states))
      results.append([states, *tape.gradient(loss, sources)])
    return results

  try:
    # All of full length first, and then not.
    for lengths in ([15] * 40, [*range(16)] * 2 + [0] * 8, [0] * 40, []):
      x = normal(len(lengths), 15, 96)
      for ours, theirs in zip(*both(x, tf.constant(lengths, tf.int32))):
        assert ours.shape == theirs.shape and ours.dtype == tf.float32
        np.testing.assert_allclose(
          ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max(initial=1e-9)
        )
  finally:
    tf.config.experimental.enable_tensor_float_32_execution(tf32)
