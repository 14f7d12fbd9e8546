"""A tiny trained run, and videos as records and as arrays."""

import numpy as np
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.modeling import distiller

STEP = 7
# One frame, around the student's stride, full, and cut.
LENGTHS = (1, tiny.EVERY_N, tiny.EVERY_N + 1, tiny.MAX_FRAMES, tiny.MAX_FRAMES + 4)


def write_run(path, *overrides, scale=1.0):
  """A distillation run with random weights, evaluated at STEP.

  Args:
    path: of the run.
    *overrides: of its configuration.
    scale: of the weights. At 1 no two predictions are alike; a larger network
      then amplifies every rounding.
  """
  params = tiny.experiment(*overrides)
  model = distiller.build(params.task.model)
  tiny.scatter_weights(model)
  for variable in model.trainable_variables:
    variable.assign(scale * variable)
  names = ('teacher', 'student')
  trained_network.write(
    str(path),
    model,
    params,
    STEP,
    {
      'step': STEP,
      'videos': 9,
      'metrics': {f'{name}/gap': 0.5 + 0.25 * (name == 'student') for name in names},
      'networks': {name: {'frames': 4, 'flops': 5, 'parameters': 6} for name in names},
    },
  )
  return str(path)


def videos(features, lengths=LENGTHS, seed=0):
  """Random videos.

  Args:
    features: of the model's configuration.
    lengths: frames of each video.
    seed: of their content.

  Returns:
    {'frames': uint8 [B, T, D], 'num_frames': int32 [B]} and the same as
    serialized SequenceExamples [B].
  """
  rng = np.random.default_rng(seed)
  size = sum(feature.size for feature in features)
  frames = np.zeros([len(lengths), max(lengths), size], np.uint8)
  records = []
  for video, length in zip(frames, lengths):
    video[:length] = rng.integers(0, 256, [length, size])
    record = tf.train.SequenceExample()
    record.context.feature['labels'].int64_list.value.append(0)
    start = 0
    for feature in features:
      for frame in video[:length, start : start + feature.size]:
        record.feature_lists.feature_list[
          feature.name
        ].feature.add().bytes_list.value.append(frame.tobytes())
      start += feature.size
    records.append(record.SerializeToString())
  return {
    'frames': tf.constant(frames),
    'num_frames': tf.constant(lengths, tf.int32),
  }, tf.constant(records)
