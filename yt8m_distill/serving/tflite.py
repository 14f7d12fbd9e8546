"""Exported networks for TensorFlow Lite (LiteRT), of one video at a time.

The one signature takes `frames` uint8 (float32 where features are kept as
floats) [1, max_frames, D], all frames of a video, padded at the end, and
`num_frames` int32 [1]; the model reads those that it needs, random ones as the
SavedModel's `frames` draws them. It returns what the SavedModel does, but for
names. Operations are LiteRT's own, so that its plain interpreter runs them; it
has none that refuses a num_frames out of range.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import tempfile

import numpy as np
import tensorflow as tf

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.serving import signatures
from yt8m_distill.utils import quantization

# float32: as trained. dynamic: weights in 8 bits. float16: weights in 16 bits.
KINDS = ('float32', 'dynamic', 'float16')
_TRIED = 5  # videos, of 1 frame to all


def check(kinds: Sequence[str]):
  """Raises where models of these kinds cannot be made and tried.

  Raises:
    ValueError: a kind is not of KINDS.
    ImportError: LiteRT is not installed.
  """
  for kind in kinds:
    if kind not in KINDS:
      raise ValueError(f'tflite is {kind!r}: choose of {", ".join(KINDS)}.')
  if kinds:
    _litert()


def convert(
  network: trained_network.Network, top_k: int, kinds: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
  """Yields kind and content of a .tflite file for each of `kinds`.

  Args:
    network: trained.
    top_k: best classes that are returned.
    kinds: of KINDS.

  Raises:
    ValueError: the network does not convert.
  """
  # No shape in it may depend on the data.
  fixed = signatures.rebuilt(network.network, network.model, static_shapes=True)
  serving = signatures.ServingModule(fixed, network.model, top_k)
  function = tf.function(
    serving.serve_all_frames,
    autograph=False,
    input_signature=[
      tf.TensorSpec(
        [1, network.model.max_frames, serving.frame_size], serving.frame_dtype, 'frames'
      ),
      tf.TensorSpec([1], tf.int32, 'num_frames'),
    ],
  )
  with tempfile.TemporaryDirectory() as path:
    signatures.save(path, fixed, {'serving_default': function})
    for kind in kinds:
      converter = tf.lite.TFLiteConverter.from_saved_model(
        path, signature_keys=['serving_default']
      )
      if kind != 'float32':
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
      if kind == 'float16':
        converter.target_spec.supported_types = [tf.float16]
      try:
        content = converter.convert()
      # The converter's own error has no public name, and it raises others.
      except Exception as error:
        first = (str(error).splitlines() or [repr(error)])[0]
        raise ValueError(
          f'{network.checkpoint} does not convert to TensorFlow Lite '
          f'({kind}): {first} Leave --tflite out, or '
          'use a backbone whose every operation has a counterpart there.'
        ) from error
      yield kind, content


def largest_difference(content: bytes, module: signatures.ServingModule) -> float:
  """Compares a .tflite with the SavedModel on videos of random frames.

  Args:
    content: of the .tflite file.
    module: that the SavedModel was made of.

  Returns:
    The largest difference of a prediction.
  """
  run = _litert()(model_content=content).get_signature_runner()
  shape = run.get_input_details()['frames']['shape']
  generator = np.random.default_rng(0)
  differences = []
  for num_frames in np.linspace(1, shape[1], _TRIED, dtype=np.int32):
    frames = generator.integers(0, 256, shape, np.uint8)
    if module.frame_dtype == tf.float32:
      frames = quantization.dequantize(tf.constant(frames)).numpy()
    video = {
      'frames': frames,
      'num_frames': num_frames[None],
    }
    differences.append(
      np.abs(
        run(**video)['predictions'] - module.serve_all_frames(**video)['predictions']
      )
    )
  return float(np.max(differences))


def _litert():
  """The class of interpreters; no other part needs its package."""
  try:
    from ai_edge_litert import interpreter
  except ImportError as error:
    raise ImportError(
      'TensorFlow Lite models are tried with LiteRT, which is not installed: '
      'pip install ai-edge-litert'
    ) from error
  return interpreter.Interpreter
