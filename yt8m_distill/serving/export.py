r"""Exports trained networks as a SavedModel, and one of them to LiteRT.

  yt8m-distill export RUN OUT [--network=student] \
    [--top_k=20] [--vocabulary=CSV] [--tflite=float32,dynamic,float16] \
    [--compare_path=RECORDS] \
    [--features=NAME:SIZE:FORMAT,...] [--context=10] [--mediapipe]

  yt8m-distill export RUN RUN RUN OUT [--model_weights=2,1,1]

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

Several RUNs become one SavedModel, which returns the mean of their predictions. OUT
then holds networks/0/params.yaml and so on, in place of params.yaml and
evaluation.json. With --stopping, a nested network stops looking at a video when it is
sure.
"""

from collections.abc import Sequence
import contextlib
import json
import os

from absl import flags
import numpy as np
from official.core import train_utils
import pandas as pd
import tensorflow as tf
import tf_keras

import yt8m_distill  # noqa: F401, registers experiments
from yt8m_distill.checkpoints import extract_student
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.configs import data
from yt8m_distill.evaluation import results
from yt8m_distill.modeling import adaptive
from yt8m_distill.serving import averaging
from yt8m_distill.serving import mediapipe
from yt8m_distill.serving import model_card
from yt8m_distill.serving import signatures
from yt8m_distill.serving import stopping as stopping_lib
from yt8m_distill.serving import tflite
from yt8m_distill.serving import windows
from yt8m_distill.utils import cli
from yt8m_distill.utils import files


def export(
  run: str | Sequence[str],
  out: str,
  name: str = 'student',
  top_k: int = 20,
  vocabulary: str | None = None,
  kinds: Sequence[str] = (),
  features: Sequence[str] = (),
  context: int | None = None,
  for_mediapipe: bool = False,
  model_weights: Sequence[str] = (),
  stopping: str = '',
  compare_path: str = '',
):
  """Exports a network of `run` to the folder `out`, which appears whole.

  Of several runs, one network each is exported; the export returns the mean of their
  predictions.

  The export computes in float32, whatever the mixed-precision policy, and runs on
  CPUs and GPUs, whatever the device it is exported on.

  Args:
    run: folder of a run, its best_ckpt, or prefix of a checkpoint; or several of them.
    out: folder to write; must not exist, or be empty.
    name: 'student' or 'teacher'.
    top_k: number of best classes to return.
    vocabulary: CSV of class names; None for that of the first run which has one, ''
      for none.
    kinds: LiteRT models to add, from `tflite.KINDS`; none for several runs.
    features: NAME:SIZE:FORMAT of each feature, if records will store them
      differently from those the network was trained on.
    context: frames before and after a window that the network was trained to see; None
      if its configuration tells.
    for_mediapipe: whether to add a SavedModel for MediaPipe; not for several runs.
    model_weights: as for `averaging.read_weights`.
    stopping: when a single network stops looking at a video, see `stopping.read`; ''
      for when it has seen all frames. Not with `kinds` or `for_mediapipe`.
    compare_path: records whose first 100 videos show how far the predictions of `kinds`
      are from the SavedModel's; '' for random videos.

  Raises:
    ValueError: `out` is not empty, an argument does not fit the networks, or they
      differ in classes or features.
    ImportError: `kinds` need a package that is not installed.
  """
  files.check_empty(out)
  tflite.check(kinds)
  runs = [run] if isinstance(run, str) else run
  if not runs:
    raise ValueError('run is empty: name the folder of a run, or several.')
  weights = averaging.read_weights(model_weights, len(runs))
  kind_names = ','.join(kinds)
  _check_single(runs, tflite=kind_names, mediapipe=for_mediapipe, stopping=stopping)
  for flag, value in (('tflite', kinds), ('mediapipe', for_mediapipe)):
    if stopping and value:
      raise ValueError(
        f'--stopping is given with --{flag}, whose models see all frames: leave out '
        'one of them.'
      )
  if compare_path and not kinds:
    raise ValueError(
      f'compare_path is {compare_path}, but there is no model to compare: name some '
      'with --tflite, or leave it out.'
    )
  stored = data.parse_features(features)
  with _float32():
    networks = [trained_network.Network(run, name) for run in runs]
    trained = networks[0].model
    if for_mediapipe:
      mediapipe.check(trained)
    rule = stopping_lib.read(stopping, networks[0]) if stopping else None
    for network in networks:
      network.model = signatures.stored_as(network.model, stored)
    averaging.check_alike(runs, [network.model for network in networks])
    names = _class_names(networks, vocabulary)
    modules = [_module(network, top_k, names, context, rule) for network in networks]
    variables = [network.network.variables for network in networks]
    module: signatures.ServingModule | averaging.EnsembleModule = modules[0]
    if len(runs) > 1:
      module = averaging.EnsembleModule(modules, weights)
    videos = _videos(modules[0], compare_path) if kinds else []
    with files.whole_folder(out) as partial:
      signatures.save(
        partial,
        variables if len(runs) > 1 else variables[0],
        module.get_inference_signatures(),
        **module.record_functions(),
      )
      if for_mediapipe:
        folder = os.path.join(partial, mediapipe.FOLDER)
        mediapipe.save(folder, networks[0].network, trained, names)
      converted = []
      if kinds:
        converted = _write_tflite(
          partial, networks[0], modules[0], top_k, kinds, videos
        )
      _describe(
        partial, networks, module, names, for_mediapipe, converted, compare_path
      )
  for network in networks:
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


def _check_single(runs: Sequence[str], **arguments: str | bool):
  """Raises a ValueError if there are several runs, and an argument that is for one."""
  for name, value in arguments.items():
    if value and len(runs) > 1:
      raise ValueError(
        f'{name} is {value}, but {",".join(runs)} are several runs: leave out '
        f'--{name}, or export each run by itself.'
      )


def _module(
  network: trained_network.Network,
  top_k: int,
  names: Sequence[str],
  context: int | None,
  stopping: adaptive.Rule | None,
) -> signatures.ServingModule:
  """Returns the signatures of a network, which is rebuilt for all devices."""
  network.network = signatures.rebuilt(network.network, network.model, use_cudnn=False)
  context = windows.context_of(
    network.params.task, network.model.network.frames, context
  )
  return signatures.ServingModule(
    network.network, network.model, top_k, names, context, stopping
  )


def _videos(
  module: signatures.ServingModule, compare_path: str
) -> list[dict[str, np.ndarray]]:
  """Returns the videos to compare predictions on."""
  if not compare_path:
    return list(tflite.random_videos(module))
  with cli.naming_flag('compare_path'):
    return list(tflite.recorded_videos(module, compare_path))


def _class_names(
  networks: Sequence[trained_network.Network], vocabulary: str | None
) -> list[str]:
  if vocabulary is None:
    known = [network.params.task.evaluation.vocabulary for network in networks]
    vocabulary = next(filter(None, known), '')
  if not vocabulary:
    return []
  if not tf.io.gfile.exists(vocabulary):
    raise ValueError(
      f'vocabulary is {vocabulary}, which does not exist: name one with '
      '--vocabulary=CSV, or none with --vocabulary=.'
    )
  return results.read_vocabulary(vocabulary, networks[0].model.num_classes)


def _describe(
  folder: str,
  networks: Sequence[trained_network.Network],
  module: signatures.ServingModule | averaging.EnsembleModule,
  names: Sequence[str],
  for_mediapipe: bool,
  converted: Sequence[tflite.Converted],
  compare_path: str,
):
  """Writes the files that describe the SavedModel."""
  texts = {}
  if isinstance(module, averaging.EnsembleModule):
    for number, network in enumerate(networks):
      where = os.path.join(folder, trained_network.NETWORKS, str(number))
      train_utils.serialize_config(extract_student.params_of(network), where)
    spec = model_card.ensemble_spec(module)
    texts['model_card.md'] = model_card.ensemble_card(networks, module)
  else:
    [network] = networks
    train_utils.serialize_config(extract_student.params_of(network), folder)
    spec = model_card.input_spec(module)
    texts['model_card.md'] = model_card.model_card(
      network, module, for_mediapipe, converted, compare_path
    )
    if network.evaluation:
      texts['evaluation.json'] = json.dumps(network.evaluation, indent=2) + '\n'
  texts['input.json'] = json.dumps(spec, indent=2) + '\n'
  if names:
    texts['labels.csv'] = pd.DataFrame({'Name': names}).to_csv(index_label='Index')
  for name, text in texts.items():
    files.write_text(os.path.join(folder, name), text)


def _write_tflite(
  folder: str,
  network: trained_network.Network,
  module: signatures.ServingModule,
  top_k: int,
  kinds: Sequence[str],
  videos: Sequence[dict[str, np.ndarray]],
) -> list[tflite.Converted]:
  """Writes LiteRT models; prints and returns how close they are."""
  folder = os.path.join(folder, 'tflite')
  tf.io.gfile.makedirs(folder)
  converted = []
  for kind, content in tflite.convert(network, top_k, kinds):
    with tf.io.gfile.GFile(os.path.join(folder, f'{kind}.tflite'), 'wb') as file:
      file.write(content)
    difference = tflite.difference(content, module, videos)
    converted.append(tflite.Converted(kind, len(content), difference))
    print(
      f'{kind}.tflite: {len(content) / 1e6:.2f} MB, predictions differ by '
      f"up to {difference.largest:.1e} from the SavedModel's, and "
      f'{difference.same_best} of {difference.videos} videos keep their best class',
      flush=True,
    )
  return converted


def define_flags():
  """Defines the command's flags."""
  flags.DEFINE_enum(
    'network',
    'student',
    ['student', 'teacher'],
    'Which network of each distillation run.',
  )
  averaging.define_flags()
  flags.DEFINE_integer('top_k', 20, 'Number of best classes to return.')
  flags.DEFINE_string(
    'vocabulary',
    None,
    'CSV with the columns Index and Name. Default: the vocabulary of the first run '
    'that has one. Empty: none.',
  )
  flags.DEFINE_list(
    'tflite',
    [],
    f'LiteRT models of a single run to add: {", ".join(tflite.KINDS)}.',
  )
  flags.DEFINE_string(
    'compare_path',
    '',
    'Records whose first 100 videos show how far the predictions of --tflite are from '
    "the SavedModel's. Default: random videos.",
  )
  signatures.define_flags()
  windows.define_flags()
  stopping_lib.define_flags()
  flags.DEFINE_bool(
    'mediapipe',
    False,
    "Adds OUT/mediapipe, a SavedModel of a single run for MediaPipe's YouTube-8M "
    'graphs.',
  )


def main(argv: Sequence[str]):
  """Runs the command."""
  *runs, out = argv
  values = flags.FLAGS
  export(
    runs,
    out,
    values.network,
    values.top_k,
    values.vocabulary,
    values.tflite,
    values.features,
    values.context,
    values.mediapipe,
    values.model_weights,
    values.stopping,
    values.compare_path,
  )


if __name__ == '__main__':
  define_flags()
  cli.run(main, 'RUN...', 'OUT')
