"""predict and export with the rule by which a network stops looking at a video."""

import json

import numpy as np
import pandas as pd
import pytest
import serving_cases
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.modeling import adaptive
from yt8m_distill.serving import ensemble
from yt8m_distill.serving import export as export_lib
from yt8m_distill.serving import predict as predict_lib
from yt8m_distill.serving import stopping
from yt8m_distill.utils import files

pytestmark = pytest.mark.end_to_end

_COUNTS = [2, 4]
_VIDEOS = 20


@pytest.fixture(name='run', scope='module')
def _run(tmp_path_factory):
  return serving_cases.write_nested_run(tmp_path_factory.mktemp('nested'), _COUNTS)


@pytest.fixture(name='videos', scope='module')
def _videos(tmp_path_factory):
  path = tmp_path_factory.mktemp('videos') / 'test.tfrecord'
  tiny.write_records(path, _VIDEOS)
  return str(path)


def _rule(run, folder, threshold):
  path = str(folder / f'{threshold}.json')
  network = trained_network.Network(run)
  stopping.write(path, adaptive.Rule(_COUNTS, 'top', threshold), network)
  return path


@pytest.fixture(name='some', scope='module')
def _some(run, videos, tmp_path_factory):
  """A rule at which some videos stop early."""
  folder = tmp_path_factory.mktemp('rule')
  frames = _predict(run, videos, folder, stopping=_rule(run, folder, 0.0))
  return _rule(run, folder, float(frames['probabilities'].str[0].median()))


def _predict(run, videos, folder, **arguments):
  """The rows of the Parquet file."""
  out = folder / str(len(list(folder.iterdir())))
  predict_lib.predict(
    [run], videos, str(out), 'parquet', top_k=tiny.CLASSES, **arguments
  )
  return pd.read_parquet(out / 'test.parquet')


def _equal(one, other):
  for name in ('probabilities', 'embedding'):
    np.testing.assert_array_equal(np.stack(one[name]), np.stack(other[name]))


def test_videos_stop_when_sure(run, videos, some, tmp_path, capsys):
  rule = files.read_json(some)
  first, last, found = (
    _predict(run, videos, tmp_path, stopping=path)
    for path in (_rule(run, tmp_path, 0.0), _rule(run, tmp_path, 1.0), some)
  )
  assert 'Frames seen per video: ' in capsys.readouterr().out
  # The largest number is what the network does without a rule, bit for bit.
  whole = _predict(run, videos, tmp_path)
  _equal(last, whole)
  assert 'frames_seen' not in whole
  sure = first['probabilities'].str[0] >= rule['threshold'] - 1e-7
  assert 0 < sure.sum() < _VIDEOS
  wanted = np.where(sure, first['frames_seen'], last['frames_seen'])
  np.testing.assert_array_equal(found['frames_seen'], wanted)
  for row, is_sure in enumerate(sure):
    source = first if is_sure else last
    np.testing.assert_allclose(
      found['probabilities'][row], source['probabilities'][row], rtol=1e-5
    )


def test_export_follows_the_rule(run, videos, some, tmp_path):
  out = str(tmp_path / 'export')
  export_lib.export(run, out, stopping=some)
  wanted = _predict(run, videos, tmp_path, stopping=some)
  found = _predict(out, videos, tmp_path)
  _equal(found, wanted)
  np.testing.assert_array_equal(found['frames_seen'], wanted['frames_seen'])
  spec = json.loads((tmp_path / 'export/input.json').read_text())
  rule = files.read_json(some)
  assert spec['stopping'] == {name: rule[name] for name in adaptive.Rule._fields}
  assert 'frames_seen' in spec['signatures']['frames']['outputs']
  card = (tmp_path / 'export/model_card.md').read_text()
  assert '`frames_seen`' in card and '| 2 | 0.0000 |' in card
  # All of the frames, which each signature selects.
  loaded = tf.saved_model.load(out).signatures['frames']
  inputs, _ = tiny.batch(6)
  answers = loaded(**inputs)
  assert set(answers['frames_seen'].numpy()) <= {1, 2, 3, 4}
  # Another teacher than the network that sees all frames.
  plain = str(tmp_path / 'plain')
  export_lib.export(run, plain)
  prints = {ensemble.Ensemble([p], None, 1).fingerprint() for p in (run, plain, out)}
  assert len(prints) == 2


def test_interrupted_job_keeps_its_rule(run, videos, some, tmp_path):
  _predict(run, videos, tmp_path, stopping=some)
  with pytest.raises(ValueError, match='stopping'):
    predict_lib.predict(
      [run],
      videos,
      str(tmp_path / '0'),
      'parquet',
      top_k=tiny.CLASSES,
      stopping=_rule(run, tmp_path, 0.25),
    )


def test_a_number_of_frames(run, videos, tmp_path):
  found = _predict(run, videos, tmp_path, stopping='2')
  _equal(found, _predict(run, videos, tmp_path, stopping=_rule(run, tmp_path, 0.0)))
  assert set(found['frames_seen']) <= {1, 2}
  export_lib.export(run, str(tmp_path / 'export'), stopping='2')
  _equal(found, _predict(str(tmp_path / 'export'), videos, tmp_path))
  card = (tmp_path / 'export/model_card.md').read_text()
  assert 'looks at 2 frames of every video' in card
  with pytest.raises(ValueError, match='has answers at 2, 4 frames: choose one'):
    stopping.read('3', trained_network.Network(run))


def _broken(tmp_path, text):
  path = tmp_path / 'broken.json'
  path.write_text(text)
  return str(path)


@pytest.mark.parametrize(
  'text, message',
  [
    ('nothing', 'broken.json, which holds no rule .*: name the stopping.json'),
    ('{}', "holds no rule .'counts'"),
    ('[1]', 'holds no rule'),
    (
      '{"counts": [2, 4], "measure": "best", "threshold": 0.5, "network": "x"}',
      "holds no rule .measure is 'best': choose one of top",
    ),
    (
      '{"counts": [2, 4], "measure": "top", "threshold": "0.5", "network": "x"}',
      'holds no rule',
    ),
    ('{"counts": [], "measure": "top", "threshold": 0.5, "network": "x"}', r'is \[\]'),
    ('{"counts": 2, "measure": "top", "threshold": 0.5, "network": "x"}', 'no rule'),
    ('{"counts": [4, 2], "measure": "top", "threshold": 0.5, "network": "x"}', 'each'),
    (
      '{"counts": [2, 4], "measure": "top", "threshold": 0.5, "network": "x"}',
      'broken.json, which was calibrated for other weights than those of .*ckpt-7',
    ),
  ],
)
def test_files_that_are_no_rule(run, tmp_path, text, message):
  with pytest.raises(ValueError, match=message):
    stopping.read(_broken(tmp_path, text), trained_network.Network(run))


def test_counts_of_another_network(run, tmp_path):
  path = _rule(run, tmp_path, 0.5)
  values = {**files.read_json(path), 'counts': [2, 3]}
  files.write_json(path, values)
  with pytest.raises(ValueError, match=r'counts are \[2, 3\], but .* at 2, 4 frames'):
    stopping.read(path, trained_network.Network(run))


def test_network_that_is_not_nested(tmp_path):
  plain = trained_network.Network(serving_cases.write_run(tmp_path / 'plain'))
  for rule in ('4', 'stopping.json'):
    with pytest.raises(ValueError, match="of type 'uniform': only a network with nest"):
      stopping.read(rule, plain)


def test_missing_file(run):
  with pytest.raises(ValueError, match='stopping is nowhere.json, which cannot be'):
    stopping.read('nowhere.json', trained_network.Network(run))


def test_where_a_rule_has_no_place(run, videos, some, tmp_path):
  out = str(tmp_path / 'out')
  exported = str(tmp_path / 'export')
  export_lib.export(run, exported, stopping=some)
  for models, arguments, message in (
    ([run], {'segments': 5}, '--stopping is given with windows'),
    ([run], {'format': 'html'}, '--stopping is given with windows'),
    ([run, run], {}, 'are 2 networks: name one'),
    ([exported], {}, 'is an export, which has its own rule'),
  ):
    with pytest.raises(ValueError, match=message):
      predict_lib.predict(models, videos, out, stopping=some, **arguments)
  for runs, arguments, message in (
    (run, {'kinds': ['float32']}, '--stopping is given with --tflite'),
    (run, {'for_mediapipe': True}, '--stopping is given with --mediapipe'),
    ([run, run], {}, 'several runs: leave out --stopping'),
  ):
    with pytest.raises(ValueError, match=message):
      export_lib.export(runs, out, stopping=some, **arguments)
