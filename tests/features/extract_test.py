"""Records of video files: what they hold, what is left out, what a restart does."""

import json
import os
import pathlib

import numpy as np
import pytest
import records as records_lib
import serving_cases
import tensorflow as tf
import tiny

from yt8m_distill.dataloaders import thin
from yt8m_distill.features import extract as extract_lib
from yt8m_distill.utils import quantization

_RGB, _AUDIO = 1024, 128
_SILENCE = int(quantization.quantize(tf.constant(0.0)))


class _Video:
  """Stands in for `decode.VideoFile`; the file holds its values as JSON."""

  asked = None  # (file, what, second) of all that was decoded, of all videos.

  def __init__(self, path):
    values = json.loads(pathlib.Path(path).read_text())
    self._path = path
    if 'broken' in values:
      raise ValueError(f'{path} is {values["broken"]}.')
    self.num_pictures = values['pictures']
    self.has_sound = values.get('sound') is not None
    self._number = values.get('number', 0)
    self._sound, self._damaged = values.get('sound'), values.get('damaged')

  def pictures(self, seconds):
    return self._until(self.num_pictures, 'picture', seconds)

  def sound(self, seconds):
    return self._until(self._sound, 'sound', seconds)

  def _until(self, end, what, seconds):
    for second in seconds:
      if second >= end:
        return
      self.asked.append((os.path.basename(self._path), what, second))
      if what == 'picture' and second == self._damaged:
        raise OSError(f'{self._path} is damaged\nfrom {second} s on.')
      yield np.array([self._number, second])


class _Networks:
  """Stands in for `networks.FeatureNetworks`: rows tell what they were made of."""

  error = None

  def __init__(self, folder):
    pass

  def rgb(self, pictures):
    if self.error:
      raise self.error
    return self._rows(pictures, _RGB)

  def audio(self, sounds):
    return self._rows(sounds, _AUDIO)

  def _rows(self, inputs, size):
    rows = [np.random.default_rng([*i, size]).bytes(size) for i in inputs]
    return np.frombuffer(b''.join(rows), np.uint8).reshape(-1, size)


@pytest.fixture(name='fakes', autouse=True)
def _fakes(monkeypatch):
  monkeypatch.setattr(extract_lib.decode, 'VideoFile', _Video)
  monkeypatch.setattr(extract_lib.networks_lib, 'FeatureNetworks', _Networks)
  monkeypatch.setattr(_Video, 'asked', [])


def _write_videos(folder, *videos):
  """Writes 0.mp4, 1.mp4, ...; returns a pattern of them all."""
  folder.mkdir(exist_ok=True)
  for number, values in enumerate(videos):
    values = {'number': number, **values}
    (folder / f'{number}.mp4').write_text(json.dumps(values))
  return f'{folder}/*.mp4'


def _lengths(*pairs):
  return [dict(pictures=pictures, sound=sound) for pictures, sound in pairs]


def _extract(source, out, **arguments):
  return extract_lib.extract(str(source), str(out), 'weights', **arguments)


def _frames(number, seconds, size):
  return _Networks('')._rows([(number, second) for second in seconds], size)


def _contents(out):
  return {path.name: path.read_bytes() for path in out.iterdir()}


def test_shards_hold_the_videos_in_order(tmp_path, capsys):
  _write_videos(tmp_path, *_lengths((3, 9), (1, 1), (2, 5), (4, 4), (5, 6)))
  source = tmp_path / 'list.csv'
  source.write_text(
    'path,labels,id\n' + ''.join(f'{n}.mp4,{n} 7,v{n}\n' for n in range(5))
  )
  out = tmp_path / 'out'
  arguments = dict(split='test', videos_per_shard=2)
  paths = _extract(source, out, **arguments, workers=1)
  assert paths == [f'{out}/test000{n}.tfrecord' for n in range(3)]
  assert [len(records_lib.read(path)) for path in paths] == [2, 2, 1]
  videos = [video for path in paths for video in records_lib.parse(path)]
  for number, (length, video) in enumerate(zip((3, 1, 2, 4, 5), videos, strict=True)):
    name, labels, rgb, audio = video
    assert name == b'v%d' % number and list(labels) == [number, 7]
    np.testing.assert_array_equal(rgb, _frames(number, range(length), _RGB))
    np.testing.assert_array_equal(audio, _frames(number, range(length), _AUDIO))
  written = capsys.readouterr()
  assert written.out == (
    f'{out}: 3 shards, 5 videos.\n{out}/extract_test.csv: of 5 videos, 0 left out '
    'because they cannot be decoded, 0 without sound.\n'
  )
  assert 'Extracting: 100% 5/5' in written.err
  _extract(source, tmp_path / 'again', **arguments, workers=3)
  assert _contents(tmp_path / 'again') == _contents(out)


def test_labels_are_left_out_or_empty(tmp_path):
  _write_videos(tmp_path, dict(pictures=1))
  [path] = _extract(tmp_path / '0.mp4', tmp_path / 'none')
  [record] = records_lib.read(path)
  assert 'labels' not in tf.train.SequenceExample.FromString(record).context.feature
  (tmp_path / 'list.csv').write_text('path,labels\n0.mp4,\n')
  [path] = _extract(tmp_path / 'list.csv', tmp_path / 'empty')
  [record] = records_lib.read(path)
  assert 'labels' in tf.train.SequenceExample.FromString(record).context.feature


@pytest.mark.parametrize(
  'pictures, sound, max_frames, length',
  [
    (7, 5, 300, 5),
    (5, 7, 300, 5),
    (9, 8, 6, 6),
    (1, 1, 1, 1),
    (301, 400, 300, 300),
    (350, 310, 400, 310),
  ],
)
def test_the_longer_feature_is_cut(tmp_path, pictures, sound, max_frames, length):
  source = _write_videos(tmp_path, *_lengths((pictures, sound)))
  [path] = _extract(source, tmp_path / 'out', max_frames=max_frames)
  [(_, _, rgb, audio)] = records_lib.parse(path)
  assert len(rgb) == len(audio) == length
  assert max(second for _, _, second in _Video.asked) < max_frames


@pytest.mark.parametrize('every_n', [1, 3])
@pytest.mark.parametrize('sound', [None, 0])  # No sound, or nothing of it.
def test_no_sound_is_the_byte_nearest_to_zero(tmp_path, capsys, sound, every_n):
  source = _write_videos(tmp_path, *_lengths((5, sound), (4, 4)))
  [path] = _extract(source, tmp_path / 'out', every_n=every_n)
  (_, _, rgb, audio), _ = records_lib.parse(path)
  np.testing.assert_array_equal(rgb, _frames(0, range(0, 5, every_n), _RGB))
  assert audio.shape == (len(rgb), _AUDIO) and (audio == _SILENCE).all()
  assert abs(records_lib.dequantize(_SILENCE)) <= quantization.SCALE / 2
  assert ', 1 without sound.' in capsys.readouterr().out


_PAIRS = [
  (n, n + d) for n in (1, 9, 10, 11, 57, 310) for d in (-9, -1, 0, 2) if n + d > 0
]


@pytest.mark.parametrize('every_n', [2, 10, 300])
def test_only_some_frames_are_those_of_thin(tmp_path, every_n):
  source = _write_videos(tmp_path / 'videos', *_lengths(*_PAIRS, (25, None)))
  [full] = _extract(source, tmp_path / 'full', videos_per_shard=99)
  whole = len(_Video.asked)
  _Video.asked.clear()
  [some] = _extract(source, tmp_path / 'some', videos_per_shard=99, every_n=every_n)
  [thinned] = thin.thin(full, str(tmp_path / 'thinned'), every_n, workers=1)
  assert records_lib.read(some) == records_lib.read(thinned)
  pictures = [second for _, what, second in _Video.asked if what == 'picture']
  assert not any(second % every_n for second in pictures)
  assert len(_Video.asked) < whole
  # Sound is also looked for where it ends, and nowhere twice.
  assert len(_Video.asked) == len(set(_Video.asked))


def test_a_broken_video_costs_itself_only(tmp_path, capsys):
  source = _write_videos(
    tmp_path,
    dict(pictures=3, sound=3),
    dict(broken='no video'),
    dict(pictures=9, sound=9, damaged=5),
    dict(broken='empty'),
    dict(pictures=2),
  )
  out = tmp_path / 'out'
  arguments = dict(videos_per_shard=2, workers=1)
  paths = _extract(source, out, **arguments)
  # Nothing is left of the second shard.
  assert paths == [f'{out}/train0000.tfrecord', f'{out}/train0002.tfrecord']
  assert [len(records_lib.read(path)) for path in paths] == [1, 1]
  report = (
    'id,path,frames,sound,error\n'
    f'0,{tmp_path}/0.mp4,3,True,\n'
    f'1,{tmp_path}/1.mp4,0,False,{tmp_path}/1.mp4 is no video.\n'
    f'2,{tmp_path}/2.mp4,0,False,{tmp_path}/2.mp4 is damaged from 5 s on.\n'
    f'3,{tmp_path}/3.mp4,0,False,{tmp_path}/3.mp4 is empty.\n'
    f'4,{tmp_path}/4.mp4,2,False,\n'
  )
  assert (out / 'extract_train.csv').read_text() == report
  line = f'{out}/extract_train.csv: of 5 videos, 3 left out because they cannot'
  shown = capsys.readouterr().out
  assert f'{out}: 3 shards, 2 videos.' in shown and line in shown
  # They are not tried again, but still counted.
  _Video.asked.clear()
  before = _contents(out)
  assert _extract(source, out, **arguments) == paths
  assert not _Video.asked and _contents(out) == before
  shown = capsys.readouterr().out
  assert f'{out}: 3 shards, already complete.' in shown and line in shown
  # To try one again, remove the report of its shard.
  _write_videos(tmp_path, *[dict(pictures=3)] * 5)
  (out / 'train0001.csv').unlink()
  assert len(_extract(source, out, **arguments)) == 3
  assert f'{out}/extract_train.csv: of 5 videos, 1 left' in capsys.readouterr().out


def test_broken_videos_only_are_an_error_after_which_the_command_can_be_corrected(
  tmp_path,
):
  source = _write_videos(tmp_path, dict(broken='first'), dict(broken='second'))
  out = tmp_path / 'out'
  with pytest.raises(
    ValueError,
    match='None of the 2 videos can be decoded; .*/extract_train.csv lists the '
    r'reasons. The first: .*/0.mp4 is first\.$',
  ):
    _extract(source, out, videos_per_shard=1)
  assert len((out / 'extract_train.csv').read_text().splitlines()) == 3
  _write_videos(tmp_path, *[dict(pictures=1)] * 3)
  assert len(_extract(source, out, max_frames=9)) == 1


def test_a_fault_of_the_networks_is_not_one_of_the_video(tmp_path, monkeypatch):
  source = _write_videos(tmp_path, dict(pictures=1))
  monkeypatch.setattr(_Networks, 'error', ValueError('weights/x.pb does not exist.'))
  with pytest.raises(ValueError, match='^weights/x.pb does not exist.$'):
    _extract(source, tmp_path / 'out')
  # It is known before the work starts.
  assert not _Video.asked and not (tmp_path / 'out').exists()


def test_a_restart_gives_the_same_bytes(tmp_path, monkeypatch):
  source = _write_videos(
    tmp_path, *_lengths(*[(n, n) for n in range(1, 8)]), dict(broken='no video')
  )
  _extract(source, tmp_path / 'whole', videos_per_shard=2)
  out = tmp_path / 'out'
  rgb = _Networks.rgb

  def fail(self, pictures):
    rows = rgb(self, pictures)
    if len(rows) == 6:
      raise tf.errors.ResourceExhaustedError(None, None, 'no memory')
    return rows

  monkeypatch.setattr(_Networks, 'rgb', fail)
  with pytest.raises(tf.errors.ResourceExhaustedError):
    _extract(source, out, videos_per_shard=2, workers=1)
  left = set(_contents(out))
  assert {'train0000.csv', 'train0001.tfrecord', 'train0001.csv'} <= left
  assert not [name for name in left if '0002' in name or name.endswith('.partial')]
  monkeypatch.setattr(_Networks, 'rgb', rgb)
  # What a kill may leave: parts of files, or records without their report.
  (out / 'train0002.tfrecord.0123abcd.partial').write_bytes(b'cut')
  (out / 'train0002.csv.0123abcd.partial').write_bytes(b'cut')
  (out / 'train0003.csv').unlink(missing_ok=True)
  (out / 'train0003.tfrecord').write_bytes(b'old')
  _Video.asked.clear()
  _extract(source, out, videos_per_shard=2)
  assert not {'0.mp4', '3.mp4'} & {name for name, _, _ in _Video.asked}
  assert _contents(out) == _contents(tmp_path / 'whole')
  # Removed records are written again.
  (out / 'train0001.tfrecord').unlink()
  _extract(source, out, videos_per_shard=2)
  assert _contents(out) == _contents(tmp_path / 'whole')


def test_a_folder_belongs_to_one_job(tmp_path):
  source = _write_videos(tmp_path, *[dict(pictures=1)] * 2)
  out = tmp_path / 'out'
  _extract(source, out)
  for change in (dict(every_n=2), dict(max_frames=9), dict(videos_per_shard=1)):
    [name] = change
    with pytest.raises(
      ValueError, match=f'extract_train.json records another job: {name}'
    ):
      _extract(source, out, **change)
  assert len(_extract(source, out, split='validate', max_frames=9)) == 1
  _write_videos(tmp_path, *[dict(pictures=1)] * 3)
  with pytest.raises(
    ValueError, match="another job: videos is '3, CRC .*, was '2, CRC"
  ):
    _extract(source, out)
  (out / 'extract_train.json').unlink()
  with pytest.raises(ValueError, match='exists, but no .*extract_train.json'):
    _extract(source, out)


@pytest.mark.parametrize(
  'arguments, message',
  [
    (dict(every_n=0), 'every_n is 0: it must be 1 or more'),
    (dict(max_frames=0), 'max_frames is 0: it must be 1 or more'),
    (dict(videos_per_shard=0), 'videos_per_shard is 0: it must be 1'),
    (dict(workers=0), 'workers is 0'),
    (dict(every_n=301), 'every_n is 301: it must be at most max_frames, which is 300'),
    (dict(every_n=2, model='run'), 'every_n is 2 and model is run, which tells it'),
    (dict(split='a/b'), "split is 'a/b'"),
    (dict(model='/no/run'), 'There is no checkpoint /no/run'),
  ],
)
def test_bad_arguments(tmp_path, arguments, message):
  source = _write_videos(tmp_path, dict(pictures=1))
  with pytest.raises(ValueError, match=message):
    _extract(source, tmp_path / 'out', **arguments)
  assert not (tmp_path / 'out').exists()


def test_too_many_shards(tmp_path, monkeypatch):
  monkeypatch.setattr(extract_lib, '_MAX_SHARDS', 2)
  source = _write_videos(tmp_path, *[dict(pictures=1)] * 5)
  with pytest.raises(ValueError, match='makes 5 files of 5 videos.* Raise it to 3 or'):
    _extract(source, tmp_path / 'out', videos_per_shard=1)


def test_a_model_tells_the_frames(tmp_path):
  run = serving_cases.write_run(tmp_path / 'run')
  source = _write_videos(tmp_path / 'videos', *_lengths((13, 14), (24, 31)))
  [path] = _extract(source, tmp_path / 'by_model', model=run)
  [expected] = _extract(
    source, tmp_path / 'by_n', every_n=tiny.EVERY_N, max_frames=tiny.MAX_FRAMES
  )
  assert records_lib.read(path) == records_lib.read(expected)
  [path] = _extract(source, tmp_path / 'longer', model=run, max_frames=30)
  lengths = [len(rgb) for _, _, rgb, _ in records_lib.parse(path)]
  assert lengths == [3, 5]


@pytest.mark.parametrize(
  'frames',
  [
    {'type': 'all'},
    {'type': 'middle', 'middle': {'k': 4}},
    {'type': 'uniform', 'uniform': {'every_n': 0, 'k': 4}},
    {'type': 'uniform', 'uniform': {'every_n': 1}},
  ],
)
def test_a_model_that_may_need_any_frame_is_refused(tmp_path, monkeypatch, frames):
  config = tiny.experiment(
    {'task': {'model': {'network': {'frames': frames}}}},
    experiment='yt8m_distill_single',
  ).task.model
  monkeypatch.setattr(extract_lib.trained_network, 'student_config', lambda _: config)
  source = _write_videos(tmp_path, dict(pictures=1))
  with pytest.raises(
    ValueError,
    match=f"^model is a_run, .* frames of type '{frames['type']}', .*Leave out",
  ):
    _extract(source, tmp_path / 'out', model='a_run')
