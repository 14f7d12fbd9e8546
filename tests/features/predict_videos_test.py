"""predict takes video files, extracts what networks need, and shows what they find."""

import base64
import inspect
import re
import types
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import records as records_lib
import serving_cases
import tensorflow as tf
import tiny

from yt8m_distill.features import extract as extract_lib
from yt8m_distill.serving import predict as predict_lib

pytestmark = pytest.mark.end_to_end

_EVERY_N = 3
_FEATURES = [{'name': 'rgb', 'size': 1024}, {'name': 'audio', 'size': 128}]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run whose student sees every third frame."""
  model = {
    'features': _FEATURES,
    'student': {'frames': {'uniform': {'every_n': _EVERY_N}}},
  }
  folder = tmp_path_factory.mktemp('run') / 'run'
  return serving_cases.write_run(
    folder, tiny.AVERAGES, {'task': {'model': model}}, scale=0.1
  )


@pytest.fixture(scope='module')
def vocabulary(tmp_path_factory):
  path = tmp_path_factory.mktemp('vocabulary') / 'vocabulary.csv'
  path.write_text(
    'Index,Name\n' + ''.join(f'{i},name {i}\n' for i in range(tiny.CLASSES))
  )
  return str(path)


@pytest.fixture
def predict(run, videos, folder, tmp_path):
  """Predicts the three videos; returns the output folder."""

  def call(name, **arguments):
    predict_lib.predict(
      **{
        'model': [run],
        'input_path': str(videos),
        'output_dir': str(tmp_path / name),
        'weights': str(folder),
        'top_k': serving_cases.TOP_K,
        **arguments,
      }
    )
    return tmp_path / name

  return call


@pytest.fixture
def full(videos, folder, tmp_path):
  """Folder of the videos' records with all frames."""
  extract_lib.extract(str(videos), str(tmp_path / 'full'), str(folder))
  return tmp_path / 'full'


def _frames(out):
  return [
    len(rgb)
    for _, _, rgb, _ in records_lib.parse(out / 'features' / 'videos0000.tfrecord')
  ]


def test_predictions_are_those_of_the_records(predict, run, full, tmp_path, capsys):
  expected = serving_cases.predict([run], full, tmp_path / 'expected')
  capsys.readouterr()
  found = predict('found')
  rows = serving_cases.rows(found / 'predictions.csv')
  assert rows == serving_cases.rows(expected / 'predictions.csv')
  assert _frames(found) == [3, 2, 2]  # Only those that the student sees.
  # What is printed of each video: its id, and its best classes.
  printed = capsys.readouterr().out.splitlines()
  for name, classes, probabilities in rows:
    lines = printed[printed.index(name) + 1 :][: serving_cases.TOP_K]
    assert [line.split() for line in lines] == [
      ['class', str(label), f'{probability:.2f}']
      for label, probability in zip(classes, probabilities)
    ]


def test_windows_need_all_frames_and_say_when_classes_hold(
  predict, run, full, vocabulary, tmp_path, capsys
):
  expected = serving_cases.predict(
    [run], full, tmp_path / 'expected', segments=2, format='parquet', top_k=tiny.CLASSES
  )
  table = pd.read_parquet(expected / 'train0000.parquet')
  capsys.readouterr()
  found = predict(
    'found', segments=2, format='parquet', vocabulary=vocabulary, top_k=tiny.CLASSES
  )
  assert _frames(found) == [7, 6, 5]
  pd.testing.assert_frame_equal(
    pd.read_parquet(found / 'videos0000.parquet').drop(columns='class_name'), table
  )
  printed = capsys.readouterr().out.splitlines()
  lines = printed[printed.index('0') + 1 : printed.index('1')]
  assert len(lines) == 5
  of_video = table[table['id'] == '0']
  peaks = of_video.groupby('class')['probability'].max()
  for line in lines:
    label, peak, when = re.fullmatch(r'  name (\d+) +(\d\.\d\d)  (.*)', line).groups()
    assert float(peak) == pytest.approx(peaks[int(label)], abs=0.00501)
    scores = of_video[of_video['class'] == int(label)]
    holds = scores[scores['probability'] >= 0.5]
    seconds = set()
    for start, end in re.findall(r'(\d+)-(\d+) s', when):
      seconds.update(range(int(start), int(end)))
    expected_seconds = {
      second
      for start, end in zip(holds['start'], holds['end'])
      for second in range(start, end)
    }
    assert seconds == expected_seconds
    if not seconds:
      best = scores.loc[scores['probability'].idxmax()]
      assert when == f'most probable from {best["start"]} to {best["end"]} s'


def test_a_page_has_thumbnails(predict, videos):
  out = predict('page', format='html')
  text = (out / 'page.html').read_text()
  images = re.findall(r'<img alt="(.*?)" src="data:image/jpeg;base64,(.*?)">', text)
  # 10, 6 and 5 seconds of picture, of which the page shows as much as was predicted.
  assert len(images) == 10 + 6 + 5
  for _, encoded in images:
    picture = tf.io.decode_jpeg(base64.b64decode(encoded))
    assert picture.shape == (90, 120, 3) and np.ptp(picture) > 50


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'segments': 2}, "id 'my cat', but the CSV .*use --format=parquet or another id"),
    (
      {'format': 'html', 'video': ['my dog']},
      "video has 'my dog', but .*spaced.csv holds no such id: name ids",
    ),
  ],
)
def test_ids_are_checked_before_videos_are_decoded(
  predict, videos, tmp_path, arguments, message
):
  source = videos.with_name('spaced.csv')
  source.write_text('path,id\n0.mp4,my cat\n')
  with pytest.raises(ValueError, match=message):
    predict('out', input_path=str(source), **arguments)
  assert not (tmp_path / 'out').exists()


def test_features_are_kept_for_a_corrected_command(predict, tmp_path, monkeypatch):
  def stop(self, outputs):
    raise ValueError('stopped')

  with monkeypatch.context() as patch, pytest.raises(ValueError, match='stopped'):
    patch.setattr(predict_lib.tables.Csv, 'write', stop)
    predict('out', top_k=3)
  records = tmp_path / 'out' / 'features' / 'videos0000.tfrecord'
  before = records.stat().st_mtime_ns
  predict('out', top_k=2)
  assert records.stat().st_mtime_ns == before
  with pytest.raises(ValueError, match=r'predict.json records another job: top_k is 1'):
    predict('out', top_k=1)


def test_predictions_of_other_features_are_refused(predict, videos, folder, tmp_path):
  out = predict('out')
  (out / 'features' / 'videos0000.csv').unlink()
  videos.with_name('0.mp4').write_bytes(videos.with_name('2.mp4').read_bytes())
  with pytest.raises(ValueError, match=r'another job: records is .*, was '):
    predict('out')


def test_the_same_command_again_does_nothing(predict):
  def written(out):
    return {
      path: path.stat().st_mtime_ns
      for path in out.rglob('*')
      if path.is_file() and path.name != 'extract_videos.csv'  # Joined again.
    }

  before = written(predict('out', format='parquet'))
  assert written(predict('out', format='parquet')) == before


def _main(**values):
  parameters = inspect.signature(predict_lib.predict).parameters.values()
  defaults = {p.name: None if p.default is p.empty else p.default for p in parameters}
  found = {
    name: types.SimpleNamespace(value=value)
    for name, value in {**defaults, **values}.items()
  }
  with mock.patch.object(predict_lib, 'FLAGS', found):
    predict_lib.main(None)


def test_without_a_folder_the_best_classes_are_only_printed(
  run, videos, folder, capsys, tmp_path
):
  before = sorted(tmp_path.rglob('*'))
  path = str(videos.with_name('1.mp4'))
  _main(model=[run], input_path=path, weights=str(folder))
  printed = capsys.readouterr().out.splitlines()
  assert printed[-6] == '1' and all(
    line.startswith('  class ') for line in printed[-5:]
  )
  assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.parametrize('arguments', [{}, {'weights': 'w', 'format': 'html'}])
def test_what_needs_a_folder(run, arguments):
  with pytest.raises(ValueError, match='output_dir is missing: name the folder of'):
    _main(model=[run], input_path='a.mp4', **arguments)


def test_a_video_file_without_weights(run, videos):
  with pytest.raises(
    ValueError, match=r'0\.mp4 is a video file: add --weights, the fo'
  ):
    predict_lib.predict(
      [run], str(videos.with_name('*.mp4')), str(videos.parent / 'out')
    )


def test_features_of_other_sizes(predict, tmp_path):
  other = serving_cases.write_run(tmp_path / 'other', tiny.AVERAGES)
  with pytest.raises(
    ValueError, match='other reads rgb of 8 values, but of video files'
  ):
    predict('out', model=[other])
