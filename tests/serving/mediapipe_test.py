"""The SavedModel for MediaPipe, loaded in a session as MediaPipe loads it."""

import numpy as np
import pytest
import records
import serving_cases
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.serving import ensemble
from yt8m_distill.serving import export
from yt8m_distill.serving import mediapipe
from yt8m_distill.serving import signatures

_SIZES = {'rgb': 1024, 'audio': 128}
_BATCH = 32  # MediaPipe's graphs classify that many segments at a time.


def _run(folder, sizes, form):
  features = [{'name': n, 'size': s, 'format': form} for n, s in sizes.items()]
  return serving_cases.write_run(
    folder / 'run', {'task': {'model': {'features': features}}}
  )


def _videos():
  """Float features, some of them beyond 2, and the numbers of frames."""
  lengths = serving_cases.LENGTHS
  shape = [len(lengths), max(lengths), sum(_SIZES.values())]
  features = np.random.default_rng(0).normal(0, 1.5, shape).astype(np.float32)
  return features, np.array(lengths, np.int32)[:, None]


def _predictor(folder):
  """Returns a function that feeds and fetches what the signature names."""
  with tf.Graph().as_default():
    session = tf.compat.v1.Session()
    loaded = tf.compat.v1.saved_model.load(session, ['serve'], str(folder))
  signature = loaded.signature_def['serving_default']
  assert {key: tensor.dtype for key, tensor in signature.inputs.items()} == {
    'rgb_and_audio': tf.float32.as_datatype_enum,
    'num_frames': tf.int32.as_datatype_enum,
  }
  assert list(signature.outputs) == ['predictions']

  def predict(frames, num_frames):
    return session.run(
      signature.outputs['predictions'].name,
      {
        signature.inputs['rgb_and_audio'].name: frames,
        signature.inputs['num_frames'].name: num_frames,
      },
    )

  return predict


@pytest.mark.end_to_end
def test_predictions_are_those_of_the_export(tmp_path):
  vocabulary, out = tmp_path / 'vocabulary.csv', tmp_path / 'out'
  named = [i for i in range(tiny.CLASSES) if i != 3]
  vocabulary.write_text('Index,Name\n' + ''.join(f'{i},"no, {i}"\n' for i in named))
  export.export(
    _run(tmp_path, _SIZES, 'bytes'),
    str(out),
    vocabulary=str(vocabulary),
    # Of records, which MediaPipe's graphs do not send.
    features=['rgb:1024:floats', 'audio:128:floats'],
    for_mediapipe=True,
  )
  predict = _predictor(out / 'mediapipe')
  frames, num_frames = _videos()
  got = predict(frames, num_frames)
  assert len(np.unique(got.round(6), axis=0)) == len(got)
  # The network was trained on bytes, so these are the values that it must see.
  steps = (np.clip(frames, -2, 2) - (4 / 512 - 2)) / (4 / 255)
  values = records.dequantize(np.clip(np.round(steps), 0, 255))
  expected = tf.saved_model.load(str(out)).signatures['features'](
    features=tf.constant(values, tf.float32), num_frames=tf.constant(num_frames[:, 0])
  )
  np.testing.assert_allclose(got, expected['predictions'], atol=1e-6)

  rest = _BATCH - len(got)
  padded = predict(
    np.pad(frames, [(0, rest), (0, 3), (0, 0)]), np.pad(num_frames, [(0, rest), (0, 0)])
  )
  assert padded.shape == (_BATCH, tiny.CLASSES)
  np.testing.assert_allclose(padded[: len(got)], got, atol=1e-6)
  assert np.isfinite(padded).all()
  # Numbers above max_frames, and above the frames that are sent.
  np.testing.assert_allclose(
    predict(frames[-1:], [[tiny.MAX_FRAMES + 9]]), got[-1:], atol=1e-6
  )
  np.testing.assert_allclose(
    predict(frames[1:2, : num_frames[1, 0]], [[99]]), got[1:2], atol=1e-6
  )
  frames[0, 0, 0] = np.nan
  with pytest.raises(tf.errors.InvalidArgumentError, match='NaN or infinity'):
    predict(frames, num_frames)

  names = (out / 'mediapipe' / 'label_map.txt').read_text().splitlines()
  assert names == ['3' if i == 3 else f'no, {i}' for i in range(tiny.CLASSES)]
  assert '`mediapipe/` is a SavedModel' in (out / 'model_card.md').read_text()
  with pytest.raises(ValueError, match='mediapipe is a SavedModel .*: name the folder'):
    ensemble.Ensemble([str(out / 'mediapipe')], 'student', 5)


@pytest.mark.end_to_end
def test_a_network_of_floats_sees_them_unchanged(tmp_path):
  network = trained_network.Network(_run(tmp_path, _SIZES, 'floats'))
  mediapipe.save(str(tmp_path / 'out'), network.network, network.model, [])
  frames, num_frames = _videos()
  module = signatures.ServingModule(network.network, network.model)
  with tiny.eagerly():
    expected = module.features(tf.constant(frames), tf.constant(num_frames[:, 0]))
  np.testing.assert_allclose(
    _predictor(tmp_path / 'out')(frames, num_frames),
    expected['predictions'],
    atol=1e-6,
  )
  assert not (tmp_path / 'out' / 'label_map.txt').exists()


@pytest.mark.parametrize(
  'sizes, form',
  [
    ({'rgb': 8, 'audio': 4}, 'bytes'),
    ({'audio': 128, 'rgb': 1024}, 'bytes'),
    ({'both': 1152}, 'bytes'),
    ({'rgb': 1024}, 'floats'),
  ],
)
def test_other_features_are_refused(tmp_path, sizes, form):
  found = ','.join(f'{name}:{size}:{form}' for name, size in sizes.items())
  with pytest.raises(
    ValueError, match=f'mediapipe is True, but the features .* {found}: .*--mediapipe'
  ):
    export.export(
      _run(tmp_path, sizes, form), str(tmp_path / 'out'), for_mediapipe=True
    )
  assert not (tmp_path / 'out').exists()
