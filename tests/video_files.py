"""Small video files: numbered pictures, and any sound."""

from fractions import Fraction

import av
import numpy as np

HEIGHT, WIDTH = 48, 64
_BITS = 16  # in two rows of 8 squares


def numbered(number):
  """A picture that shows a number in black and white squares, which survive codecs."""
  bits = np.arange(_BITS).reshape(2, 8)
  squares = np.uint8(number >> bits & 1) * 255
  picture = squares.repeat(HEIGHT // 2, axis=0).repeat(WIDTH // 8, axis=1)
  return np.stack([picture] * 3, axis=-1)


def number(picture):
  """The number that a picture shows."""
  squares = picture.reshape(2, HEIGHT // 2, 8, WIDTH // 8, 3).mean(axis=(1, 3, 4))
  return int(((squares.ravel() > 128) << np.arange(_BITS)).sum())


def write(
  path,
  pictures=(),
  *,
  rate=25,
  times=None,
  codec='libx264',
  pixels='yuv420p',
  options=None,
  keyframes=12,
  sound=None,
  sound_rate=48_000,
  sound_codec='aac',
  sound_start=0,
  layout='mono',
  container_options=None,
  change_video=lambda stream: None,
):
  """Writes a file; its format is that of the path's extension.

  Args:
    path: the file.
    pictures: uint8 [height, width, 3] each, or a number to write `numbered` ones.
    rate: pictures per second.
    times: when pictures appear, in units of 1 / rate; None for 0, 1, ...
    codec: of the pictures.
    pixels: pixel format.
    options: of the video codec.
    keyframes: pictures from one keyframe to the next, at most.
    sound: float32 [channels, samples], None for none.
    sound_rate: its samples per second.
    sound_codec: of the sound.
    sound_start: its first sample's time, in seconds.
    layout: its channels.
    container_options: of the container.
    change_video: is called with the stream of pictures before it is written.
  """
  if isinstance(pictures, int):
    pictures = [numbered(i) for i in range(pictures)]
  with av.open(str(path), 'w', options=container_options or {}) as file:
    packets = []
    if len(pictures):
      packets += _pictures(
        file, pictures, rate, times, codec, pixels, options, keyframes, change_video
      )
    if sound is not None:
      packets += _sound(file, sound, sound_rate, sound_codec, sound_start, layout)
    for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
      file.mux(packet)


def _pictures(file, pictures, rate, times, codec, pixels, options, keyframes, change):
  stream = file.add_stream(codec, rate=Fraction(rate), options=options or {})
  stream.height, stream.width = pictures[0].shape[:2]
  stream.pix_fmt = pixels
  stream.codec_context.gop_size = keyframes
  change(stream)
  packets = []
  for time, picture in zip(times or range(len(pictures)), pictures):
    frame = av.VideoFrame.from_ndarray(picture, format='rgb24').reformat(format=pixels)
    frame.pts, frame.time_base = time, 1 / Fraction(rate)
    packets += stream.encode(frame)
  return packets + stream.encode()


def _sound(file, sound, rate, codec, start, layout):
  stream = file.add_stream(codec, rate=rate, layout=layout)
  convert = av.AudioResampler(
    stream.codec_context.format, layout, rate, stream.codec_context.frame_size or 1000
  )
  frame = av.AudioFrame.from_ndarray(
    np.ascontiguousarray(sound, np.float32), 'fltp', layout
  )
  frame.sample_rate = rate
  frame.pts, frame.time_base = round(start * rate), Fraction(1, rate)
  packets = []
  for part in [*convert.resample(frame), *convert.resample(None)]:
    packets += stream.encode(part)
  return packets + stream.encode()
