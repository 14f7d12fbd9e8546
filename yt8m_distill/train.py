"""Trains and evaluates, with the flags of TensorFlow Model Garden.

  python -m yt8m_distill.train --experiment=yt8m_distill \
    --mode=train_and_eval --gin_file=train.gin --model_dir=RUN \
    --gin_params="yt8m_distill.train_path='train*.tfrecord'" \
    --gin_params="yt8m_distill.validation_path='validate*.tfrecord'"

Differences from the Garden's own driver:

- It finds gin and YAML files of this package by short name, from any folder.
- Lengths may be given in epochs.
- The configuration is written before training starts.
- Progress shows the rate and the time left.
- A resumed run is evaluated at the same steps as one that never stopped.
- Continuous evaluation ends after the last step.
"""

from collections.abc import Iterator
import contextlib
import operator
import os
import pprint

from absl import flags
from absl import logging
from official.common import flags as tfm_flags
from official.core import task_factory
from official.core import train_utils
from official.modeling import hyperparams
from official.modeling import performance
import tensorflow as tf
import yaml

import gin
import yt8m_distill  # noqa: F401, registers experiments
from yt8m_distill.checkpoints import run_dir
from yt8m_distill.configs import settings
from yt8m_distill.trainer import cluster
from yt8m_distill.trainer import epochs
from yt8m_distill.trainer import progress
from yt8m_distill.utils import cli
from yt8m_distill.utils import files
from yt8m_distill.utils import shipped

FLAGS = flags.FLAGS


def _check_writable(model_dir):
  """Raises ValueError if the folder of a run is not writable."""
  probe = os.path.join(model_dir, 'probe')
  try:
    tf.io.gfile.makedirs(model_dir)
    files.write_text(probe, '')
    tf.io.gfile.remove(probe)
  except (tf.errors.OpError, OSError) as error:
    raise ValueError(
      f'--model_dir={model_dir} cannot be written: {error}. Choose a writable folder.'
    ) from error


def _check_required(task, experiment, mode, model_dir):
  """Raises ValueError if a setting that the run needs is empty."""
  required = []
  if (
    experiment == 'yt8m_distill_finetune'
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


def _fix_shapes(params):
  """Sets static_shapes of all networks if XLA, which requires it, is on."""
  if not params.runtime.enable_xla:
    return
  for name in ('teacher', 'student', 'network'):
    network = getattr(params.task.model, name, None)
    if network and hasattr(network.backbone.get(), 'static_shapes'):
      network.backbone.get().static_shapes = True


def _catch_up(runner, model_dir):
  """Trains to a multiple of the validation interval, and evaluates there.

  Orbit counts the interval from the step at which a run resumes, and skips an
  evaluation that was due when the run stopped.
  """
  trainer, controller = runner.params.trainer, runner.controller
  interval = trainer.validation_interval or trainer.train_steps
  due = -(-runner.trainer.global_step.numpy() // interval) * interval
  controller.train(min(due, trainer.train_steps), checkpoint_at_completion=False)
  last = run_dir.read_evaluation(model_dir)
  if not last or last['step'] != runner.trainer.global_step.numpy():
    controller.evaluate(trainer.validation_steps)


def _evaluate_continuously(runner):
  """Evaluates each new checkpoint, up to that of the last step.

  The Garden's own loop waits for another checkpoint after the last step, and does not
  end without one.

  Raises:
    TimeoutError: no checkpoint came within `trainer.continuous_eval_timeout` seconds.
  """
  trainer, step = runner.params.trainer, runner.trainer.global_step
  for checkpoint in tf.train.checkpoints_iterator(
    runner.model_dir, timeout=trainer.continuous_eval_timeout
  ):
    runner.controller.restore_checkpoint(checkpoint)
    runner.controller.evaluate(trainer.validation_steps)
    if step.numpy() >= trainer.train_steps:
      return
  raise TimeoutError(
    f'No checkpoint after step {step.numpy()} of {trainer.train_steps} came '
    f'to {runner.model_dir} within {trainer.continuous_eval_timeout} seconds.'
    ' Train in this folder, or increase trainer.continuous_eval_timeout.'
  )


def _parse(flags_obj):
  """Returns the experiment's configuration; its errors name the flag.

  Does what ExperimentParser.parse() does, flag by flag.
  """
  parser = train_utils.ExperimentParser(flags_obj)
  with _explained('--experiment'):
    params = parser.base_experiment()
  for path in flags_obj.config_file or ():
    file = shipped.yaml_file(path)
    with _explained(f'--config_file={path}'):
      hyperparams.override_params_dict(params, file, is_strict=True)
  params = parser.parse_data_service(parser.parse_runtime(params))
  with _explained('--params_override'):
    return parser.parse_params_override(params)


@contextlib.contextmanager
def _explained(flag: str) -> Iterator[None]:
  """Turns errors of parsing a flag into a ValueError of one line that names it."""
  try:
    yield
  except yaml.YAMLError as error:
    raise ValueError(
      f'{flag} cannot be read as YAML: {" ".join(str(error).split())}. A path with *, '
      '? or {} needs quotes inside those of the shell: '
      '--params_override="task.train_data.input_path=\'...\'".'
    ) from error
  except tf.errors.NotFoundError as error:
    raise ValueError(
      f'{flag}: {error.message}. Give FIELD=VALUE,..., a mapping in YAML, or the path '
      'of a YAML file.'
    ) from error
  except LookupError as error:
    raise ValueError(f'{flag}: {error.args[0]} Correct the name.') from error
  except ValueError as error:
    raise ValueError(f'{flag}: {error}') from error


@contextlib.contextmanager
def _loss_explained(trainer) -> Iterator[None]:
  """Turns the trainer's error about a loss above its bound into a ValueError."""
  try:
    yield
  except RuntimeError as error:
    if 'The loss value is' not in str(error):
      raise
    raise ValueError(
      f'trainer.loss_upper_bound is {trainer.loss_upper_bound}: {error} Lower the '
      'learning rate, or raise the bound.'
    ) from error


def run(flags_obj) -> dict:
  """Runs what the flags say.

  Args:
    flags_obj: the parsed flags.

  Returns:
    The metrics of the evaluation in --mode=train_and_post_eval; {} in other modes.

  Raises:
    ValueError: a flag or the configuration is invalid, or the loss is too large.
    TimeoutError: see _evaluate_continuously().
  """
  settings.parse_gin(flags_obj.gin_file or (), flags_obj.gin_params or ())
  params = _parse(flags_obj)
  params.validate()
  model_dir, mode = flags_obj.model_dir, flags_obj.mode
  _check_required(params.task, flags_obj.experiment, mode, model_dir)
  strategy = cluster.create_strategy(params.runtime, mode)
  chief = strategy.extended.should_checkpoint
  epochs.resolve_epochs(params)
  _fix_shapes(params)
  params.lock()
  logging.info('Configuration:\n%s', pprint.pformat(params.as_dict()))
  if mode == 'eval' and not (
    params.task.init_checkpoint or tf.train.latest_checkpoint(model_dir)
  ):
    raise ValueError(
      f'There is no checkpoint in {model_dir} to evaluate. Train first, or set '
      '--model_dir to a trained run.'
    )
  if chief:
    _check_writable(model_dir)
  precision = params.runtime.mixed_precision_dtype
  if precision:
    performance.set_mixed_precision_policy(precision)
  with strategy.scope():
    task = task_factory.get_task(params.task, logging_dir=model_dir)
  show = progress.Progress(
    params.task.train_data.global_batch_size, params.trainer.train_steps, model_dir
  )
  runner = cluster.build_runner(
    model_dir,
    strategy,
    {'train_actions': [show], 'eval_actions': [show.after_evaluation]},
    task=task,
    mode=mode,
    params=params,
  )
  # Only after the model has been built, which fails if it does not fit the run whose
  # params.yaml this replaces.
  if chief and 'train' in mode:
    train_utils.serialize_config(params, model_dir)
    files.write_text(os.path.join(model_dir, 'config.gin'), gin.config_str())
  logs = {}
  with strategy.scope(), _loss_explained(params.trainer):
    if mode == 'continuous_eval':
      _evaluate_continuously(runner)
    else:
      if mode == 'train_and_eval' and runner.trainer.global_step.numpy():
        _catch_up(runner, model_dir)
      _, logs = runner.run()
  if chief:
    train_utils.save_gin_config(mode, model_dir)
  return logs


def main(_):
  """Runs the command."""
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.INFO)
  run(FLAGS)


if __name__ == '__main__':
  tfm_flags.define_flags()
  flags.adopt_module_key_flags(tfm_flags)  # --help shows them.
  flags.mark_flags_as_required(['experiment', 'mode', 'model_dir'])
  cli.run(main)
