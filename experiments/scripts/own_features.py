"""Writes records and a vocabulary for features of your own.

  python -m experiments.scripts.own_features DATA

This is a template: replace `videos()` and _CLASSES by your features and classes. Here
the features are random numbers. A video shows its classes one after the other; `clip`
tells all classes apart, `sound` only pairs of them.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import itertools
import os

import numpy as np
import pandas as pd
import tensorflow as tf

from yt8m_distill.dataloaders import record_writer
from yt8m_distill.utils import cli

_CLASSES = [
  f'{color} {thing}'
  for color in ('Red', 'Green', 'Blue', 'White')
  for thing in ('boat', 'kite', 'train', 'lamp', 'bird')
]
_SIZES = {'clip': 48, 'sound': 16}  # values of a frame
_SPLITS = {'train': 800, 'validate': 200}  # videos
_VIDEOS_PER_FILE = 100
_NOISE = 2.0  # standard deviation, in those of what a frame shows


def videos(split: str) -> Iterator[record_writer.Video]:
  """Yields the videos of a split, one at a time."""
  looks = {
    name: np.random.default_rng(0).normal(size=[len(_CLASSES), size])
    for name, size in _SIZES.items()
  }
  looks['sound'][1::2] = looks['sound'][::2]
  rng = np.random.default_rng(len(split))
  for number in range(_SPLITS[split]):
    labels = rng.choice(len(_CLASSES), rng.integers(1, 5), replace=False)
    num_frames = rng.integers(20, 61)
    shown = labels[np.sort(rng.integers(len(labels), size=num_frames))]
    features = {}
    for name, look in looks.items():
      frames = rng.normal(look[shown], _NOISE)
      # Networks normalize a frame as a whole, so no feature may outweigh the others.
      features[name] = frames / np.linalg.norm(frames, axis=1, keepdims=True)
    yield record_writer.Video(f'{split}-{number}', features, np.unique(shown))


def main(argv: Sequence[str]):
  """Runs the command."""
  (folder,) = argv
  tf.io.gfile.makedirs(folder)
  for split in _SPLITS:
    rest, number = videos(split), 0
    while some := list(itertools.islice(rest, _VIDEOS_PER_FILE)):
      path = os.path.join(folder, f'{split}{number:04}.tfrecord')
      record_writer.write(path, some)
      number += 1
  # Last, because own_features.sh takes the records for complete if it exists.
  pd.DataFrame({'Name': _CLASSES}).to_csv(
    os.path.join(folder, 'vocabulary.csv'), index_label='Index'
  )


if __name__ == '__main__':
  cli.run(main, 'DATA')
