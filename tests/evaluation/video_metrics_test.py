"""Metrics of each video, on the device."""

from absl.testing import parameterized
import metric_cases
import numpy as np
import tensorflow as tf

from yt8m_distill.evaluation import video_metrics


class VideoMetricsTest(tf.test.TestCase, parameterized.TestCase):
  @parameterized.parameters(
    tf.bool, tf.int32, tf.int64, tf.uint8, tf.float32, tf.bfloat16
  )
  def test_values(self, label_type):
    predictions = [[0.1, 0.9, 0.3, 0.2], [0.5, 0.5, 0.5, 0.1], [0.4, 0.3, 0.2, 0.1]]
    labels = tf.cast([[0, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]], label_type)
    values = video_metrics.compute(predictions, labels, 2)
    self.assertAllEqual(values['hit_at_one'], [1, 0, 0])
    self.assertAllEqual(values['perr'], [0.5, 0.5, 0])
    self.assertAllEqual(
      values['scores'], np.float32([[0.9, 0.3], [0.5, 0.5], [0.4, 0.3]])
    )
    self.assertAllEqual(values['classes'], [[1, 2], [0, 1], [0, 1]])
    self.assertAllEqual(values['hits'], [[True, False], [False, True], [False, False]])

  def test_perr_counts_hits_with_a_score_above_zero_only(self):
    values = video_metrics.compute(
      [[0.5, 0.0, 0.0], [-1.0, -2.0, -3.0]], [[1, 1, 0], [1, 0, 0]], 1
    )
    self.assertAllEqual(values['perr'], [0.5, 0])
    self.assertAllEqual(values['hit_at_one'], [1, 1])

  @parameterized.parameters(1, 3, 100)
  def test_perr_does_not_depend_on_top_k(self, top_k):
    predictions, labels = metric_cases.random_case(4)
    perr = video_metrics.compute(predictions, labels, top_k)['perr']
    all_listed = video_metrics.compute(predictions, labels, 12)
    self.assertAllEqual(perr, all_listed['perr'])
    values = video_metrics.compute(predictions[:5], np.ones([5, 12]), top_k)
    self.assertAllEqual(values['perr'], np.ones(5))

  @parameterized.product(
    dtype=[tf.float16, tf.bfloat16, tf.float32, tf.float64], num_videos=[0, 3]
  )
  def test_types_and_shapes_in_a_graph(self, dtype, num_videos):
    signature = [tf.TensorSpec([None, 5], dtype), tf.TensorSpec([None, 5])]
    run = tf.function(
      lambda p, y: video_metrics.compute(p, y, 3), input_signature=signature
    )
    outputs = run.get_concrete_function().structured_outputs
    self.assertEqual(
      {name: (x.dtype, x.shape.as_list()) for name, x in outputs.items()},
      {
        'hit_at_one': (tf.float32, [None]),
        'perr': (tf.float32, [None]),
        'scores': (tf.float32, [None, 3]),
        'classes': (tf.int32, [None, 3]),
        'hits': (tf.bool, [None, 3]),
      },
    )
    predictions, labels = metric_cases.random_case(6, num_videos, 5)
    predictions = tf.cast(predictions, dtype)
    want = video_metrics.compute(tf.cast(predictions, tf.float32), labels, 3)
    for name, value in run(predictions, tf.cast(labels, tf.float32)).items():
      self.assertAllEqual(value, want[name])

  def test_top_k_above_the_number_of_classes(self):
    values = video_metrics.compute([[0.1, 0.3, 0.2]], [[1, 0, 0]], 20)
    self.assertAllEqual(values['classes'], [[1, 2, 0]])
    unknown = tf.function(
      lambda p, y: video_metrics.compute(p, y, 20),
      input_signature=[tf.TensorSpec([None, None])] * 2,
    )
    values = unknown([[0.1, 0.3, 0.2]], [[1.0, 0.0, 0.0]])
    self.assertAllEqual(values['classes'], [[1, 2, 0]])

  def test_top_k_below_one(self):
    with self.assertRaisesRegex(ValueError, 'top_k is 0: it must be at least 1'):
      video_metrics.compute([[0.1]], [[1]], 0)


class DeviceTest(tf.test.TestCase, parameterized.TestCase):
  def test_batch_gap_equals_the_global_value(self):
    predictions, labels = metric_cases.random_case(5)
    want = metric_cases.evaluate(predictions, labels, 5).result()['gap']
    values = video_metrics.compute(predictions, labels, 5)
    gap = tf.function(video_metrics.batch_gap)(
      values['scores'], values['hits'], labels.sum()
    )
    self.assertEqual((gap.dtype, gap.shape), (tf.float32, []))
    self.assertAllClose(gap, want, rtol=1e-6)

  def test_batch_gap_of_nothing(self):
    gap = video_metrics.batch_gap
    self.assertEqual(gap(tf.zeros([0, 3]), tf.zeros([0, 3], tf.bool), 0), 0)
    self.assertEqual(gap([[0.5, 0.4]], [[False, False]], 0), 0)
    self.assertEqual(gap([[0.5, 0.4]], [[False, True]], 1), 0.5)

  def test_agreement(self):
    values = video_metrics.agreement(
      [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]],
      [[1, 2, 3, 4], [4, 9, 8, 1], [5, 6, 7, 8]],
    )
    self.assertAllEqual(values['top1'], [1, 0, 0])
    self.assertAllEqual(values['overlap'], [1, 0.5, 0])
    self.assertEqual({v.dtype for v in values.values()}, {tf.float32})
    no_videos = tf.zeros([0, 4], tf.int32)
    nothing = tf.function(video_metrics.agreement)(no_videos, no_videos)
    self.assertEqual([v.shape for v in nothing.values()], [[0], [0]])
    with self.assertRaisesRegex(ValueError, 'not compatible|incompatible'):
      video_metrics.agreement([[1, 2]], [[1, 2, 3]])


if __name__ == '__main__':
  tf.test.main()
