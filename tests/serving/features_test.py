"""Records that store their features as MediaPipe does."""

import csv

import numpy as np
import pytest
import served
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config
from yt8m_distill.serving import ensemble
from yt8m_distill.serving import export
from yt8m_distill.serving import predict
from yt8m_distill.serving import signatures
from yt8m_distill.utils import quantization

_NAMES = {'rgb': 'RGB/feature/floats', 'audio': 'AUDIO/feature/floats'}


@pytest.fixture(name='run', scope='module')
def _run(tmp_path_factory):
  return served.write_run(tmp_path_factory.mktemp('run') / 'run')


def _as_mediapipe(serialized, path):
  """The same video with dequantised float lists, as MediaPipe writes them."""
  stored = tf.train.SequenceExample.FromString(serialized)
  video = tf.train.SequenceExample()
  video.context.feature['clip/data_path'].bytes_list.value.append(path)
  for name, other in _NAMES.items():
    steps = video.feature_lists.feature_list[other].feature
    for frame in stored.feature_lists.feature_list[name].feature:
      values = np.frombuffer(frame.bytes_list.value[0], np.uint8)
      steps.add().float_list.value.extend(
        quantization.dequantize(tf.constant(values)).numpy()
      )
  return video.SerializeToString()


def _flags(form, features):
  return [f'{_NAMES[f.name]}:{f.size}:{form}' for f in features]


def _write(path, records):
  with tf.io.TFRecordWriter(str(path)) as writer:
    for record in records:
      writer.write(record)


def _rows(path):
  with open(path, encoding='utf-8') as file:
    return list(csv.reader(file))[1:]


def test_predictions_of_mediapipe_records_are_those_of_the_releases(run, tmp_path):
  features = tiny.experiment().task.model.features
  _, records = served.videos(features)
  _write(tmp_path / 'bytes.tfrecord', records.numpy())
  _write(
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


def test_features_kept_as_floats_are_exported_so(run, tmp_path):
  model = trained_network.Network(run).model
  how = _flags('floats', model.features)
  videos, records = served.videos(model.features)
  export.export(run, str(tmp_path / 'out'), features=how)
  loaded = tf.saved_model.load(str(tmp_path / 'out'))
  assert sorted(loaded.signatures) == ['features', 'serving_default']
  outputs = loaded.signatures['serving_default'](
    examples=tf.constant([_as_mediapipe(record, b'x') for record in records.numpy()])
  )
  network = trained_network.Network(run)
  expected = signatures.ServingModule(network.network, model).frames(**videos)
  np.testing.assert_allclose(outputs['predictions'], expected['predictions'], atol=1e-5)
  card = (tmp_path / 'out' / 'model_card.md').read_text()
  assert 'a float list of `RGB/feature/floats`' in card
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
    match=r'--features have the sizes \[7\], but '
    r'the network was trained on \[8, 4\] \(rgb, audio\)',
  ):
    export.export(run, str(tmp_path / 'out'), features=['rgb:7'])
  assert not (tmp_path / 'out').exists()
