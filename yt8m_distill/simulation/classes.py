"""What simulated YouTube-8M videos show: classes, labels, means; numpy only.

Every class has a direction in feature space, its prototype. A video's mean
leans to the prototypes of its labels.
"""

from typing import NamedTuple

import numpy as np

# Share of a drawn video mean that points to its labels.
_MEAN_LABEL_SHARE = 0.75
# Prototypes mixed, with random signs, into one filler.
_MIXED = 8
# Independent directions behind the random prototypes: classes resemble each
# other, as real ones do, and a small training set is enough to learn them.
_LATENT = 96
# Extra labels per video follow a negative binomial with these parameters: in
# the 2018 validation records 26, 22, 17, 16, 9 % of the videos have 1, 2, 3, 4,
# 5 labels, 3.0 on average.
_EXTRA_LABELS = (2, 0.5)
# Class frequencies are ~ (rank + shift)^-power: in the 2018 validation records
# ranks 1, 10, 100 and 500 have 20, 3.8, 0.43 and 0.09 % of the videos.
_ZIPF_SHIFT, _ZIPF_POWER = 1.5, 1.05


class Spread(NamedTuple):
  """Statistics of one feature's frames, in dequantised units.

  Correlations are between the feature vectors of two frames. Distant frames
  share nothing but the video's mean, so a given mean decides how much they
  correlate.

  Attributes:
    std: of a frame, over its dimensions.
    adjacent: correlation of adjacent frames.
    mean_std: of a drawn video mean, over its dimensions.
    shot_share: part of the variance about the video's mean that is constant
      within a shot.
  """

  std: float
  adjacent: float
  mean_std: float
  shot_share: float


# Measured on a real frame-level record of the 2018 release (id SjJ3, label
# "Food", 170 frames): std and adjacent are its own; mean_std gives its
# correlation of distant frames (about 0.05: rgb 0.01 to 0.09 at 30 to 150
# frames apart, audio 0.06 to 0.12 at 30 to 100), shot_share roughly that of
# frames 5 to 20 apart (rgb 0.23 to 0.06, audio 0.41 to 0.19).
RGB_SPREAD = Spread(std=0.996, adjacent=0.49, mean_std=0.28, shot_share=0.23)
AUDIO_SPREAD = Spread(std=0.92, adjacent=0.64, mean_std=0.31, shot_share=0.42)


class World(NamedTuple):
  """What all the videos of one simulation share.

  Attributes:
    prototypes: float32 [classes, rgb_size + audio_size], the direction of every
      class; unit mean square per feature, or zero.
    known: int64 [known classes], those that have a prototype.
    frequencies: float64 [classes], sums to 1; None if labels are not drawn.
    rgb_size: number of leading dimensions that are rgb; the others are audio.
  """

  prototypes: np.ndarray
  known: np.ndarray
  frequencies: np.ndarray | None
  rgb_size: int

  def features(self):
    """Returns a (slice of dimensions, Spread) for each feature."""
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
    num_classes: number of classes, at least 1.
    rgb_size: number of rgb dimensions.
    audio_size: number of audio dimensions.

  Returns:
    The world; low class indices are the frequent ones, as in YouTube-8M.
  """
  basis = rng.standard_normal((_LATENT, rgb_size + audio_size), np.float32)
  prototypes = rng.standard_normal((num_classes, _LATENT), np.float32) @ basis
  weights = (np.arange(1, num_classes + 1) + _ZIPF_SHIFT) ** -_ZIPF_POWER
  return World(
    to_unit(prototypes, rgb_size),
    np.arange(num_classes),
    weights / weights.sum(),
    rgb_size,
  )


def mixtures(rng: np.random.Generator, world: World, count: int) -> np.ndarray:
  """Returns [count, dims] directions that lean to no class in particular."""
  chosen = rng.choice(world.known, size=(count, _MIXED))
  signs = rng.choice(np.float32([-1, 1]), size=(count, _MIXED, 1))
  return to_unit((world.prototypes[chosen] * signs).sum(1), world.rgb_size)


def random_record(
  rng: np.random.Generator, world: World, most_labels: int
) -> tuple[np.ndarray, np.ndarray]:
  """Draws one video's labels and mean: what a video-level record holds.

  Args:
    rng: source of randomness.
    world: has frequencies.
    most_labels: greatest number of labels.

  Returns:
    Sorted distinct labels, int64 [labels], at least one, and the mean of the
    video's frames, float32 [dims].
  """
  count = min(
    1 + rng.negative_binomial(*_EXTRA_LABELS), most_labels, len(world.prototypes)
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
