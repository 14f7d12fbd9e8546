"""Video files as input of `predict`: their records, what they show, and thumbnails.

W windows, V classes.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import os

import numpy as np
import tensorflow as tf

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.configs import data
from yt8m_distill.dataloaders import shard_batches
from yt8m_distill.features import decode
from yt8m_distill.features import extract
from yt8m_distill.features import video_list
from yt8m_distill.features import whitening
from yt8m_distill.serving import ensemble
from yt8m_distill.serving import window_page
from yt8m_distill.serving import windows

FOLDER = 'features'  # of the records, in that of the predictions
_SPLIT = 'videos'
_SIZES = {'rgb': whitening.RGB_SIZE, 'audio': whitening.AUDIO_SIZE}
_BEST = 5  # classes printed of a video
_SURE = 0.5  # least probability of the windows in which a class is said to hold
_THUMBNAILS, _HEIGHT = 10, 90  # of a video, and in pixels


def records(
  input: str,
  output_dir: str,
  weights: str,
  model: Sequence[str],
  network: str | None,
  segments: int | None,
  features: Sequence[data.Feature] = (),
  ray_address: str | None = None,
) -> list[str]:
  """Extracts the frames that networks need of videos.

  Args:
    input: the videos, see `features.video_list.read`.
    output_dir: folder of the job; gets a folder of records.
    weights: folder with the files of the networks for features.
    model: runs and exports that will predict.
    network: see `ensemble.Ensemble`.
    segments: frames of a window; None for whole videos.
    features: what the networks read of the records; empty if as in training.
    ray_address: see `features.extract.extract`.

  Returns:
    Paths of the records.

  Raises:
    ValueError: a network reads other features, or as `features.extract.extract`.
    ImportError: PyAV is not installed.
  """
  read = [
    (source, config)
    for source in model
    for config in trained_network.student_configs(source)
  ]
  for source, config in read:
    for feature in features or config.features:
      if _SIZES.get(feature.name) != feature.size:
        raise ValueError(
          f'{source} reads {feature.name} of {feature.size} values, but of video files '
          '(--weights) only rgb of 1024 and audio of 128 are computed: name a network '
          'for YouTube-8M features, or set input_path to records of yours.'
        )
  configs = [config for _, config in read]
  max_frames = max(config.max_frames for config in configs)
  every_n = 1
  if segments:
    max_frames = max(max_frames, windows.LONGEST)
  elif network == 'student':
    frames = [config.network.frames for config in configs]
    found = {f.uniform.every_n if f.type == 'uniform' else 0 for f in frames}
    every_n = (found.pop() if len(found) == 1 else 0) or 1
  return extract.extract(
    input,
    os.path.join(output_dir, FOLDER),
    weights,
    _SPLIT,
    max_frames=max_frames,
    every_n=every_n,
    ray_address=ray_address,
  )


def summaries(
  networks: ensemble.Ensemble,
  paths: Sequence[str],
  classes: np.ndarray | None,
  names: Sequence[str],
) -> Iterator[str]:
  """Yields what the first videos show, as lines for people.

  Args:
    networks: with `segments` if there are `classes`.
    paths: of the records.
    classes: those to choose from in windows; None to classify whole videos.
    names: of all classes of the networks; empty if unknown.
  """
  names = window_page.distinct_names(names, networks.num_classes)
  for record in window_page.find(paths, ()):
    if classes is None:
      outputs = networks(*shard_batches.batch_of([record]))
      found = [
        (label, f'{probability:.2f}')
        for label, probability in zip(
          *(outputs[key].numpy()[0] for key in ('class_indices', 'probabilities'))
        )
      ]
    else:
      outputs = networks.windows(*shard_batches.batch_of([record]))
      scores = outputs['predictions'].numpy()[:, classes]
      times = [outputs[key].numpy() for key in ('start', 'end')]
      best = np.argsort(-scores.max(axis=0), kind='stable')
      found = [
        (
          classes[place],
          f'{scores[:, place].max():.2f}  {_when(scores[:, place], *times)}',
        )
        for place in best[:_BEST]
      ]
    found = found[:_BEST]
    width = max(len(names[label]) for label, _ in found)
    yield window_page.parse(record)[0]
    yield from (f'  {names[label]:<{width}}  {text}' for label, text in found)


def _when(scores: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> str:
  """Says when a class holds, given its scores [W], or where it is most probable."""
  holds = np.flatnonzero(scores >= _SURE)
  if not len(holds):
    best = scores.argmax()
    return f'most probable from {starts[best]} to {ends[best]} s'
  spans = np.split(holds, np.flatnonzero(np.diff(holds) > 1) + 1)
  return ', '.join(f'{starts[span[0]]}-{ends[span[-1]]} s' for span in spans)


def thumbnails_of(
  videos: Sequence[video_list.Video],
) -> Callable[[str], list[bytes]]:
  """Returns a function that makes thumbnails, given an id; see `page.Video`."""
  paths = {video.id: video.path for video in videos}
  return lambda name: _thumbnails(paths[name])


def _thumbnails(path: str) -> list[bytes]:
  file = decode.VideoFile(path)
  count = min(_THUMBNAILS, file.num_pictures)
  seconds = np.arange(0.5, count) * file.num_pictures // count
  return [
    _thumbnail(picture) for picture in file.pictures(seconds.astype(int).tolist())
  ]


def _thumbnail(picture: np.ndarray) -> bytes:
  height, width, _ = picture.shape
  size = _HEIGHT, max(1, round(_HEIGHT * width / height))
  small = tf.image.resize(picture, size, 'area')
  return tf.io.encode_jpeg(tf.cast(tf.round(small), tf.uint8)).numpy()
