"""Draws the frames of simulated YouTube-8M videos; numpy only.

A video is a run of shots. Every label of the video has shots of its own, which
lean towards the label's prototype; the other shots are fillers, which lean
towards a random mixture of prototypes. The shots are centred, so the frames
average to a given mean, whatever the shots show.
"""

import numpy as np

from yt8m_distill.simulation import classes
from yt8m_distill.utils import quantization

# A shot's label when it shows none of the video's labels.
FILLER = -1
MIN_SHOT, MAX_SHOT = 5, 30

# Probability that two adjacent frames lie in one shot of 5 to 30 frames.
_SAME_SHOT = 1 - 2 / (MIN_SHOT + MAX_SHOT)
# Share of a label shot's shift that points to the label's prototype; the rest
# is a filler's mixture, without which a single frame would tell everything.
_LABEL_SHARE = 0.8
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


def random_length(
  rng: np.random.Generator, num_labels: int, min_frames: int, max_frames: int
) -> int:
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
      f'max_frames={max_frames}: raise max_frames or drop the video.'
    )
  return int(rng.integers(least, max_frames + 1))


def shot_plan(
  rng: np.random.Generator, labels: np.ndarray, num_frames: int
) -> tuple[np.ndarray, np.ndarray]:
  """Cuts a video into shots and gives every label some of them.

  Args:
    rng: source of randomness.
    labels: distinct labels, int [labels].
    num_frames: at least 5 for each label and 5 more for a filler.

  Returns:
    The lengths of the shots in frames, int64 [shots], each 5 to 30, and the
    label of each, int64 [shots], FILLER where it shows none.
  """
  shots = int(
    np.clip(
      round(2 * num_frames / (MIN_SHOT + MAX_SHOT)),
      max(len(labels) + 1, -(-num_frames // MAX_SHOT)),
      num_frames // MIN_SHOT,
    )
  )
  lengths = rng.integers(MIN_SHOT, MAX_SHOT + 1, size=shots)
  while missing := num_frames - lengths.sum():
    free = np.flatnonzero(lengths < MAX_SHOT if missing > 0 else lengths > MIN_SHOT)
    moved = rng.permutation(free)[: abs(missing)]
    lengths[moved] += np.sign(missing)
  own = max(len(labels), int(_LABEL_SHOTS * shots))
  shown = np.full(shots, FILLER, np.int64)
  shown[: len(labels)] = labels
  shown[len(labels) : own] = rng.choice(labels, own - len(labels))
  return lengths, rng.permutation(shown)


def _shot_shifts(
  rng: np.random.Generator, world: classes.World, lengths: np.ndarray, shown: np.ndarray
) -> np.ndarray:
  """Returns [shots, dims] shifts; over the frames: mean 0, mean square 1."""
  shifts = classes.mixtures(rng, world, len(shown))
  own = shown != FILLER
  shifts[own] = (
    _LABEL_SHARE * world.prototypes[shown[own]]
    + np.float32(np.sqrt(1 - _LABEL_SHARE**2)) * shifts[own]
  )
  weights = (lengths / lengths.sum()).astype(np.float32)
  # Not a matrix product, which would start threads in every process.
  shifts -= np.einsum('s,sd->d', weights, shifts)
  for dims, _ in world.features():
    square = np.sum(weights * np.square(shifts[:, dims]).mean(1))
    shifts[:, dims] /= np.sqrt(max(square, 1e-12))
  return shifts


def _budget(mean: np.ndarray, spread: classes.Spread) -> tuple[float, float, float]:
  """Splits a feature's spread, given the video's mean of that feature.

  Args:
    mean: [dims].
    spread: what the frames are to measure.

  Returns:
    The std of the shots' shifts and of the noise within shots, and the noise's
    correlation from frame to frame.
  """
  total = (spread.std / _CLIPPING_LOSS) ** 2
  fixed = np.var(mean)
  residual = max(total - fixed, _LEAST_RESIDUAL * total)
  shots = spread.shot_share * residual
  noise = residual - shots
  correlation = (spread.adjacent * total - fixed - _SAME_SHOT * shots) / noise
  return (
    np.sqrt(shots),
    np.sqrt(noise),
    np.clip(correlation, 0, _MAX_NOISE_CORRELATION),
  )


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


def simulate_frames(
  rng: np.random.Generator,
  world: classes.World,
  mean: np.ndarray,
  lengths: np.ndarray,
  shown: np.ndarray,
) -> np.ndarray:
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
  target = quantization.to_steps(mean).astype(np.float32)
  room = np.minimum(target, 255 - target) * np.float32(quantization.SCALE)
  steps = np.minimum(1, room).astype(np.float32) / np.float32(quantization.SCALE)
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
