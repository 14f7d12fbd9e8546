"""Final states of stacked LSTM layers by cuDNN, on a GPU of NVIDIA's.

The layers are those of lstm.py. Here each is one operation of TensorFlow,
CudnnRNNV3, which has no kernel for a CPU: tests without a GPU check all but
that kernel, against a stand-in; tests/modeling/lstm_cudnn_test.py runs it where
a GPU is.

cuDNN skips what is behind the end of a sequence, refuses one of no steps, and a
batch of none. Here a sequence of none runs one step of zeros, whose state is
then replaced by zeros: it costs 1 / L of a full one and keeps the shapes that
TensorFlow caches cuDNN's descriptors by, which a selection of rows would not.

Inputs are batch-major. Time-major, TensorFlow sets up for unequal lengths only
where it sees some, but caches by shape what it has set up: a batch of full
lengths before one of others then makes cuDNN fail (ShouldUsePaddedIO and
GetCachedRnnDescriptor in tensorflow/core/kernels/cudnn_rnn_ops.cc).

N sequences, L steps, D input features, H cells, R = 2 * H * layers: the state
[c0, h0, c1, h1, ...].
"""

from collections.abc import Callable
from collections.abc import Sequence

import tensorflow as tf

# Of the matrix products, as final_states() takes them.
DTYPES = ('float32', 'float16', 'bfloat16')


@tf.autograph.experimental.do_not_convert
def final_states(
  x: tf.Tensor,
  lengths: tf.Tensor,
  kernels: Sequence[tf.Tensor],
  biases: Sequence[tf.Tensor],
  training: bool = False,
  input_gradient: bool = True,
  prepare: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
  dtype: tf.DType | None = None,
) -> tf.Tensor:
  """Runs stacked LSTM layers from zero states.

  Args:
    x: [N, L, D] inputs.
    lengths: int32 [N], steps of each sequence; a sequence of none has the zero
      state.
    kernels: per layer [D + H, 4H], in the upper layers [2H, 4H].
    biases: per layer [4H].
    training: keep what the backward pass needs; otherwise a gradient
      computes it again.
    input_gradient: have gradients of `x`; cuDNN forms them either way.
    prepare: makes inputs [N, L, D] of `x`, given which are real, bool [N, L].
    dtype: of DTYPES, that of `x` by default. In float16 all is float16 but the
      result; float32 and bfloat16 compute in float32, with products in TF32
      unless TensorFlow is told otherwise. The operation takes bfloat16 too and
      casts it to float32 itself, but in some versions its backward pass reads
      memory that nothing was written to (DoBackward in cudnn_rnn_ops.cc).

  Returns:
    float32 [N, R].

  Raises:
    ValueError: `dtype` is none of DTYPES.
  """
  dtype = tf.as_dtype(dtype or x.dtype)
  if dtype.name not in DTYPES:
    raise ValueError(
      f'dtype is {dtype.name}: cuDNN takes '
      f'{", ".join(DTYPES)}; use lstm.final_states().'
    )
  core = tf.float16 if dtype == tf.float16 else tf.float32
  count, real = tf.size(lengths), tf.sequence_mask(lengths, x.shape[1])
  x = prepare(x, real) if prepare else x
  x = x if input_gradient else tf.stop_gradient(x)
  # In gradients of weights even a NaN behind the end would count.
  x = tf.where(real[..., None], tf.cast(x, core), tf.zeros([], core))
  # The batch of a replica may be empty.
  missing = tf.maximum(1 - count, 0)
  x = tf.pad(x, [[0, missing], [0, 0], [0, 0]])
  steps = tf.maximum(tf.pad(lengths, [[0, missing]]), 1)
  weights = [
    parameters(tf.cast(kernel, core), tf.cast(bias, core))
    for kernel, bias in zip(kernels, biases)
  ]
  sizes = [kernel.shape[1] // 4 for kernel in kernels]

  def run(training, x, *weights):
    states = []
    for blob, cells in zip(weights, sizes):
      x, *state = _layer(x, steps, blob, cells, training)
      states += state
    return tf.cast(tf.concat(states, 1), tf.float32)

  @tf.custom_gradient
  def run_and_forget(*values):

    def gradient(d_states):
      with tf.GradientTape() as tape:
        tape.watch(values)
        states = run(True, *values)
      return tape.gradient(states, values, d_states)

    return run(False, *values), gradient

  states = run(True, x, *weights) if training else run_and_forget(x, *weights)
  return tf.where(lengths[:, None] > 0, states[:count], 0)


def parameters(kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
  """What cuDNN wants of a layer, in one vector.

  First the weights of the input, gate by gate, each as an H x D matrix row by
  row; then those of the hidden state, as H x H matrices; then the biases of the
  input, gate by gate, and those of the hidden state. Gates are in the order
  i, f, g, o. The two biases only add up: the first ones are 0.

  Args:
    kernel: [D + H, 4H].
    bias: [4H].

  Returns:
    [4H * (D + H + 2)], in the type of `kernel`.
  """
  features = kernel.shape[0] - kernel.shape[1] // 4
  # Transposed, the gates' columns are rows, one gate after the other.
  return tf.concat(
    [
      tf.reshape(tf.transpose(kernel[:features]), [-1]),
      tf.reshape(tf.transpose(kernel[features:]), [-1]),
      tf.zeros_like(bias),
      bias,
    ],
    axis=0,
  )


def _layer(x, lengths, blob, cells, training):
  """Outputs [N, L, H], zero behind the end, and last c and h [N, H]."""
  zeros = tf.zeros([tf.shape(x)[0], 1, cells], x.dtype)
  outputs, h, c, _, _ = tf.raw_ops.CudnnRNNV3(
    input=x,
    input_h=zeros,
    input_c=zeros,
    params=blob,
    sequence_lengths=lengths,
    rnn_mode='lstm',
    input_mode='linear_input',
    direction='unidirectional',
    is_training=training,
    time_major=False,
  )
  return outputs, c[:, 0], h[:, 0]
