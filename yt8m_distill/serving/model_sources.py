"""Reads networks for prediction from runs and exports."""

from collections.abc import Sequence
import datetime
import logging
import os
from typing import Any
from typing import NamedTuple

from absl import logging as absl_logging
import tensorflow as tf

from yt8m_distill.checkpoints import run_dir
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.configs import data
from yt8m_distill.serving import fingerprint
from yt8m_distill.serving import signatures
from yt8m_distill.serving import stopping as stopping_lib
from yt8m_distill.serving import windows
from yt8m_distill.utils import cli
from yt8m_distill.utils import files

# Of each source, the network that sees most: its teacher, or its only network.
TEACHERS = 'teachers'


class Network(NamedTuple):
  """A network of a model.

  Attributes:
    variables: the same ones, in the same order, in a run and its export; empty if
      unknown.
    reads: what it reads, as returned by `fingerprint.reads_of`; {} if unknown.
    share: its weight in the model's mean.
  """

  variables: Sequence[tf.Variable]
  reads: dict[str, Any]
  share: float = 1.0


class Model(NamedTuple):
  """A network, or an export of several, ready for prediction.

  Attributes:
    module: a ServingModule, or an exported one; it owns the variables.
    weights: one of the files that hold them.
    networks: those that it averages, usually one.
    vocabulary: CSV of the class names; '' if unknown.
  """

  module: tf.Module
  weights: str
  networks: Sequence[Network]
  vocabulary: str


def chosen(source: str, network: str | None) -> Sequence[str]:
  """Returns the names of the networks of a source to read.

  Args:
    source: an export, or a source of `checkpoints.trained_network.Network`.
    network: the name of one, TEACHERS, or None for all.

  Raises:
    ValueError: the source is neither an export nor a run.
  """
  if network == TEACHERS:
    return _names(source)[:1]
  return (network,) if network else _names(source)


def _names(source: str) -> Sequence[str]:
  """Returns the names of a source's networks."""
  if tf.saved_model.contains_saved_model(source):
    return ('student',)
  _check_run(source)
  return trained_network.names(source)


def _check_run(source: str):
  """Raises a ValueError if a source that is no export is no run either."""
  try:
    run_dir.checkpoint(source)
  except ValueError as error:
    raise ValueError(
      f'{source} is neither an export (it holds no SavedModel) nor a readable '
      f'run: {error}'
    ) from error


def read(
  source: str,
  network: str,
  features: Sequence[data.Feature],
  segments: windows.Segments | None,
  stopping: str,
) -> Model:
  """Reads a network of a source, or an export of one or several.

  Args:
    source: as for chosen().
    network: its name.
    features: how the records store the features; empty if as in training.
    segments: how to predict windows; None for whole videos only.
    stopping: as for `stopping.read`; '' for none.

  Raises:
    ValueError: the source or an argument is invalid, or is not for exports.
  """
  if tf.saved_model.contains_saved_model(source):
    trained_network.check_single(source, network)
    if features:
      raise ValueError(
        f'--features are given, but {source} is an export, which reads only the '
        'features it was exported for: export it again with these --features, or '
        'name the run.'
      )
    if segments and segments.context is not None:
      raise ValueError(
        f'context is {segments.context}, but {source} is an export, which has its own: '
        'export it again with this --context, or name the run.'
      )
    if stopping:
      raise ValueError(
        f'stopping is {stopping}, but {source} is an export, which has its own rule or '
        'none: export it again with this --stopping, or name the run.'
      )
    loaded = _load_export(source)
    if not hasattr(loaded, 'records'):
      raise ValueError(
        f'{source} is a SavedModel without the function `records`: name the folder '
        'that `yt8m-distill export` wrote.'
      )
    return Model(
      loaded,
      os.path.join(source, 'variables', 'variables.index'),
      _networks(source, loaded),
      _existing(os.path.join(source, 'labels.csv')),
    )
  _check_run(source)
  run = trained_network.Network(source, network)
  model = signatures.stored_as(run.model, features)
  frames, context = model.network.frames, 0
  if segments:
    context = windows.context_of(run.params.task, frames, segments.context)
  rule = stopping_lib.read(stopping, run) if stopping else None
  return Model(
    signatures.ServingModule(
      run.network, model, top_k=1, context=context, stopping=rule
    ),
    f'{run.checkpoint}.index',
    [Network(run.network.variables, fingerprint.reads_of(model))],
    _existing(run.params.task.evaluation.vocabulary),
  )


def _networks(export: str, loaded: Any) -> list[Network]:
  """Returns the networks of an export, as its input.json describes them."""
  path = os.path.join(export, 'input.json')
  spec = files.read_json(path) or {}
  weights = getattr(loaded, 'weights', ())
  if 'networks' not in spec:
    return [Network(weights, _reads(spec))]
  try:
    return [
      Network(variables, _reads(network), float(network['weight']))
      for variables, network in zip(weights, spec['networks'])
    ]
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f'{path} does not describe the networks of the export ({error!r}): it was edited '
      'or damaged. Export the runs again.'
    ) from error


def _reads(spec: dict[str, Any]) -> dict[str, Any]:
  """Returns the part of a description that fingerprint.reads_of() makes."""
  names = 'features', 'max_frames', 'frames_read', 'stopping'
  return {name: spec[name] for name in names if name in spec}


def _load_export(source: str) -> Any:
  """Loads a SavedModel without TensorFlow's warnings that no gradients were saved.

  Raises:
    ValueError: it is damaged.
  """

  def is_shown(record: logging.LogRecord) -> bool:
    return 'unsaved custom gradients' not in record.getMessage()

  logger = absl_logging.get_absl_logger()
  logger.addFilter(is_shown)
  try:
    return tf.saved_model.load(source)
  except Exception as error:  # TensorFlow raises anything if a file is damaged.
    raise ValueError(
      f'{source} cannot be loaded as a SavedModel ({cli.message(error):.200}): it is '
      'damaged. Export its run again, or copy it again.'
    ) from error
  finally:
    logger.removeFilter(is_shown)


def _existing(path: str) -> str:
  return path if path and tf.io.gfile.exists(path) else ''


def version(path: str) -> str:
  """Returns a file's path, and when it was written."""
  written = datetime.datetime.fromtimestamp(
    tf.io.gfile.stat(path).mtime_nsec // 10**9, datetime.timezone.utc
  )
  return f'{path}, written {written:%Y-%m-%d %H:%M:%S} UTC'
