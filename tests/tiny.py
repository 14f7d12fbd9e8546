"""Tiny experiments, and the driver that runs them in this process."""

import contextlib
import gc
import json
import pathlib

from absl import flags
from absl.testing import flagsaver
import numpy as np
from official.core import exp_factory
import records as records_lib
import tensorflow as tf

import gin
from yt8m_distill import train
from yt8m_distill.tasks import classification

CLASSES = 12
MAX_FRAMES = 20
EVERY_N = 5
_RGB, _AUDIO = 8, 4


def _network(chunks):
  return {
    'backbone': {
      'hierarchical_lstm': {'chunks': chunks, 'num_cells': 4, 'num_layers': 1}
    }
  }


# Overrides for tests where the networks do not matter: without recurrence, a step
# that runs eagerly takes a tenth of the time.
AVERAGES = {
  'task': {
    'model': {
      who: {'backbone': {'type': 'yt8m_average'}, 'head': {'type': 'logistic'}}
      for who in ('teacher', 'student')
    }
  }
}


def sizes(experiment='yt8m_distill'):
  """Returns overrides that make an experiment tiny; a single network is the student."""
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
  """Returns the configuration of a tiny experiment, from defaults without gin."""
  with gin.unlock_config():
    gin.clear_config()
  params = exp_factory.get_exp_config(experiment)
  for override in (sizes(experiment), *overrides):
    params.override(override)
  return params


def write_records(path, count, seed=0, ids=b'v%03d'):
  """Writes random videos.

  Args:
    path: of the file.
    count: number of videos.
    seed: of their content.
    ids: format of an id, which gets the video's number.

  Returns:
    Their labels, bool [count, V].
  """
  rng = np.random.default_rng(seed)
  labels = np.zeros([count, CLASSES], bool)
  videos = []
  for number in range(count):
    chosen = rng.choice(CLASSES, rng.integers(1, 4), replace=False)
    labels[number, chosen] = True
    length = rng.integers(1, MAX_FRAMES + 5)
    videos.append(
      records_lib.random_frame_level(
        length, {'rgb': _RGB, 'audio': _AUDIO}, chosen, rng, id=ids % number
      )
    )
  records_lib.write(path, videos)
  return labels


def write_windows(path, count, seed=0):
  """Writes records of rated windows of random videos.

  Args:
    path: of the file.
    count: number of windows.
    seed: of their content.

  Returns:
    Labels, what was rated, and the labels of the videos, bool [count, V] each.
  """
  rng = np.random.default_rng(seed)
  labels, rated, video_labels = np.zeros([3, count, CLASSES], bool)
  windows = []
  for number in range(count):
    of_video = rng.choice(CLASSES, rng.integers(1, 4), replace=False)
    classes = rng.choice(CLASSES, rng.integers(1, 4), replace=False)
    scores = rng.integers(0, 2, len(classes))
    video_labels[number, of_video] = rated[number, classes] = True
    labels[number, classes[scores == 1]] = True
    length = rng.integers(1, MAX_FRAMES + 1)
    windows.append(
      records_lib.random_frame_level(
        length,
        {'rgb': _RGB, 'audio': _AUDIO},
        of_video,
        rng,
        id=b'v%03d:5' % number,
        segment_labels=classes,
        segment_scores=scores.astype(np.float32),
        window_start=rng.integers(0, length),
      )
    )
  records_lib.write(path, windows)
  return labels, rated, video_labels


def batch(rows, seed=0):
  """Returns a random batch as the input pipeline delivers it."""
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
  """Returns the inputs of a batch with the student's frames only."""
  return {
    'frames': inputs['frames'][:, ::EVERY_N],
    'num_frames': -(-inputs['num_frames'] // EVERY_N),
  }


def scatter_weights(model, seed=0):
  """Sets every variable to random values, so that no two predictions are equal."""
  rng = np.random.default_rng(seed)
  for variable in model.trainable_variables:
    variable.assign(rng.normal(0.0, 0.7, variable.shape))


def single_task(**network):
  """A task of one network with these settings, and its model of random weights."""
  params = experiment(
    {'task': {'model': {'network': network}}}, experiment='yt8m_distill_single'
  )
  task = classification.ClassificationTask(params.task)
  model = task.build_model()
  scatter_weights(model)
  return task, model


class Recorder:
  """An optimizer that records gradients instead of applying them.

  Attributes:
    gradients: those of the last step, by the variable's ref().
  """

  def __init__(self, step=0):
    self.iterations = tf.constant(step, tf.int64)

  def apply_gradients(self, pairs):
    self.gradients = {variable.ref(): gradient.numpy() for gradient, variable in pairs}


@contextlib.contextmanager
def eagerly():
  """Runs functions eagerly, which saves tracing a graph for each run."""
  tf.config.run_functions_eagerly(True)
  try:
    yield
  finally:
    tf.config.run_functions_eagerly(False)


def run_driver(mode, model_dir, *arguments, experiment='yt8m_distill', sized=True):
  """Runs `yt8m_distill.train` in this process as a command line would.

  Args:
    mode: --mode.
    model_dir: --model_dir.
    *arguments: further flags.
    experiment: --experiment.
    sized: whether a --config_file with sizes() comes before these.

  Returns:
    What the driver returns.
  """
  line = [
    f'--experiment={experiment}',
    f'--mode={mode}',
    f'--model_dir={model_dir}',
  ]
  if sized:
    path = sizes_file(pathlib.Path(model_dir).parent, experiment)
    line.append(f'--config_file={path}')
  return run_line(*line, *arguments)


def run_line(*line):
  """Runs `yt8m_distill.train` with these flags; returns what it returns."""
  if 'experiment' not in flags.FLAGS:
    train.define_flags()
  with flagsaver.flagsaver(), gin.unlock_config():
    gin.clear_config()
    try:
      flags.FLAGS(['train', *line])
      return train.run(flags.FLAGS)
    finally:
      with gin.unlock_config():
        gin.clear_config()
      # Freed later, an iterator may wait a minute for tf.data's autotuner.
      gc.collect()


def drive(mode, run, records, experiment='yt8m_distill', **values):
  """Runs the driver eagerly for 3 steps of 4 videos; evaluates at the end.

  Args:
    mode: --mode.
    run: --model_dir.
    records: path of the records to train and evaluate on.
    experiment: --experiment.
    **values: further values, see override().
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
  """Writes sizes() as a file for --config_file; returns its path."""
  path = pathlib.Path(folder) / 'sizes.yaml'
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(sizes(experiment)))  # JSON is YAML.
  return path


def override(**values):
  """Returns --params_override for values by path, with '__' for each dot."""
  return '--params_override=' + ','.join(
    f'{name.replace("__", ".")}={value}' for name, value in values.items()
  )


def checkpoint_values(path):
  """Returns {name: value} of a checkpoint, without its counter of saves."""
  reader = tf.train.load_checkpoint(str(path))
  return {
    name: reader.get_tensor(name)
    for name in reader.get_variable_to_shape_map()
    if name != '_CHECKPOINTABLE_OBJECT_GRAPH' and not name.startswith('save_counter')
  }
