"""Draws the frames of simulated YouTube-8M videos; numpy only.

A video is a run of shots. Every label of the video has shots of its own, which
lean towards the label's prototype; the other shots are fillers, which lean
towards a random mixture of prototypes. The shots are centred, so the frames
average to a given mean, whatever the shots show.
"""

from typing import NamedTuple, Optional

import numpy as np

from yt8m_distill.modeling import frames as frames_lib

# A shot's label when it shows none of the video's labels.
FILLER = -1
MIN_SHOT, MAX_SHOT = 5, 30

# Official dequantisation: x = q * 4/255 + 4/512 - 2.
_STEP = frames_lib.SCALE
_LOWEST = frames_lib.BIAS

# Probability that two adjacent frames lie in one shot of 5 to 30 frames.
_SAME_SHOT = 1 - 2 / (MIN_SHOT + MAX_SHOT)
# Share of a label shot's shift that points to the label's prototype; the rest
# is a filler's mixture, without which a single frame would tell everything.
_LABEL_SHARE = 0.8
# Share of a drawn video mean that points to its labels.
_MEAN_LABEL_SHARE = 0.75
# Prototypes mixed, with random signs, into one filler.
_MIXED = 8
# Independent directions behind the random prototypes: classes resemble each
# other, as real ones do, and a small training set is enough to learn them.
_LATENT = 96
# Share of the shots that is given to labels when labels are few.
_LABEL_SHOTS = 0.5
# Videos whose mean alone has the whole spread still move a little.
_LEAST_RESIDUAL = 0.3
_MAX_NOISE_CORRELATION = 0.5
# Clipping at +-2 takes about this factor of the spread away.
_CLIPPING_LOSS = 0.955
# Rounds of correction against the clipping's error in the mean. A few
# dimensions, where whole shots are clipped, are far off (in quantiser steps)
# after the first rounds and get some more.
_ROUNDS, _MORE_ROUNDS, _FAR = 3, 20, 0.3
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
  frequencies: Optional[np.ndarray]
  rgb_size: int

  def features(self):
    """Returns a (slice of dimensions, Spread) for each feature."""
    return ((slice(0, self.rgb_size), RGB_SPREAD),
            (slice(self.rgb_size, None), AUDIO_SPREAD))


def dequantise(frames: np.ndarray) -> np.ndarray:
  """Returns the official float value of quantised features, any shape."""
  return frames * np.float32(_STEP) + np.float32(_LOWEST)


def to_unit(vectors: np.ndarray, rgb_size: int) -> np.ndarray:
  """Scales [..., dims] to unit mean square per feature; zero stays zero."""
  unit = np.empty(vectors.shape, np.float32)
  for dims in (slice(0, rgb_size), slice(rgb_size, None)):
    part = vectors[..., dims]
    square = np.mean(np.square(part), axis=-1, keepdims=True)
    unit[..., dims] = part / np.sqrt(np.maximum(square, 1e-12))
  return unit


def random_world(rng: np.random.Generator, num_classes: int, rgb_size: int,
                 audio_size: int) -> World:
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
  weights = (np.arange(1, num_classes + 1) + _ZIPF_SHIFT)**-_ZIPF_POWER
  return World(to_unit(prototypes, rgb_size), np.arange(num_classes),
               weights / weights.sum(), rgb_size)


def _mixtures(rng: np.random.Generator, world: World, count: int) -> np.ndarray:
  """Returns [count, dims] directions that lean to no class in particular."""
  chosen = rng.choice(world.known, size=(count, _MIXED))
  signs = rng.choice(np.float32([-1, 1]), size=(count, _MIXED, 1))
  return to_unit((world.prototypes[chosen] * signs).sum(1), world.rgb_size)


def random_record(rng: np.random.Generator,
                  world: World,
                  most_labels: int) -> tuple[np.ndarray, np.ndarray]:
  """Draws one video's labels and mean: what a video-level record holds.

  Args:
    rng: source of randomness.
    world: has frequencies.
    most_labels: greatest number of labels.

  Returns:
    Sorted distinct labels, int64 [labels], at least one, and the mean of the
    video's frames, float32 [dims].
  """
  count = min(1 + rng.negative_binomial(*_EXTRA_LABELS), most_labels,
              len(world.prototypes))
  labels = np.sort(rng.choice(
      len(world.prototypes), count, replace=False, p=world.frequencies))
  shown = to_unit(world.prototypes[labels].sum(0), world.rgb_size)
  mean = to_unit(
      _MEAN_LABEL_SHARE * shown +
      np.sqrt(1 - _MEAN_LABEL_SHARE**2) * _mixtures(rng, world, 1)[0],
      world.rgb_size)
  for dims, spread in world.features():
    mean[dims] *= spread.mean_std
  return labels, mean


def random_length(rng: np.random.Generator, num_labels: int, min_frames: int,
                  max_frames: int) -> int:
  """Draws a uniform length with room for a shot per label and a filler.

  Args:
    rng: source of randomness.
    num_labels: labels of the video.
    min_frames: least length, in frames.
    max_frames: greatest length, in frames.

  Returns:
    The number of frames.

  Raises:
    ValueError: the labels do not fit into max_frames.
  """
  least = max(min_frames, MIN_SHOT * (num_labels + 1))
  if least > max_frames:
    raise ValueError(
        f'A video of {num_labels} labels needs {least} frames, more than '
        f'max_frames={max_frames}: raise max_frames or drop the video.')
  return int(rng.integers(least, max_frames + 1))


def shot_plan(rng: np.random.Generator, labels: np.ndarray,
              num_frames: int) -> tuple[np.ndarray, np.ndarray]:
  """Cuts a video into shots and gives every label some of them.

  Args:
    rng: source of randomness.
    labels: distinct labels, int [labels].
    num_frames: at least 5 for each label and 5 more for a filler.

  Returns:
    The lengths of the shots in frames, int64 [shots], each 5 to 30, and the
    label of each, int64 [shots], FILLER where it shows none.
  """
  shots = int(np.clip(
      round(2 * num_frames / (MIN_SHOT + MAX_SHOT)),
      max(len(labels) + 1, -(-num_frames // MAX_SHOT)), num_frames // MIN_SHOT))
  lengths = rng.integers(MIN_SHOT, MAX_SHOT + 1, size=shots)
  while missing := num_frames - lengths.sum():
    free = np.flatnonzero(lengths < MAX_SHOT if missing > 0 else
                          lengths > MIN_SHOT)
    moved = rng.permutation(free)[:abs(missing)]
    lengths[moved] += np.sign(missing)
  own = max(len(labels), int(_LABEL_SHOTS * shots))
  shown = np.full(shots, FILLER, np.int64)
  shown[:len(labels)] = labels
  shown[len(labels):own] = rng.choice(labels, own - len(labels))
  return lengths, rng.permutation(shown)


def _shot_shifts(rng: np.random.Generator, world: World, lengths: np.ndarray,
                 shown: np.ndarray) -> np.ndarray:
  """Returns [shots, dims] shifts; over the frames: mean 0, mean square 1."""
  shifts = _mixtures(rng, world, len(shown))
  own = shown != FILLER
  shifts[own] = (
      _LABEL_SHARE * world.prototypes[shown[own]] +
      np.float32(np.sqrt(1 - _LABEL_SHARE**2)) * shifts[own])
  weights = (lengths / lengths.sum()).astype(np.float32)
  # Not a matrix product, which would start threads in every process.
  shifts -= np.einsum('s,sd->d', weights, shifts)
  for dims, _ in world.features():
    square = np.sum(weights * np.square(shifts[:, dims]).mean(1))
    shifts[:, dims] /= np.sqrt(max(square, 1e-12))
  return shifts


def _budget(mean: np.ndarray, spread: Spread) -> tuple[float, float, float]:
  """Splits a feature's spread, given the video's mean of that feature.

  Args:
    mean: [dims].
    spread: what the frames are to measure.

  Returns:
    The std of the shots' shifts and of the noise within shots, and the noise's
    correlation from frame to frame.
  """
  total = (spread.std / _CLIPPING_LOSS)**2
  fixed = np.var(mean)
  residual = max(total - fixed, _LEAST_RESIDUAL * total)
  shots = spread.shot_share * residual
  noise = residual - shots
  correlation = (spread.adjacent * total - fixed - _SAME_SHOT * shots) / noise
  return (np.sqrt(shots), np.sqrt(noise),
          np.clip(correlation, 0, _MAX_NOISE_CORRELATION))


def _meet_means(frames: np.ndarray, target: np.ndarray) -> None:
  """Clips [frames, dims] in place so that every dimension averages to target.

  Args:
    frames: in quantiser steps.
    target: [dims], within 0 to 255.
  """
  clipped = np.empty_like(frames)
  for _ in range(_ROUNDS):
    frames += target - np.clip(frames, 0, 255, out=clipped).mean(0)
  error = target - np.clip(frames, 0, 255, out=clipped).mean(0)
  far = np.flatnonzero(np.abs(error) > _FAR)
  few = frames[:, far]
  for _ in range(_MORE_ROUNDS if far.size else 0):
    few += target[far] - np.clip(few, 0, 255).mean(0)
  frames[:, far] = few
  np.clip(frames, 0, 255, out=frames)


def simulate_frames(rng: np.random.Generator, world: World, mean: np.ndarray,
                    lengths: np.ndarray, shown: np.ndarray) -> np.ndarray:
  """Draws the quantised frames of one video.

  Args:
    rng: source of randomness.
    world: the prototypes.
    mean: [dims], what the dequantised frames are to average to; inside the
      quantiser's range.
    lengths: [shots], frames of each shot.
    shown: [shots], label of each shot or FILLER, as from `shot_plan`.

  Returns:
    uint8 [frames, dims]. The average meets `mean` within about 0.01.
  """
  shifts = _shot_shifts(rng, world, lengths, shown)
  noise_std, correlation = np.empty((2, len(mean)), np.float32)
  for dims, spread in world.features():
    shot_std, noise_std[dims], correlation[dims] = _budget(mean[dims], spread)
    shifts[:, dims] *= shot_std
  # From here on in quantiser steps. A dimension whose mean is near the end of
  # the range spreads no further than to that end, so its mean can be met.
  target = ((mean - _LOWEST) / _STEP).astype(np.float32)
  room = np.minimum(target, 255 - target) * np.float32(_STEP)
  steps = np.minimum(1, room).astype(np.float32) / np.float32(_STEP)
  shifts *= steps

  # An autoregression, unrolled over the current and three earlier frames.
  frames = rng.standard_normal((lengths.sum() + 3, len(mean)), np.float32)
  frames *= np.sqrt(1 - correlation**2) * noise_std * steps
  frames[1:] += correlation * frames[:-1]
  frames[2:] += correlation**2 * frames[:-2]
  frames = frames[3:]
  frames += np.repeat(shifts + target, lengths, axis=0)

  _meet_means(frames, target)
  return np.rint(frames, out=frames).astype(np.uint8)
