"""Converts networks to TensorFlow Lite (LiteRT), for one video at a time.

The only signature takes `frames` [1, max_frames, D], uint8 (float32 for features
stored as floats): all frames of a video, padded at the end; and `num_frames` int32
[1]. The model selects the frames it needs; random ones are those that the
SavedModel's signature `frames` draws. It returns what the SavedModel returns,
without class names. All operations are LiteRT built-ins, so that the standard
interpreter runs them. None of them checks num_frames.
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
_COMPARED = 5  # videos, of 1 to max_frames frames


def check(kinds: Sequence[str]):
  """Checks that models of these kinds can be converted and run.

  Raises:
    ValueError: a kind is not in KINDS.
    ImportError: LiteRT is not installed.
  """
  for kind in kinds:
    if kind not in KINDS:
      raise ValueError(f'tflite is {kind!r}: choose from {", ".join(KINDS)}.')
  if kinds:
    _litert()


def convert(
  network: trained_network.Network, top_k: int, kinds: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
  """Yields kind and content of a .tflite file for each of `kinds`.

  Args:
    network: trained network.
    top_k: number of best classes to return.
    kinds: from KINDS.

  Raises:
    ValueError: the network cannot be converted.
  """
  # Shapes must not depend on the data.
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
    signatures.save(path, fixed.variables, {'serving_default': function})
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
      # The converter raises errors of many types, one without a public name.
      except Exception as error:
        first = (str(error).splitlines() or [repr(error)])[0]
        raise ValueError(
          f'{network.checkpoint} cannot be converted to TensorFlow Lite '
          f'({kind}): {first} Omit --tflite, or use a backbone whose operations '
          'TensorFlow Lite has.'
        ) from error
      yield kind, content


def largest_difference(content: bytes, module: signatures.ServingModule) -> float:
  """Compares a .tflite file with the SavedModel on videos of random frames.

  Args:
    content: content of the .tflite file.
    module: module that was exported as the SavedModel.

  Returns:
    Largest absolute difference of a prediction.
  """
  run = _litert()(model_content=content).get_signature_runner()
  shape = run.get_input_details()['frames']['shape']
  generator = np.random.default_rng(0)
  differences = []
  for num_frames in np.linspace(1, shape[1], _COMPARED, dtype=np.int32):
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
  """Returns LiteRT's interpreter class; nothing else needs the package."""
  try:
    from ai_edge_litert import interpreter
  except ImportError as error:
    raise ImportError(
      '--tflite runs its models with LiteRT, which is not installed: '
      'pip install ai-edge-litert'
    ) from error
  return interpreter.Interpreter
