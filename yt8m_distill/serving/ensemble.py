"""Averages the predictions of trained networks, from runs and exports.

Source: the original's ensembles, which average over models.

B videos, V classes, K best classes, R representation.
"""

from collections.abc import Sequence
import datetime
import os
from typing import NamedTuple

import tensorflow as tf

from yt8m_distill.checkpoints import run_dir
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.configs import data
from yt8m_distill.serving import signatures

_SIGNATURE = (
  tf.TensorSpec([None], tf.string),
  tf.TensorSpec([None], tf.int64),
  tf.TensorSpec([None], tf.string),
)


class _Model(NamedTuple):
  """A network ready for prediction.

  Attributes:
    module: a ServingModule, or an exported one; it owns the variables.
    weights: one of the files that hold them.
    vocabulary: CSV of the class names; '' if unknown.
  """

  module: tf.Module
  weights: str
  vocabulary: str


class Ensemble:
  """One or several networks.

  Each network parses the records itself, so they may see different frames.

  Attributes:
    num_classes: V.
    versions: for each network, the file it was read from and when it was written.
    vocabulary: CSV of class names of the first network that has one; '' if none
      does.
  """

  def __init__(
    self,
    sources: Sequence[str],
    network: str,
    top_k: int,
    features: Sequence[data.Feature] = (),
  ):
    """Reads the networks.

    Args:
      sources: exports, or any source of `checkpoints.trained_network.Network`.
      network: 'student', or 'teacher' if each source is a run that has both.
      top_k: K; all classes if there are fewer.
      features: how the records store the features; empty if as in training.
        Exports do not support other features.

    Raises:
      ValueError: there is no source, a source is empty or has no such network, the
        networks differ in their number of classes, or top_k is below 1.
    """
    if not sources:
      raise ValueError('model is empty: name runs, checkpoints or exports.')
    if not all(sources):
      raise ValueError(
        f'model is {",".join(sources)}, which has an empty item: name runs, '
        'checkpoints or exports between the commas.'
      )
    self._models = [_read(source, network, features) for source in sources]
    outputs = [
      m.module.records.get_concrete_function(*_SIGNATURE).structured_outputs
      for m in self._models
    ]
    classes = [o['predictions'].shape[-1] for o in outputs]
    self.num_classes = classes[0]
    for source, count in zip(sources, classes):
      if count != self.num_classes:
        raise ValueError(
          f'{sources[0]} predicts {self.num_classes} classes and {source} '
          f'{count}: name networks for the same classes.'
        )
    if top_k < 1:
      raise ValueError(f'top_k is {top_k}: it must be 1 or more.')
    self._top_k = min(top_k, self.num_classes)
    self.versions = [_version(m.weights) for m in self._models]
    self.vocabulary = next((m.vocabulary for m in self._models if m.vocabulary), '')
    self._predict = tf.function(self._mean, _SIGNATURE, autograph=False)
    self._predict.get_concrete_function()  # Traced here, not by every thread.

  def __call__(
    self, paths: tf.Tensor, indices: tf.Tensor, serialized: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """Predicts a batch of records.

    Args:
      paths: string [B], files of the records.
      indices: int64 [B], positions of the records in their files.
      serialized: string [B], SequenceExamples with or without labels.

    Returns:
      `id` string [B], and `class_indices` int32 [B, K] and `probabilities` float32
      [B, K] by descending probability. For a single network also `representation`
      float32 [B, R].
    """
    return self._predict(paths, indices, serialized)

  def _mean(self, *records):
    outputs = [m.module.records(*records) for m in self._models]
    mean = tf.add_n([o['predictions'] for o in outputs]) / len(outputs)
    probabilities, indices = tf.math.top_k(mean, self._top_k)
    results = {
      'id': outputs[0]['id'],
      'class_indices': indices,
      'probabilities': probabilities,
    }
    if len(outputs) == 1:
      results['representation'] = outputs[0]['representation']
    return results


def _read(source: str, network: str, features: Sequence[data.Feature]) -> _Model:
  if tf.saved_model.contains_saved_model(source):
    trained_network.check_single(source, network)
    if features:
      raise ValueError(
        f'--features are given, but {source} is an export, which reads only the '
        'features it was exported for: export it again with these --features, or '
        'name the run.'
      )
    loaded = tf.saved_model.load(source)
    if not hasattr(loaded, 'records'):
      raise ValueError(
        f'{source} is a SavedModel without the function `records`: name one that '
        'this package exported.'
      )
    return _Model(
      loaded,
      os.path.join(source, 'variables', 'variables.index'),
      _existing(os.path.join(source, 'labels.csv')),
    )
  try:
    run_dir.checkpoint(source)
  except ValueError as error:
    raise ValueError(
      f'{source} is neither an export (it holds no SavedModel) nor a readable '
      f'run: {error}'
    ) from error
  run = trained_network.Network(source, network)
  model = signatures.stored_as(run.model, features)
  return _Model(
    signatures.ServingModule(run.network, model, top_k=1),
    f'{run.checkpoint}.index',
    _existing(run.params.task.evaluation.vocabulary),
  )


def _existing(path: str) -> str:
  return path if path and tf.io.gfile.exists(path) else ''


def _version(path: str) -> str:
  written = datetime.datetime.fromtimestamp(
    tf.io.gfile.stat(path).mtime_nsec // 10**9, datetime.timezone.utc
  )
  return f'{path}, written {written:%Y-%m-%d %H:%M:%S} UTC'
