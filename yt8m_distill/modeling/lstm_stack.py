"""A stack of LSTM layers as a Keras layer."""

import tensorflow as tf
import tf_keras

from yt8m_distill.modeling import lstm
from yt8m_distill.modeling import lstm_cudnn

# Sequences computed at once on a CPU: few enough for its caches, many enough for
# efficient matrix products (experiments/benchmarks/model.py).
CPU_TILE = 640
_ALL_ROWS = 2**30


class _ForgetBias(tf_keras.initializers.Initializer):
  """1 for the forget gate, 0 elsewhere."""

  def __call__(self, shape, dtype=None, **kwargs):
    cells = shape[0] // 4
    return tf.cast(tf.repeat([0.0, 1.0, 0.0, 0.0], cells), dtype)


@tf_keras.utils.register_keras_serializable(package='yt8m_distill')
class LSTMStack(tf_keras.layers.Layer):
  """Final states of stacked LSTM layers.

  As in the original code, a layer has one kernel for input and hidden state,
  [D + H, 4H], and a bias, [4H]. Columns are in the order i, f, g, o.

  Attributes:
    kernels: per layer, the kernel.
    biases: per layer, the bias.
  """

  def __init__(
    self,
    num_cells: int,
    num_layers: int = 2,
    static_shapes: bool = False,
    input_gradient: bool = True,
    kernel_regularizer=None,
    tile: int | None = None,
    use_cudnn: bool = True,
    recompute: bool = False,
    **kwargs,
  ):
    """Initializes the layer.

    Args:
      num_cells: H.
      num_layers: layers.
      static_shapes: also compute sequences of length 0, as XLA requires.
      input_gradient: whether to compute gradients of the input; not needed if
        it is data.
      kernel_regularizer: of all kernels.
      tile: sequences computed at once; None chooses by the device.
      use_cudnn: on a GPU, run the layers on cuDNN where possible; see
        runs_on_cudnn().
      recompute: recompute steps in the backward pass (on a CPU tile by tile)
        instead of storing them: less memory, more time.
      **kwargs: arguments of a Keras layer.
    """
    super().__init__(**kwargs)
    self.num_cells = num_cells
    self.num_layers = num_layers
    self._static_shapes = static_shapes
    self._input_gradient = input_gradient
    self._kernel_regularizer = tf_keras.regularizers.get(kernel_regularizer)
    self._tile = tile
    self._use_cudnn = use_cudnn
    self._recompute = recompute
    self.kernels: list[tf.Variable] = []
    self.biases: list[tf.Variable] = []

  @property
  def state_size(self) -> int:
    """R, size of the final state [c0, h0, c1, h1, ...]."""
    return 2 * self.num_layers * self.num_cells

  def build(self, input_shape):
    """Creates the variables for inputs [N, L, D]."""
    features = input_shape[-1]
    for layer in range(self.num_layers):
      self.kernels.append(
        self.add_weight(
          name=f'{self.name}/cell_{layer}/kernel',
          shape=[features + self.num_cells, 4 * self.num_cells],
          initializer='glorot_uniform',
          regularizer=self._kernel_regularizer,
          experimental_autocast=False,
        )
      )
      self.biases.append(
        self.add_weight(
          name=f'{self.name}/cell_{layer}/bias',
          shape=[4 * self.num_cells],
          initializer=_ForgetBias(),
          experimental_autocast=False,
        )
      )
      features = self.num_cells
    super().build(input_shape)

  def call(self, x, lengths, training=False, prepare=None, moments=None, initial=None):
    """Returns the final states, as lstm.final_states().

    Args:
      x: [N, L, D] inputs.
      lengths: int32 [N], steps of each sequence.
      training: whether a backward pass follows.
      prepare: see lstm.final_states(); it must accept the first two axes in
        either order.
      moments: see lstm.final_states().
      initial: see lstm.final_states().

    Returns:
      float32 [N, R], and with `moments` also float32 [P, R].
    """
    weights = [
      [tf.convert_to_tensor(v) for v in variables]
      for variables in (self.kernels, self.biases)
    ]
    options = dict(
      training=bool(training) and not self._recompute,
      input_gradient=self._input_gradient,
      prepare=prepare,
      dtype=self.compute_dtype,
      initial=initial,
    )
    # cuDNN returns only the last cell state.
    if moments is None and self.runs_on_cudnn():
      return lstm_cudnn.final_states(x, lengths, *weights, **options)
    return lstm.final_states(
      x, lengths, *weights, tile=self._rows(), moments=moments, **options
    )

  def runs_on_cudnn(self) -> bool:
    """Returns whether a call, or the graph being traced, runs on cuDNN.

    This is so on an NVIDIA GPU, unless use_cudnn is False, static_shapes is set,
    a tile was chosen, or the type is float64. A call with `moments` never runs on
    cuDNN.
    """
    return (
      self._use_cudnn
      and not self._static_shapes
      and not self._tile
      and self.compute_dtype in lstm_cudnn.DTYPES
      and tf.test.is_built_with_cuda()
      and _on_gpu()
    )

  def _rows(self) -> int | None:
    strategy = tf.distribute.get_strategy()
    if self._static_shapes or isinstance(strategy, tf.distribute.TPUStrategy):
      return None
    if self._tile:
      return self._tile
    return _ALL_ROWS if _on_gpu() else CPU_TILE

  def flops(self, steps: int) -> int:
    """Returns the FLOPs of a sequence of `steps` steps: 2 per multiply-add."""
    return 2 * steps * sum(int(k.shape.num_elements()) for k in self.kernels)

  def get_config(self):
    """Returns the arguments of __init__."""
    return {
      **super().get_config(),
      'num_cells': self.num_cells,
      'num_layers': self.num_layers,
      'static_shapes': self._static_shapes,
      'input_gradient': self._input_gradient,
      'kernel_regularizer': tf_keras.regularizers.serialize(self._kernel_regularizer),
      'tile': self._tile,
      'use_cudnn': self._use_cudnn,
      'recompute': self._recompute,
    }


def _on_gpu() -> bool:
  # A strategy may not use a GPU that exists.
  devices = (
    tf.distribute.get_strategy().extended.worker_devices
    if tf.distribute.has_strategy()
    else tf.config.list_logical_devices('GPU')
  )
  return any('GPU' in str(device) for device in devices)
