"""Pictures and sound of a video file, second by second, decoded by FFmpeg.

The pictures are what YouTube-8M's Inception features were computed from, one per
second; the sound is what a VGGish patch needs, 0.975 s of 16 kHz mono per second.
PyAV (`av`, the extra `video`) holds FFmpeg. It is imported only when a file is opened.

What is decoded for a second does not depend on which other seconds are asked for:

* A picture is looked up by its timestamp. A seek that lands too late is repeated from
  further back.
* Sound is decoded from a second ahead by a new decoder each time, because decoders of
  AAC and AC-3 continue a random sequence, and those of other codecs continue from
  earlier samples. The resampler is new as well and starts at a fixed sample.
"""

import collections
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
from fractions import Fraction
import math
import shlex
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from yt8m_distill.dataloaders import remote

SAMPLE_RATE = 16_000  # Hz
# 96 windows of 25 ms, one every 10 ms.
PATCH_SAMPLES = 15_600
MAX_SECONDS = 300  # YouTube-8M holds the first 300 s of a video.

_PATCH_SECONDS = Fraction(PATCH_SAMPLES, SAMPLE_RATE)
# Seconds; decoders need frames before those wanted: Opus 0.08 s, MP3 and HE-AAC up to
# 0.5 s.
_SOUND_AHEAD = 1
# Seconds that the resampler needs on each side of a patch; its filter is 32 samples
# long, at the lower one of both rates.
_RESAMPLER_MARGIN = 0.02
# Sound is contiguous, whatever its timestamps say, up to this difference in seconds.
_SOUND_GAP = 0.1
# Headers may round the lengths that they claim, in seconds.
_CLAIM_TOLERANCE = 1


class VideoFile:
  """A whole video file with at least one picture.

  Its iterators open the file for themselves: several may run at the same time. Each
  holds one picture or patch at a time, whatever the length of the video.

  Attributes:
    path: the file, as given.
    seconds: length of the picture, from its first timestamp to the end of its last
      frame.
    num_pictures: number of seconds that have a picture: `seconds`, rounded up.
    has_sound: whether there is sound that can be decoded.
  """

  def __init__(self, path: str):
    """Opens the file, decodes its first picture and reads its end.

    Args:
      path: a file of any format that FFmpeg reads, on any file system that TensorFlow
        or tensorflow-io reads.

    Raises:
      ValueError: the file is not readable, not a video, incomplete, or its first
        picture cannot be decoded.
      ImportError: PyAV is not installed.
    """
    self.path = path
    with _opened(path) as container:
      stream = _picture_stream(path, container)
      self.has_sound = _sound_stream(container) is not None
      first = next(_frames(path, container, stream), None)
      if first is None:
        raise ValueError(
          f'{path}: none of its pictures can be decoded ({stream.codec.name}). Copy or '
          'download it again, or convert it to H.264.'
        )
      self._start, _ = first
    self._length = _picture_end(path, self._start) - self._start
    self.seconds = float(self._length)
    self.num_pictures = max(1, math.ceil(self._length))

  def pictures(
    self, seconds: Iterable[int] = range(MAX_SECONDS)
  ) -> Iterator[np.ndarray]:
    """Yields the pictures on screen at given seconds.

    Seconds count from the first picture. Where seconds are far apart, the frames
    between them are not decoded.

    Args:
      seconds: ascending. Those past the end of the video end the iteration.

    Yields:
      uint8 [height, width, 3], RGB, upright: rotated and mirrored as the file's
      metadata says. All have the size of the stream, which may change in the middle.

    Raises:
      ValueError: seconds are not ascending, or the file is damaged.
    """
    with contextlib.closing(_Player(self.path, self._start)) as player:
      for second in _ascending(self.path, seconds):
        if second >= self.num_pictures:
          return
        yield _upright_rgb(player.frame_at(second))

  def sound(self, seconds: Iterable[int] = range(MAX_SECONDS)) -> Iterator[np.ndarray]:
    """Yields the sound from given seconds on, 0.975 s each.

    Seconds count from the first picture, as in `pictures`: sound that starts later is
    preceded by zeros, and what is earlier is cut off. Gaps are zeros. A video whose
    sound is shorter than 0.975 s has one patch, padded with zeros at the end; all
    other patches are whole.

    Packets in between are read, not decoded.

    Args:
      seconds: ascending. Those at which sound has ended, or ends within 0.975 s, end
        the iteration.

    Yields:
      float32 [PATCH_SAMPLES], 16 kHz, in [-1, 1]: the mean of all channels.

    Raises:
      ValueError: seconds are not ascending, or the file is damaged.
    """
    if not self.has_sound:
      return
    with _opened(self.path) as container:
      listener = _Listener(self.path, container, self._start)
      for second in _ascending(self.path, seconds):
        patch = listener.patch_at(second)
        if patch is None:
          return
        yield patch


def _av() -> ModuleType:
  try:
    import av
  except ImportError as error:
    raise ImportError(
      'Video files are decoded by PyAV, which is not installed: '
      "pip install 'av>=17,<19'"
    ) from error
  return av


class _File:
  """What FFmpeg reads a file through; repeats reads after transient errors."""

  def __init__(self, path: str):
    self._path = path
    self._file: Any = None
    self._position = 0
    self._failed = False
    stat = remote.retry(path, lambda: tf.io.gfile.stat(path))
    if stat.is_directory:
      raise ValueError(f'{path} is a folder. Name a video file.')
    self._size = stat.length
    if not self._size:
      raise ValueError(f'{path} is empty (0 bytes). Copy or download it again.')

  def read(self, size: int) -> bytes:
    if self._failed or self._position >= self._size:
      return b''
    self._failed = True  # FFmpeg may read on before PyAV raises the error.
    content = remote.retry(self._path, lambda: self._read(size))
    self._failed = False
    self._position += len(content)
    return content

  def _read(self, size: int) -> bytes:
    file, self._file = self._file, None  # After an error, the file is opened again.
    file = file or tf.io.gfile.GFile(self._path, 'rb')
    file.seek(self._position)
    content = file.read(size)
    self._file = file
    return content

  def seek(self, offset: int, whence: int) -> int:
    self._position = offset + (0, self._position, self._size)[whence]
    return self._position

  def tell(self) -> int:
    return self._position


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Any]:
  """Opens a file with FFmpeg; its errors become ValueErrors.

  Yields:
    av.container.InputContainer.
  """
  av = _av()
  try:
    # Nothing here reads titles and the like, in whatever encoding they are.
    container = av.open(_File(path), metadata_errors='replace')
  except av.FFmpegError as error:
    raise ValueError(
      f'{path} is not a video file that FFmpeg can open, or its end is missing '
      f'({error.strerror}). Play it to check; copy, download or convert it again.'
    ) from error
  with container:
    yield container


def _picture_stream(path: str, container: Any) -> Any:
  """Returns the stream of pictures, without those that only decorate sound."""
  attached = _av().stream.Disposition.attached_pic
  streams = [
    stream for stream in container.streams.video if not stream.disposition & attached
  ]
  if not streams:
    kinds = sorted(
      {
        'cover' if stream.type == 'video' else stream.type
        for stream in container.streams
      }
    )
    raise ValueError(
      f'{path} has no video stream, only {" and ".join(kinds) or "nothing"} '
      f'({container.format.name}). Name a file with pictures.'
    )
  best = container.streams.best('video')
  stream = best if best in streams else streams[0]
  if stream.codec_context is None:
    raise ValueError(
      f'{path}: FFmpeg has no decoder for its video stream. Convert it to H.264.'
    )
  # Always the same: what decoders report as decoding times depends on it.
  stream.thread_type = 'AUTO'
  return stream


def _sound_stream(container: Any) -> Any:
  """Returns the stream of sound, None without one that can be decoded."""
  stream = container.streams.best('audio')
  return stream if stream and stream.codec_context else None


def _read_only(container: Any, stream: Any):
  """Makes FFmpeg skip the packets of all other streams."""
  discard = _av().stream.Discard
  for other in container.streams:
    other.discard = discard.default if other is stream else discard.all


def _frames(path: str, container: Any, stream: Any) -> Iterator[tuple[Fraction, Any]]:
  """Decodes pictures from where the container is; skips those before a keyframe.

  Yields:
    Presentation time in seconds, VideoFrame; in order. Nothing if no picture can be
    decoded.

  Raises:
    ValueError: a picture after the first one cannot be decoded, or the first one has
      no time.
  """
  av = _av()
  # AVI holds no presentation times. FFmpeg finds those of H.264 in the wrong order;
  # decoding times are late by the same number of frames everywhere.
  untimed = container.format.name == 'avi' and stream.codec.name in ('h264', 'hevc')
  time = None
  try:
    for packet in container.demux(stream):
      try:
        frames = packet.decode()
      except av.FFmpegError:
        if time is not None:
          raise
        continue  # A recording may start between keyframes.
      for frame in frames:
        stamp = frame.dts if untimed else frame.pts
        if stamp is not None:
          time = stamp * stream.time_base
        elif time is not None:
          time += frame.duration * stream.time_base
        else:
          raise ValueError(
            f'{path}: its pictures have no timestamps ({container.format.name}). Put '
            f'them into a container: {_ffmpeg(path, "-c copy OUTPUT.mp4")}'
          )
        yield time, frame
  except av.FFmpegError as error:
    raise _damaged(path, 'picture', time or 0, error) from error


def _picture_end(path: str, start: Fraction) -> Fraction:
  """Returns when the last picture ends; reads little more than the end of the file.

  Args:
    path: the file.
    start: time of its first picture.

  Raises:
    ValueError: the file ends earlier than its header claims.
  """
  with _opened(path) as container:
    claimed = Fraction(container.duration or 0, _av().time_base)
  # A file whose header claims nothing, or whose seeks do not work, is read as a whole.
  for ahead in (0, 10, None) if claimed else (None,):
    picture_end, file_end = _ends(
      path, None if ahead is None else start + claimed - ahead
    )
    if picture_end is not None:
      break
  else:
    picture_end = start
  if file_end < claimed - _CLAIM_TOLERANCE:
    raise ValueError(
      f'{path} is incomplete: its header claims {float(claimed):.1f} s, but it ends at '
      f'{float(file_end):.1f} s. Copy or download it again; to use what it holds, '
      f'{_ffmpeg(path, "-c copy OUTPUT.mkv")}'
    )
  return picture_end


def _ffmpeg(path: str, arguments: str) -> str:
  return f'ffmpeg -i {shlex.quote(path)} {arguments}'


def _damaged(path: str, what: str, time: Any, error: Any) -> ValueError:
  return ValueError(
    f'{path}: its {what} cannot be decoded from {float(time):.3f} s on '
    f'({error.strerror}): the file is damaged. Copy or download it again, or convert '
    'it with a program that repairs it.'
  )


def _ends(path: str, time: Fraction | None) -> tuple[Fraction | None, Fraction]:
  """Returns the ends of picture and file, as packets from `time` on tell.

  Args:
    path: the file.
    time: where to start reading, None for the start of the file.

  Returns:
    When the last picture ends, None if no packet of it follows; when the last
    packet of any stream does, 0 if none follows.
  """
  picture_end = None
  file_end = Fraction(0)
  with _opened(path) as container, contextlib.suppress(_av().FFmpegError):
    stream = _picture_stream(path, container)
    if time is not None:
      container.seek(math.floor(time / stream.time_base), stream=stream)
    for packet in container.demux():
      stamp = packet.dts if packet.pts is None else packet.pts
      if stamp is None or packet.is_discard:
        continue
      # Unknown durations are 0, but a picture is shown for some time.
      end = (stamp + max(packet.duration or 0, 1)) * packet.time_base
      file_end = max(file_end, end)
      if packet.stream is stream:
        picture_end = max(picture_end or end, end)
  return picture_end, file_end


class _Player:
  """Shows the pictures of a file in ascending order; seeks where that is faster."""

  def __init__(self, path: str, start: Fraction):
    self._path = path
    self._start = start
    self._files = contextlib.ExitStack()
    self._seekable = True
    # Time and VideoFrame; the following one is None at the end of the video.
    self._shown: Any = None
    self._following: Any = None
    # Seconds from the places that seeks led to, to those wanted.
    self._decoded_after_seeks: list[float] = []
    self._rewind()

  def close(self):
    self._files.close()

  def _rewind(self):
    self._files.close()
    self._container = self._files.enter_context(_opened(self._path))
    self._stream = _picture_stream(self._path, self._container)
    _read_only(self._container, self._stream)
    self._play()

  def _play(self) -> bool:
    """Decodes two frames from where the file is; returns whether there is one."""
    self._frames = _frames(self._path, self._container, self._stream)
    self._shown = next(self._frames, None)
    self._following = next(self._frames, None)
    return self._shown is not None

  def frame_at(self, second: int) -> Any:
    """Returns the VideoFrame on screen at a second after the first picture."""
    time = self._start + second
    if self._following and self._is_worth_seeking(time - self._following[0]):
      self._seek(time)
    while self._following and self._following[0] <= time:
      self._shown = self._following
      self._following = next(self._frames, None)
    return self._shown[1]

  def _is_worth_seeking(self, distance: Fraction) -> bool:
    """Whether decoding on for so many seconds costs more than a seek did so far."""
    costs = self._decoded_after_seeks or [0]
    return self._seekable and distance > max(1, sum(costs) / len(costs))

  def _seek(self, time: Fraction):
    """Goes to a frame on or before `time`, the nearest one that can be reached."""
    ahead = 0
    while time - ahead > self._start:
      target = math.floor((time - ahead) / self._stream.time_base)
      try:
        self._container.seek(target, stream=self._stream)
      except _av().FFmpegError:
        self._seekable = False
        self._rewind()
        return
      if self._play() and self._shown[0] <= time and not self._shown[1].is_corrupt:
        break
      ahead = 2 * ahead + 1
    else:
      self._rewind()
    self._decoded_after_seeks.append(float(time - self._shown[0]))


def _upright_rgb(frame: Any) -> np.ndarray:
  """Returns uint8 [height, width, 3] as a player shows a VideoFrame."""
  picture = frame.to_ndarray(format='rgb24')
  matrix = frame.side_data.get(_av().sidedata.sidedata.Type.DISPLAYMATRIX)
  if matrix is not None:
    # A pixel (x, y) is shown at (a * x + c * y, b * x + d * y).
    (a, b), (c, d) = np.frombuffer(bytes(matrix), np.int32).reshape(3, 3)[:2, :2]
    if abs(b) > abs(a):
      picture = picture.transpose(1, 0, 2)
      a, d = c, b
    picture = picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
  return np.ascontiguousarray(picture)


class _Listener:
  """Cuts the sound of a file into patches, in ascending order."""

  def __init__(self, path: str, container: Any, start: Fraction):
    self._path = path
    self._start = start
    self._stream = _sound_stream(container)
    _read_only(container, self._stream)
    self._unread = self._timed(container.demux(self._stream))
    # Packets around the latest patch, with the times when they end.
    self._recent: collections.deque[tuple[Any, Any]] = collections.deque()

  def _time(self, item: Any) -> Fraction | None:
    """Returns when a packet or frame starts, in seconds after the first picture."""
    stamp = item.dts if item.pts is None else item.pts
    return None if stamp is None else stamp * self._stream.time_base - self._start

  def _timed(self, packets: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Yields when packets end, and packets; the last one, without data, never ends."""
    end = Fraction(0)
    for packet in packets:
      if packet.size:
        start = self._time(packet)
        duration = (packet.duration or 0) * self._stream.time_base
        end = (end if start is None else start) + duration
        yield end, packet
      else:
        yield math.inf, packet

  def _packets_after(self, time: int) -> Iterator[tuple[Any, Any]]:
    """Yields packets that end after a time; keeps them for the next patch."""
    while self._recent and self._recent[0][0] <= time:
      self._recent.popleft()
    yield from list(self._recent)
    for end, packet in self._unread:
      if end > time:
        self._recent.append((end, packet))
        yield end, packet

  def _decoded(self, second: int) -> Iterator[Any]:
    """Yields AudioFrames from a second or a little earlier on."""
    av = _av()
    decoder = _new_decoder(self._stream)
    try:
      for end, packet in self._packets_after(second - _SOUND_AHEAD):
        try:
          # The last packet asks for what the decoder still holds.
          frames = decoder.decode(packet if packet.size else None)
        except av.FFmpegError:
          if end > second:
            raise
          continue  # It may need packets that are further ahead.
        yield from frames
    except av.FFmpegError as error:
      raise _damaged(self._path, 'sound', second, error) from error

  def patch_at(self, second: int) -> np.ndarray | None:
    """Returns float32 [PATCH_SAMPLES], None where no whole patch is left."""
    frames = self._decoded(second)
    frame = next(frames, None)
    if frame is None:
      return None
    rate = frame.sample_rate
    # A whole number of samples, before and after resampling.
    common = math.gcd(rate, SAMPLE_RATE)
    margin = Fraction(math.ceil(_RESAMPLER_MARGIN * common), common)
    first = int((second - margin) * rate)
    samples = np.zeros(math.ceil((_PATCH_SECONDS + 2 * margin) * rate), np.float32)
    end = self._sample(frame, rate)
    while frame is not None and end < first + len(samples):
      if frame.sample_rate != rate:
        raise ValueError(
          f'{self._path}: the rate of its sound changes from {rate} to '
          f'{frame.sample_rate} Hz after {second} s. Convert it to one rate: '
          f'{_ffmpeg(self._path, f"-c:v copy -ar {rate} OUTPUT.mp4")}'
        )
      begin = self._sample(frame, rate, end)
      end = begin + frame.samples
      kept = slice(max(begin, first), min(end, first + len(samples)))
      if kept.start < kept.stop:
        samples[kept.start - first : kept.stop - first] = _mono(frame)[
          kept.start - begin : kept.stop - begin
        ]
      frame = next(frames, None)
    # Sound that begins after the patch is not over.
    is_whole = end >= (second + _PATCH_SECONDS) * rate
    if not is_whole and (second or end <= 0):
      return None
    skipped = int(margin * SAMPLE_RATE)
    return _resampled(samples, rate)[skipped : skipped + PATCH_SAMPLES]

  def _sample(self, frame: Any, rate: int, expected: int | None = None) -> int:
    """Returns where a frame's first sample belongs: at `expected`, unless in a gap."""
    time = self._time(frame)
    if time is None:
      return expected or 0
    stamped = round(time * rate)
    if expected is None or abs(stamped - expected) > _SOUND_GAP * rate:
      return stamped
    return expected


def _new_decoder(stream: Any) -> Any:
  """Returns a decoder without a history of samples.

  PyAV cannot pass on the block size that some decoders need (WMA, old ADPCM). The
  stream's own one, emptied, serves for these.
  """
  av = _av()
  known = stream.codec_context
  decoder = av.CodecContext.create(known.codec, 'r')
  decoder.extradata = known.extradata
  decoder.sample_rate = known.sample_rate
  decoder.layout = known.layout
  decoder.thread_count = 1
  try:
    decoder.open()
  except av.FFmpegError:
    decoder = known
    decoder.flush_buffers()
  # What an encoder adds in front has negative times; `patch_at` leaves it out.
  decoder.flags2 |= av.codec.context.Flags2.skip_manual
  return decoder


def _mono(frame: Any) -> np.ndarray:
  """Returns the mean of the channels of an AudioFrame, float32 [samples]."""
  samples = frame.to_ndarray()
  if not frame.format.is_planar:
    samples = samples.reshape(frame.samples, -1).T
  if samples.dtype.kind in 'iu':
    limits = np.iinfo(samples.dtype)
    middle = (limits.max + limits.min + 1) // 2
    samples = (samples.astype(np.float32) - middle) / (limits.max + 1 - middle)
  return samples.mean(axis=0, dtype=np.float32)


def _resampled(samples: np.ndarray, rate: int) -> np.ndarray:
  """Resamples float32 [n] from `rate` to SAMPLE_RATE; clips it to [-1, 1]."""
  av = _av()
  frame = av.AudioFrame.from_ndarray(samples[np.newaxis], 'fltp', 'mono')
  frame.sample_rate = rate
  resampler = av.AudioResampler('fltp', 'mono', SAMPLE_RATE)
  parts = [*resampler.resample(frame), *resampler.resample(None)]
  return np.clip(np.concatenate([part.to_ndarray()[0] for part in parts]), -1, 1)


def _ascending(path: str, seconds: Iterable[int]) -> Iterator[int]:
  """Yields seconds as they are, after a check.

  Raises:
    ValueError: one is negative or less than the one before it.
  """
  least = 0
  for second in seconds:
    if second < least:
      raise ValueError(
        f'{path}: second {second} of it is asked for after second {least}. Sort the '
        'seconds; they count from 0.'
      )
    least = second
    yield int(second)
