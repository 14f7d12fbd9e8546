"""Imports a checkpoint of the authors' TensorFlow 1.3 code.

  python -m yt8m_distill.checkpoints.import_tf1 CHECKPOINT OUT --every_n=10

CHECKPOINT is a prefix or a folder. OUT becomes a run of this package, without
the state of the optimizers: of teacher and student (`yt8m_distill`), or of the
student alone (`yt8m_distill_finetune`), configured as gin/original.gin and
gin/original_finetune.gin do. What shapes do not tell is said by flags, whose
defaults are the original's.

The step of a pair is half the original's global_step, which both optimizers
count up. Of a student alone it is the global_step as it stands: fine-tuning
counts once a step, and what the parallel training before it counted twice
cannot be told apart.
"""

from collections.abc import Sequence

from absl import flags
from official.core import config_definitions as cfg

from yt8m_distill.checkpoints import tf1_checkpoint
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.configs import data
from yt8m_distill.configs import experiments
from yt8m_distill.configs import settings
from yt8m_distill.modeling import distiller
from yt8m_distill.modeling import video_classifier
from yt8m_distill.utils import cli

FLAGS = flags.FLAGS


def convert(
  checkpoint: str,
  out: str,
  *,
  every_n: int,
  student_chunks: int,
  teacher_chunks: int,
  max_frames: int,
  features: Sequence[str],
):
  """Writes an original checkpoint as a run into `out`.

  Args:
    checkpoint: prefix or folder.
    out: folder that is not there or empty.
    every_n: N, the student sees frames 0, N, 2N, ...
    student_chunks: of the student's frames.
    teacher_chunks: of all frames; a student alone needs none.
    max_frames: longer videos are cut here.
    features: 'NAME:BYTES' of a frame, in the order in which they are joined.

  Raises:
    ValueError: no checkpoint of that code, features or chunks that do not fit
      it, or `out` holds something.
  """
  trained_network.check_free(out)
  source = tf1_checkpoint.Tf1Checkpoint(checkpoint)
  sizes = source.sizes
  parsed = data.parse_features(features)
  total = sum(feature.size for feature in parsed)
  if total != sizes.features:
    raise ValueError(
      f'--features={",".join(features)} are {total} values a frame, those of '
      f'{source.prefix} were {sizes.features}: name what it was trained on.'
    )
  shared = dict(
    every_n=every_n,
    length='original',
    student_chunks=student_chunks,
    max_frames=max_frames,
    num_cells=sizes.num_cells,
    num_layers=sizes.num_layers,
    num_mixtures=sizes.num_mixtures,
    num_classes=sizes.num_classes,
    learning_rate_decay=1.0,
    adam_epsilon=1e-8,
  )
  if 'teacher' in source.networks:
    params = experiments.yt8m_distill(
      settings.Settings(
        teacher_chunks=teacher_chunks,
        representation_weight=2.0,
        prediction_reduction='sum',
        train_steps=95834,
        **shared,
      )
    )
  else:
    params = experiments.yt8m_distill_finetune(
      settings.Settings(train_steps=57500, **shared)
    )
  params.task.model.features = parsed
  model = _load(source, params)
  step = source.global_step // len(source.networks)
  trained_network.write(out, model, params, step)
  print(
    f'{source.prefix} -> {out}: {" and ".join(source.networks)}, '
    f'{model.count_params():,} parameters at step {step}'
  )


def _load(source: tf1_checkpoint.Tf1Checkpoint, params: cfg.ExperimentConfig):
  """Returns the model of a configuration, with the weights of `source`."""
  config = params.task.model
  if 'teacher' in source.networks:
    model = distiller.build(config)
    source.load({'teacher': model.teacher, 'student': model.student})
  else:
    model = video_classifier.build(config, config.network, 'network')
    source.load({'student': model})
  return model


def _define_flags():
  flags.DEFINE_integer('every_n', 10, 'The student sees frames 0, N, 2N, ...')
  flags.DEFINE_integer('student_chunks', 5, "Chunks of the student's frames.")
  flags.DEFINE_integer('teacher_chunks', 20, 'Chunks of all frames.')
  flags.DEFINE_integer('max_frames', 300, 'Longer videos are cut here.')
  flags.DEFINE_list(
    'features',
    'rgb:1024,audio:128',
    'Name and bytes of each feature of a frame, in order.',
  )


def main(argv: Sequence[str]):
  convert(
    *argv,
    every_n=FLAGS.every_n,
    student_chunks=FLAGS.student_chunks,
    teacher_chunks=FLAGS.teacher_chunks,
    max_frames=FLAGS.max_frames,
    features=FLAGS.features,
  )


if __name__ == '__main__':
  _define_flags()
  cli.run(main, 'CHECKPOINT', 'OUT')
