"""A stack of LSTM layers as a Keras layer."""

import tensorflow as tf
import tf_keras

from yt8m_distill.modeling import lstm
from yt8m_distill.modeling import lstm_cudnn

# Sequences that run at once on a CPU: few enough for its caches, enough for
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
  """Final states of LSTM layers stacked on each other.

  The variables of a layer are, as in the original code, one kernel for input
  and hidden state [D + H, 4H] and a bias [4H], columns in the order i, f, g, o.

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
      static_shapes: run sequences of length 0 too (XLA).
      input_gradient: False where the input is data: saves its gradient.
      kernel_regularizer: of all kernels.
      tile: sequences at once; None chooses by the device.
      use_cudnn: on a GPU, run the layers on cuDNN where it can: see
        runs_on_cudnn().
      recompute: keep no steps for the backward pass, which computes them again,
        on a CPU tile by tile: less memory, more time.
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
    self.kernels, self.biases = [], []

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

  def call(self, x, lengths, training=False, prepare=None, moments=None):
    """Returns float32 [N, R] for x [N, L, D] and lengths int32 [N].

    `prepare` and `moments` are those of lstm.final_states(); `prepare` must not
    mind the order of the two first axes.
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
    )
    # cuDNN returns no cells but the last.
    if moments is None and self.runs_on_cudnn():
      return lstm_cudnn.final_states(x, lengths, *weights, **options)
    return lstm.final_states(
      x, lengths, *weights, tile=self._rows(), moments=moments, **options
    )

  def runs_on_cudnn(self) -> bool:
    """Whether a call, or the graph traced now, runs on cuDNN.

    So it does where a GPU of NVIDIA's is used, unless the layer was told
    otherwise (use_cudnn), shapes must not depend on the data (static_shapes), a
    tile was chosen, or the type is float64. A call that wants `moments` never
    does.
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
    """FLOPs of one sequence of `steps` steps: 2 per multiply-add."""
    return 2 * steps * sum(int(k.shape.num_elements()) for k in self.kernels)

  def get_config(self):
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
  # A strategy may leave a GPU that is there unused.
  devices = (
    tf.distribute.get_strategy().extended.worker_devices
    if tf.distribute.has_strategy()
    else tf.config.list_logical_devices('GPU')
  )
  return any('GPU' in str(device) for device in devices)
