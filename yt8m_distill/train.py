r"""Trains and evaluates the networks of an experiment, or resumes where it stopped.

  yt8m-distill train --experiment=yt8m_distill --mode=train_and_eval \
    --gin_file=train.gin --model_dir=RUN \
    --gin_params="yt8m_distill.train_path='train*.tfrecord'" \
    --gin_params="yt8m_distill.validation_path='validate*.tfrecord'"

or python -m yt8m_distill.train. Repeat a command to resume its run; evaluate a run with
--mode=eval. The flags are those of TensorFlow Model Garden. A later source of values
wins over an earlier one: the experiment's defaults, --gin_file, --gin_params,
--config_file, --params_override.

RUN receives params.yaml, checkpoints, TensorBoard's curves, the results of evaluations,
and in logs/ a log, unless RUN is remote. --log_dir names another folder for the log.

Differences from the Garden's own driver:

- It finds gin and YAML files of this package by short name, from any folder.
- Lengths may be given in epochs.
- The configuration is written before training starts.
- It prints what it does, and shows the rate and the time left.
- A resumed run is evaluated at the same steps as one that never stopped.
- Continuous evaluation ends after the last step.
"""

from collections.abc import Iterator
import contextlib
import os
import pprint
import time

from absl import flags
from absl import logging
from official.core import task_factory
from official.core import train_utils
from official.modeling import performance
import tensorflow as tf

import gin
import yt8m_distill  # noqa: F401, registers experiments
from yt8m_distill.checkpoints import run_dir
from yt8m_distill.trainer import cluster
from yt8m_distill.trainer import configuration
from yt8m_distill.trainer import epochs
from yt8m_distill.trainer import progress
from yt8m_distill.trainer import screen
from yt8m_distill.utils import cli
from yt8m_distill.utils import files
from yt8m_distill.utils import shipped

FLAGS = flags.FLAGS
# Those that the Garden's trainer implements.
_MODES = ('train', 'train_and_eval', 'train_and_post_eval', 'eval', 'continuous_eval')


def define_flags():
  """Defines the flags: the Garden's, without those that nothing here would read."""
  flags.DEFINE_string(
    'experiment',
    None,
    'What to train: yt8m_distill (teacher and student), yt8m_distill_single (one '
    'network), yt8m_distill_stored (a student, from the stored answers of a teacher), '
    'yt8m_distill_finetune (a distilled student), yt8m_distill_segments (a trained '
    'network, on rated windows), or any experiment that --import registers.',
  )
  flags.DEFINE_enum(
    'mode',
    None,
    _MODES,
    'train_and_eval evaluates during training, train_and_post_eval once after it, '
    'continuous_eval each new checkpoint of a run that another process trains.',
  )
  flags.declare_key_flag('log_dir')  # absl's own, which --help would not list.
  flags.DEFINE_string(
    'model_dir', None, 'Folder of the run. Its latest checkpoint is resumed.'
  )
  flags.DEFINE_multi_string(
    'gin_file',
    None,
    f'File of settings: a path, or one of {", ".join(shipped.gin_files())}',
    allow_override=True,
  )
  flags.DEFINE_multi_string(
    'gin_params',
    None,
    'One setting, such as yt8m_distill.batch_size=64. Text needs quotes: '
    '"yt8m_distill.train_path=\'a.tfrecord\'"',
    allow_override=True,
  )
  flags.DEFINE_multi_string(
    'config_file',
    None,
    'YAML file of fields of the configuration: a path, such as RUN/params.yaml, or one '
    f'of {", ".join(shipped.yaml_files())}',
  )
  flags.DEFINE_string(
    'params_override',
    None,
    'Fields of the configuration, separated by commas, such as runtime.num_gpus=1, or '
    'YAML.',
  )
  flags.DEFINE_string(
    'tpu', None, 'Name or address of a TPU; local on a TPU VM. Needs cluster/tpu.yaml.'
  )
  flags.DEFINE_string(
    'tf_data_service', None, 'Address of a tf.data service that reads the records.'
  )


@contextlib.contextmanager
def _folder(model_dir: str, mode: str, chief: bool) -> Iterator[None]:
  """Makes the folder of a run; removes it again if the start fails in a new one.

  Raises:
    ValueError: it is not writable, or another process trains there.
  """
  # Another process may start to train where this one evaluates continuously.
  new = chief and mode != 'continuous_eval' and not tf.io.gfile.exists(model_dir)
  if chief:
    _check_writable(model_dir)
  with (
    _only_trainer(model_dir) if chief and 'train' in mode else contextlib.nullcontext()
  ):
    try:
      yield
    except BaseException:  # Interrupts too.
      # Without params.yaml, no run has started there.
      started = run_dir.params_path(os.path.join(model_dir, ''))
      if new and not started and tf.io.gfile.exists(model_dir):
        tf.io.gfile.rmtree(model_dir)
      raise


def _check_writable(model_dir):
  """Raises ValueError if the folder of a run is not writable."""
  probe = os.path.join(model_dir, f'probe{os.getpid()}')
  try:
    tf.io.gfile.makedirs(model_dir)
    files.write_text(probe, '')
    tf.io.gfile.remove(probe)
  except (ValueError, tf.errors.OpError, OSError) as error:
    raise ValueError(
      f'--model_dir={model_dir} cannot be written. Choose a writable folder.'
    ) from error


@contextlib.contextmanager
def _only_trainer(model_dir) -> Iterator[None]:
  """Raises ValueError if another process of this machine trains in a folder."""
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(files.locked(model_dir))
    except BlockingIOError as error:
      raise ValueError(
        f'--model_dir={model_dir} is being trained by another process. Wait until it '
        'ends, or choose another folder.'
      ) from error
    files.remove_abandoned(model_dir)
    yield


def _fix_shapes(params):
  """Sets static_shapes of all networks if XLA, which requires it, is on."""
  if not params.runtime.enable_xla:
    return
  for network in params.task.model.networks().values():
    if hasattr(network.backbone.get(), 'static_shapes'):
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
  best = runner.trainer.checkpoint_exporter
  if (
    not last
    or last['step'] != runner.trainer.global_step.numpy()
    # It was killed after evaluation.json was written.
    or (best and best.lacks(last['metrics']))
  ):
    controller.evaluate(trainer.validation_steps)


def _evaluate_continuously(runner):
  """Evaluates each new checkpoint, up to that of the last step.

  The Garden's own loop waits for another checkpoint after the last step, and does not
  end without one.

  Raises:
    TimeoutError: no checkpoint came within `trainer.continuous_eval_timeout` seconds.
  """
  trainer, step = runner.params.trainer, runner.trainer.global_step
  print(f'Waits for checkpoints, up to step {trainer.train_steps}', flush=True)
  for checkpoint in _new_checkpoints(runner.model_dir, trainer.continuous_eval_timeout):
    runner.controller.restore_checkpoint(checkpoint)
    runner.controller.evaluate(trainer.validation_steps)
    if step.numpy() >= trainer.train_steps:
      return
  raise TimeoutError(
    f'No checkpoint after step {step.numpy()} of {trainer.train_steps} came '
    f'to {runner.model_dir} within {trainer.continuous_eval_timeout} seconds.'
    ' Train in this folder, or increase trainer.continuous_eval_timeout.'
  )


def _new_checkpoints(folder: str, timeout: float) -> Iterator[str]:
  """Yields each new checkpoint of a folder until none comes within `timeout` seconds.

  TensorFlow's checkpoints_iterator measures time by the clock, which may be set.
  """
  last, deadline = None, time.monotonic() + timeout
  while True:
    latest = tf.train.latest_checkpoint(folder)
    if latest and latest != last:
      yield latest
      last, deadline = latest, time.monotonic() + timeout
    elif time.monotonic() > deadline:
      return
    else:
      time.sleep(1)


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
    ValueError: a flag or the configuration is invalid, or the loss is too large. A
      start that fails leaves no folder.
    TimeoutError: see _evaluate_continuously().
  """
  params = configuration.read(flags_obj)
  model_dir, mode = flags_obj.model_dir, flags_obj.mode
  strategy = cluster.create_strategy(params.runtime, mode)
  chief = strategy.extended.should_checkpoint
  epochs.resolve_epochs(params)
  _fix_shapes(params)
  params.lock()
  if params.runtime.mixed_precision_dtype:
    performance.set_mixed_precision_policy(params.runtime.mixed_precision_dtype)
  with strategy.scope():
    task = _get_task(params.task, model_dir)
  configuration.check_inputs(task, mode, model_dir)
  # The evaluation of another run's network, before any training here.
  starts = mode == 'eval' and not tf.train.latest_checkpoint(model_dir)
  with _folder(model_dir, mode, chief):
    runner = _build(params, mode, model_dir, strategy, task)
    # Only after the model has been built, which fails if it does not fit the run whose
    # params.yaml this replaces.
    if chief and ('train' in mode or starts):
      run_dir.write_params(model_dir, params)
      files.write_text(os.path.join(model_dir, 'config.gin'), gin.config_str())
    logs = _execute(runner, params, mode, model_dir)
    if chief:
      train_utils.save_gin_config(mode, model_dir)
      screen.show_end(params, model_dir)
  return logs


def _execute(runner, params, mode, model_dir):
  """Trains or evaluates; returns what `run` does."""
  with runner.strategy.scope(), _loss_explained(params.trainer):
    if mode == 'continuous_eval':
      _evaluate_continuously(runner)
      return {}
    with contextlib.ExitStack() as stack:
      if 'train' in mode:
        stack.enter_context(runner.checkpoint_manager.ends_on_sigterm())
      if mode == 'train_and_eval' and runner.trainer.global_step.numpy():
        _catch_up(runner, model_dir)
      return runner.run()[1]


def _get_task(params, model_dir):
  """Returns the task of a configuration."""
  try:
    return task_factory.get_task(params, logging_dir=model_dir)
  except LookupError as error:
    name = f'{type(params).__module__}.{type(params).__qualname__}'
    raise ValueError(
      f'No task is registered for the configuration {name}: decorate the class of the '
      "task with the Garden's task_factory.register_task_cls."
    ) from error


def _build(params, mode, model_dir, strategy, task):
  """Builds the runner, and says what it will do."""
  chief = strategy.extended.should_checkpoint
  log = screen.start_log(model_dir, mode, chief)
  logging.info('Configuration:\n%s', pprint.pformat(params.as_dict()))
  if chief:
    screen.show_start(params, mode, model_dir, cluster.describe(strategy), log)
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
  if chief:
    screen.show_networks(task.costs)
    if 'train' in mode:
      step = int(runner.trainer.global_step.numpy())
      screen.show_training(model_dir, step, params.trainer.train_steps)
      screen.show_changes(params, model_dir)
  return runner


def main(_):
  """Runs the command."""
  screen.silence_orbit()
  run(FLAGS)


if __name__ == '__main__':
  define_flags()
  flags.mark_flags_as_required(['experiment', 'mode', 'model_dir'])
  cli.run(main)
