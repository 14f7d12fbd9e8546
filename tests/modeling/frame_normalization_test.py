"""Frames as the networks see them: dequantized, without padding, of norm 1."""

import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill.modeling import frame_normalization
from yt8m_distill.utils import quantization

_FRAMES, _FEATURES = 12, 6
_NUM_FRAMES = np.array([12, 1, 7, 0, 3], np.int32)


def _inputs():
  rng = np.random.default_rng(1)
  shape = (len(_NUM_FRAMES), _FRAMES, _FEATURES)
  return {
    'frames': tf.constant(rng.integers(256, size=shape), tf.uint8),
    'num_frames': tf.constant(_NUM_FRAMES, tf.int32),
  }


def _check_equal(ours, theirs, tolerance=0.0):
  np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def _normalized(frames, num_frames):
  """Dequantized to [-2, 2], padding zero, then each frame of norm 1."""
  frames = frames * 4.0 / 255 + 4.0 / 512 - 2
  frames[np.arange(frames.shape[1]) >= num_frames[:, None]] = 0
  norm = np.linalg.norm(frames, axis=-1, keepdims=True)
  return np.divide(frames, norm, where=norm > 0, out=np.zeros_like(frames))


def test_normalize_videos():
  inputs = _inputs()
  actual = frame_normalization.normalize_videos(**inputs)
  expected = _normalized(inputs['frames'].numpy().astype(np.float64), _NUM_FRAMES)
  assert actual.dtype == tf.float32
  np.testing.assert_allclose(actual, expected, atol=3e-7)
  # Over all features at once, not over each of rgb and audio.
  np.testing.assert_allclose(
    np.linalg.norm(actual, axis=-1),
    np.arange(_FRAMES) < _NUM_FRAMES[:, None],
    rtol=1e-6,
  )


@pytest.mark.parametrize('dtype', [tf.float32, tf.float16])
def test_floats_count_as_dequantized(dtype):
  inputs = _inputs()
  floats = quantization.dequantize(inputs['frames'])
  _check_equal(
    frame_normalization.normalize_videos(tf.cast(floats, dtype), inputs['num_frames']),
    frame_normalization.normalize_videos(**inputs),
    0.0 if dtype == tf.float32 else 1e-3,
  )


@pytest.mark.parametrize('garbage', [np.inf, -np.inf, np.nan, 1e38])
def test_padding_is_zero_whatever_it_holds(garbage):
  inputs = _inputs()
  frames = quantization.dequantize(inputs['frames']).numpy()
  frames[np.arange(_FRAMES) >= _NUM_FRAMES[:, None]] = garbage
  _check_equal(
    frame_normalization.normalize_videos(tf.constant(frames), inputs['num_frames']),
    frame_normalization.normalize_videos(**inputs),
  )


def test_a_frame_of_zeros_stays_zero():
  frames = frame_normalization.normalize_videos(tf.zeros([1, 2, 3]), tf.constant([1]))
  np.testing.assert_array_equal(frames, np.zeros([1, 2, 3]))
