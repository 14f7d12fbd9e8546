"""What the original TensorFlow 1.3 code computes, as test fixtures."""

import json
import pathlib

import numpy as np
from official.core import exp_factory
import pytest
import tensorflow as tf

import gin

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / 'shared'
GOLDEN = SHARED / 'golden'
NETWORK_CASES = ('paper_every10', 'every5', 'edge_lengths', 'orig300', 'zero_frames')

needs_shared = pytest.mark.skipif(
  not SHARED.is_dir(), reason='the reference data is not beside the checkout'
)


def to_keras(kernel_or_bias, is_bias):
  """Gate order i, j, f, o to i, f, j, o; the forget bias becomes explicit."""
  i, j, f, o = np.split(kernel_or_bias, 4, axis=-1)
  return np.concatenate([i, f + 1.0 if is_bias else f, j, o], axis=-1)


class Case:
  """One network and training case."""

  def __init__(self, name):
    self.name = name
    self.arrays = np.load(GOLDEN / f'{name}.npz', allow_pickle=True)
    self.cfg = json.loads(str(self.arrays['cfg']))

  def __getitem__(self, key):
    return self.arrays[key]

  def experiment(self, gin_file='original.gin', name='yt8m_distill', bindings=()):
    """Configuration from a gin file, at the sizes of the case."""
    cfg = self.cfg
    with gin.unlock_config():
      gin.clear_config()
      gin.parse_config_files_and_bindings(
        [str(ROOT / 'gin' / gin_file)],
        [
          f'yt8m_distill.every_n = {cfg["every_n"]}',
          f'yt8m_distill.student_chunks = {cfg["num_inputs_L1"]}',
          f'yt8m_distill.teacher_chunks = {cfg["num_inputs_to_lstm"]}',
          f'yt8m_distill.num_cells = {cfg["lstm_cells"]}',
          f'yt8m_distill.num_layers = {cfg["lstm_layers"]}',
          f'yt8m_distill.num_mixtures = {cfg["moe_num_mixtures"]}',
          f'yt8m_distill.max_frames = {cfg["max_num_frames"]}',
          f'yt8m_distill.num_classes = {cfg["num_classes"]}',
          f'yt8m_distill.batch_size = {cfg["batch_size"]}',
          *bindings,
        ],
      )
      params = exp_factory.get_exp_config(name)
      gin.clear_config()
    params.override(
      {
        'task': {
          'model': {
            'features': [
              {'name': 'rgb', 'size': cfg['rgb_size']},
              {'name': 'audio', 'size': cfg['audio_size']},
            ]
          }
        }
      }
    )
    return params

  def inputs(self):
    frames = np.concatenate([self['in/rgb_q'], self['in/audio_q']], axis=-1)
    return {
      'frames': tf.constant(frames),
      'num_frames': tf.constant(self['in/num_frames'], tf.int32),
    }

  def student_inputs(self):
    """The frames that the student sees, and how many are real."""
    return {
      'frames': self.inputs()['frames'][:, :: self.cfg['every_n']],
      'num_frames': tf.constant(self['fwd/num_frames_student'], tf.int32),
    }

  def labels(self):
    return tf.constant(self['in/labels'])

  def variables(self, model, prefix='w/'):
    """Pairs (variable, golden value in our order) of a Distiller."""
    return self.network_variables(
      model.teacher, f'{prefix}model/'
    ) + self.network_variables(model.student, f'{prefix}model_student/')

  def network_variables(self, network, prefix):
    """Those of one network, whose golden names begin with `prefix`."""
    # A gradient or an optimizer's slot has no forget bias in it.
    weights = 'w' in prefix.split('/')
    pairs = []
    for level, stack in (
      ('L1', network.backbone.lower),
      ('L2', network.backbone.upper),
    ):
      for layer, (kernel, bias) in enumerate(zip(stack.kernels, stack.biases)):
        name = f'{prefix}RNN_{level}/rnn/multi_rnn_cell/cell_{layer}/basic_lstm_cell/'
        pairs += [
          (kernel, to_keras(self[f'{name}kernel'], False)),
          (bias, to_keras(self[f'{name}bias'], weights)),
        ]
    name = f'{prefix}classifier/'
    return pairs + [
      (network.head.gates.kernel, self[f'{name}gates/weights']),
      (network.head.experts.kernel, self[f'{name}experts/weights']),
      (network.head.experts.bias, self[f'{name}experts/biases']),
    ]

  def load(self, model):
    for variable, value in self.variables(model):
      variable.assign(value)


def save_tf1(folder, values):
  """Writes values by name, as the original's Saver does; returns the prefix."""
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    variables = {
      name: tf.compat.v1.get_variable(f'v{k}', initializer=value)
      for k, (name, value) in enumerate(values.items())
    }
    session.run(tf.compat.v1.global_variables_initializer())
    return tf.compat.v1.train.Saver(variables).save(
      session, str(folder / 'model.ckpt'), global_step=1
    )


def gradients(task, model, optimizer, batch, clip):
  """Gradients that a task hands to its optimizer, by variable.ref().

  Args:
    task: whose train_step runs.
    model: of the task.
    optimizer: keeps its hands off the weights.
    batch: (inputs, labels).
    clip: as the optimizer would.
  """
  seen = {}

  class Recorder:
    iterations = optimizer.iterations

    def apply_gradients(self, pairs):
      for gradient, variable in pairs:
        seen[variable.ref()] = (
          tf.clip_by_norm(gradient, optimizer.clipnorm) if clip else gradient
        )

  task.train_step(batch, model, Recorder())
  return seen


def step_error(actual, expected, gradient):
  """As error(), of weights after steps, where the gradient is not rounding.

  Adam divides by the root of the second moment: where a gradient is only
  rounding, its first step has either sign. Left out is what lies below 1e-6 of
  the gradient's largest value.
  """
  real = np.abs(gradient) > 1e-6 * np.abs(gradient).max()
  return error(np.where(real, actual, expected), expected)


def error(actual, expected):
  """Largest difference, relative to the largest expected value."""
  expected = np.asarray(expected, np.float64)
  scale = np.abs(expected).max() if expected.size else 0.0
  return np.abs(np.asarray(actual, np.float64) - expected).max() / max(scale, 1e-30)
