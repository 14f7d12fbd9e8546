"""Random numbers that belong to a video."""

import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill.utils import per_video_random

_VIDEOS, _SIZE = 400, 250
_SEEDS = np.arange(_VIDEOS, dtype=np.int32)


def _mix(x):
  """The finaliser of MurmurHash3 in Python's own integers."""
  for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
    x = (x ^ x >> shift) * factor % 2**32
  return x


@pytest.mark.parametrize('seed, salt', [(0, 0), (7, 2), (2**31 - 1, 1), (-5, 3)])
def test_by_the_plain_formula(seed, salt):
  golden = 0x9E3779B1
  base = _mix((seed + golden * (salt + 1)) % 2**32)
  expected = [
    (_mix(_mix((base + golden * i) % 2**32) ^ base) >> 8) / 2**24 for i in range(1, 6)
  ]
  np.testing.assert_array_equal(
    per_video_random.uniform(tf.constant([seed]), 5, salt)[0], expected
  )


def test_is_uniform():
  values = per_video_random.uniform(_SEEDS, _SIZE, 1).numpy()
  assert values.dtype == np.float32 and values.shape == (_VIDEOS, _SIZE)
  assert values.min() >= 0.0 and values.max() < 1.0
  # 5 standard deviations: of a share in 20 bins, and of means.
  shares, _ = np.histogram(values, 20, (0.0, 1.0))
  np.testing.assert_allclose(
    shares / values.size, 0.05, rtol=0, atol=5 * (0.05 * 0.95 / values.size) ** 0.5
  )
  for axis in (0, 1):
    means = values.mean(axis)
    deviation = (1 / 12 / values.shape[axis]) ** 0.5
    np.testing.assert_allclose(means, 0.5, rtol=0, atol=5 * deviation)
    # Neither are the means nearer to each other than chance has them.
    np.testing.assert_allclose(means.std(), deviation, rtol=0.25)


def _correlation(a, b):
  return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


def test_seeds_salts_and_places_are_independent():
  values = per_video_random.uniform(_SEEDS, _SIZE, 1).numpy()
  limit = 5 / values.size**0.5
  for salt in (0, 2, 3):
    assert (
      abs(_correlation(values, per_video_random.uniform(_SEEDS, _SIZE, salt))) < limit
    )
  assert abs(_correlation(values[1:], values[:-1])) < limit
  assert abs(_correlation(values[:, 1:], values[:, :-1])) < limit
  assert len(np.unique(values[:, 0])) > 0.99 * _VIDEOS


def test_belongs_to_the_seed_alone():
  values = per_video_random.uniform(_SEEDS, 9, 1).numpy()
  order = np.random.default_rng(0).permutation(_VIDEOS)[:50]
  np.testing.assert_array_equal(
    per_video_random.uniform(_SEEDS[order], 9, 1), values[order]
  )
  graph = tf.function(lambda seeds: per_video_random.uniform(seeds, 9, 1))
  np.testing.assert_array_equal(graph(_SEEDS), values)
  # More numbers begin with the same ones.
  np.testing.assert_array_equal(per_video_random.uniform(_SEEDS, 20, 1)[:, :9], values)
  assert per_video_random.uniform(np.zeros([0], np.int32), 9, 1).shape == [0, 9]


@pytest.mark.parametrize('rate', [0.0, 0.2, 0.5, 0.9])
def test_dropout_hides_a_share_and_keeps_the_mean(rate):
  x = tf.fill([_VIDEOS, _SIZE], 3.0)
  dropped = per_video_random.dropout(x, _SEEDS, rate, 1).numpy()
  hidden = dropped == 0.0
  np.testing.assert_allclose(
    hidden.mean(), rate, atol=5 * (rate * (1 - rate) / hidden.size) ** 0.5
  )
  np.testing.assert_allclose(dropped[~hidden], 3.0 / (1.0 - rate), rtol=1e-6)


@pytest.mark.parametrize('dtype', [tf.float32, tf.bfloat16])
def test_dropout_passes_gradients_of_what_it_keeps(dtype):
  x = tf.ones([3, 50], dtype)
  with tf.GradientTape() as tape:
    tape.watch(x)
    dropped = per_video_random.dropout(x, _SEEDS[:3], 0.5, 1)
  assert dropped.dtype == dtype
  gradient = tape.gradient(dropped, x)
  np.testing.assert_array_equal(gradient, dropped)  # Both are 0 or 2.
  assert set(np.unique(tf.cast(gradient, tf.float32))) == {0.0, 2.0}
