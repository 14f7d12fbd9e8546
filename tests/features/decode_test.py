"""Tests of decoding: which picture, which samples; seeks change nothing; errors."""

import contextlib
from fractions import Fraction
import pathlib
import sys

import http_files
import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill.dataloaders import remote
from yt8m_distill.features import decode

av = pytest.importorskip('av')
import video_files  # noqa: E402

_FAST = {'preset': 'ultrafast', 'bf': '2'}
_FORMATS = {
  'h264.mp4': dict(options={'preset': 'veryfast'}),
  'h264.mkv': dict(sound_codec='ac3'),
  'h264.ts': dict(),
  'h264.flv': dict(sound_rate=44_100),
  'h264.avi': dict(sound_codec='pcm_s16le'),
  'intra_refresh.ts': dict(options={'x264-params': 'intra-refresh=1:keyint=20'}),
  'hevc_open_gop.mp4': dict(
    codec='libx265', options={'x265-params': 'log-level=none:open-gop=1:bframes=3'}
  ),
  'mpeg2.ts': dict(codec='mpeg2video', options={'bf': '2'}, sound_codec='mp2'),
  'mpeg4.avi': dict(codec='mpeg4', sound_codec='adpcm_ima_wav'),
  'mpeg4.mov': dict(codec='mpeg4', options={'bf': '2'}, sound_codec='pcm_s16le'),
  'mjpeg.mkv': dict(codec='mjpeg', pixels='yuvj420p', sound_codec='flac'),
  'vp9.webm': dict(
    codec='libvpx-vp9',
    options={'deadline': 'realtime', 'cpu-used': '8'},
    sound_codec='libopus',
  ),
  'faststart.mp4': dict(
    sound_codec='libmp3lame', container_options={'movflags': 'faststart'}
  ),
}
_RATE = 20  # pictures per second of these files
_LENGTH = 6  # seconds


def _noise(seconds, rate=48_000, channels=1):
  return np.random.default_rng(0).normal(0, 0.2, (channels, int(seconds * rate)))


def _wave(times, frequency=440):
  return 0.4 * np.sin(2 * np.pi * frequency * times + 1)


@pytest.fixture(scope='module', name='folder')
def _folder(tmp_path_factory):
  return tmp_path_factory.mktemp('videos')


def _file(folder, name):
  """A file of _FORMATS, written once."""
  path = folder / name
  if not path.exists():
    case = {'sound_rate': 48_000, **_FORMATS[name]}
    sound = _noise(_LENGTH, case['sound_rate'])
    video_files.write(path, _LENGTH * _RATE, rate=_RATE, sound=sound, **case)
  return str(path)


def _numbers(path, *seconds):
  return [*map(video_files.number, decode.VideoFile(str(path)).pictures(*seconds))]


@pytest.mark.parametrize('rate', ['24000/1001', 25, '30000/1001', 60])
def test_picture_on_screen(tmp_path, rate):
  path, rate = tmp_path / 'a.mp4', Fraction(rate)
  video_files.write(path, int(3.2 * rate), rate=rate, options=_FAST)
  video = decode.VideoFile(str(path))
  assert video.seconds == pytest.approx(float(int(3.2 * rate) / rate), abs=1e-4)
  assert video.num_pictures == 4 and not video.has_sound and not [*video.sound()]
  assert _numbers(path) == [int(second * rate) for second in range(4)]


@pytest.mark.parametrize('name', _FORMATS)
def test_formats(folder, name):
  video = decode.VideoFile(_file(folder, name))
  pictures = [*video.pictures()]
  assert video.seconds == pytest.approx(_LENGTH, abs=0.11)
  assert video.num_pictures == len(pictures) == _LENGTH and video.has_sound
  assert all(picture.dtype == np.uint8 for picture in pictures)
  assert pictures[0].shape == (48, 64, 3) and pictures[0].flags.c_contiguous
  assert _numbers(video.path) == [*range(0, _LENGTH * _RATE, _RATE)]


@pytest.mark.parametrize('name', _FORMATS)
@pytest.mark.parametrize('seconds', [[0, 3, 5], [4], [2, 2, 3]])
def test_pictures_do_not_depend_on_seeks(folder, name, seconds):
  video = decode.VideoFile(_file(folder, name))
  pictures = [*video.pictures()]
  chosen = [*video.pictures(seconds)]
  np.testing.assert_array_equal(chosen, [pictures[second] for second in seconds])


@pytest.mark.parametrize('name', _FORMATS)
def test_sound_does_not_depend_on_other_seconds(folder, name):
  video = decode.VideoFile(_file(folder, name))
  patches = [*video.sound()]
  assert len(patches) >= _LENGTH - 1
  for seconds in ([1, 4], [3]):
    chosen = [*video.sound(seconds)]
    np.testing.assert_array_equal(chosen, [patches[second] for second in seconds])


def _count_decoded(monkeypatch):
  counts = []
  frames = decode._frames

  def counted(*args):
    for frame in frames(*args):
      counts.append(frame)
      yield frame

  monkeypatch.setattr(decode, '_frames', counted)
  return counts


def test_seeks_save_decoding(tmp_path, monkeypatch):
  path = tmp_path / 'a.mp4'
  # Keyframes every 4 s.
  video_files.write(path, 600, rate=10, keyframes=40, options=_FAST)
  video = decode.VideoFile(str(path))
  decoded = _count_decoded(monkeypatch)
  # On average, 2 s are decoded for a picture.
  assert [*map(video_files.number, video.pictures(range(0, 60, 10)))] == [
    *range(0, 600, 100)
  ]
  assert len(decoded) < 6 * 30
  decoded.clear()
  # Seeks would lead back further than that.
  assert len([*video.pictures(range(0, 60, 2))]) == 30
  assert len(decoded) < 700


def test_without_keyframes_to_seek_to(tmp_path, monkeypatch):
  path = tmp_path / 'a.mp4'
  video_files.write(path, 400, rate=10, keyframes=1000, options=_FAST)
  video = decode.VideoFile(str(path))
  decoded = _count_decoded(monkeypatch)
  seconds = range(0, 40, 4)
  assert [*map(video_files.number, video.pictures(seconds))] == [*range(0, 400, 40)]
  assert len(decoded) < 500  # One seek in vain.


def test_seeks_that_lead_too_far_are_repeated(folder, monkeypatch):
  video = decode.VideoFile(_file(folder, 'intra_refresh.ts'))
  starts = []
  play = decode._Player._play

  def recorded(self):
    found = play(self)
    starts.append(
      self._shown and video_files.number(decode._upright_rgb(self._shown[1]))
    )
    return found

  monkeypatch.setattr(decode._Player, '_play', recorded)
  [picture] = video.pictures([4])
  assert video_files.number(picture) == 4 * _RATE
  # The start of the file, places after the picture, one before it.
  assert starts[0] == 0 and starts[-1] <= 4 * _RATE < min(starts[1:-1])


def test_late_start_changes_nothing(tmp_path):
  path = tmp_path / 'a.mkv'
  sound = _wave(np.arange(3 * 16_000) / 16_000)[np.newaxis]
  video_files.write(
    path,
    50,
    times=range(60, 110),
    options=_FAST,
    sound=sound,
    sound_rate=16_000,
    sound_codec='pcm_s16le',
    sound_start=2.4,
  )
  video = decode.VideoFile(str(path))
  assert video.seconds == pytest.approx(2, abs=0.01)
  assert _numbers(path) == [0, 25]
  for second, patch in enumerate(video.sound([0, 1])):
    times = second + np.arange(15_600) / 16_000
    np.testing.assert_allclose(patch[100:], _wave(times)[100:], atol=1e-3)


def test_variable_rate(tmp_path):
  path = tmp_path / 'a.mkv'
  video_files.write(
    path, 6, rate=10, times=[0, 4, 20, 25, 26, 52], options={'preset': 'ultrafast'}
  )
  assert _numbers(path) == [0, 1, 2, 4, 4, 4]
  assert _numbers(path, [1, 5]) == [1, 4]


def test_a_single_picture(tmp_path):
  video_files.write(tmp_path / 'a.mp4', 1)
  assert _numbers(tmp_path / 'a.mp4') == [0]


def test_seconds_past_the_end_end_the_iteration(folder):
  video = decode.VideoFile(_file(folder, 'h264.mp4'))
  assert len([*video.pictures([0, 5, 6, 7])]) == 2
  assert len([*video.sound([0, 5, 6, 7])]) == 2
  assert len([*video.pictures(range(2))]) == len([*video.sound(range(2))]) == 2


def test_iterators_of_one_file_are_independent(folder):
  video = decode.VideoFile(_file(folder, 'h264.mp4'))
  pictures = [*video.pictures()]
  pairs = zip(video.pictures(), video.sound(), video.pictures(range(0, 6, 1)))
  for picture, (a, _, b) in zip(pictures, pairs):
    np.testing.assert_array_equal([a, b], [picture] * 2)


@pytest.mark.parametrize(
  'color', [(255, 0, 0), (0, 255, 0), (0, 0, 255), (250, 120, 10)]
)
@pytest.mark.parametrize(
  ('name', 'codec', 'pixels'),
  [
    ('a.mp4', 'libx264', 'yuv420p'),
    ('a.mkv', 'ffv1', 'yuv444p10le'),
    ('a.mkv', 'mjpeg', 'yuvj420p'),
    ('a.mkv', 'ffv1', 'bgra'),
    ('a.mov', 'png', 'rgb24'),
  ],
)
def test_channels_are_red_green_blue(tmp_path, name, codec, pixels, color):
  picture = np.full((48, 64, 3), color, np.uint8)
  video_files.write(tmp_path / name, [picture], codec=codec, pixels=pixels)
  [decoded] = decode.VideoFile(str(tmp_path / name)).pictures()
  np.testing.assert_allclose(decoded, picture, atol=8)


@pytest.mark.parametrize(
  ('turn', 'upright'),
  [
    (dict(degrees=90), lambda picture: np.rot90(picture)),
    (dict(degrees=-90), lambda picture: np.rot90(picture, -1)),
    (dict(degrees=180), lambda picture: picture[::-1, ::-1]),
    (dict(degrees=0, hflip=True), lambda picture: picture[:, ::-1]),
    (dict(degrees=0, vflip=True), lambda picture: picture[::-1]),
  ],
)
def test_pictures_are_upright(tmp_path, turn, upright):
  def write(name, **kwargs):
    video_files.write(tmp_path / name, [video_files.numbered(0b1011)], **kwargs)
    [picture] = decode.VideoFile(str(tmp_path / name)).pictures()
    return picture

  turned = write('b.mp4', change_video=lambda s: s.set_display_rotation(**turn))
  np.testing.assert_array_equal(turned, upright(write('a.mp4')))


def test_size_changes_in_the_middle(tmp_path):
  big = np.full((96, 128, 3), 200, np.uint8)
  video_files.write(tmp_path / 'a.ts', 50, options=_FAST)
  video_files.write(tmp_path / 'b.ts', [big] * 50, times=range(50, 100), options=_FAST)
  content = b''.join((tmp_path / name).read_bytes() for name in ('a.ts', 'b.ts'))
  (tmp_path / 'c.ts').write_bytes(content)
  shapes = [x.shape for x in decode.VideoFile(str(tmp_path / 'c.ts')).pictures()]
  assert shapes == [(48, 64, 3)] * 2 + [(96, 128, 3)] * 2


@pytest.mark.parametrize('rate', [8000, 11_025, 16_000, 22_050, 44_100, 44_101, 48_000])
def test_sound_is_resampled_in_place(tmp_path, rate):
  path = tmp_path / 'a.mov'
  video_files.write(
    path,
    75,
    codec='mpeg4',
    sound=_wave(np.arange(3 * rate) / rate)[np.newaxis],
    sound_rate=rate,
    sound_codec='pcm_s16le',
  )
  patches = [*decode.VideoFile(str(path)).sound()]
  assert len(patches) == 3
  for second, patch in enumerate(patches):
    assert patch.dtype == np.float32 and patch.shape == (decode.PATCH_SAMPLES,)
    times = second + np.arange(15_600) / 16_000
    # The filter rings where sound begins.
    np.testing.assert_allclose(patch[100:], _wave(times)[100:], atol=1e-3)


@pytest.mark.parametrize(
  'codec', ['pcm_u8', 'pcm_s16le', 'pcm_s32le', 'pcm_f32le', 'flac']
)
@pytest.mark.parametrize(
  ('layout', 'channels'), [('mono', 1), ('stereo', 2), ('5.1', 6)]
)
def test_channels_are_averaged(tmp_path, codec, layout, channels):
  path = tmp_path / 'a.mkv'
  sound = np.zeros((channels, 16_000))
  sound[-1] = 2 * _wave(np.arange(16_000) / 16_000)
  video_files.write(
    path,
    25,
    options=_FAST,
    sound=sound,
    sound_rate=16_000,
    sound_codec=codec,
    layout=layout,
  )
  [patch] = decode.VideoFile(str(path)).sound()
  np.testing.assert_allclose(patch, sound.mean(axis=0)[:15_600], atol=1 / 128)


@pytest.mark.parametrize('codec', ['aac', 'libmp3lame', 'flac'])
def test_what_encoders_add_in_front_is_left_out(tmp_path, codec):
  path = tmp_path / 'a.mp4'
  sound = _wave(np.arange(96_000) / 48_000)[np.newaxis]
  video_files.write(path, 50, options=_FAST, sound=sound, sound_codec=codec)
  for second, patch in enumerate(decode.VideoFile(str(path)).sound()):
    times = second + np.arange(15_600) / 16_000
    assert np.abs(patch - _wave(times)).mean() < 0.02


def test_loud_sound_is_clipped(tmp_path):
  path = tmp_path / 'a.mkv'
  sound = 5 * _wave(np.arange(16_000) / 16_000)[np.newaxis]
  video_files.write(
    path, 25, options=_FAST, sound=sound, sound_rate=16_000, sound_codec='pcm_f32le'
  )
  [patch] = decode.VideoFile(str(path)).sound()
  np.testing.assert_allclose(patch, np.clip(sound[0, :15_600], -1, 1), atol=1e-6)


def _ones(path, seconds, start=0, pictures=75):
  video_files.write(
    path,
    pictures,
    options=_FAST,
    sound=np.full((1, int(seconds * 16_000)), 0.5),
    sound_rate=16_000,
    sound_codec='pcm_s16le',
    sound_start=start,
  )
  return decode.VideoFile(str(path))


@pytest.mark.parametrize(
  ('seconds', 'start', 'sums'),
  [
    (3, 0, [15_600] * 3),
    (2.98, 0, [15_600] * 3),
    (2.97, 0, [15_600] * 2),
    (5, 0, [15_600] * 5),  # longer than the picture
    (1, 0, [15_600]),
    (0.5, 0, [8_000]),  # The only patch is padded.
    (2.5, 0.5, [7_600, 15_600, 15_600]),
    (1.5, 1.5, [0, 7_600, 15_600]),
  ],
)
def test_sound_that_starts_or_ends_elsewhere(tmp_path, seconds, start, sums):
  video = _ones(tmp_path / 'a.mkv', seconds, start)
  assert [round(2 * float(patch.sum())) for patch in video.sound()] == sums
  assert [round(2 * float(patch.sum())) for patch in video.sound([0, 2])] == sums[:3:2]


def test_sound_that_starts_before_the_picture(tmp_path):
  path = tmp_path / 'a.mkv'
  video_files.write(
    path,
    50,
    times=range(25, 75),
    options=_FAST,
    sound=np.repeat([[0.2, 0.5, 0.8]], 16_000, axis=1),
    sound_rate=16_000,
    sound_codec='pcm_s16le',
  )
  first, second = decode.VideoFile(str(path)).sound()
  np.testing.assert_allclose(first, 0.5, atol=1e-3)
  np.testing.assert_allclose(second, 0.8, atol=1e-3)


def test_gaps_in_sound_are_silent(tmp_path, monkeypatch):
  write = video_files._sound
  monkeypatch.setattr(
    video_files,
    '_sound',
    lambda *args: [p for p in write(*args) if not 1 <= p.pts * p.time_base < 2],
  )
  patches = [*_ones(tmp_path / 'a.mkv', 4).sound()]
  assert [round(float(patch[8000]), 3) for patch in patches] == [0.5, 0, 0.5, 0.5]


def _resident():
  with open('/proc/self/statm') as file:
    return int(file.read().split()[1]) * 4096


@pytest.mark.end_to_end
def test_memory_does_not_grow_with_pictures(tmp_path):
  path = tmp_path / 'a.mkv'
  picture = np.zeros((480, 640, 3), np.uint8)
  video_files.write(path, [picture] * 400, rate=1, codec='mpeg4')
  video = decode.VideoFile(str(path))
  used = [_resident() for _ in video.pictures(range(400))]
  assert len(used) == 400
  # All pictures are 369 MB. FFmpeg's threads and buffers take up to 90 MB.
  assert max(used) - used[0] < 150 << 20


def test_memory_does_not_grow_with_sound(tmp_path, monkeypatch):
  path = tmp_path / 'a.mkv'
  video_files.write(
    path,
    300,
    rate=1,
    codec='mpeg4',
    sound=np.zeros((1, 300 * 8000)),
    sound_rate=8000,
    sound_codec='pcm_s16le',
  )
  listeners = []
  create = decode._Listener
  monkeypatch.setattr(
    decode, '_Listener', lambda *args: listeners.append(create(*args)) or listeners[-1]
  )
  for seconds in (range(60), range(0, 300, 50)):
    for _ in decode.VideoFile(str(path)).sound(seconds):
      # A packet holds an eighth of a second.
      assert len(listeners[-1]._recent) < 4 * 8


def test_other_file_systems(folder):
  path = 'ram://decode/h264.mp4'
  local = _file(folder, 'h264.mp4')
  tf.io.gfile.makedirs('ram://decode')
  tf.io.gfile.copy(local, path, overwrite=True)
  video, other = decode.VideoFile(path), decode.VideoFile(local)
  np.testing.assert_array_equal([*video.pictures()], [*other.pictures()])
  np.testing.assert_array_equal([*video.sound()], [*other.sound()])


@http_files.needs_http
def test_requests_that_fail(folder, monkeypatch, capfd):
  monkeypatch.setattr(remote, '_WAIT', 0.0)
  local = _file(folder, 'h264.mp4')
  with http_files.serving(folder) as server:
    path = f'{server.url}/h264.mp4'
    video = decode.VideoFile(path)
    server.failures = 2
    expected = [*decode.VideoFile(local).pictures()]
    np.testing.assert_array_equal([*video.pictures()], expected)
    assert not server.failures
    server.failures = 100
    with pytest.raises(ValueError, match=f'{path}: not readable in 5 attempts'):
      next(video.pictures())
  assert 'Traceback' not in capfd.readouterr().err


def test_without_pyav(folder, monkeypatch):
  path = _file(folder, 'h264.mp4')
  monkeypatch.setitem(sys.modules, 'av', None)
  with pytest.raises(ImportError, match=r"PyAV, .* pip install 'av>=17,<19'$"):
    decode.VideoFile(path)


def _refused(path, *words):
  with pytest.raises(ValueError, match=words[0]) as caught:
    video = decode.VideoFile(str(path))
    [*video.pictures()]
    [*video.sound()]
  message = str(caught.value)
  assert '\n' not in message and str(path) in message
  assert all(word in message for word in words), message


def test_paths_without_a_file(tmp_path):
  _refused(tmp_path / 'a.mp4', 'no such file', 'Correct the path')
  _refused(tmp_path, 'is a folder', 'Name a video file')
  (tmp_path / 'a.mp4').write_bytes(b'')
  _refused(tmp_path / 'a.mp4', r'is empty', '0 bytes', 'download it again')


@pytest.mark.parametrize(
  'content', [b'no video\n' * 999, bytes(9999), b'id,label\n1,2']
)
def test_other_files(tmp_path, content):
  (tmp_path / 'a.mp4').write_bytes(content)
  _refused(tmp_path / 'a.mp4', 'not a video file', 'Invalid data', 'convert it again')


@pytest.mark.parametrize('cover', [False, True])
@pytest.mark.parametrize(('name', 'codec'), [('a.mp3', 'libmp3lame'), ('a.mp4', 'aac')])
def test_sound_alone(tmp_path, name, codec, cover):
  def attach(stream):
    stream.disposition = av.stream.Disposition.attached_pic

  kwargs = dict(codec='mjpeg', pixels='yuvj420p', change_video=attach) if cover else {}
  video_files.write(
    tmp_path / name, int(cover), sound=_noise(1), sound_codec=codec, **kwargs
  )
  kinds = 'only audio and cover' if cover else 'only audio ('
  _refused(tmp_path / name, 'has no video stream', kinds, 'Name a file with pictures')


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('h264.mp4', ['not a video file', 'its end is missing']),
    (
      'faststart.mp4',
      ['is incomplete', 'header claims 6.', 'it ends at', 'download it again'],
    ),
    (
      'h264.mkv',
      ['is incomplete', 'header claims 6.', 'it ends at', 'download it again'],
    ),
    (
      'vp9.webm',
      ['is incomplete', 'header claims 6.', 'it ends at', 'download it again'],
    ),
    (
      'h264.flv',
      ['is incomplete', 'header claims 6.', 'it ends at', 'download it again'],
    ),
  ],
)
def test_incomplete_files(folder, tmp_path, name, words):
  content = pathlib.Path(_file(folder, name)).read_bytes()
  (tmp_path / name).write_bytes(content[: len(content) // 2])
  _refused(tmp_path / name, *words)


def test_a_recording_that_was_cut(folder, tmp_path):
  """A transport stream may start and end anywhere."""
  content = pathlib.Path(_file(folder, 'h264.ts')).read_bytes()
  third = len(content) // 3 // 188 * 188
  path = tmp_path / 'a.ts'
  path.write_bytes(content[third : 2 * third])
  numbers = _numbers(path)
  assert len(numbers) >= 2 and [*np.diff(numbers)] == [_RATE] * (len(numbers) - 1)


def test_damaged_pictures(folder, tmp_path):
  content = bytearray(pathlib.Path(_file(folder, 'h264.mp4')).read_bytes())
  middle = len(content) // 2
  content[middle : middle + 9999] = bytes(9999)
  (tmp_path / 'a.mp4').write_bytes(content)
  _refused(tmp_path / 'a.mp4', 'its picture cannot be decoded from', 'is damaged')


def test_damaged_sound(tmp_path):
  path = tmp_path / 'a.mp4'
  video_files.write(path, 75, options=_FAST, sound=_noise(3), sound_codec='flac')
  content = bytearray(path.read_bytes())
  middle = len(content) // 2
  content[middle : middle + 9999] = b'\xff' * 9999
  path.write_bytes(content)
  sound = decode.VideoFile(str(path)).sound()
  with pytest.raises(ValueError, match=f'{path}: its sound cannot be decoded from 1.0'):
    list(sound)


def test_sound_that_changes_its_rate(tmp_path):
  for name, start, rate in (('a.ts', 0, 48_000), ('b.ts', 2, 44_100)):
    video_files.write(
      tmp_path / name,
      50,
      times=range(25 * start, 25 * start + 50),
      options=_FAST,
      sound=_noise(2, rate),
      sound_rate=rate,
      sound_codec='mp2',
      sound_start=start,
    )
  content = b''.join((tmp_path / name).read_bytes() for name in ('a.ts', 'b.ts'))
  (tmp_path / 'c.ts').write_bytes(content)
  _refused(tmp_path / 'c.ts', 'rate of its sound changes', 'from 48000 to 44100', '-ar')


def test_titles_in_any_encoding(tmp_path):
  path = tmp_path / 'a.mp4'
  video_files.write(
    path,
    25,
    options=_FAST,
    change_video=lambda stream: stream.container.metadata.update(title='TITLE'),
  )
  content = path.read_bytes()
  assert b'TITLE' in content
  path.write_bytes(content.replace(b'TITLE', b'T\xcfT\xff\xfe'))
  assert _numbers(path) == [0]


def test_files_that_cannot_seek(folder, monkeypatch):
  video = decode.VideoFile(_file(folder, 'h264.mp4'))
  expected = [*video.pictures([1, 3, 5])]
  opened = decode._opened

  class Stuck:
    def __init__(self, container):
      self._container = container

    def __getattr__(self, name):
      return getattr(self._container, name)

    def seek(self, *_, **__):
      raise av.error.PermissionError(1, 'Operation not permitted')

  @contextlib.contextmanager
  def stuck(path):
    with opened(path) as container:
      yield Stuck(container)

  monkeypatch.setattr(decode, '_opened', stuck)
  video = decode.VideoFile(video.path)
  assert video.seconds == _LENGTH
  np.testing.assert_array_equal([*video.pictures([1, 3, 5])], expected)


def test_no_picture_can_be_decoded(folder, tmp_path):
  video_files.write(tmp_path / 'a.mp4', 25, options=_FAST)
  content = bytearray((tmp_path / 'a.mp4').read_bytes())
  begin, end = content.index(b'mdat') + 4, content.index(b'moov') - 4
  content[begin:end] = bytes(end - begin)
  (tmp_path / 'a.mp4').write_bytes(content)
  _refused(tmp_path / 'a.mp4', 'none of its pictures can be decoded', 'h264')


def test_pictures_without_timestamps(tmp_path):
  path = tmp_path / 'my cat.h264'
  video_files.write(path, 25, options=_FAST)
  _refused(path, 'have no timestamps', f"ffmpeg -i '{path}' -c copy OUTPUT.mp4")


def test_seconds_that_are_not_ascending(folder):
  video = decode.VideoFile(_file(folder, 'h264.mp4'))
  for seconds, words in (
    ([-1], 'second -1 .* second 0'),
    ([3, 1], 'second 1 .* second 3'),
  ):
    for iterate in (video.pictures, video.sound):
      with pytest.raises(ValueError, match=f'{words}.*Sort the seconds'):
        [*iterate(seconds)]
