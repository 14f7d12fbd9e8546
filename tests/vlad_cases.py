"""Tiny networks of NetVLAD and NeXtVLAD, and videos for them.

T frames.
"""

import numpy as np
from official.vision.modeling.backbones import factory
import tensorflow as tf
import tf_keras

from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import frame_normalization
from yt8m_distill.modeling.backbones import netvlad
from yt8m_distill.modeling.backbones import nextvlad

FRAMES, SIZES = 6, (8, 4)
NUM_FRAMES = np.array([0, 1, 4, 6], np.int32)
OPTIONS = {
  'netvlad': dict(clusters=4, hidden=5),
  'nextvlad': dict(clusters=4, groups=4, expansion=2, hidden=5, dropout=0.0),
}
CLASSES = {'netvlad': netvlad.NetVlad, 'nextvlad': nextvlad.NextVlad}


def specs(frames=FRAMES, sizes=SIZES):
  def spec(size):
    return tf_keras.layers.InputSpec(shape=[None, frames, size])

  return {'frames': spec(sum(sizes)), 'features': [spec(size) for size in sizes]}


def network_of(kind, frames=FRAMES, **options):
  network = CLASSES[kind](specs(frames), **{**OPTIONS[kind], **options})
  rng = np.random.default_rng(0)
  network.set_weights(
    [
      rng.uniform(0.5, 1.5, w.shape)
      if 'variance' in w.name
      else rng.normal(size=w.shape)
      for w in network.weights
    ]
  )
  return network


def inputs_of(frames=FRAMES, videos=slice(None)):
  rng = np.random.default_rng(1)
  x = rng.normal(size=[len(NUM_FRAMES), FRAMES, sum(SIZES)]).astype('f')
  x = np.pad(x, [(0, 0), (0, frames - FRAMES), (0, 0)])[videos]
  return {
    'frames': frame_normalization.normalize_videos(
      tf.constant(x), tf.constant(NUM_FRAMES[videos])
    ),
    'num_frames': tf.constant(NUM_FRAMES[videos]),
    'seed': tf.range(len(NUM_FRAMES))[videos],
  }


def with_gradients(network, inputs, training=True):
  with tf.GradientTape() as tape:
    outputs = network(inputs, training=training)['representation']
    loss = tf.reduce_sum(outputs * np.random.default_rng(2).normal(size=[5]))
  return outputs, tape.gradient(loss, network.trainable_weights)


def build(kind, **options):
  return factory.build_backbone(
    specs(),
    model_config.Backbone({'type': kind, kind: {**OPTIONS[kind], **options}}),
    norm_activation_config=None,
    l2_regularizer=tf_keras.regularizers.L2(0.5),
  )
