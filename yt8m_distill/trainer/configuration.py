"""Reads the configuration of a run, and checks that what it names exists."""

import collections
from collections.abc import Iterator
import contextlib
import difflib
import operator
import re
from typing import Any

from absl import logging
from official.core import exp_factory
from official.core import registry
from official.core import train_utils
from official.modeling.hyperparams import params_dict
import tensorflow as tf

from yt8m_distill.checkpoints import run_dir
from yt8m_distill.configs import registry as experiment_registry
from yt8m_distill.configs import settings
from yt8m_distill.dataloaders import shards
from yt8m_distill.utils import shipped
from yt8m_distill.utils import yaml_file


def read(flags_obj):
  """Returns the configuration that gin, YAML files and overrides describe.

  Args:
    flags_obj: the driver's flags.

  Returns:
    An unlocked ExperimentConfig.

  Raises:
    ValueError: a file, a name or a value is invalid.
  """
  try:
    settings.parse_gin(flags_obj.gin_file or (), flags_obj.gin_params or ())
  except OSError as error:
    raise ValueError(
      f'{str(error).partition(" Searched config paths")[0]} Give the path of a file, '
      f'or one of {", ".join(shipped.gin_files())}.'
    ) from error
  if not flags_obj.model_dir:
    raise ValueError("--model_dir is '': name the folder of the run.")
  _check_experiment(flags_obj.experiment)
  params = _parse(flags_obj)
  if not isinstance(params, experiment_registry.Experiment):
    raise ValueError(
      f'--experiment is {flags_obj.experiment}, whose runs this package cannot read '
      'again. Register its factory with '
      'yt8m_distill.configs.registry.register.'
    )
  params.validate()
  _check_used(flags_obj, params)
  _check_required(
    params.task, flags_obj.experiment, flags_obj.mode, flags_obj.model_dir
  )
  for binding in settings.without_effect(
    flags_obj.gin_params or (), lambda: _parse(flags_obj).as_dict()
  ):
    logging.warning(
      '--gin_params=%s has no effect: no field of this configuration depends on it. '
      'Leave it out, or choose the experiment, frames or backbone that reads it.',
      binding,
    )
  return params


def _parse(flags_obj):
  """Returns the experiment's configuration; its errors name the flag.

  Does what ExperimentParser.parse() does, flag by flag.
  """
  parser = train_utils.ExperimentParser(flags_obj)
  params = parser.base_experiment()
  for path in flags_obj.config_file or ():
    if path.endswith('.gin'):
      raise ValueError(f'--config_file={path} is a gin file: set --gin_file={path}.')
    file = shipped.yaml_file(path)
    with _explained(f'--config_file={path}'):
      params.override(yaml_file.read(file))
  params = parser.parse_data_service(parser.parse_runtime(params))
  if flags_obj.params_override:
    with _explained('--params_override'):
      params.override(_values(flags_obj.params_override))
  return params


def _values(text: str) -> Any:
  """Returns what --params_override sets.

  Args:
    text: FIELD=VALUE,..., a mapping in YAML, or the path of a YAML file.

  Raises:
    ValueError: it is none of these.
  """
  _check_indices(text)
  with contextlib.suppress(ValueError):  # It is not FIELD=VALUE,...
    text = params_dict.nested_csv_str_to_json_str(text)
  try:
    values = yaml_file.parse(text)
  except ValueError as error:
    raise ValueError(
      f'{error} A path with *, ? or {{}} needs quotes inside those of the shell: '
      '--params_override="task.train_data.input_path=\'...\'".'
    ) from error
  if isinstance(values, dict):
    return values
  if not tf.io.gfile.exists(text):
    raise ValueError(
      f'{text} is neither a mapping nor a file. Give FIELD=VALUE,..., a mapping in '
      'YAML, or the path of a YAML file, such as RUN/params.yaml. A value with {}, * '
      'or , needs quotes.'
    )
  return yaml_file.read(text)


def _check_indices(text: str):
  """Raises ValueError if FIELD[INDEX]=VALUE,... does not give a whole list.

  The Garden would first allocate a list that reaches to the index.
  """
  given = collections.defaultdict(set)
  for name, index in re.findall(r'(?:^|,)\s*([\w.]+)\[\s*(\d+)\s*\]\s*=', text):
    given[name].add(index.lstrip('0') or '0')
  for name, indices in given.items():
    for index in indices - {*map(str, range(len(indices)))}:
      raise ValueError(
        f'{name}[{index:.20}] is given, but not each item before it: a list is set '
        f'as a whole. Give all items from {name}[0] on, or {name}: [...] in YAML.'
      )


@contextlib.contextmanager
def _explained(flag: str) -> Iterator[None]:
  """Turns errors of parsing a flag into a ValueError of one line that names it."""
  try:
    yield
  except LookupError as error:
    raise ValueError(f'{flag}: {error.args[0]} Correct the name.') from error
  except ValueError as error:
    raise ValueError(f'{flag}: {error}') from error


def _check_experiment(name):
  """Raises ValueError if an experiment is not registered."""
  known = exp_factory._REGISTERED_CONFIGS  # No public function lists them.
  try:
    registry.lookup(known, name)
  except LookupError as error:
    near = difflib.get_close_matches(name, known) or [
      experiment for experiment in known if experiment.startswith('yt8m_distill')
    ]
    raise ValueError(
      f'--experiment is {name}: no such experiment. Did you mean {" or ".join(near)}? '
      'One of your own needs --import=MODULE with the module that registers it.'
    ) from error


def _check_used(flags_obj, params):
  """Raises ValueError if the configuration ignores a flag of the Garden."""
  for flag, field, wanted, remedy in (
    (
      'tpu',
      'runtime.distribution_strategy',
      'tpu',
      'add --config_file=cluster/tpu.yaml',
    ),
    (
      'tf_data_service',
      'task.train_data.enable_tf_data_service',
      True,
      'set it to true with --params_override',
    ),
  ):
    value, given = flags_obj[flag].value, operator.attrgetter(field)(params)
    if value and given != wanted:
      raise ValueError(
        f'--{flag} is {value}, but {field} is {given!r}: {remedy}, or leave out the '
        'flag.'
      )


def _check_required(task, experiment, mode, model_dir):
  """Raises ValueError if a setting that the run needs is empty."""
  required = []
  if (
    getattr(task, 'fine_tunes', False)
    and 'train' in mode
    and not tf.train.latest_checkpoint(model_dir)
  ):
    required.append(('init_checkpoint', 'init_checkpoint', 'RUN'))
  if 'train' in mode:
    required.append(('train_data.input_path', 'train_path', 'train*.tfrecord'))
  if mode != 'train':
    required.append(
      ('validation_data.input_path', 'validation_path', 'validate*.tfrecord')
    )
  for field, setting, example in required:
    if not operator.attrgetter(field)(task):
      raise ValueError(
        f"task.{field} is '': --mode={mode} of {experiment} needs it. Set "
        f'{settings.flag(setting, example)}; with a --config_file, which wins over '
        f'gin, set --params_override=task.{field}={example}.'
      )


def check_inputs(task, mode: str, model_dir: str):
  """Checks that the checkpoints and records that a run reads exist.

  Args:
    task: the task, whose model need not be built.
    mode: --mode of the driver.
    model_dir: folder of the run.

  Raises:
    ValueError: one does not.
  """
  params = task.task_config
  if not tf.train.latest_checkpoint(model_dir):
    if mode == 'eval' and not params.init_checkpoint:
      raise ValueError(
        f'There is no checkpoint in {model_dir} to evaluate. Train first, or set '
        '--model_dir to a trained run.'
      )
    for field in ('init_checkpoint', 'teacher_checkpoint'):
      source = getattr(params, field, '')
      if source:
        try:
          run_dir.checkpoint(source)
        except ValueError as error:
          raise ValueError(f'task.{field} is {source}: {error}') from error
  if 'train' in mode:
    task.check_start()
    _check_records(params.train_data, 'train')
  if mode != 'train':
    _check_records(params.validation_data, 'validation')


def _check_records(data, split):
  """Raises ValueError if nothing matches a path, or its first file does not exist."""
  try:
    # Building the input looks at all files.
    shards.sizes(shards.find(data.input_path)[:1])
  except ValueError as error:
    raise ValueError(
      f'task.{split}_data.input_path (yt8m_distill.{split}_path): {error}'
    ) from error
