"""Final states of stacked LSTM layers over many short sequences.

The cell is the original code's BasicLSTMCell: one kernel for input and hidden
state, sigmoid gates, tanh, no peepholes. Parameters are stored differently: gate
columns are in Keras' order i, f, g, o (there: i, j, f, o), and the forget bias of 1
is part of the stored bias.

A single time loop over all sequences of a batch is slow on a CPU: its tensors do
not fit the caches, and automatic differentiation computes weight gradients step by
step. Here sequences run in tiles. Per tile and layer, one matrix product computes
the input's part of all gates, and one each the weight gradients. No step is
masked: a sequence's final state is read at its own last step, and later steps
affect neither results nor gradients.

N sequences, n in a tile, L steps, D input features, H cells, R = 2 * H *
layers: the state [c0, h0, c1, h1, ...]. P moments: steps of some sequences.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from yt8m_distill.modeling import lstm_tiles


@tf.autograph.experimental.do_not_convert
def final_states(
  x: tf.Tensor,
  lengths: tf.Tensor,
  kernels: Sequence[tf.Tensor],
  biases: Sequence[tf.Tensor],
  tile: int | None = None,
  training: bool = False,
  input_gradient: bool = True,
  prepare: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
  dtype: tf.DType | None = None,
  moments: tf.Tensor | None = None,
  initial: tf.Tensor | None = None,
):
  """Runs stacked LSTM layers.

  Args:
    x: [N, L, D] inputs.
    lengths: int32 [N], steps of each sequence; the state of an empty sequence
      is zero.
    kernels: per layer [D + H, 4H], in the upper layers [2H, 4H].
    biases: per layer [4H].
    tile: maximal number of sequences computed at once. None computes all at
      once, including empty ones, so that shapes do not depend on `lengths`, as
      XLA requires.
    training: store what the backward pass needs. Otherwise, and in a graph other
      than that of the forward pass, a gradient recomputes it, tile by tile.
    input_gradient: whether to compute gradients of `x`; not needed if it is data.
    prepare: from a tile of `x` and its real steps, bool [L, n], to inputs
      [L, n, D]. Run per tile, so that intermediate results stay in the caches.
    dtype: of the matrix products, their biases and the gates' gradients; by
      default that of `x`. States and gates are float32.
    moments: int32 [P, 2], pairs of sequence and step (from 0) after which states
      are also returned.
    initial: float32 [N, R], states to start from, in inference only; None for zeros.

  Returns:
    float32 [N, R]; with `moments` a pair of that and float32 [P, R], zero for a
    step after the end of its sequence.
  """
  if training and initial is not None:
    raise ValueError('initial is given in training: it has no gradient. Leave it out.')
  layers = len(kernels)
  dtype = tf.as_dtype(dtype or x.dtype)
  cells = kernels[0].shape[1] // 4
  width = 2 * layers * cells

  @tf.custom_gradient
  def run(x_NLD, *weights):
    kernels = [tf.cast(w, dtype) for w in weights[:layers]]
    biases = weights[layers:]
    tiles = lstm_tiles.Tiles(x_NLD, lengths, tile, prepare)
    wanted = None
    if moments is not None:
      wanted = lstm_tiles.Moments(tiles, lengths, moments)

    def room(tile_count):
      return [_Kept.create(tiles, cells, tile_count) for _ in kernels]

    def body(k, states, picked, kept):
      start = None if initial is None else tiles.slice(tiles.gather(initial), k)
      steps, kept = _forward_tile(
        tiles.inputs(k), kernels, biases, dtype, k, kept, start
      )
      state = _pick_final(steps, tiles.lengths(k))
      if wanted:
        moment_states = tf.concat([wanted.pick(s, k) for s in steps], 1)
        picked = [a.write(k, moment_states) for a in picked]
      return k + 1, states.write(k, state), picked, kept

    states = _array(tiles.count, [tiles.known_rows, width])
    picked = [_array(tiles.count, [wanted.known_rows, width])] if wanted else []
    states, picked, kept = _loop(
      tiles.count, body, (0, states, picked, room(tiles.count) if training else [])
    )[1:]
    graph = _graph()

    def grad(d_states, d_moments=None):
      if initial is not None:
        raise ValueError('States that start from `initial` have no gradient.')
      # Another graph, such as that of a tape around a tf.function or of a
      # SavedModel, cannot capture arrays.
      again = not training or graph is not _graph()
      d_states = tiles.gather(d_states)
      if wanted:
        d_moments = wanted.gather(d_moments)
      d_x = _array(tiles.count, [tiles.known_rows, *x_NLD.shape[1:]])
      d_weights = [tf.zeros_like(w, tf.float32) for w in weights]
      # Transposed once: products with a transposed operand are slower.
      transposed = [
        tuple(tf.transpose(part) for part in (kernel[:-cells], kernel[-cells:]))
        for kernel in kernels
      ]

      def body(k, d_x, *sums):
        inputs, place, steps = tiles.inputs(k), k, kept
        if again:
          place = 0
          _, steps = _forward_tile(inputs, kernels, biases, dtype, place, room(1))
        d_steps = wanted.spread(d_moments, k) if wanted else None
        d_tile, gradients = _backward_tile(
          inputs,
          tiles.lengths(k),
          tiles.slice(d_states, k),
          d_steps,
          transposed,
          place,
          steps,
          dtype,
          input_gradient,
        )
        if input_gradient:
          d_x = d_x.write(k, tf.transpose(d_tile, [1, 0, 2]))
        return (k + 1, d_x, *[a + b for a, b in zip(sums, gradients)])

      _, d_x, *d_weights = _loop(tiles.count, body, (0, d_x, *d_weights))
      d_weights = [tf.cast(d, w.dtype) for d, w in zip(d_weights, weights)]
      if not input_gradient:
        return (None, *d_weights)
      d_x = tiles.scatter(tiles.concat(d_x))
      return (tf.cast(d_x, x_NLD.dtype), *d_weights)

    states = tiles.scatter(tiles.concat(states))
    if not wanted:
      return states, grad
    return (states, wanted.scatter(tiles.concat(picked[0]))), grad

  return run(x, *kernels, *biases)


def _graph():
  """Returns the graph being built, None in eager execution."""
  return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def _loop(count, body, variables):
  """Runs `body` for k = 0, ..., count - 1, where k is the first of `variables`."""
  if isinstance(count, int) and count == 1:
    return body(*variables)
  # Two: the serial steps of one tile leave cores idle; more take memory.
  return tf.while_loop(lambda k, *_: k < count, body, variables, parallel_iterations=2)


def _array(size, shape, dtype=tf.float32) -> tf.TensorArray:
  return tf.TensorArray(
    dtype, size=size, element_shape=shape, infer_shape=False, clear_after_read=False
  )


def _matmul(a, b, dtype, **kwargs) -> tf.Tensor:
  """A @ b computed in `dtype`, returned in float32."""
  return tf.cast(tf.matmul(tf.cast(a, dtype), tf.cast(b, dtype), **kwargs), tf.float32)


class _Kept(NamedTuple):
  """What a gradient needs from a layer's steps.

  Attributes:
    states: arrays of c and h; element k is tile k, [L, n, H].
    gates: arrays of i, f, g, o; element k * L + t is step t of tile k, [n, H].
      They are not concatenated, since that copies.
  """

  states: list[tf.TensorArray]
  gates: list[tf.TensorArray]

  @classmethod
  def create(cls, tiles, cells, count):
    """Returns empty arrays for `count` tiles."""
    shape = [tiles.known_rows, cells]
    return cls(
      [_array(count, [tiles.steps, *shape]) for _ in range(2)],
      [_array(count * tiles.steps, shape) for _ in range(4)],
    )


def _forward_tile(x_LnD, kernels, biases, dtype, k, kept, start=None):
  """Runs all layers over tile k, from the states `start` [n, R]; None for zeros.

  Returns:
    c and h of each layer, [L, n, H], and `kept` with this tile in it, per layer
    (empty if nothing is stored).
  """
  steps, kept, states = x_LnD.shape[0], list(kept), []
  for layer, (kernel, bias) in enumerate(zip(kernels, biases)):
    features, cells = x_LnD.shape[2], kernel.shape[1] // 4
    recurrent = kernel[features:]
    # Stored in `dtype`, to save memory.
    inputs = lstm_tiles.unflat(
      tf.nn.bias_add(
        tf.matmul(tf.cast(lstm_tiles.flat(x_LnD), dtype), kernel[:features]),
        tf.cast(bias, dtype),
      ),
      steps,
    )
    if start is None:
      first_c = first_h = tf.zeros([tf.shape(x_LnD)[1], cells])
    else:
      parts = tf.split(start, 2 * len(kernels), axis=1)
      first_c, first_h = parts[2 * layer : 2 * layer + 2]

    def step(t, c, h, arrays, gate_arrays):
      z = tf.cast(inputs[t], tf.float32) + _matmul(h, recurrent, dtype)
      i, f, g, o = tf.split(z, 4, axis=1)
      i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
      c = f * c + i * g
      h = o * tf.tanh(c)
      arrays = [a.write(t, v) for a, v in zip(arrays, (c, h))]
      gate_arrays = [
        a.write(k * steps + t, v) for a, v in zip(gate_arrays, (i, f, g, o))
      ]
      return t + 1, c, h, arrays, gate_arrays

    shape = [x_LnD.shape[1], cells]
    *_, arrays, gate_arrays = _loop(
      steps,
      step,
      (
        0,
        first_c,
        first_h,
        [_array(steps, shape) for _ in range(2)],
        kept[layer].gates if kept else [],
      ),
    )
    c, x_LnD = (tf.ensure_shape(a.stack(), [steps, *shape]) for a in arrays)
    states += [c, x_LnD]
    if kept:
      kept[layer] = _Kept(
        [a.write(k, v) for a, v in zip(kept[layer].states, (c, x_LnD))], gate_arrays
      )
  return states, kept


def _pick_final(steps, lengths) -> tf.Tensor:
  """Returns the state [n, R] of each sequence at its own last step."""
  last = tf.stack([lengths - 1, tf.range(tf.size(lengths))], axis=1)
  return tf.concat([tf.gather_nd(values, last) for values in steps], axis=1)


def _sigmoid_grad(y, dy):
  """Returns the gradient of x for y = sigmoid(x), in one pass over memory."""
  return tf.raw_ops.SigmoidGrad(y=y, dy=dy)


def _tanh_grad(y, dy):
  """Returns the gradient of x for y = tanh(x), in one pass over memory."""
  return tf.raw_ops.TanhGrad(y=y, dy=dy)


def _backward_tile(
  x_LnD, lengths, d_state, d_steps, transposed, k, kept, dtype, input_gradient
):
  """Returns a tile's gradients: of x [L, n, D] or None, and of kernels and biases.

  `d_state` [n, R] is the gradient of the final states, `d_steps` [L, n, R] (or
  None) that of the states after every step. Per layer, `transposed` holds the
  kernels of the input, [4H, D], and of the hidden state, [4H, H]; `kept` holds the
  steps, at k.
  """
  steps, rows = x_LnD.shape[0], tf.shape(x_LnD)[1]
  d_finals = tf.split(d_state, 2 * len(kept), axis=1)
  if d_steps is not None:
    d_steps = tf.split(d_steps, 2 * len(kept), axis=2)
  d_kernels, d_biases = [], []
  states = [[a.read(k) for a in layer.states] for layer in kept]
  d_x = None
  for layer in reversed(range(len(kept))):
    (input_kernel, recurrent), (cs, hs) = transposed[layer], states[layer]
    cells = recurrent.shape[1]
    d_c_final, d_h_final = d_finals[2 * layer : 2 * layer + 2]
    zero = tf.zeros([rows, cells])

    def step(done, d_c, d_h, d_gates):
      t = steps - 1 - done
      i, f, g, o = (a.read(k * steps + t) for a in kept[layer].gates)
      c_before = tf.cond(tf.greater(t, 0), lambda: cs[t - 1], lambda: zero)
      # No gradient comes from steps after a sequence's last one.
      last = tf.equal(lengths, t + 1)
      d_c = tf.raw_ops.Select(condition=last, x=d_c_final, y=d_c)
      d_h = tf.raw_ops.Select(condition=last, x=d_h_final, y=d_h)
      if d_x is not None:
        d_h += d_x[t]
      if d_steps:
        d_c += d_steps[2 * layer][t]
        d_h += d_steps[2 * layer + 1][t]
      tanh_c = tf.tanh(cs[t])
      d_c += _tanh_grad(tanh_c, d_h * o)
      d_gate = tf.cast(
        tf.concat(
          [
            _sigmoid_grad(i, d_c * g),
            _sigmoid_grad(f, d_c * c_before),
            _tanh_grad(g, d_c * i),
            _sigmoid_grad(o, d_h * tanh_c),
          ],
          axis=1,
        ),
        dtype,
      )
      d_h = _matmul(d_gate, recurrent, dtype)
      return done + 1, d_c * f, d_h, d_gates.write(t, d_gate)

    d_gates = _loop(
      steps, step, (0, zero, zero, _array(steps, [x_LnD.shape[1], 4 * cells], dtype))
    )[3].stack()
    inputs = states[layer - 1][1] if layer else x_LnD
    flat = lstm_tiles.flat(d_gates)
    d_kernels.append(
      tf.concat(
        [
          _matmul(lstm_tiles.flat(a), d, dtype, transpose_a=True)
          for a, d in ((inputs, flat), (hs[:-1], lstm_tiles.flat(d_gates[1:])))
        ],
        axis=0,
      )
    )
    # The sum over rows; on a CPU several times as fast as reduce_sum().
    d_biases.append(_matmul(tf.ones([1, tf.shape(flat)[0]]), flat, dtype)[0])
    d_x = None
    if layer or input_gradient:
      d_x = lstm_tiles.unflat(_matmul(flat, input_kernel, dtype), steps)
  return d_x, (*reversed(d_kernels), *reversed(d_biases))
