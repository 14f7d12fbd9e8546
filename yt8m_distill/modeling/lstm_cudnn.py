"""Final states of stacked LSTM layers by cuDNN, on an NVIDIA GPU.

Computes the same layers as lstm.py. Each layer is one TensorFlow operation,
CudnnRNNV3, which has no CPU kernel: without a GPU, tests replace the kernel by a
stand-in; with one, tests/modeling/lstm_cudnn_test.py runs it.

cuDNN skips steps after the end of a sequence, but rejects sequences without steps
and empty batches. An empty sequence therefore runs one step of zeros, whose state
is then replaced by zeros. It costs 1 / L of a full sequence and, unlike selecting
rows, keeps the shapes by which TensorFlow caches cuDNN's descriptors.

Inputs are batch-major. For time-major inputs, TensorFlow prepares for unequal
lengths only if it sees some, but caches the preparation by shape: cuDNN then fails
if a batch of full lengths comes first (ShouldUsePaddedIO and
GetCachedRnnDescriptor in tensorflow/core/kernels/cudnn_rnn_ops.cc).

N sequences, L steps, D input features, H cells, R = 2 * H * layers: the state
[c0, h0, c1, h1, ...].
"""

from collections.abc import Callable
from collections.abc import Sequence

import tensorflow as tf

# Types of the matrix products that final_states() supports.
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
  initial: tf.Tensor | None = None,
) -> tf.Tensor:
  """Runs stacked LSTM layers.

  Args:
    x: [N, L, D] inputs.
    lengths: int32 [N], steps of each sequence; the state of an empty sequence
      is zero.
    kernels: per layer [D + H, 4H], in the upper layers [2H, 4H].
    biases: per layer [4H].
    training: store what the backward pass needs; otherwise a gradient
      recomputes it.
    input_gradient: whether to return gradients of `x`; cuDNN computes them
      either way.
    prepare: from `x` and its real steps, bool [N, L], to inputs [N, L, D].
    dtype: one of DTYPES, by default that of `x`. With float16, everything but the
      result is float16; float32 and bfloat16 compute in float32, with products in
      TF32 unless TensorFlow is configured otherwise. The operation also accepts
      bfloat16 and casts it to float32, but in some versions its backward pass
      reads uninitialized memory (DoBackward in cudnn_rnn_ops.cc).
    initial: float32 [N, R], states to start from, in inference only; None for zeros.

  Returns:
    float32 [N, R].

  Raises:
    ValueError: `dtype` is not one of DTYPES.
  """
  dtype = tf.as_dtype(dtype or x.dtype)
  if dtype.name not in DTYPES:
    raise ValueError(
      f'dtype is {dtype.name}: cuDNN takes {", ".join(DTYPES)}. Choose one of them, '
      'or use lstm.final_states().'
    )
  core = tf.float16 if dtype == tf.float16 else tf.float32
  count, real = tf.size(lengths), tf.sequence_mask(lengths, x.shape[1])
  x = prepare(x, real) if prepare else x
  x = x if input_gradient else tf.stop_gradient(x)
  # Otherwise NaN in padding would reach the gradients of the weights.
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
  width = 2 * sum(sizes)
  if initial is None:
    initial = tf.zeros([tf.shape(x)[0], width], core)
  else:
    initial = tf.cast(tf.pad(initial, [[0, missing], [0, 0]]), core)
  starts = tf.split(initial, [size for size in sizes for _ in range(2)], axis=1)

  def run(training, x, *weights):
    states = []
    for layer, blob in enumerate(weights):
      c, h = starts[2 * layer : 2 * layer + 2]
      x, *state = _layer(x, steps, blob, c, h, training)
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
  """Returns a layer's parameters as the vector that cuDNN expects.

  It holds the input's weights, gate by gate, each an H x D matrix in row-major
  order; the hidden state's weights, as H x H matrices; the input's biases, gate by
  gate; and the hidden state's biases. Gates are in the order i, f, g, o. cuDNN adds
  the two biases, so the input's are 0.

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


def _layer(x, lengths, blob, c, h, training):
  """Returns outputs [N, L, H], zero after the end, and the last c and h [N, H]."""
  outputs, h, c, _, _ = tf.raw_ops.CudnnRNNV3(
    input=x,
    input_h=h[:, tf.newaxis],
    input_c=c[:, tf.newaxis],
    params=blob,
    sequence_lengths=lengths,
    rnn_mode='lstm',
    input_mode='linear_input',
    direction='unidirectional',
    is_training=training,
    time_major=False,
  )
  return outputs, c[:, 0], h[:, 0]
