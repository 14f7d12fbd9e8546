"""Parameters of NetVLAD and NeXtVLAD with their heads, as published."""

import pytest
import tensorflow as tf

from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import video_classifier


def _trainable(backbone, gate):
  # Variables of a graph take no memory before a session initialises them.
  with tf.Graph().as_default():
    network = video_classifier.build(
      model_config.ClassifierModel(num_classes=3862),
      model_config.Network(
        backbone=backbone,
        head=model_config.Head({'type': 'logistic', 'logistic': {'input_gate': gate}}),
      ),
      'network',
    )
    return sum(w.shape.num_elements() for w in network.trainable_weights)


@pytest.mark.parametrize('clusters,millions', [(128, 89), (112, 79)])
def test_nextvlad_as_published(clusters, millions):
  """The paper's best model, and the one of its challenge."""
  size = _trainable(
    model_config.Backbone({'type': 'nextvlad', 'nextvlad': {'clusters': clusters}}),
    'se',
  )
  assert round(size / 1e6) == millions


def test_netvlad_as_published():
  """297 million in Table 1 of the NeXtVLAD paper."""
  size = _trainable(
    model_config.Backbone(
      {'type': 'netvlad', 'netvlad': {'clusters': 128, 'hidden': 2048}}
    ),
    'context',
  )
  assert size // 10**6 == 297


@pytest.mark.parametrize('groups', [16, 32])
def test_more_groups_are_smaller(groups):
  """By what the layers hold; the paper prints 58 and 55 million."""
  size = _trainable(
    model_config.Backbone({'type': 'nextvlad', 'nextvlad': {'groups': groups}}), 'se'
  )

  def pool(features, clusters, groups):
    width = 2 * features
    vector = width // groups
    return (
      (features + 1) * width
      + (width + 1) * groups
      + (width + 2) * groups * clusters
      + 3 * clusters * vector,
      clusters * vector,
    )

  pools, outputs = zip(pool(1024, 128, groups), pool(128, 64, groups // 2))
  gate = 2 * 2048 * 256 + 2 * 256
  head = gate + 2049 * 3862
  assert size == sum(pools) + (sum(outputs) + 2) * 2048 + head
