"""What the original TensorFlow 1.3 code computes, as test fixtures."""

import json
import pathlib

import gin
import numpy as np
import pytest
import tensorflow as tf

from official.core import exp_factory

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / 'shared'
GOLDEN = SHARED / 'golden'
NETWORK_CASES = ('paper_every10', 'every5', 'edge_lengths', 'orig300',
                 'zero_frames')

needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason='the reference data is not beside the checkout')


def to_keras(kernel_or_bias, is_bias):
  """Gate order i, j, f, o to i, f, j, o; the forget bias becomes explicit."""
  i, j, f, o = np.split(kernel_or_bias, 4, axis=-1)
  return np.concatenate([i, f + 1.0 if is_bias else f, j, o], axis=-1)


class Case:
  """One network and training case."""

  def __init__(self, name):
    self.arrays = np.load(GOLDEN / f'{name}.npz', allow_pickle=True)
    self.cfg = json.loads(str(self.arrays['cfg']))

  def __getitem__(self, key):
    return self.arrays[key]

  def experiment(self):
    """Configuration from gin/original.gin, at the sizes of the case."""
    cfg = self.cfg
    with gin.unlock_config():
      gin.clear_config()
      gin.parse_config_files_and_bindings([str(ROOT / 'gin/original.gin')], [
          f'EVERY_N = {cfg["every_n"]}',
          f'STUDENT_CHUNKS = {cfg["num_inputs_L1"]}',
          f'TEACHER_CHUNKS = {cfg["num_inputs_to_lstm"]}',
          f'NUM_CELLS = {cfg["lstm_cells"]}',
          f'NUM_LAYERS = {cfg["lstm_layers"]}',
          f'NUM_MIXTURES = {cfg["moe_num_mixtures"]}',
          f'MAX_FRAMES = {cfg["max_num_frames"]}',
          f'NUM_CLASSES = {cfg["num_classes"]}',
          f'BATCH_SIZE = {cfg["batch_size"]}',
      ])
    params = exp_factory.get_exp_config('yt8m_distill')
    params.override({'task': {'model': {'features': [
        {'name': 'rgb', 'size': cfg['rgb_size']},
        {'name': 'audio', 'size': cfg['audio_size']}]}}})
    return params

  def inputs(self):
    frames = np.concatenate([self['in/rgb_q'], self['in/audio_q']], axis=-1)
    return {'frames': tf.constant(frames),
            'num_frames': tf.constant(self['in/num_frames'], tf.int32)}

  def labels(self):
    return tf.constant(self['in/labels'])

  def variables(self, model, prefix='w/'):
    """Pairs (variable, golden value in our order) of a Distiller."""
    pairs = []
    for scope, network in (('model', model.teacher),
                           ('model_student', model.student)):
      for level, stack in (('L1', network.backbone.lower),
                           ('L2', network.backbone.upper)):
        for layer, (kernel, bias) in enumerate(zip(stack.kernels,
                                                   stack.biases)):
          name = (f'{prefix}{scope}/RNN_{level}/rnn/multi_rnn_cell/'
                  f'cell_{layer}/basic_lstm_cell/')
          pairs.append((kernel, to_keras(self[f'{name}kernel'], False)))
          # A gradient or an optimizer's slot has no forget bias in it.
          pairs.append((bias, to_keras(self[f'{name}bias'],
                                       prefix.endswith('w/'))))
      name = f'{prefix}{scope}/classifier/'
      pairs += [
          (network.head.gates.kernel, self[f'{name}gates/weights']),
          (network.head.experts.kernel, self[f'{name}experts/weights']),
          (network.head.experts.bias, self[f'{name}experts/biases'])]
    return pairs

  def load(self, model):
    for variable, value in self.variables(model):
      variable.assign(value)


def error(actual, expected):
  """Largest difference, relative to the largest expected value."""
  expected = np.asarray(expected, np.float64)
  scale = np.abs(expected).max() if expected.size else 0.0
  return np.abs(np.asarray(actual, np.float64) - expected).max() / max(
      scale, 1e-30)
