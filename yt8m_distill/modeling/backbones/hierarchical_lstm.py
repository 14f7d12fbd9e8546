"""Hierarchical LSTM of "Efficient Video Classification Using Fewer Frames".

Bhardwaj, Srinivasan, Khapra, CVPR 2019; HierarchicalLstmModel of the authors'
TensorFlow 1.3 code. Frames are split into chunks of equal length. A lower stack
of LSTM layers reads each chunk; an upper stack reads the final states of the
chunks. As in their code, a chunk is represented by its whole final state: cells
and outputs of all layers. Deviation: empty chunks are not computed; their state
is zero either way.

B videos, T frames, D features, C chunks, R representation, K moments.
"""

from typing import Any

import tensorflow as tf

from yt8m_distill.configs import fits
from yt8m_distill.modeling import frame_normalization
from yt8m_distill.modeling import lstm_stack
from yt8m_distill.modeling.backbones import base


@base.register('hierarchical_lstm')
class HierarchicalLstm(base.Backbone):
  """Two-level LSTM over {'frames': [B, T, D], 'num_frames': int32 [B]}.

  Frames are float, or uint8 as stored. The backbone normalizes uint8 frames
  itself, chunk by chunk, so that a CPU never holds the whole batch in float32. No
  gradient flows back to the frames.

  Returns {'representation': float32 [B, R], 'states': float32 [B, C, R]}, the
  final states of the upper and of the lower stack, R = 2 * layers * cells.
  Given 'moments', int32 [B, K], indices of frames, also returns 'moment_states',
  float32 [B, K, R]: the states of the lower stack after those frames, zero for
  padding. A state depends only on frames of its own chunk.
  """

  extends = True
  takes_stored_frames = True

  def __init__(
    self,
    input_specs,
    chunks: int = 20,
    num_cells: int = 1024,
    num_layers: int = 2,
    static_shapes: bool = False,
    tile: int | None = None,
    use_cudnn: bool = True,
    recompute: bool = False,
    **kwargs,
  ):
    """Initializes and builds the backbone.

    Args:
      input_specs: see Backbone.
      chunks: C, which divides T.
      num_cells: cells of every LSTM layer.
      num_layers: layers of each stack.
      static_shapes: also compute empty chunks, as XLA requires.
      tile: chunks computed at once; None chooses by the device.
      use_cudnn: on a GPU, run the layers on cuDNN; see lstm_stack.LSTMStack.
      recompute: recompute steps in the backward pass; see there.
      **kwargs: arguments of a Backbone.

    Raises:
      ValueError: C does not divide T.
    """
    stack: dict[str, Any] = {
      'num_cells': num_cells,
      'num_layers': num_layers,
      'static_shapes': static_shapes,
      'tile': tile,
      'use_cudnn': use_cudnn,
      'recompute': recompute,
    }
    super().__init__(input_specs, options={'chunks': chunks, **stack}, **kwargs)
    fits.check_chunks(chunks, self.num_frames)
    self._chunks = chunks
    self._chunk_length = self.num_frames // chunks
    stack['kernel_regularizer'] = self.regularizer
    self.lower = lstm_stack.LSTMStack(name='lower', input_gradient=False, **stack)
    self.upper = lstm_stack.LSTMStack(name='upper', **stack)
    self.lower.build([None, self._chunk_length, self.num_features])
    self.upper.build([None, chunks, self.lower.state_size])
    self.built = True

  def call(self, inputs, training=False):
    """Returns representation and states; see the class."""
    states, outputs = self._read(inputs, training, inputs.get('moments'))
    chunks = self._chunks_of(inputs['num_frames'])
    representation = self.upper(states, chunks, training=training)
    return {'representation': representation, 'states': states, **outputs}

  def at_counts(self, inputs, counts, training=False):
    """Returns the outputs at several numbers of frames; see Backbone.

    Every frame and every chunk is read once: that of a smaller number is the state of
    the upper stack after its chunks.
    """
    states, _ = self._read(inputs, training)
    num_frames = inputs['num_frames']
    videos = tf.range(tf.size(num_frames))
    seen = [self._chunks_of(tf.minimum(num_frames, count)) for count in counts]
    # Of a video without frames, any step is after its end.
    moments = [tf.stack([videos, tf.maximum(chunks - 1, 0)], 1) for chunks in seen]
    _, reached = self.upper(
      states,
      self._chunks_of(num_frames),
      training=training,
      moments=tf.concat(moments, 0),
    )
    return [
      {'representation': representation, 'states': states}
      for representation in tf.split(reached, len(counts))
    ]

  def extend(self, inputs, state=None):
    """Continues with further frames; see Backbone. Nothing is computed twice."""
    states, _ = self._read(inputs, training=False)
    chunks = self._chunks_of(inputs['num_frames'])
    representation = self.upper(states, chunks, initial=state)
    return {'representation': representation}, representation

  def _chunks_of(self, num_frames):
    return -(-num_frames // self._chunk_length)

  def _read(self, inputs, training, moments=None):
    """Runs the lower stack.

    Args:
      inputs: see call(), with as many frames as fill some chunks.
      training: whether a backward pass follows.
      moments: int32 [B, K]; None for none.

    Returns:
      The states of the chunks, float32 [B, C, R], and {} or those of the moments.
    """
    frames, length = inputs['frames'], self._chunk_length
    chunks = frames.shape[1] // length
    # Not by clipping: TFLite would mistake a clip to [0, 6] for Relu6.
    real = tf.sequence_mask(inputs['num_frames'], chunks * length, tf.int32)
    lengths = tf.reduce_sum(tf.reshape(real, [-1, chunks, length]), axis=2)
    states = self.lower(
      tf.reshape(frames, [-1, length, frames.shape[2]]),
      tf.reshape(lengths, [-1]),
      training=training,
      prepare=frame_normalization.normalize if frames.dtype.is_integer else None,
      moments=None if moments is None else self._steps(moments),
    )
    outputs = {}
    if moments is not None:
      states, moment_states = states
      outputs['moment_states'] = tf.reshape(
        moment_states, [-1, moments.shape[1], self.lower.state_size]
      )
    return tf.reshape(states, [-1, chunks, self.lower.state_size]), outputs

  def _steps(self, moments):
    """Returns (chunk of the batch, step in it) of frames [B, K], int32 [B * K, 2]."""
    first = tf.range(tf.shape(moments)[0])[:, None] * self._chunks
    return tf.stack(
      [
        tf.reshape(first + moments // self._chunk_length, [-1]),
        tf.reshape(moments % self._chunk_length, [-1]),
      ],
      axis=1,
    )

  @property
  def representation_size(self) -> int:
    """R."""
    return self.upper.state_size

  @property
  def moment_states_size(self) -> int:
    """R of 'moment_states'."""
    return self.lower.state_size

  def flops(self, num_frames: int | None = None) -> int:
    """Returns the FLOPs of a video of `num_frames` frames (T): 2 per multiply-add."""
    chunks = self._chunks_of(num_frames or self.num_frames)
    return chunks * self.lower.flops(self._chunk_length) + self.upper.flops(chunks)
