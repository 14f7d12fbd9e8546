"""Draws the frames of simulated videos; numpy only.

A video is a sequence of shots. Each label has its own shots, whose frames are shifted
toward the label's prototype. The other shots are fillers, shifted toward a random
mixture of prototypes. The shifts are centered, so that the frames average to a given
mean, whatever the shots show. A shot of a label may have cutaways: frames that show
something else, as a filler does.
"""

import numpy as np

from yt8m_distill.simulation import classes
from yt8m_distill.utils import quantization

# Label of a shot that shows none of the video's labels.
FILLER = -1
MIN_SHOT, MAX_SHOT = 5, 30  # frames
# Length of a cutaway in frames; less at the ends of a shot, more if two meet.
CUTAWAY = 3

# Probability that two adjacent frames are in the same shot.
_SAME_SHOT = 1 - 2 / (MIN_SHOT + MAX_SHOT)
# Share of a label shot's shift that points to the label's prototype. The rest is a
# mixture, because otherwise a single frame would identify the label.
_LABEL_SHARE = 0.8
# Share of the shots that show labels, if the video has few labels.
_LABEL_SHOTS = 0.5
# Least share of the variance for shots and noise, even if the mean has all of it.
_MIN_RESIDUAL = 0.3
_MAX_NOISE_CORRELATION = 0.5
# Factor by which clipping at +-2 reduces the standard deviation.
_CLIPPING_LOSS = 0.955
# Clipping shifts the mean, which is corrected iteratively. Dimensions in which whole
# shots are clipped still have a large error (in quantization steps) after the first
# iterations, and get more.
_ITERATIONS, _EXTRA_ITERATIONS, _LARGE_ERROR = 3, 20, 0.3


def random_length(
  rng: np.random.Generator, num_labels: int, min_frames: int, max_frames: int
) -> int:
  """Draws a length, uniformly, with room for a shot per label and a filler.

  Args:
    rng: source of randomness.
    num_labels: number of the video's labels.
    min_frames: least length in frames.
    max_frames: greatest length in frames.

  Returns:
    The number of frames.

  Raises:
    ValueError: the labels do not fit into max_frames.
  """
  required = max(min_frames, MIN_SHOT * (num_labels + 1))
  if required > max_frames:
    raise ValueError(
      f'max_frames is {max_frames}: a video with {num_labels} labels needs {required} '
      'frames. Increase max_frames, or leave the video out.'
    )
  return int(rng.integers(required, max_frames + 1))


def shot_plan(
  rng: np.random.Generator, labels: np.ndarray, num_frames: int
) -> tuple[np.ndarray, np.ndarray]:
  """Divides a video into shots and assigns some of them to each label.

  Args:
    rng: source of randomness.
    labels: distinct labels, int [labels].
    num_frames: length of the video; at least MIN_SHOT per label and MIN_SHOT more.

  Returns:
    The length of each shot in frames, int64 [shots], MIN_SHOT to MAX_SHOT, and its
    label or FILLER, int64 [shots].
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


def cutaways(
  rng: np.random.Generator, lengths: np.ndarray, shown: np.ndarray, share: float
) -> np.ndarray:
  """Draws which frames cut away from the label of their shot.

  Args:
    rng: source of randomness.
    lengths: [shots], as from `shot_plan`.
    shown: [shots], as from `shot_plan`.
    share: expected share of the frames of label shots, 0 to 1.

  Returns:
    bool [frames].
  """
  cut = np.repeat(rng.random(-(-lengths.sum() // CUTAWAY)) < share, CUTAWAY)
  of_labels = np.repeat(shown != FILLER, lengths)
  return cut[: len(of_labels)] & of_labels


def _shot_shifts(
  rng: np.random.Generator, world: classes.World, lengths: np.ndarray, shown: np.ndarray
) -> np.ndarray:
  """Draws the shifts of shots, [shots, dims]; over all frames mean 0, mean square 1."""
  shifts = classes.mixtures(rng, world, len(shown))
  own = shown != FILLER
  shifts[own] = (
    _LABEL_SHARE * world.prototypes[shown[own]]
    + np.float32(np.sqrt(1 - _LABEL_SHARE**2)) * shifts[own]
  )
  weights = (lengths / lengths.sum()).astype(np.float32)
  # Not a matrix product, because that would start threads in every process.
  shifts -= np.einsum('s,sd->d', weights, shifts)
  for dims, _ in world.features():
    square = np.sum(weights * np.square(shifts[:, dims]).mean(1))
    shifts[:, dims] /= np.sqrt(max(square, 1e-12))
  return shifts


def _budget(mean: np.ndarray, spread: classes.Spread) -> tuple[float, float, float]:
  """Divides a feature's variance between shots and noise.

  Args:
    mean: [dims], the video's mean of the feature.
    spread: statistics that the frames should have.

  Returns:
    The standard deviations of the shots' shifts and of the noise within shots, and the
    correlation of the noise between adjacent frames.
  """
  total = (spread.std / _CLIPPING_LOSS) ** 2
  fixed = np.var(mean)
  residual = max(total - fixed, _MIN_RESIDUAL * total)
  shots = spread.shot_share * residual
  noise = residual - shots
  correlation = (spread.adjacent * total - fixed - _SAME_SHOT * shots) / noise
  return (
    np.sqrt(shots),
    np.sqrt(noise),
    np.clip(correlation, 0, _MAX_NOISE_CORRELATION),
  )


def _clip_to_mean(frames: np.ndarray, target: np.ndarray) -> None:
  """Clips frames in place so that each dimension averages to a target.

  Args:
    frames: [frames, dims], in quantization steps.
    target: [dims], between 0 and 255.
  """
  clipped = np.empty_like(frames)
  for _ in range(_ITERATIONS):
    frames += target - np.clip(frames, 0, 255, out=clipped).mean(0)
  error = target - np.clip(frames, 0, 255, out=clipped).mean(0)
  dims = np.flatnonzero(np.abs(error) > _LARGE_ERROR)
  values = frames[:, dims]
  for _ in range(_EXTRA_ITERATIONS if dims.size else 0):
    values += target[dims] - np.clip(values, 0, 255).mean(0)
  frames[:, dims] = values
  np.clip(frames, 0, 255, out=frames)


def simulate_frames(
  rng: np.random.Generator,
  world: classes.World,
  mean: np.ndarray,
  lengths: np.ndarray,
  shown: np.ndarray,
  cut: np.ndarray | None = None,
) -> np.ndarray:
  """Draws the quantized frames of one video.

  Args:
    rng: source of randomness.
    world: the prototypes.
    mean: [dims], required mean of the dequantized frames, in the range of the
      quantization.
    lengths: [shots], frames of each shot, as from `shot_plan`.
    shown: [shots], label of each shot or FILLER, as from `shot_plan`.
    cut: bool [frames], as from `cutaways`; None for none.

  Returns:
    uint8 [frames, dims]. Their mean differs from `mean` by about 0.01 at most.
  """
  scenes = np.repeat(np.arange(len(lengths)), lengths)
  if cut is not None:  # To a scene of its own in each shot.
    scenes[cut] += len(lengths)
    shown = np.concatenate([shown, np.full_like(shown, FILLER)])
  scene_lengths = np.bincount(scenes, minlength=len(shown))
  shifts = _shot_shifts(rng, world, scene_lengths, shown)
  noise_std, correlation = np.empty((2, len(mean)), np.float32)
  for dims, spread in world.features():
    shot_std, noise_std[dims], correlation[dims] = _budget(mean[dims], spread)
    shifts[:, dims] *= shot_std
  # From here in quantization steps. If a dimension's mean is near an end of the range,
  # its deviations are reduced to reach that end at most, so that the mean stays
  # reachable.
  target = quantization.to_steps(mean).astype(np.float32)
  margin = np.minimum(target, 255 - target) * np.float32(quantization.SCALE)
  steps = np.minimum(1, margin).astype(np.float32) / np.float32(quantization.SCALE)
  shifts *= steps

  # Autoregressive noise, unrolled over the current and three earlier frames.
  frames = rng.standard_normal((len(scenes) + 3, len(mean)), np.float32)
  frames *= np.sqrt(1 - correlation**2) * noise_std * steps
  frames[1:] += correlation * frames[:-1]
  frames[2:] += correlation**2 * frames[:-2]
  frames = frames[3:]
  frames += (shifts + target)[scenes]

  _clip_to_mean(frames, target)
  return np.rint(frames, out=frames).astype(np.uint8)
