"""Dropout of a network's representation, video by video."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
import tiny

from yt8m_distill.modeling import video_classifier
from yt8m_distill.tasks import distillation

_RATE = 0.3
_SIZE = 200


class _Ones(tf_keras.Model):
  """A backbone of which every value shows whether it is hidden."""

  representation_size = _SIZE

  def call(self, inputs, training=False):
    return {'representation': tf.ones([tf.shape(inputs['frames'])[0], _SIZE])}


def _network(rate=_RATE):
  head = tf_keras.layers.Activation('linear')
  return video_classifier.VideoClassifier(_Ones(), head, rate)


def _inputs(seeds):
  return {
    'frames': tf.zeros([len(seeds), 3, 2], tf.uint8),
    'num_frames': tf.fill([len(seeds)], 3),
    'seed': tf.constant(seeds, tf.int32),
  }


def test_hides_a_share_from_the_head_alone():
  outputs = _network()(_inputs(range(300)), training=True)
  np.testing.assert_array_equal(outputs['representation'], 1.0)
  values = outputs['predictions'].numpy()
  hidden = values == 0.0
  # 5 standard deviations of a binomial distribution.
  np.testing.assert_allclose(
    hidden.mean(), _RATE, atol=5 * (_RATE * (1 - _RATE) / hidden.size) ** 0.5
  )
  np.testing.assert_allclose(values[~hidden], 1 / (1 - _RATE), rtol=1e-6)
  assert len(np.unique(hidden, axis=0)) == 300


def test_mask_belongs_to_the_seed():
  def mask(seeds):
    return _network()(_inputs(seeds), training=True)['predictions'].numpy()

  together = mask([4, 9, 4])
  np.testing.assert_array_equal(together[0], together[2])
  np.testing.assert_array_equal(mask([9, 1, 2, 3])[0], together[1])
  assert mask([]).shape == (0, _SIZE)


def test_is_off_in_evaluation_which_needs_no_seeds():
  inputs = _inputs([1, 2])
  del inputs['seed']
  np.testing.assert_array_equal(_network()(inputs)['predictions'], 1.0)
  # Nor does training without dropout.
  np.testing.assert_array_equal(
    _network(0.0)(inputs, training=True)['predictions'], 1.0
  )


def test_config_round_trip():
  _, model = tiny.single_task(dropout=_RATE)
  again = type(model).from_config(model.get_config())
  again.set_weights(model.get_weights())
  inputs = {**tiny.students(tiny.batch(3)[0]), 'seed': tf.constant([1, 2, 3])}
  expected = model(inputs, training=True)['predictions']
  np.testing.assert_array_equal(again(inputs, training=True)['predictions'], expected)
  assert (expected != model(inputs)['predictions']).numpy().any()


@pytest.mark.parametrize(
  'model, needed',
  [
    ({}, False),
    ({'student': {'dropout': 0.5}}, True),
    ({'teacher': {'dropout': 0.5}}, True),
    ({'student': {'frames': {'type': 'random', 'random': {'k': 4}}}}, True),
  ],
)
def test_distillation_asks_for_seeds_where_a_network_draws(model, needed):
  params = tiny.experiment({'task': {'model': model}}).task
  reader = distillation.DistillationTask(params).build_reader()
  assert reader.with_seeds == needed


def test_is_drawn_anew_in_each_epoch_of_training(tmp_path):
  tiny.write_records(tmp_path / 'records', 8)
  task, model = tiny.single_task(dropout=0.5)
  _, plain = tiny.single_task()
  params = task.task_config.train_data.replace(
    input_path=str(tmp_path / 'records'), global_batch_size=8, shuffle_buffer_size=1
  )  # One file in its order, again and again.
  (first, labels), (second, _) = task.build_inputs(params).take(2)
  np.testing.assert_array_equal(first['frames'], second['frames'])
  assert (first['seed'] != second['seed']).numpy().all()
  trained = [
    model(inputs, training=True)['predictions'].numpy()
    for inputs in (first, second, first)
  ]
  np.testing.assert_array_equal(trained[0], trained[2])
  assert (trained[0] != trained[1]).any(1).all()
  expected = plain(first)['predictions']
  np.testing.assert_array_equal(model(first)['predictions'], expected)
  evaluated = task.validation_step((first, labels), model)
  np.testing.assert_array_equal(evaluated['scores'], tf.math.top_k(expected, 5)[0])


def test_without_a_seed_says_what_to_give():
  _, model = tiny.single_task(dropout=0.5)
  inputs, _ = tiny.batch(2)
  with pytest.raises(ValueError, match="dropout is 0.5.*inputs\\['seed'\\]"):
    model(tiny.students(inputs), training=True)
