"""The jobs of a study: its runs, and teaching the records that some of them read.

A run of stored answers (`tasks.stored`) trains on records that its teachers have
taught. They are taught once for all runs that share the teachers, the frames and the
settings of `teach`.
"""

from collections.abc import Sequence
import copy
import dataclasses
import hashlib
import inspect
import json
import os
from typing import Any

from absl import flags
from absl import logging
from official.core import config_definitions as cfg
from official.core import exp_factory

from experiments.study import runner
from experiments.study import study_file
import gin
from yt8m_distill import train
from yt8m_distill.configs import distillation
from yt8m_distill.configs import settings
from yt8m_distill.serving import teach
from yt8m_distill.utils import files

# Settings of teach that a study may change.
_DEFAULTS = {
  name: inspect.signature(teach.teach).parameters[name].default
  for name in ('top_k', 'dtype')
}


@dataclasses.dataclass(frozen=True)
class Teaching(runner.Job):
  """Stores the answers of teachers in training records.

  Attributes:
    teachers: names of the runs that teach.
    arguments: the other arguments of `serving.teach.teach`, except for the folder.
  """

  serves_others = True
  teachers: tuple[str, ...]
  arguments: dict[str, Any]

  @property
  def needs(self) -> tuple[str, ...]:
    """See Job."""
    return self.teachers

  def specification(self) -> dict[str, Any]:
    """See Job."""
    return {'teachers': self.teachers, **self.arguments}

  def list_path(self, output_dir: str) -> str:
    """Returns the path of the file that lists the taught records."""
    return os.path.join(runner.folder(output_dir, self.name), 'records.txt')

  def execute(self, output_dir: str):
    """See Job."""
    place = runner.folder(output_dir, self.name)
    paths = teach.teach(
      [runner.folder(output_dir, name) for name in self.teachers],
      output_dir=os.path.join(place, 'records'),
      **self.arguments,
    )
    files.write_text(self.list_path(output_dir), '\n'.join(paths) + '\n')


@dataclasses.dataclass(frozen=True)
class Training(runner.Job):
  """A run of the driver.

  Attributes:
    run: the run.
    taught: what teaches its records; None if it reads those of its configuration.
  """

  run: study_file.Run
  taught: Teaching | None = None

  @property
  def needs(self) -> tuple[str, ...]:
    """See Job."""
    return (self.taught.name,) if self.taught else self.run.teachers

  def specification(self) -> dict[str, Any]:
    """See Job."""
    run = self.run
    return {
      'seed': run.seed,
      'experiment': run.experiment,
      'gin_file': run.gin_file,
      'gin_params': run.gin_params,
      'overrides': run.overrides,
      'needs': next(iter(self.needs), None),
    }

  def flags(self, output_dir: str) -> list[str]:
    """Returns the driver's flags."""
    run = self.run
    gin_params, overrides = list(run.gin_params), copy.deepcopy(run.overrides)
    if self.taught:
      task = overrides.setdefault('task', {})
      path = f'@{self.taught.list_path(output_dir)}'
      task.setdefault('train_data', {})['input_path'] = path
    else:
      gin_params += [
        f'yt8m_distill.teacher_checkpoint={runner.folder(output_dir, name)!r}'
        for name in run.teachers
      ]
    return [
      f'--experiment={run.experiment}',
      '--mode=train_and_eval',
      f'--model_dir={runner.folder(output_dir, run.name)}',
      *(f'--gin_file={path}' for path in run.gin_file),
      *(f'--gin_params={binding}' for binding in gin_params),
      f'--params_override={json.dumps(overrides)}',
    ]

  def execute(self, output_dir: str):
    """See Job."""
    _train(self.flags(output_dir))


def _train(driver_flags: Sequence[str]):
  """Runs the driver as from a command line."""
  train.define_flags()
  flags.FLAGS(['study', *driver_flags])
  logging.set_verbosity(logging.INFO)
  train.run(flags.FLAGS)


def configuration(run: study_file.Run) -> cfg.ExperimentConfig:
  """Returns the configuration that the driver will build for a run.

  Afterwards gin holds no bindings.

  Raises:
    ValueError: the experiment, a setting or a field that the run names does not
      exist.
    OSError: a gin file cannot be read.
  """
  with gin.unlock_config():
    gin.clear_config()
    try:
      settings.parse_gin(run.gin_file, run.gin_params)
      params = exp_factory.get_exp_config(run.experiment)
      params.override(run.overrides, is_strict=True)
      params.validate()
    # Unknown experiments and fields raise LookupError.
    except (ValueError, LookupError) as error:
      # str() of a KeyError puts quotes around the text.
      reason = error.args[0] if isinstance(error, LookupError) else error
      raise ValueError(f'Run {run.name} of {run.experiment}: {reason}') from error
    finally:
      gin.clear_config()
  return params


def plan(runs: Sequence[study_file.Run]) -> list[runner.Job]:
  """Returns the jobs of a study, in the order in which they start where they can.

  Raises:
    ValueError: also if a run cannot have the teachers or the settings of teach that
      it names.
    OSError: see configuration().
  """
  arguments: dict[Any, dict[str, Any]] = {}  # Those of teach, by run without its seed.
  jobs: dict[str, runner.Job] = {}
  for run in runs:
    kind = run.group, *run.axes.items()
    if kind not in arguments:
      arguments[kind] = _check(run, configuration(run).task)
    taught = None
    if arguments[kind]:
      taught = _teaching(run, arguments[kind])
      jobs.setdefault(taught.name, taught)
    jobs[run.name] = Training(run.name, run, taught)
  return list(jobs.values())


def _check(run: study_file.Run, task: cfg.TaskConfig) -> dict[str, Any]:
  """Returns the arguments of teach for a run; {} if no records are taught for it.

  Raises:
    ValueError: see plan().
  """
  is_stored = isinstance(task, distillation.StoredTask)
  where = f'Run {run.name}'
  if run.teach and not (is_stored and run.needs):
    raise ValueError(
      f'{where} sets teach.{next(iter(run.teach))}, but no records are taught for it. '
      'Remove it from its group, or choose an experiment of stored answers and set '
      'needs.'
    )
  if not run.needs:
    return {}
  if not is_stored:
    if not hasattr(task, 'teacher_checkpoint'):
      raise ValueError(
        f'{where} needs {run.needs}, but its experiment {run.experiment} has no '
        'teacher. Remove needs from its group.'
      )
    if len(run.teachers) > 1:
      raise ValueError(
        f'{where} needs all {len(run.teachers)} runs of {run.needs}, but its '
        f'experiment {run.experiment} has one teacher. Remove teachers from its group, '
        'or choose an experiment of stored answers.'
      )
    return {}
  weight = task.losses.representation_weight
  if len(run.teachers) > 1 and weight:
    raise ValueError(
      f'{where}: task.losses.representation_weight is {weight}, but several teachers '
      'have no representation. Set it to 0, or remove teachers from its group.'
    )
  values = {**_DEFAULTS, **run.teach}
  top_k, dtype = values['top_k'], values['dtype']
  if type(top_k) is not int or top_k < 1:
    raise ValueError(
      f'{where}: teach.top_k is {top_k!r}: it must be a whole number, 1 or more. '
      'Correct it.'
    )
  if dtype not in teach.DTYPES:
    raise ValueError(
      f'{where}: teach.dtype is {dtype!r}: choose {" or ".join(teach.DTYPES)}.'
    )
  frames = task.model.network.frames
  return {
    'input_path': task.train_data.input_path,
    'every_n': (frames.type == 'uniform' and frames.uniform.every_n) or 1,
    'max_frames': task.model.max_frames,
    **values,
  }


def _teaching(run: study_file.Run, arguments: dict[str, Any]) -> Teaching:
  """Returns what teaches the records of a run."""
  [teacher] = run.teachers if len(run.teachers) == 1 else [run.needs]
  # The name must tell apart what differs in long values, such as input_path.
  job = json.dumps([run.teachers, arguments], sort_keys=True)
  digest = hashlib.sha256(job.encode()).hexdigest()[:8]
  name = '-'.join(
    ['taught', teacher, *(f'{k}={arguments[k]}' for k in ('every_n', 'top_k')), digest]
  )
  return Teaching(name, run.teachers, arguments)
