"""Measures what storing only the K best classes of a teacher takes from L_PRED.

For each K it compares L_PRED's target with that of all classes, and L_PRED of a trained
student with both. Classes that are not stored share the rest of the probability evenly
(`tasks.stored`). Run it on videos that neither network was trained on. From the
repository's root:

  python -m experiments.benchmarks.stored_loss --teacher=RUN --student=RUN \
    --input_path='validate*.tfrecord'

B videos, V classes, K stored classes.
"""

from collections.abc import Iterator

from absl import app
from absl import flags
import numpy as np
import pandas as pd
import tensorflow as tf

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.dataloaders import reader
from yt8m_distill.dataloaders import shard_batches
from yt8m_distill.dataloaders import shards
from yt8m_distill.evaluation import report
from yt8m_distill.modeling import losses
from yt8m_distill.serving import ensemble
from yt8m_distill.serving import model_sources
from yt8m_distill.serving import teach
from yt8m_distill.tasks import stored
from yt8m_distill.utils import parallel

_BATCH = 50  # of L_PRED's gradient


def targets(
  classes: tf.Tensor, probabilities: tf.Tensor, top_k: int, dtype: str
) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns what a student learns from stored answers.

  Args:
    classes: int32 [B, V], all classes by descending probability.
    probabilities: float32 [B, V], theirs.
    top_k: K.
    dtype: type that probabilities are stored in.

  Returns:
    The predictions of all classes, float32 [B, V]; and the share of the K best in the
    sum of the probabilities, float32 [B].
  """
  rest = tf.reduce_sum(probabilities[:, top_k:], 1)
  answers = {
    'classes': classes[:, :top_k],
    'probabilities': tf.cast(probabilities[:, :top_k], dtype),
    'rest': rest,
  }
  share = 1 - rest / tf.reduce_sum(probabilities, 1)
  return stored.predictions_of(answers, classes.shape[1]), share


def _batches(input_path: str) -> Iterator[shard_batches.Batch]:
  paths = shards.find(input_path)
  group = [parallel.Shard(*names, '') for names in zip(paths, shards.sizes(paths))]
  for batches in shard_batches.of_shards(_BATCH, False, group):
    yield from batches


def measure(
  teachers: list[str], student: str, input_path: str, top_k: list[int], dtype: str
) -> pd.DataFrame:
  """Returns a row for each K and video, or batch.

  Args:
    teachers: sources of the networks that teach.
    student: source of a trained student.
    input_path: see `file_patterns`.
    top_k: values of K.
    dtype: type that probabilities are stored in.

  Returns:
    The columns `K`, `share` (of the K best classes), `kl` (divergence of L_PRED's
    target from that of all classes, in nats), `loss` and `loss_difference` (L_PRED with
    the target, and by how much it deviates, relative to the mean of L_PRED). In the
    last row of each batch also `gradient_difference`: the norm of what the gradient of
    the batch's mean deviates in all weights, relative to that of the gradient.
  """
  teacher = ensemble.Ensemble(teachers, model_sources.TEACHERS, top_k=None)
  learner = trained_network.Network(student)
  model, network = learner.model, learner.network
  read = reader.FrameReader(
    model.features,
    model.max_frames,
    model.num_classes,
    model.network.frames,
    with_labels=False,
  )
  rows = []
  for batch in _batches(input_path):
    answers = teacher(*batch)
    best = answers['class_indices'], answers['probabilities']
    full, _ = targets(*best, teacher.num_classes, 'float32')
    chosen = [targets(*best, k, dtype) for k in top_k]
    inputs, _ = read(*batch)
    weights = network.trainable_variables
    with tf.GradientTape(persistent=True) as tape:
      predictions = network(inputs, training=False)['predictions']
      values = [
        losses.prediction_loss(target, predictions)
        for target in (full, *(target for target, _ in chosen))
      ]
      means = [tf.reduce_mean(value) for value in values]
    gradients = [
      tape.gradient(mean, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
      for mean in means
    ]
    for k, (target, share), value, gradient in zip(
      top_k, chosen, values[1:], gradients[1:]
    ):
      table = pd.DataFrame(
        {
          'K': k,
          'share': share.numpy(),
          'kl': losses.prediction_loss(full, target).numpy(),
          'loss': value.numpy(),
          'loss_difference': (value - values[0]).numpy() / float(means[0]),
          'gradient_difference': np.nan,
        }
      )
      deviation = [a - b for a, b in zip(gradient, gradients[0], strict=True)]
      table.loc[table.index[-1], 'gradient_difference'] = float(
        tf.linalg.global_norm(deviation) / tf.linalg.global_norm(gradients[0])
      )
      rows.append(table)
  return pd.concat(rows, ignore_index=True)


def _define_flags():
  flags.DEFINE_list(
    'teacher', None, 'Runs that teach, separated by commas.', required=True
  )
  flags.DEFINE_string('student', None, 'Run of a student.', required=True)
  flags.DEFINE_string('input_path', None, 'Held-out records.', required=True)
  flags.DEFINE_list('top_k', ['20', '100', '1000', '3862'], 'Values of K.')
  flags.DEFINE_enum('dtype', 'float16', teach.DTYPES, 'Type of stored probabilities.')


def main(_):
  """Prints a row for each K."""
  values = flags.FLAGS
  table = measure(
    values.teacher,
    values.student,
    values.input_path,
    [int(k) for k in values.top_k],
    values.dtype,
  )
  rows = [
    [
      'K',
      'share of the probability',
      'share, lowest 5%',
      'KL, nats',
      'L_PRED',
      'L_PRED, difference',
      "gradient's difference",
    ]
  ]
  for k, group in table.groupby('K'):
    rows.append(
      [
        f'{k:,}',
        f'{group["share"].mean():.2%}',
        f'{group["share"].quantile(0.05):.2%}',
        f'{group["kl"].mean():.2g}',
        f'{group["loss"].mean():.4f}',
        f'{group["loss_difference"].mean():+.2%}',
        f'{group["gradient_difference"].mean():.2%}',
      ]
    )
  print(f'{len(table) // len(rows[1:]):,} videos, gradients of batches of {_BATCH}.')
  print(report.markdown(rows), end='')


if __name__ == '__main__':
  _define_flags()
  app.run(main)
