"""A run's folder: its checkpoint, params.yaml and evaluation.json."""

from collections.abc import Iterator
import contextlib
import os
from typing import Any

from google.protobuf import message
from official.core import config_definitions as cfg
from official.modeling import hyperparams
import tensorflow as tf

from yt8m_distill.configs import registry
from yt8m_distill.utils import cli
from yt8m_distill.utils import files
from yt8m_distill.utils import yaml_file

_PARAMS = 'params.yaml'
_EVALUATION = 'evaluation.json'
_COSTS = ('frames', 'flops', 'parameters')  # of each network in it
# By the networks in task.model, for runs of version 0.2 and before, which do not name
# their experiment.
_EXPERIMENTS = {
  frozenset({'teacher', 'student'}): 'yt8m_distill',
  frozenset({'network'}): 'yt8m_distill_single',
}


@contextlib.contextmanager
def reading(checkpoint: str) -> Iterator[None]:
  """Turns what a damaged checkpoint raises into a ValueError that names it."""
  try:
    yield
  except (LookupError, RuntimeError, tf.errors.OpError, message.DecodeError) as error:
    raise ValueError(
      f'Checkpoint {checkpoint} cannot be read ({cli.message(error)}): it is damaged. '
      'Copy its files again, or name another checkpoint.'
    ) from error


def checkpoint(path: str) -> str:
  """Returns the prefix of a checkpoint.

  Args:
    path: the prefix itself, or a folder, whose latest checkpoint is taken.

  Raises:
    ValueError: there is no checkpoint, or the folder names one outside.
  """
  if tf.io.gfile.isdir(path):
    state = os.path.join(path, 'checkpoint')
    try:
      found = tf.train.latest_checkpoint(path)
    except UnicodeDecodeError as error:
      raise ValueError(
        f'{state} cannot be read ({error}): it is damaged. Name the prefix of a '
        'checkpoint in the folder.'
      ) from error
    if found and os.path.realpath(os.path.dirname(found)) != os.path.realpath(path):
      raise ValueError(
        f'{state} names {found}, which lies outside of the folder. Name that prefix '
        'itself if you trust it, or a checkpoint in the folder.'
      )
    if not found:
      raise ValueError(
        f'{path} is a folder without a checkpoint. Name the folder of a trained '
        'run, or the prefix of a checkpoint.'
      )
    return found
  if not tf.io.gfile.exists(f'{path}.index'):
    raise ValueError(
      f'There is no checkpoint {path or repr(path)}. Name the prefix of one, such as '
      '.../ckpt-1000, or the folder of a trained run.'
    )
  return path


def params_path(prefix: str) -> str:
  """Returns the path of the params.yaml of a checkpoint's run, '' if none exists.

  Args:
    prefix: prefix of a checkpoint in the folder of a run or in a subfolder of it
      (best_ckpt).
  """
  folder = os.path.dirname(prefix)
  for place in (folder, os.path.dirname(folder)):
    path = os.path.join(place, _PARAMS)
    if tf.io.gfile.exists(path):
      return path
  return ''


def write_params(folder: str, params: cfg.ExperimentConfig):
  """Writes the params.yaml of a run, which appears whole."""
  with files.whole_file(os.path.join(folder, _PARAMS)) as partial:
    hyperparams.save_params_dict_to_yaml(params, partial)


def read_params(path: str) -> cfg.ExperimentConfig:
  """Reads the configuration of a run, with the classes of its experiment.

  Args:
    path: path of its params.yaml.

  Raises:
    ValueError: the file is no configuration, or its experiment is not registered or
      has other fields.
  """
  try:
    values = yaml_file.read(path)
  except ValueError as error:
    raise ValueError(
      f'{path} is not the configuration of a run of this package: {error} Name the '
      '--model_dir of such a run.'
    ) from error
  try:
    name = (
      values.get('experiment')
      or _EXPERIMENTS[
        frozenset({'teacher', 'student', 'network'} & {*values['task']['model']})
      ]
    )
  except (AttributeError, KeyError, TypeError) as error:
    raise ValueError(
      f'{path} is not the configuration of a run of this package: {error!r}. '
      'Name the --model_dir of such a run.'
    ) from error
  try:
    params = registry.defaults(name)
  except LookupError as error:
    raise ValueError(
      f'{path} is the configuration of the experiment {name!r}, which is not '
      'registered. Add --import=MODULE with the module that registers it.'
    ) from error
  try:
    params.override(values)
  except ValueError as error:
    raise ValueError(
      f'{path} does not fit {_of_experiment(values, name)}: {error} Use the version of '
      'the code that wrote it, or correct the field in the file.'
    ) from error
  return params


def _of_experiment(values: dict[str, Any], name: str) -> str:
  if values.get('experiment'):
    return f'its experiment {name!r}'
  return (
    f'{name!r}; it names no experiment, since its factory is not registered with '
    'yt8m_distill.configs.registry.register'
  )


def read_evaluation(folder: str) -> dict[str, Any] | None:
  """Returns the evaluation.json of a run, None before its first evaluation.

  Raises:
    ValueError: it is damaged.
  """
  path = os.path.join(folder, _EVALUATION)
  results = files.read_json(
    path, step=int, videos=int, input_path=str, metrics=dict, networks=dict
  )
  if results:
    for name, numbers in {'metrics': results['metrics'], **results['networks']}.items():
      costs = () if name == 'metrics' else _COSTS
      if (
        not isinstance(numbers, dict)
        or not numbers.keys() >= {*costs}
        or not all(isinstance(number, int | float) for number in numbers.values())
      ):
        raise ValueError(
          f'{path}: its {name} are {numbers!r:.60} instead of numbers of '
          f'{", ".join(costs) or "metrics"}: it was edited or damaged. Evaluate the '
          'run again, with --mode=eval.'
        )
  return results


def require_evaluation(folder: str) -> dict[str, Any]:
  """Returns the evaluation.json of an evaluated run.

  Raises:
    ValueError: the run was not evaluated.
  """
  results = read_evaluation(folder)
  if not results:
    raise ValueError(
      f'{folder} holds no evaluation.json: evaluate it first, with --mode=eval.'
    )
  return results


def write_evaluation(folder: str, results: dict[str, Any]):
  """Writes the evaluation.json of a run."""
  files.write_json(os.path.join(folder, _EVALUATION), results)
