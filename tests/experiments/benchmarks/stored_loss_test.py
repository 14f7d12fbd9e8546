"""What stored answers take from L_PRED, by the benchmark that measures it."""

import numpy as np
import pytest
import serving_cases
import tensorflow as tf
import tiny

from experiments.benchmarks import stored_loss

pytestmark = pytest.mark.end_to_end


def test_targets_share_the_rest():
  classes = tf.constant([[2, 0, 1, 3]])
  probabilities = tf.constant([[0.5, 0.25, 0.15, 0.1]])
  target, share = stored_loss.targets(classes, probabilities, 2, 'float16')
  np.testing.assert_allclose(target, [[0.25, 0.125, 0.5, 0.125]], rtol=1e-6)
  np.testing.assert_allclose(share, [0.75], rtol=1e-6)


def test_all_classes_take_nothing_and_fewer_take_more(records, tmp_path):
  run = serving_cases.write_run(tmp_path / 'run', scale=0.5)
  ks = [2, 8, tiny.CLASSES]
  table = stored_loss.measure([run], run, str(records), ks, 'float32')
  assert (table.groupby('K').size() == len(table) / len(ks)).all()
  means = table.groupby('K').mean()
  np.testing.assert_allclose(means.loc[tiny.CLASSES, 'share'], 1)
  for name in ('kl', 'loss_difference', 'gradient_difference'):
    two, eight, full = means[name].abs()
    assert two > eight > 1e-4 and full < 1e-5
