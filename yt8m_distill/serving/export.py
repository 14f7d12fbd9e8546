r"""Exports a trained network as a SavedModel and to TensorFlow Lite.

  yt8m-distill export RUN OUT [--network=student] \
    [--top_k=20] [--vocabulary=CSV] [--tflite=float32,dynamic,float16] \
    [--features=NAME:SIZE:FORMAT,...] [--context=10] [--mediapipe]

RUN is the folder of a run, its best_ckpt, an extracted student, or the prefix of a
checkpoint. OUT becomes a SavedModel that needs only TensorFlow. For TensorFlow
Serving, use MODEL/1 as OUT. `serving.signatures` documents its signatures. OUT also
holds

  params.yaml      the network's configuration
  labels.csv       Index and Name of the classes, if there is a vocabulary
  input.json       signatures, features, frames that are read, dequantization
  evaluation.json  metrics, if this checkpoint was evaluated
  model_card.md    a description of all of this
  tflite/          KIND.tflite for each --tflite
  mediapipe/       with --mediapipe, a SavedModel for MediaPipe's YouTube-8M graphs
"""

from collections.abc import Sequence
import contextlib
import json
import os

from absl import flags
from official.core import train_utils
import pandas as pd
import tensorflow as tf
import tf_keras

import yt8m_distill  # noqa: F401, registers experiments
from yt8m_distill.checkpoints import extract_student
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.configs import data
from yt8m_distill.evaluation import results
from yt8m_distill.serving import mediapipe
from yt8m_distill.serving import model_card
from yt8m_distill.serving import signatures
from yt8m_distill.serving import tflite
from yt8m_distill.serving import windows
from yt8m_distill.utils import cli
from yt8m_distill.utils import files


def export(
  run: str,
  out: str,
  name: str = 'student',
  top_k: int = 20,
  vocabulary: str | None = None,
  kinds: Sequence[str] = (),
  features: Sequence[str] = (),
  context: int | None = None,
  for_mediapipe: bool = False,
):
  """Exports a network of `run` to the folder `out`, which appears whole.

  The export computes in float32, whatever the mixed-precision policy, and runs on
  CPUs and GPUs, whatever the device it is exported on.

  Args:
    run: folder of a run, its best_ckpt, or prefix of a checkpoint.
    out: folder to write; must not exist, or be empty.
    name: 'student' or 'teacher'.
    top_k: number of best classes to return.
    vocabulary: CSV of class names; None for the run's, '' for none.
    kinds: TensorFlow Lite models to add, from `tflite.KINDS`.
    features: NAME:SIZE:FORMAT of each feature, if records will store them
      differently from those the network was trained on.
    context: frames before and after a window that the network was trained to see; None
      if its configuration tells.
    for_mediapipe: whether to add a SavedModel for MediaPipe.

  Raises:
    ValueError: `out` is not empty, or an argument does not fit the network.
    ImportError: `kinds` need a package that is not installed.
  """
  files.check_empty(out)
  tflite.check(kinds)
  with _float32():
    network = trained_network.Network(run, name)
    trained = network.model
    if for_mediapipe:
      mediapipe.check(trained)
    network.model = signatures.stored_as(trained, data.parse_features(features))
    names = _class_names(network, vocabulary)
    network.network = signatures.rebuilt(
      network.network, network.model, use_cudnn=False
    )
    module = signatures.ServingModule(
      network.network,
      network.model,
      top_k,
      names,
      windows.context_of(network.params.task, network.model.network.frames, context),
    )
    with files.whole_folder(out) as partial:
      signatures.save(
        partial,
        network.network,
        module.get_inference_signatures(),
        **module.record_functions(),
      )
      if for_mediapipe:
        folder = os.path.join(partial, mediapipe.FOLDER)
        mediapipe.save(folder, network.network, trained, names)
      _describe(partial, network, module, names, for_mediapipe)
      if kinds:
        _write_tflite(partial, network, module, top_k, kinds)
  print(
    f'{network.checkpoint} -> {out}: '
    f'{network.network.count_params():,} parameters at step {network.step}'
  )


@contextlib.contextmanager
def _float32():
  policy = tf_keras.mixed_precision.global_policy()
  tf_keras.mixed_precision.set_global_policy('float32')
  try:
    yield
  finally:
    tf_keras.mixed_precision.set_global_policy(policy)


def _class_names(network: trained_network.Network, vocabulary: str | None) -> list[str]:
  if vocabulary is None:
    vocabulary = network.params.task.evaluation.vocabulary
  if not vocabulary:
    return []
  if not tf.io.gfile.exists(vocabulary):
    raise ValueError(
      f'vocabulary is {vocabulary}, which does not exist: name one with '
      '--vocabulary=CSV, or none with --vocabulary=.'
    )
  return results.read_vocabulary(vocabulary, network.model.num_classes)


def _describe(
  folder: str,
  network: trained_network.Network,
  module: signatures.ServingModule,
  names: Sequence[str],
  for_mediapipe: bool,
):
  """Writes the files that describe the SavedModel."""
  train_utils.serialize_config(extract_student.params_of(network), folder)
  texts = {
    'input.json': json.dumps(model_card.input_spec(module), indent=2) + '\n',
    'model_card.md': model_card.model_card(network, module, for_mediapipe),
  }
  if names:
    texts['labels.csv'] = pd.DataFrame({'Name': names}).to_csv(index_label='Index')
  if network.evaluation:
    texts['evaluation.json'] = json.dumps(network.evaluation, indent=2) + '\n'
  for name, text in texts.items():
    files.write_text(os.path.join(folder, name), text)


def _write_tflite(
  folder: str,
  network: trained_network.Network,
  module: signatures.ServingModule,
  top_k: int,
  kinds: Sequence[str],
):
  """Writes TensorFlow Lite models; prints how close their predictions are."""
  folder = os.path.join(folder, 'tflite')
  tf.io.gfile.makedirs(folder)
  for kind, content in tflite.convert(network, top_k, kinds):
    with tf.io.gfile.GFile(os.path.join(folder, f'{kind}.tflite'), 'wb') as file:
      file.write(content)
    difference = tflite.largest_difference(content, module)
    print(
      f'{kind}.tflite: {len(content) / 1e6:.2f} MB, predictions differ by '
      f"up to {difference:.1e} from the SavedModel's",
      flush=True,
    )


def define_flags():
  """Defines the command's flags."""
  flags.DEFINE_enum(
    'network', 'student', ['student', 'teacher'], 'Which network of a distillation run.'
  )
  flags.DEFINE_integer('top_k', 20, 'Number of best classes to return.')
  flags.DEFINE_string(
    'vocabulary',
    None,
    'CSV with the columns Index and Name. Default: the vocabulary of the run. '
    'Empty: none.',
  )
  flags.DEFINE_list(
    'tflite', [], f'TensorFlow Lite models to add: {", ".join(tflite.KINDS)}.'
  )
  flags.DEFINE_list(
    'features',
    [],
    'NAME:SIZE:FORMAT of each feature, if records will store them differently '
    'from those the network was trained on.',
  )
  flags.DEFINE_integer(
    'context',
    None,
    'Frames before and after a window that the network also sees: --context of '
    'split-segments when it wrote the training records. Default: 0, of a network that '
    'was trained on videos or sees windows only.',
  )
  flags.DEFINE_bool(
    'mediapipe',
    False,
    "Adds OUT/mediapipe, a SavedModel for MediaPipe's YouTube-8M graphs.",
  )


def main(argv: Sequence[str]):
  """Runs the command."""
  run, out = argv
  values = flags.FLAGS
  export(
    run,
    out,
    values.network,
    values.top_k,
    values.vocabulary,
    values.tflite,
    values.features,
    values.context,
    values.mediapipe,
  )


if __name__ == '__main__':
  define_flags()
  cli.run(main, 'RUN', 'OUT')
