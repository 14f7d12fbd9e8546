"""Real video files become records that all other commands read."""

import os

import numpy as np
import pandas as pd
import pytest
import records as records_lib
import serving_cases
import tiny

from yt8m_distill.dataloaders import thin
from yt8m_distill.features import decode
from yt8m_distill.features import extract as extract_lib
from yt8m_distill.features import networks as networks_lib
from yt8m_distill.serving import export

pytest.importorskip('av')

_EVERY_N = 3
_FEATURES = '[{name: rgb, size: 1024}, {name: audio, size: 128}]'


def _extract(videos, out, folder, **arguments):
  [path] = extract_lib.extract(str(videos), str(out), str(folder), **arguments)
  return path


def _one_after_the_other(path, folder):
  """Returns rgb and audio of all seconds, each computed alone."""
  networks = networks_lib.FeatureNetworks(str(folder))
  video = decode.VideoFile(path)
  rgb = [networks.rgb([picture]) for picture in video.pictures()]
  audio = [networks.audio([patch]) for patch in video.sound()]
  return np.concatenate(rgb), np.concatenate(audio) if audio else None


def test_records_hold_the_features_of_each_second(videos, folder, tmp_path):
  path = _extract(videos, tmp_path / 'full', folder)
  lengths = []
  for number, (name, labels, rgb, audio) in enumerate(records_lib.parse(path)):
    lengths.append(len(rgb))
    assert name == b'%d' % number and list(labels) == [number, number + 5]
    expected_rgb, expected_audio = _one_after_the_other(
      f'{tmp_path}/{number}.mp4', folder
    )
    np.testing.assert_array_equal(rgb, expected_rgb[: len(rgb)])
    if expected_audio is None:
      expected_audio = networks_lib.no_audio(len(rgb))
    np.testing.assert_array_equal(audio, expected_audio[: len(audio)])
    assert len(rgb) == min(len(expected_rgb), len(expected_audio))
  assert lengths == [7, 6, 5]


def test_only_some_frames_are_those_of_thin(videos, folder, tmp_path):
  full = _extract(videos, tmp_path / 'full', folder)
  some = _extract(videos, tmp_path / 'some', folder, every_n=_EVERY_N)
  [thinned] = thin.thin(full, str(tmp_path / 'thinned'), _EVERY_N, workers=1)
  assert records_lib.read(some) == records_lib.read(thinned)


def test_broken_files_are_left_out(videos, folder, tmp_path):
  content = (tmp_path / '0.mp4').read_bytes()
  (tmp_path / '3.mp4').write_bytes(content[: len(content) // 2])
  (tmp_path / '4.mp4').write_text('no video')
  (tmp_path / '5.mp4').touch()
  path = _extract(f'{tmp_path}/{{2..5}}.mp4', tmp_path / 'out', folder)
  [(name, *_)] = records_lib.parse(path)
  assert name == b'2'
  report = pd.read_csv(tmp_path / 'out' / 'extract_train.csv', index_col='id')
  assert list(report.frames) == [5, 0, 0, 0]
  for number, error in report.error[1:].items():
    assert f'{tmp_path}/{number}.mp4' in error and '\n' not in error


@pytest.mark.end_to_end
def test_records_are_trained_on_and_predicted(videos, folder, tmp_path):
  full = _extract(videos, tmp_path / 'full', folder)
  run = tmp_path / 'run'
  tiny.drive(
    'train_and_eval',
    run,
    full,
    experiment='yt8m_distill_single',
    task__model__features=_FEATURES,
    task__model__network__frames__uniform__every_n=_EVERY_N,
    task__model__max_frames=6,
  )
  export.export(str(run), str(tmp_path / 'export'))
  predictions = []
  for model in (run, tmp_path / 'export'):
    path = _extract(videos, tmp_path / f'for_{model.name}', folder, model=str(model))
    assert [len(rgb) for _, _, rgb, _ in records_lib.parse(path)] == [2, 2, 2]
    predictions.append(
      serving_cases.predict(
        [str(run)], os.path.dirname(path), tmp_path / f'by_{model.name}'
      )
    )
  whole = serving_cases.predict([str(run)], tmp_path / 'full', tmp_path / 'by_full')
  rows = serving_cases.rows(whole / 'predictions.csv')
  assert [name for name, *_ in rows] == ['0', '1', '2']
  for some in predictions:
    assert serving_cases.contents(some) == serving_cases.contents(whole)
