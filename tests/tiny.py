"""Tiny records, experiments and runs, for tests of tasks and of the driver."""

import contextlib
import gc
import json
import os
import pathlib
import subprocess
import sys

from absl import flags
from absl.testing import flagsaver
import numpy as np
from official.common import flags as tfm_flags
from official.core import exp_factory
import tensorflow as tf

import gin
from yt8m_distill import train

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLASSES = 12
MAX_FRAMES = 20
EVERY_N = 5
_RGB, _AUDIO = 8, 4


def script_environment():
  """Environment in which a script of experiments/ uses that of the tests."""
  # Of another set of versions it would install its own over them.
  versions = ''.join(tf.__version__.split('.')[:2])
  return {**os.environ, 'VENV': sys.prefix, 'TF_SET': f'tf{versions}'}


def _network(chunks):
  return {
    'backbone': {
      'hierarchical_lstm': {'chunks': chunks, 'num_cells': 4, 'num_layers': 1}
    }
  }


# Overrides for tests to which the networks do not matter: without recurrence,
# a step that runs eagerly takes a tenth of the time.
AVERAGES = {
  'task': {
    'model': {
      who: {'backbone': {'type': 'yt8m_average'}, 'head': {'type': 'logistic'}}
      for who in ('teacher', 'student')
    }
  }
}


def sizes(experiment='yt8m_distill'):
  """Overrides that make an experiment tiny; one network is the student."""
  student = {**_network(2), 'frames': {'uniform': {'every_n': EVERY_N}}}
  networks = (
    {'teacher': _network(5), 'student': student}
    if experiment == 'yt8m_distill'
    else {'network': student}
  )
  return {
    'task': {
      'model': {
        'features': [{'name': 'rgb', 'size': _RGB}, {'name': 'audio', 'size': _AUDIO}],
        'max_frames': MAX_FRAMES,
        'num_classes': CLASSES,
        **networks,
      },
      'evaluation': {'top_k': 5},
    }
  }


def experiment(*overrides, experiment='yt8m_distill'):
  """Configuration of a tiny experiment, from defaults, without gin."""
  with gin.unlock_config():
    gin.clear_config()
  params = exp_factory.get_exp_config(experiment)
  for override in (sizes(experiment), *overrides):
    params.override(override)
  return params


def write_records(path, count, seed=0):
  """Writes `count` random videos; returns their labels, bool [count, V]."""
  rng = np.random.default_rng(seed)
  labels = np.zeros([count, CLASSES], bool)
  with tf.io.TFRecordWriter(str(path)) as writer:
    for number in range(count):
      video = tf.train.SequenceExample()
      video.context.feature['id'].bytes_list.value.append(b'v%03d' % number)
      chosen = rng.choice(CLASSES, rng.integers(1, 4), replace=False)
      labels[number, chosen] = True
      video.context.feature['labels'].int64_list.value.extend(chosen.tolist())
      length = rng.integers(1, MAX_FRAMES + 5)
      for name, size in (('rgb', _RGB), ('audio', _AUDIO)):
        for _ in range(length):
          video.feature_lists.feature_list[name].feature.add().bytes_list.value.append(
            rng.bytes(size)
          )
      writer.write(video.SerializeToString())
  return labels


def batch(rows, seed=0):
  """A random batch as the task's input pipeline delivers it."""
  rng = np.random.default_rng(seed)
  return (
    {
      'frames': tf.constant(
        rng.integers(0, 256, [rows, MAX_FRAMES, _RGB + _AUDIO], np.uint8)
      ),
      'num_frames': tf.constant(rng.integers(1, MAX_FRAMES + 1, rows, np.int32)),
    },
    tf.constant(rng.random([rows, CLASSES]) < 0.2),
  )


def students(inputs):
  """Of the frames in a `batch`, those that the student sees."""
  return {
    'frames': inputs['frames'][:, ::EVERY_N],
    'num_frames': -(-inputs['num_frames'] // EVERY_N),
  }


def scatter_weights(model, seed=0):
  """Random values for every variable, so that no two predictions are alike."""
  rng = np.random.default_rng(seed)
  for variable in model.trainable_variables:
    variable.assign(rng.normal(0.0, 0.7, variable.shape))


class Recorder:
  """An optimizer that keeps the gradients instead of applying them.

  Attributes:
    gradients: of the last step, by the variable's ref().
  """

  def __init__(self, step=0):
    self.iterations = tf.constant(step, tf.int64)

  def apply_gradients(self, pairs):
    self.gradients = {variable.ref(): gradient.numpy() for gradient, variable in pairs}


@contextlib.contextmanager
def eagerly():
  """Spares the tracing of a graph for each run."""
  tf.config.run_functions_eagerly(True)
  try:
    yield
  finally:
    tf.config.run_functions_eagerly(False)


def run_driver(mode, model_dir, *arguments, experiment='yt8m_distill', sized=True):
  """Runs `yt8m_distill.train` in this process, as a command line would.

  Args:
    mode: --mode.
    model_dir: --model_dir.
    *arguments: further flags.
    experiment: --experiment.
    sized: puts a --config_file with `sizes()` before them.

  Returns:
    What the driver returns.
  """
  if 'experiment' not in flags.FLAGS:
    tfm_flags.define_flags()
  line = [
    'train',
    f'--experiment={experiment}',
    f'--mode={mode}',
    f'--model_dir={model_dir}',
  ]
  if sized:
    path = sizes_file(pathlib.Path(model_dir).parent, experiment)
    line.append(f'--config_file={path}')
  with flagsaver.flagsaver(), gin.unlock_config():
    gin.clear_config()
    try:
      flags.FLAGS([*line, *arguments])
      return train.run(flags.FLAGS)
    finally:
      with gin.unlock_config():
        gin.clear_config()
      # An iterator that is freed late may wait a minute for tf.data's tuner.
      gc.collect()


def drive(mode, run, records, experiment='yt8m_distill', **values):
  """Runs the driver eagerly over 3 steps of 4 videos, evaluated at the end.

  Args:
    mode: --mode.
    run: --model_dir.
    records: to train on and to evaluate on.
    experiment: --experiment.
    **values: as of override().
  """
  with eagerly():
    run_driver(
      mode,
      run,
      override(
        **{
          'task__train_data__input_path': records,
          'task__train_data__global_batch_size': 4,
          'task__validation_data__input_path': records,
          'task__validation_data__global_batch_size': 4,
          'trainer__train_steps': 3,
          'trainer__validation_interval': 3,
          'trainer__steps_per_loop': 1,
          **values,
        }
      ),
      experiment=experiment,
    )


def sizes_file(folder, experiment='yt8m_distill'):
  """Writes `sizes()` where --config_file can read it; returns the path."""
  path = pathlib.Path(folder) / 'sizes.yaml'
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(sizes(experiment)))  # JSON is YAML.
  return path


def override(**values):
  """--params_override of values by their path, with '__' for the dots."""
  return '--params_override=' + ','.join(
    f'{name.replace("__", ".")}={value}' for name, value in values.items()
  )


def python(*arguments, check=True):
  """Runs another Python in the repository's root; returns the process."""
  environment = {
    **os.environ,
    'PYTHONPATH': f'{ROOT}:{ROOT / "tests"}',
    'CUDA_VISIBLE_DEVICES': '-1',
    'TF_CPP_MIN_LOG_LEVEL': '2',
  }
  done = subprocess.run(
    [sys.executable, *map(str, arguments)],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert not check or done.returncode == 0, done.stderr[-4000:]
  return done


def killed_driver(checkpoint, killed='os.getpid()'):
  """Program for `python -c`: the driver, which is killed as it trains.

  Args:
    checkpoint: prefix of a checkpoint; the first loop behind it is the last.
    killed: Python for whom to kill, of os.kill(); '0' is the process group.

  Returns:
    The program, which takes the driver's flags.
  """
  return f"""
import os, runpy, signal
from yt8m_distill.trainer import progress

class Killing(progress.Progress):
  def __call__(self, output):
    super().__call__(output)
    if os.path.exists('{checkpoint}.index'):
      os.kill({killed}, signal.SIGKILL)

progress.Progress = Killing
runpy.run_module('yt8m_distill.train', run_name='__main__')
"""


def checkpoint_values(path):
  """All tensors of a checkpoint but its own counter of saves."""
  reader = tf.train.load_checkpoint(str(path))
  return {
    name: reader.get_tensor(name)
    for name in reader.get_variable_to_shape_map()
    if name != '_CHECKPOINTABLE_OBJECT_GRAPH' and not name.startswith('save_counter')
  }
