"""Predicts with one or several trained networks.

B videos, V classes, K best classes, R representation, W windows.
"""

from collections.abc import Sequence
import itertools
from typing import Any

from absl import flags
import numpy as np
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config
from yt8m_distill.dataloaders import reader as reader_lib
from yt8m_distill.dataloaders import record_errors
from yt8m_distill.serving import averaging
from yt8m_distill.serving import fingerprint
from yt8m_distill.serving import model_sources
from yt8m_distill.serving import signatures
from yt8m_distill.serving import windows
from yt8m_distill.utils import cli

_EXTRAS = ('representation', 'frames_seen')
_SIGNATURE = (
  tf.TensorSpec([None], tf.string),
  tf.TensorSpec([None], tf.int64),
  tf.TensorSpec([None], tf.string),
)


def define_flags():
  """Defines the flags that say what the networks of a command are, and read."""
  flags.DEFINE_list(
    'model',
    None,
    'Runs, checkpoints or exports, separated by commas; predictions of several '
    'are averaged.',
    required=True,
  )
  averaging.define_flags()
  signatures.define_flags()


_reread_networks: dict[str, 'Ensemble'] = {}  # by arguments; see _reread()


class Ensemble:
  """One or several networks.

  Each network parses the records itself, so they may see different frames. A pickle
  holds the arguments only: a process that loads it reads the networks itself, once.

  Attributes:
    names: of each network, its source, and 'teacher' or 'student' if both are read.
    segments: how windows are predicted.
    model_weights: weights of the networks in the mean, whose sum is 1; () if equal.
    num_classes: V.
    extras: further outputs that a single network has: its `representation`, and
      `frames_seen` if it stops looking when it is sure.
    stopping: the rule, see `modeling.adaptive`, if one was given.
    versions: for each network, the file it was read from and when it was written.
    vocabulary: CSV of class names of the first network that has one; '' if none
      does.
  """

  def __init__(
    self,
    sources: Sequence[str],
    network: str | None,
    top_k: int | None,
    features: Sequence[data.Feature] = (),
    segments: windows.Segments | None = None,
    model_weights: Sequence[str] = (),
    stopping: str = '',
  ):
    """Reads the networks.

    Args:
      sources: exports, or any source of `checkpoints.trained_network.Network`.
      network: 'student', or 'teacher' if each source is a run that has both;
        `model_sources.TEACHERS`; None for all networks of each source.
      top_k: K; all classes if there are fewer, or if None.
      features: how the records store the features; empty if as in training.
        Exports do not support other features.
      segments: how to predict windows; None for whole videos only.
      model_weights: as for `averaging.read_weights`.
      stopping: when a single network stops looking at a video, see `stopping.read`;
        '' for when it has seen all frames. An export has its own rule.

    Raises:
      ValueError: there is no source, a source is empty or has no such network, the
        networks differ in their number of classes, top_k is below 1, weights or the
        rule are invalid, or a network cannot predict such windows.
    """
    self._arguments = (
      sources,
      network,
      top_k,
      features,
      segments,
      model_weights,
      stopping,
    )
    if not sources:
      raise ValueError('model is empty: name runs, checkpoints or exports.')
    if not all(sources):
      raise ValueError(
        f'model is {",".join(sources)}, which has an empty item: name runs, '
        'checkpoints or exports between the commas.'
      )
    chosen = [
      (source, name)
      for source in sources
      for name in model_sources.chosen(source, network)
    ]
    sources = [source for source, _ in chosen]
    self.names = [
      (source, name if sources.count(source) > 1 else '') for source, name in chosen
    ]
    self.model_weights = averaging.read_weights(model_weights, len(chosen))
    if stopping and len(chosen) > 1:
      raise ValueError(
        f'stopping is {stopping}, but {",".join(sources)} are {len(chosen)} networks: '
        'name one.'
      )
    self._models = [
      model_sources.read(*names, features, segments, stopping) for names in chosen
    ]
    outputs = [
      m.module.records.get_concrete_function(*_SIGNATURE).structured_outputs
      for m in self._models
    ]
    classes = [o['predictions'].shape[-1] for o in outputs]
    averaging.check_classes(sources, classes)
    self.num_classes = classes[0]
    self.stopping = self._models[0].module.stopping if stopping else None
    self.extras: tuple[str, ...] = ()
    if len(outputs) == 1:
      self.extras = tuple(name for name in _EXTRAS if name in outputs[0])
    cli.check_least(top_k=top_k)
    self._top_k = min(top_k or self.num_classes, self.num_classes)
    self.versions = [model_sources.version(m.weights) for m in self._models]
    self.vocabulary = next((m.vocabulary for m in self._models if m.vocabulary), '')
    self._predict = tf.function(self._mean, _SIGNATURE, autograph=False)
    self._predict.get_concrete_function()  # Traced here, not by every thread.
    self.segments = segments or windows.Segments()
    if segments:
      _check_segments(sources, self._models, segments)
      self._predict_windows = tf.function(
        self._mean_of_windows, _SIGNATURE, autograph=False
      )
      self._predict_windows.get_concrete_function()
      self._predict_each = tf.function(
        self._windows_of_each, _SIGNATURE, autograph=False
      )

  def __reduce__(self):
    return _reread, (self._arguments, self._identity())

  def _identity(self) -> tuple[Any, ...]:
    return self.versions, self.stopping

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
      [B, K] by descending probability. If they are among the `extras`, also
      `representation` float32 [B, R] and `frames_seen` int32 [B].
    """
    return self._explained(self._predict, (paths, indices, serialized))

  def windows(
    self, paths: tf.Tensor, indices: tf.Tensor, serialized: tf.Tensor
  ) -> dict[str, tf.Tensor]:
    """Predicts all windows of a batch of records, if `segments` were given.

    Args:
      paths: see __call__().
      indices: see __call__().
      serialized: see __call__().

    Returns:
      `id` string [B], those of `windows.Windows`, and `predictions` float32 [W, V].
    """
    return self._explained(self._predict_windows, (paths, indices, serialized))

  def windows_of_each(
    self, paths: tf.Tensor, indices: tf.Tensor, serialized: tf.Tensor
  ) -> list[dict[str, tf.Tensor]]:
    """Predicts as windows(), but with each network on its own.

    Returns:
      For each network what windows() returns, and `frames` int32 [W, S], the frames
      that it saw, and -1.
    """
    return self._explained(self._predict_each, (paths, indices, serialized))

  def _explained(self, predict, batch):
    """Predicts a batch; raises a RecordError about a record that is invalid."""
    try:
      return predict(*batch)
    # TensorFlow's message may hold bytes of the record, which are not always UTF-8.
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError):
      of_windows = predict is not self._predict
      whole = [True] * of_windows
      if self.segments.video_weight or not of_windows:
        whole.append(False)
      for network in itertools.chain(*(model.networks for model in self._models)):
        for is_whole in whole if network.reads else ():
          reader = _reader(network.reads, is_whole)
          if fault := reader.first_fault(*(np.asarray(values) for values in batch)):
            raise record_errors.RecordError(fault) from None
      raise

  def fingerprint(self) -> str:
    """Returns the `fingerprint` of the networks.

    It is the same for runs and for their exports, alone or as one.

    Raises:
      ValueError: an export does not name its weights or what it reads.
    """
    weights = averaging.shares(self.model_weights, len(self._models))
    networks, shares = [], []
    for (source, _), weight, model in zip(self.names, weights, self._models):
      for network in model.networks:
        if not network.variables or not network.reads:
          raise ValueError(
            f'{source} does not name its weights, or lacks its input.json: export its '
            'run again, or name the run.'
          )
        networks.append((network.reads, network.variables))
        shares.append(weight * network.share)
    return fingerprint.of(networks, shares)

  def _mean(self, *records):
    outputs = [m.module.records(*records) for m in self._models]
    mean = self._mean_predictions(outputs, self.model_weights)
    probabilities, indices = tf.math.top_k(mean, self._top_k)
    results = {
      'id': outputs[0]['id'],
      'class_indices': indices,
      'probabilities': probabilities,
    }
    return {**results, **{name: outputs[0][name] for name in self.extras}}

  def _mean_of_windows(self, *records):
    results = self._windows(self._models, self.model_weights, *records)
    del results['frames']  # Of the first network.
    return results

  def _windows_of_each(self, *records):
    return [self._windows([model], (), *records) for model in self._models]

  def _windows(self, models, weights, *records):
    """Returns windows and the mean of the models' predictions."""
    outputs = [m.module.record_windows(*records, self.segments.length) for m in models]
    mean = self._mean_predictions(outputs, weights)
    if self.segments.video_weight:
      videos = [m.module.records(*records) for m in models]
      videos = self._mean_predictions(videos, weights)
      mean *= tf.gather(videos, outputs[0]['video'])
    return {**outputs[0], 'predictions': mean}

  def _mean_predictions(self, outputs, weights) -> tf.Tensor:
    mean = averaging.mean([o['predictions'] for o in outputs], weights)
    sources = ','.join(dict.fromkeys(source for source, _ in self.names))
    return tf.debugging.assert_all_finite(
      mean,
      f'{sources} predicts values that are not finite, so its training diverged: name '
      'an earlier checkpoint or another run',
    )


def _reader(reads: dict[str, Any], is_whole: bool) -> reader_lib.FrameReader:
  """Returns a reader of what a network reads, or of whole videos for its windows."""
  frames = model_config.FrameSelection()
  max_frames = reads['max_frames']
  if is_whole:
    max_frames = windows.last_frame(max_frames)
  else:
    fields = {**reads['frames_read']}
    del fields['at_most']
    kind = fields.pop('type')
    frames.override({'type': kind, kind: fields})
  features = [data.Feature(**feature) for feature in reads['features']]
  return reader_lib.FrameReader(features, max_frames, 1, frames, with_labels=False)


def _reread(arguments: tuple[Any, ...], identity: tuple[Any, ...]) -> Ensemble:
  """Returns networks in another process, which reads them once."""
  key = repr(arguments)
  if key not in _reread_networks:
    _reread_networks[key] = Ensemble(*arguments)
  networks = _reread_networks[key]
  if networks._identity() != identity:
    raise ValueError(
      f'{networks._identity()} is read, but the command began with {identity}: wait '
      'until nothing writes to the run, or name one of its checkpoints.'
    )
  return networks


def _check_segments(
  sources: Sequence[str],
  models: Sequence[model_sources.Model],
  segments: windows.Segments,
):
  """Raises a ValueError if the networks cannot predict such windows."""
  window = model_config.WINDOW
  known = [
    (source, network.reads)
    for source, model in zip(sources, models)
    for network in model.networks
    if network.reads
  ]
  for source, reads in known:
    if reads['features'][0]['format'] == 'video':
      raise ValueError(
        f'segments is {segments.length}, but {source} takes video-level features, '
        'which have no windows: name networks for frames.'
      )
    sees_windows = reads['frames_read']['type'] == 'window'
    if sees_windows and segments.length > window:
      raise ValueError(
        f'segments is {segments.length}, but {source} sees windows of {window} frames: '
        f'set it to {window}.'
      )
    if sees_windows and segments.video_weight:
      raise ValueError(
        f'{source} sees windows only and cannot predict a whole video: leave out '
        '--video_weight.'
      )
  last = [windows.last_frame(reads['max_frames']) for _, reads in known]
  if len({*last}) > 1:
    raise ValueError(
      f'The networks of {",".join(sources)} have windows up to frame {last}: name '
      'networks whose task.model.max_frames is equal, or at most '
      f'{windows.LONGEST}.'
    )
  for source, model in zip(sources, models):
    has_reads = all(network.reads for network in model.networks)
    if not hasattr(model.module, 'record_windows') or not has_reads:
      raise ValueError(
        f'{source} lacks the function `record_windows` or its input.json, so it cannot '
        'predict windows: export its run again, or name the run.'
      )
