"""Converts networks to LiteRT (formerly TensorFlow Lite), for one video at a time.

The only signature takes `frames` [1, max_frames, D], uint8 (float32 for features
stored as floats): all frames of a video, padded at the end; and `num_frames` int32
[1]. The model selects the frames it needs; random ones are those that the
SavedModel's signature `frames` draws. It returns what the SavedModel returns,
without class names. All operations are LiteRT built-ins, so that the standard
interpreter runs them. None of them checks num_frames.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import itertools
import tempfile
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import reader
from yt8m_distill.serving import signatures
from yt8m_distill.utils import quantization

# float32: as trained. dynamic: weights in 8 bits. float16: weights in 16 bits.
KINDS = ('float32', 'dynamic', 'float16')
_RANDOM = 5  # random videos to compare on, of 1 to max_frames frames
_RECORDS = 100  # of the user's videos, at most
_Video = dict[str, np.ndarray]


class Difference(NamedTuple):
  """How a model's predictions differ from the SavedModel's.

  Attributes:
    videos: number of videos that were compared.
    largest: largest absolute difference of a probability.
    same_best: number of videos whose best class is the same.
  """

  videos: int
  largest: float
  same_best: int


class Converted(NamedTuple):
  """A model for LiteRT.

  Attributes:
    kind: from KINDS.
    size: of the file, in bytes.
    difference: from the SavedModel.
  """

  kind: str
  size: int
  difference: Difference


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


@contextlib.contextmanager
def saved(network: trained_network.Network, top_k: int) -> Iterator[str]:
  """Yields a temporary SavedModel for the converter, whose shapes are fixed.

  Args:
    network: trained network.
    top_k: number of best classes to return.
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
    yield path


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
  with saved(network, top_k) as path:
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
          f'{network.checkpoint} cannot be converted to LiteRT '
          f'({kind}): {first} Omit --tflite, or use a backbone whose operations '
          'LiteRT has.'
        ) from error
      yield kind, content


def random_videos(module: signatures.ServingModule) -> Iterator[_Video]:
  """Yields videos of random frames, as the models take them."""
  model = module.params
  generator = np.random.default_rng(0)
  for num_frames in np.linspace(1, model.max_frames, _RANDOM, dtype=np.int32):
    frames = generator.integers(
      0, 256, [1, model.max_frames, module.frame_size], np.uint8
    )
    if module.frame_dtype == tf.float32:
      frames = quantization.dequantize(tf.constant(frames)).numpy()
    yield {'frames': frames, 'num_frames': num_frames[None]}


def recorded_videos(
  module: signatures.ServingModule, input_path: str
) -> Iterator[_Video]:
  """Returns the first videos of records, as the models take them.

  Args:
    module: module that was exported as the SavedModel.
    input_path: see `file_patterns`. Records need no labels.

  Raises:
    ValueError: there is no such file, or it is empty.
    InvalidArgumentError: when iterated, if a record is invalid.
  """
  model = module.params
  dataset = pipeline.build(
    data.VideoData(input_path=input_path, global_batch_size=1, drop_remainder=False),
    reader.FrameReader(
      model.features,
      model.max_frames,
      model.num_classes,
      model_config.FrameSelection(),
      with_labels=False,
    ),
  )
  return (
    {name: inputs[name].numpy() for name in ('frames', 'num_frames')}
    for inputs, _ in itertools.islice(dataset, _RECORDS)
  )


def difference(
  content: bytes, module: signatures.ServingModule, videos: Iterable[_Video]
) -> Difference:
  """Compares a .tflite file with the SavedModel.

  Args:
    content: content of the .tflite file.
    module: module that was exported as the SavedModel.
    videos: at least one, each `frames` [1, max_frames, D] and `num_frames` [1].
  """
  run = _litert()(model_content=content).get_signature_runner()
  largest, same = [], []
  for video in videos:
    lite = run(**video)['predictions']
    expected = module.serve_all_frames(**video)['predictions'].numpy()
    largest.append(np.abs(lite - expected).max())
    same.append(lite.argmax() == expected.argmax())
  return Difference(len(same), float(max(largest)), int(sum(same)))


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
