"""Draws classes, labels and mean features of simulated videos; numpy only.

Every class has a direction in feature space, its prototype. A video's mean points
partly to the prototypes of its labels.
"""

from typing import NamedTuple

import numpy as np

# Share of a drawn video mean that points to the prototypes of its labels.
_MEAN_LABEL_SHARE = 0.75
# Prototypes that a mixture adds up, with random signs.
_MIXTURE_SIZE = 8
# Dimension of the space that random prototypes span. Classes then resemble each other,
# as real ones do, and a small training set is enough to learn them.
_LATENT_DIM = 96
# Parameters of the negative binomial distribution of the labels after the first. In the
# 2018 validation records, 26, 22, 17, 16 and 9% of the videos have 1, 2, 3, 4 and 5
# labels; the mean is 3.0.
_EXTRA_LABELS = (2, 0.5)
# Class frequencies are proportional to (rank + shift)^-power. In the 2018 validation
# records, ranks 1, 10, 100 and 500 have 20, 3.8, 0.43 and 0.09% of the videos.
_ZIPF_SHIFT, _ZIPF_POWER = 1.5, 1.05


class Spread(NamedTuple):
  """Statistics of one feature's frames, in dequantized units.

  Correlations are between the feature vectors of two frames. Distant frames have only
  the video's mean in common, so the mean determines their correlation.

  Attributes:
    std: standard deviation of a frame over its dimensions.
    adjacent: correlation of adjacent frames.
    mean_std: standard deviation of a drawn video mean over its dimensions.
    shot_share: share of the variance around the video's mean that is constant within
      a shot.
  """

  std: float
  adjacent: float
  mean_std: float
  shot_share: float


# Measured on a real frame-level record of the 2018 release (id SjJ3, label "Food", 170
# frames). std and adjacent are measured directly. mean_std reproduces the correlation
# of distant frames (rgb 0.01 to 0.09 at a distance of 30 to 150 frames, audio 0.06 to
# 0.12 at 30 to 100). shot_share roughly reproduces the correlation at a distance of 5
# to 20 frames (rgb 0.23 to 0.06, audio 0.41 to 0.19).
RGB_SPREAD = Spread(std=0.996, adjacent=0.49, mean_std=0.28, shot_share=0.23)
AUDIO_SPREAD = Spread(std=0.92, adjacent=0.64, mean_std=0.31, shot_share=0.42)


class World(NamedTuple):
  """What all videos of a simulation have in common.

  Attributes:
    prototypes: float32 [classes, rgb_size + audio_size], the direction of each class;
      unit mean square per feature, or zero.
    known: int64 [known classes], classes that have a prototype.
    frequencies: float64 [classes], sums to 1; None if labels are not drawn.
    rgb_size: number of leading dimensions that are rgb; the others are audio.
  """

  prototypes: np.ndarray
  known: np.ndarray
  frequencies: np.ndarray | None
  rgb_size: int

  def features(self):
    """Returns (slice of dimensions, Spread) of each feature."""
    return (
      (slice(0, self.rgb_size), RGB_SPREAD),
      (slice(self.rgb_size, None), AUDIO_SPREAD),
    )


def to_unit(vectors: np.ndarray, rgb_size: int) -> np.ndarray:
  """Scales [..., dims] to unit mean square per feature; zero stays zero."""
  unit = np.empty(vectors.shape, np.float32)
  for dims in (slice(0, rgb_size), slice(rgb_size, None)):
    part = vectors[..., dims]
    square = np.mean(np.square(part), axis=-1, keepdims=True)
    unit[..., dims] = part / np.sqrt(np.maximum(square, 1e-12))
  return unit


def random_world(
  rng: np.random.Generator, num_classes: int, rgb_size: int, audio_size: int
) -> World:
  """Draws prototypes and heavy-tailed class frequencies.

  Args:
    rng: source of randomness.
    num_classes: number of classes, 1 or more.
    rgb_size: number of rgb dimensions.
    audio_size: number of audio dimensions.

  Returns:
    The world. Low class indices are frequent, as in YouTube-8M.
  """
  basis = rng.standard_normal((_LATENT_DIM, rgb_size + audio_size), np.float32)
  prototypes = rng.standard_normal((num_classes, _LATENT_DIM), np.float32) @ basis
  weights = (np.arange(1, num_classes + 1) + _ZIPF_SHIFT) ** -_ZIPF_POWER
  return World(
    to_unit(prototypes, rgb_size),
    np.arange(num_classes),
    weights / weights.sum(),
    rgb_size,
  )


def mixtures(rng: np.random.Generator, world: World, count: int) -> np.ndarray:
  """Draws random sums of prototypes, float32 [count, dims]."""
  chosen = rng.choice(world.known, size=(count, _MIXTURE_SIZE))
  signs = rng.choice(np.array([-1, 1], np.float32), size=(count, _MIXTURE_SIZE, 1))
  return to_unit((world.prototypes[chosen] * signs).sum(1), world.rgb_size)


def random_record(
  rng: np.random.Generator, world: World, max_labels: int
) -> tuple[np.ndarray, np.ndarray]:
  """Draws the labels and mean of one video, as a video-level record has them.

  Args:
    rng: source of randomness.
    world: must have frequencies.
    max_labels: greatest number of labels.

  Returns:
    Sorted distinct labels, int64 [labels], at least one, and the mean of the frames,
    float32 [dims].
  """
  count = min(
    1 + rng.negative_binomial(*_EXTRA_LABELS), max_labels, len(world.prototypes)
  )
  labels = np.sort(
    rng.choice(len(world.prototypes), count, replace=False, p=world.frequencies)
  )
  shown = to_unit(world.prototypes[labels].sum(0), world.rgb_size)
  mean = to_unit(
    _MEAN_LABEL_SHARE * shown
    + np.sqrt(1 - _MEAN_LABEL_SHARE**2) * mixtures(rng, world, 1)[0],
    world.rgb_size,
  )
  for dims, spread in world.features():
    mean[dims] *= spread.mean_std
  return labels, mean
