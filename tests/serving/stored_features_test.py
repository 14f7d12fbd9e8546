"""Records that store their features as MediaPipe does."""

import csv
import re

import numpy as np
import pytest
import records as records_lib
import serving_cases
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config
from yt8m_distill.serving import ensemble
from yt8m_distill.serving import export
from yt8m_distill.serving import predict
from yt8m_distill.serving import signatures

_NAMES = {'rgb': 'RGB/feature/floats', 'audio': 'AUDIO/feature/floats'}


@pytest.fixture(name='run', scope='module')
def _run(tmp_path_factory):
  return serving_cases.write_run(tmp_path_factory.mktemp('run') / 'run')


def _as_mediapipe(serialized, path, form='floats'):
  """The same video with dequantized floats; MediaPipe writes float lists."""
  stored = tf.train.SequenceExample.FromString(serialized)
  features = {
    other: [
      records_lib.dequantize(np.frombuffer(frame.bytes_list.value[0], np.uint8))
      for frame in stored.feature_lists.feature_list[name].feature
    ]
    for name, other in _NAMES.items()
  }
  if form == 'float32_bytes':
    features = {
      name: [frame.astype('<f4').tobytes() for frame in frames]
      for name, frames in features.items()
    }
  return records_lib.frame_level(
    features, **{'clip/data_path': path}
  ).SerializeToString()


def _flags(form, features):
  return [f'{_NAMES[f.name]}:{f.size}:{form}' for f in features]


def _rows(path):
  with open(path, encoding='utf-8') as file:
    return list(csv.reader(file))[1:]


@pytest.mark.end_to_end
def test_predictions_of_mediapipe_records_are_those_of_the_releases(run, tmp_path):
  features = tiny.experiment().task.model.features
  _, records = serving_cases.videos(features)
  records_lib.write(tmp_path / 'bytes.tfrecord', records.numpy())
  records_lib.write(
    tmp_path / 'floats.tfrecord',
    [
      _as_mediapipe(record, b'/my/%d.mp4' % i)
      for i, record in enumerate(records.numpy())
    ],
  )
  for name, how in (('bytes', ()), ('floats', _flags('quantized_floats', features))):
    predict.predict(
      [run], str(tmp_path / f'{name}.tfrecord'), str(tmp_path / name), features=how
    )
  expected = _rows(tmp_path / 'bytes' / 'predictions.csv')
  got = _rows(tmp_path / 'floats' / 'predictions.csv')
  assert [row[1] for row in got] == [row[1] for row in expected]
  assert [row[0] for row in got] == [f'/my/{i}.mp4' for i in range(len(records))]


@pytest.mark.end_to_end
@pytest.mark.parametrize(
  'form, stored',
  [
    ('floats', 'float list'),
    ('float32_bytes', r'byte string \(little-endian float32\)'),
  ],
)
def test_features_kept_as_floats_are_exported_so(run, tmp_path, form, stored):
  model = trained_network.Network(run).model
  how = _flags(form, model.features)
  videos, records = serving_cases.videos(model.features)
  export.export(run, str(tmp_path / 'out'), features=how)
  loaded = tf.saved_model.load(str(tmp_path / 'out'))
  assert sorted(loaded.signatures) == ['features', 'serving_default']
  outputs = loaded.signatures['serving_default'](
    examples=tf.constant(
      [_as_mediapipe(record, b'x', form) for record in records.numpy()]
    )
  )
  network = trained_network.Network(run)
  expected = signatures.ServingModule(network.network, model).frames(**videos)
  np.testing.assert_allclose(outputs['predictions'], expected['predictions'], atol=1e-5)
  card = (tmp_path / 'out' / 'model_card.md').read_text()
  assert re.search(f'a {stored} of `RGB/feature/floats`', card)
  assert '`frames` uint8' not in card
  with pytest.raises(ValueError, match='is an export.*export it again'):
    ensemble.Ensemble([str(tmp_path / 'out')], 'student', 5, model.features)


@pytest.mark.parametrize('trained,stored', [('bytes', 'video'), ('video', 'floats')])
def test_frames_and_whole_videos_are_not_exchanged(trained, stored):
  def features(form):
    return [
      data.Feature(name=name, size=size, format=form)
      for name, size in (('rgb', 8), ('audio', 4))
    ]

  model = model_config.ClassifierModel(features=features(trained))
  with pytest.raises(
    ValueError,
    match=f"'{stored}'.* but the network was "
    rf"trained on .*'{trained}'\] \(rgb, audio\)",
  ):
    signatures.stored_as(model, features(stored))


def test_features_of_other_sizes_are_refused(run, tmp_path):
  with pytest.raises(
    ValueError,
    match=r'--features have the sizes \[7\]: they must be '
    r'\[8, 4\], as in training \(rgb, audio\)',
  ):
    export.export(run, str(tmp_path / 'out'), features=['rgb:7'])
  assert not (tmp_path / 'out').exists()
