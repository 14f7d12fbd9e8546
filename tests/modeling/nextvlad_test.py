"""What NeXtVLAD has and NetVLAD has not: dropout and whitening undone."""

import numpy as np
import pytest
import tensorflow as tf
import vlad_cases

from yt8m_distill.modeling import frame_normalization
from yt8m_distill.modeling.backbones import nextvlad


def test_empty_video_leaves_the_others_statistics_alone():
  """Rows without frames are no descriptors."""
  results = []
  for videos in (slice(None), slice(1, None)):
    network = vlad_cases.network_of('nextvlad')
    outputs, _ = vlad_cases.with_gradients(network, vlad_cases.inputs_of(videos=videos))
    results.append((outputs[-3:], network.get_weights()))
  tf.nest.map_structure(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *results
  )


def test_flops_of_the_paper():
  """Multiply-adds at 300 frames: 1.377 G before the linear layer."""
  with tf.Graph().as_default():
    network = nextvlad.NextVlad(vlad_cases.specs(300, (1024, 128)))
    before = network.flops() / 2 - (256 * 128 + 64 * 64) * 2048
  assert round(before / 1e9, 3) == 1.377


def test_dropout_by_video():
  network = vlad_cases.network_of('nextvlad', dropout=0.5)
  full = vlad_cases.network_of('nextvlad')
  np.testing.assert_array_equal(
    network(vlad_cases.inputs_of())['representation'],
    full(vlad_cases.inputs_of())['representation'],
  )
  inputs = vlad_cases.inputs_of()
  first = network(inputs, training=True)['representation']
  np.testing.assert_array_equal(first, network(inputs, training=True)['representation'])
  assert not np.allclose(first, full(inputs, training=True)['representation'])
  inputs['seed'] += 4
  assert not np.allclose(first, network(inputs, training=True)['representation'])


def test_whitening_is_undone(tmp_path):
  """As if frames had been unwhitened before they were normalized."""
  values = np.linspace(9.0, 1.0, 10)[:, None]
  np.save(tmp_path / 'eigenvals.npy', values)
  backbone = vlad_cases.build('nextvlad', eigenvalues=str(tmp_path / 'eigenvals.npy'))
  (tmp_path / 'eigenvals.npy').unlink()  # It is part of the model now.
  plain = vlad_cases.build('nextvlad')
  plain.set_weights(backbone.get_weights())
  raw = np.random.default_rng(3).normal(size=[4, vlad_cases.FRAMES, 12]).astype('f')
  scaled = raw.copy()
  scaled[..., :8] *= np.sqrt(values[:8, 0] + 1e-4)
  num_frames = tf.constant(vlad_cases.NUM_FRAMES)

  def run(network, frames):
    return network(
      {
        'frames': frame_normalization.normalize_videos(tf.constant(frames), num_frames),
        'num_frames': num_frames,
      }
    )['representation']

  np.testing.assert_allclose(
    run(backbone, raw), run(plain, scaled), rtol=1e-5, atol=1e-6
  )
  assert not np.allclose(run(backbone, raw), run(plain, raw))


@pytest.mark.parametrize(
  'values,message',
  [
    (None, 'No such file'),
    ('text', 'no .npy file'),
    (np.ones([7, 1]), r'array \[7, 1\], where the first feature has 8'),
    (np.ones([8, 8]), r'array \[8, 8\]'),
    (np.float32(1.0), r'array \[\]'),
    (np.full([8], -1.0), 'negative'),
    (np.full([8], np.nan), 'NaN'),
  ],
)
def test_eigenvalue_errors(tmp_path, values, message):
  path = tmp_path / 'some.npy'
  if isinstance(values, str):
    path.write_text(values)
  elif values is not None:
    np.save(path, values)
  with pytest.raises(ValueError, match=f'some.npy.*{message}.*yt8m_pca'):
    vlad_cases.build('nextvlad', eigenvalues=str(path))
