"""Windows of videos: made and classified on the device, from the frames of a batch.

A window of a video is `length` frames: 0 to length - 1, the next ones, and so on; the
last one ends with the video. A network sees a window as `split-segments` would store
it, with `context` frames before and after, as far as the video has them.

B videos, T frames, D features, W windows of all videos, K selected frames, V classes.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags
import tensorflow as tf

from yt8m_distill.configs import classification
from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import frame_selection

# Frames of a video whose windows are predicted, unless a network sees longer videos.
LONGEST = 300
# A slice of windows takes about as much memory as a batch of 64 videos; more windows at
# once are not faster, because the predictions of many classes then exceed the caches.
_FRAMES_AT_ONCE = 64 * 300
_WINDOWS_AT_ONCE = 512


def define_flags():
  """Defines the flag that says what a network sees of windows; see `context_of`."""
  flags.DEFINE_integer(
    'context',
    None,
    'Frames before and after a window that the networks also see: --context of '
    'split-segments when it wrote the training records. Default: 0, of networks that '
    'were trained on videos or see windows only.',
  )


class Segments(NamedTuple):
  """How windows of videos are predicted.

  Attributes:
    length: frames of a window.
    context: frames before and after a window that the networks were trained to see;
      None if their configuration tells. Exports have theirs.
    video_weight: whether to multiply a class' probability by that for the whole video.
  """

  length: int = model_config.WINDOW
  context: int | None = None
  video_weight: bool = False


class Windows(NamedTuple):
  """Windows of the videos of a batch, in order.

  Attributes:
    video: int32 [W], rows of the batch.
    start: int32 [W], first frames.
    end: int32 [W], frames after the last ones.
  """

  video: tf.Tensor
  start: tf.Tensor
  end: tf.Tensor


def of_videos(num_frames: tf.Tensor, length: int | tf.Tensor) -> Windows:
  """Returns the windows of videos.

  Args:
    num_frames: int32 [B], 1 or more.
    length: frames of a window, 1 or more.
  """
  counts = -(-num_frames // length)
  video = tf.repeat(tf.range(tf.size(num_frames)), counts)
  first = tf.gather(tf.cumsum(counts, exclusive=True), video)
  start = (tf.range(tf.size(video)) - first) * length
  return Windows(video, start, tf.minimum(start + length, tf.gather(num_frames, video)))


def last_frame(max_frames: int) -> int:
  """Returns how many frames of a video have windows that a network predicts.

  Args:
    max_frames: frames of a video that the network sees at most.
  """
  return max(max_frames, LONGEST)


def context_of(
  task: classification.VideoTask,
  frames: model_config.FrameSelection,
  context: int | None,
) -> int:
  """Returns how many frames before and after a window a network sees.

  Args:
    task: configuration of the network's training.
    frames: which frames the network sees.
    context: what the user says; None for nothing.

  Raises:
    ValueError: it is negative; or it is None, but cannot be told from `task`.
  """
  if context is not None and context < 0:
    raise ValueError(
      f'context is {context}: it must be 0 or more. (A network that sees the whole '
      'video predicts the same for each of its windows.)'
    )
  if frames.type == 'window':
    return 0
  if context is None and task.labels == 'segments':
    raise ValueError(
      'context is not set, but the network was trained on rated windows and sees '
      f'frames of type {frames.type!r}, also of their context. Set --context to that '
      'of split-segments when it wrote the training records.'
    )
  return context or 0


def chosen_frames(
  model: model_config.ClassifierModel,
  context: int,
  num_frames: tf.Tensor,
  windows: Windows,
  seeds: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Chooses the frames that a network sees of windows.

  Args:
    model: configuration of the network.
    context: see the module.
    num_frames: int32 [B], number of valid frames of the videos.
    windows: of the videos.
    seeds: int32 [W], of frames drawn at random.

  Returns:
    Indices of a video's frames, int32 [W, K], and how many are valid, int32 [W]. Those
    after the valid ones are any frames.
  """
  first = tf.maximum(windows.start - context, 0)
  last = tf.minimum(windows.end + context, tf.gather(num_frames, windows.video))
  indices, count = frame_selection.frame_indices(
    tf.minimum(last - first, model.max_frames),
    model.network.frames,
    model.max_frames,
    seeds,
    tf.zeros_like(first),
  )
  return first[:, tf.newaxis] + indices, count


def classify(
  network: Callable[[dict[str, tf.Tensor]], tf.Tensor],
  model: model_config.ClassifierModel,
  frames: tf.Tensor,
  video: tf.Tensor,
  indices: tf.Tensor,
  count: tf.Tensor,
) -> tf.Tensor:
  """Classifies windows, a slice at a time.

  Args:
    network: returns predictions [N, V] of {'frames': [N, K, D], 'num_frames': [N]}.
    model: its configuration.
    frames: of the videos, [B, T, D].
    video: int32 [W], for each window the row of its video in `frames`.
    indices: int32 [W, K], as returned by `chosen_frames`.
    count: int32 [W], likewise.

  Returns:
    float32 [W, V].
  """
  kept = model.network.frames.max_selected(model.max_frames)
  size = sum(feature.size for feature in model.features)
  padded = tf.shape(frames)[1]
  flat = tf.reshape(frames, [-1, size])

  def predict(video, indices, count):
    rows = (video * padded)[:, tf.newaxis] + tf.minimum(indices, padded - 1)
    chosen = tf.ensure_shape(tf.gather(flat, rows), [None, kept, size])
    return network({'frames': chosen, 'num_frames': count})

  at_once = max(1, min(_FRAMES_AT_ONCE // kept, _WINDOWS_AT_ONCE))
  return _in_slices(predict, [video, indices, count], at_once, model.num_classes)


def _in_slices(
  function: Callable[..., tf.Tensor],
  tensors: Sequence[tf.Tensor],
  at_once: int,
  width: int,
) -> tf.Tensor:
  """Applies a function to `at_once` rows at a time; returns float32 [rows, width]."""
  slices = -(-tf.shape(tensors[0])[0] // at_once)

  def step(number, results):
    begin = number * at_once
    rows = [tensor[begin : begin + at_once] for tensor in tensors]
    return number + 1, results.write(number, function(*rows))

  results = tf.TensorArray(
    tf.float32, slices, infer_shape=False, element_shape=[None, width]
  )
  _, results = tf.while_loop(
    lambda number, _: number < slices, step, (0, results), parallel_iterations=1
  )
  return results.concat()
