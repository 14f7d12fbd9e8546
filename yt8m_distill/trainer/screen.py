"""What the driver prints before and after training, and where it logs everything else.

`progress` prints the lines between.
"""

import logging as python_logging
import os
import shlex

from absl import flags
from absl import logging
from orbit import controller
import pandas as pd
import tensorflow as tf

from yt8m_distill.checkpoints import run_dir
from yt8m_distill.configs import registry
from yt8m_distill.trainer import progress
from yt8m_distill.utils import cli
from yt8m_distill.utils import files

FLAGS = flags.FLAGS


def start_log(model_dir: str, name: str, chief: bool) -> str:
  """Lets absl log everything to a file; the screen shows warnings and errors.

  The file is in --log_dir, by default in logs/ of a run's folder. Without --log_dir,
  absl cannot log to a remote folder; and a worker that is not the chief, which prints
  nothing else, logs to standard error. Given --verbosity, screen and file show what it
  says. In a process that does not use absl's log, because it did not start as a
  command, nothing changes.

  Args:
    model_dir: folder of the run.
    name: first part of the file's name, which also holds the host, the time and the
      process. The link NAME.INFO leads to the latest one.
    chief: whether this process writes to the run's folder.

  Returns:
    Path of that link, '' without a file.
  """
  handler = logging.get_absl_handler()
  if handler not in python_logging.root.handlers:
    return ''
  in_run = chief and not files.is_remote(model_dir)
  folder = FLAGS.log_dir or (os.path.join(model_dir, 'logs') if in_run else '')
  if FLAGS['verbosity'].present:
    FLAGS.alsologtostderr = True
  elif folder or not chief:
    logging.set_verbosity(logging.INFO)
  if not folder or FLAGS.logtostderr:
    return ''
  if not FLAGS['stderrthreshold'].present:
    FLAGS.stderrthreshold = 'warning'
  os.makedirs(folder, exist_ok=True)
  handler.use_absl_log_file(name, folder)
  return os.path.join(folder, f'{name}.INFO')


def silence_orbit():
  """Lets Orbit only log its messages; it would print them too."""
  controller._log = logging.info


def show_start(params, mode: str, model_dir: str, devices: str, log: str):
  """Prints what a run is about to do, before the networks are built.

  Args:
    params: the ExperimentConfig.
    mode: --mode of the driver.
    model_dir: folder of the run.
    devices: what it computes on.
    log: path of the log, '' without one.
  """
  print(f'Run: {model_dir}')
  if log:
    print(f'Log: {log}')
  print(f'Experiment: {params.experiment}, {mode} on {devices}')
  for name, data, used in (
    ('Training', params.task.train_data, 'train' in mode),
    ('Validation', params.task.validation_data, mode != 'train'),
  ):
    if used:
      print(
        f'{name} records: {data.input_path}, {data.global_batch_size} a batch',
        flush=True,
      )


def show_networks(costs: dict[str, dict[str, int]]):
  """Prints frames and cost of each network, as `tasks.costs` counts them."""
  for name, cost in costs.items():
    print(
      f'{name.title()}: {cost["frames"]} frames, {cost["flops"] / 1e9:.4g} GFLOPs per '
      f'video, {cost["parameters"]:,} parameters'
    )


def show_training(model_dir: str, step: int, train_steps: int):
  """Prints whether a run is new, resumes or is finished.

  Args:
    model_dir: folder of the run.
    step: step of its latest checkpoint, 0 without one.
    train_steps: last step of training.
  """
  if not step:
    print(f'New run, to step {train_steps}', flush=True)
  elif step < train_steps:
    print(f'Resumes at step {step} of {train_steps}', flush=True)
  else:
    print(
      f'Already trained to step {step} of {train_steps}: to train further, increase '
      'trainer.train_steps (yt8m_distill.train_steps in gin), or choose another '
      '--model_dir.'
    )
    last = run_dir.read_evaluation(model_dir)
    if last:
      print(progress.evaluation_line(last['step'], last['metrics']), flush=True)


def show_changes(params, model_dir: str):
  """Prints and logs what differs from the last start, before params.yaml is replaced.

  Args:
    params: the ExperimentConfig.
    model_dir: folder of the run.
  """
  path = run_dir.params_path(os.path.join(model_dir, ''))
  if not path:
    return
  before, now = (
    pd.json_normalize(config.as_dict()).iloc[0].to_dict()
    for config in (run_dir.read_params(path), params)
  )
  changed = [
    f'{name} {before.get(name)} -> {now.get(name)}'
    for name in sorted({*before, *now})
    if str(before.get(name)) != str(now.get(name))
  ]
  if changed:
    logging.info('Changed since the last start: %s', '; '.join(changed))
    print(f'Changed since the last start: {cli.some_of(changed)}', flush=True)


def show_end(params, model_dir: str):
  """Prints where the best checkpoint is, and what to do next."""
  trainer = params.trainer
  best = os.path.join(model_dir, trainer.best_checkpoint_export_subdir)
  metric = trainer.best_checkpoint_eval_metric
  info = files.read_json(
    os.path.join(best, 'info.json'),
    **dict.fromkeys(('best_ckpt_global_step', metric), int | float),
  )
  if info:
    print(
      f'Best checkpoint: {best}, step {info["best_ckpt_global_step"]:.0f}, '
      f'{metric} {info[metric]:.4g}'
    )
  if run_dir.read_evaluation(model_dir):
    package = registry.module(params.experiment)
    own = '' if package in ('', 'yt8m_distill') else f'--import={package} '
    print(f'Next: yt8m-distill report {own}{shlex.quote(model_dir)}')
  elif tf.train.latest_checkpoint(model_dir):
    print('Next: repeat the command with --mode=eval to evaluate')
