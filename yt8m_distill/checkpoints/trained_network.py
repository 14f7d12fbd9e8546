"""Reads one network of a run, and writes one as a run of its own."""

import os
from typing import Any

from official.core import config_definitions as cfg
from official.core import train_utils
import tensorflow as tf
import tf_keras

from yt8m_distill.checkpoints import restore
from yt8m_distill.checkpoints import run_dir
from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import video_classifier
from yt8m_distill.utils import files

# Folder in an export of several networks, with one folder for each.
NETWORKS = 'networks'
_NAMES = ('teacher', 'student')


def check_single(source: str, name: str):
  """Raises a ValueError if a network is named of a source that has only one."""
  if name != 'student':  # The flag's default.
    raise ValueError(f'{source} has one network: leave out --network.')


def _configuration(source: str) -> tuple[str, str, cfg.ExperimentConfig]:
  """Returns a run's checkpoint, the path of its params.yaml, and the content."""
  checkpoint = run_dir.checkpoint(source)
  path = run_dir.params_path(checkpoint)
  if not path:
    raise ValueError(
      f'There is no params.yaml next to {checkpoint}: '
      'name a checkpoint in the folder of its run.'
    )
  return checkpoint, path, run_dir.read_params(path)


def names(source: str) -> tuple[str, ...]:
  """Returns the names by which `Network` takes the networks of a run.

  Args:
    source: folder of the run, its best_ckpt, or prefix of a checkpoint.

  Raises:
    ValueError: there is no checkpoint or no params.yaml.
  """
  _, _, params = _configuration(source)
  return ('student',) if hasattr(params.task.model, 'network') else _NAMES


def student_config(source: str) -> model_config.ClassifierModel:
  """Returns the configuration of a student, or of the only network.

  Args:
    source: a run, as for `Network`, or an export.

  Raises:
    ValueError: there is no checkpoint or no params.yaml, or several networks were
      exported as one.
  """
  configs = student_configs(source)
  if len(configs) > 1:
    raise ValueError(
      f'{source} holds {len(configs)} networks, which may see different frames: leave '
      'out --model, or name the run of one.'
    )
  return configs[0]


def student_configs(source: str) -> list[model_config.ClassifierModel]:
  """Returns that of `student_config`, or those of all networks exported as one."""
  if tf.saved_model.contains_saved_model(source):
    folder = os.path.join(source, NETWORKS)
    count = len(tf.io.gfile.listdir(folder)) if tf.io.gfile.isdir(folder) else 0
    folders = [os.path.join(folder, str(n)) for n in range(count)] or [source]
    paths = [run_dir.params_path(os.path.join(each, '')) for each in folders]
    if not all(paths):
      raise ValueError(
        f'{source} is a SavedModel without params.yaml: name one that this package '
        'exported.'
      )
    found = [run_dir.read_params(path) for path in paths]
  else:
    _, _, params = _configuration(source)
    found = [params]
  models = [params.task.model for params in found]
  return [
    model_config.single_network(
      model, 'network' if hasattr(model, 'network') else 'student'
    )
    for model in models
  ]


class Network:
  """One trained network of a run.

  Attributes:
    network: the restored VideoClassifier.
    model: its configuration, a `configs.model.ClassifierModel`.
    checkpoint: prefix of the checkpoint it was read from.
    step: step of that checkpoint.
    params: ExperimentConfig of the run.
    evaluation: this network's part of evaluation.json, with keys without prefix;
      None if it was not evaluated at this step.
  """

  def __init__(self, source: str, name: str = 'student'):
    """Restores a network.

    Args:
      source: folder of a run, its best_ckpt, or prefix of a checkpoint.
      name: 'student' or 'teacher'; for a run with a single network the default,
        which then stands for that network.

    Raises:
      ValueError: there is no checkpoint, no params.yaml or no such network, or
        the variables do not fit params.yaml.
    """
    self.checkpoint, path, self.params = _configuration(source)
    model = self.params.task.model
    single = hasattr(model, 'network')
    if name not in _NAMES:
      raise ValueError(f'network is {name!r}: choose student or teacher.')
    if single:
      check_single(source, name)
    field = 'network' if single else name
    self.model = model_config.single_network(model, field)
    self.network = video_classifier.build(self.model, self.model.network, 'network')
    path_in_model = restore.path_of(self.checkpoint, name)
    restore.restore_model(self.network, self.checkpoint, path_in_model)
    with run_dir.reading(self.checkpoint):
      self.step = int(train_utils.read_global_step_from_checkpoint(self.checkpoint))
    # best_ckpt may have an evaluation.json of its own.
    self.evaluation = self._read_evaluation(
      os.path.dirname(self.checkpoint), field
    ) or self._read_evaluation(os.path.dirname(path), field)

  def _read_evaluation(self, run: str, own: str) -> dict[str, Any] | None:
    prefix = model_config.key_prefix(own)
    results = run_dir.read_evaluation(run)
    if not results or results['step'] != self.step:
      return None
    results['metrics'] = {
      key[len(prefix) :]: value
      for key, value in results['metrics'].items()
      if key.startswith(prefix)
    }
    results['networks'] = {
      'network' if name == own else name[len(prefix) :]: cost
      for name, cost in results['networks'].items()
      if name == own or name.startswith(prefix)
    }
    return results


def write(
  folder: str,
  model: tf_keras.Model,
  params: cfg.ExperimentConfig,
  step: int,
  results: dict[str, Any] | None = None,
):
  """Writes a model as a run: checkpoint, params.yaml and evaluation.json.

  The folder appears whole. Without optimizer state, training cannot resume in it;
  all other modes work.

  Args:
    folder: folder to write; must not exist, or be empty.
    model: model of `params.task`.
    params: its configuration.
    step: step of the checkpoint.
    results: content of evaluation.json; None to write none.

  Raises:
    ValueError: the folder is not empty.
  """
  with files.whole_folder(folder) as partial:
    checkpoint = tf.train.Checkpoint(
      model=model, global_step=tf.Variable(step, dtype=tf.int64)
    )
    tf.train.CheckpointManager(checkpoint, partial, 1).save(step)
    train_utils.serialize_config(params, partial)
    if results:
      run_dir.write_evaluation(partial, results)
