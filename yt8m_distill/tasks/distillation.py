"""Training a student with its teacher, as the CVPR 2019 paper does.

Teacher and student are trained in parallel: the teacher on its label loss, the
student on L_REP, L_PRED and L_CE. As in the original code the student sees the
teacher as a constant, and the teacher never sees the student.
"""

from typing import Dict

import tensorflow as tf

from official.core import task_factory
from yt8m_distill import losses
from yt8m_distill import metrics as metrics_lib
from yt8m_distill.configs import distillation as config
from yt8m_distill.configs import model as model_config
from yt8m_distill.dataloaders import reader
from yt8m_distill.modeling import distiller
from yt8m_distill.tasks import classification
from yt8m_distill.tasks import restore
from yt8m_distill.tasks import runs


@task_factory.register_task_cls(config.DistillationTask)
class DistillationTask(classification.ClassificationTask):
  """Teacher and student together."""
  prefixes = ('teacher/', 'student/')

  def __init__(self, params, logging_dir=None, name=None):
    super().__init__(params, logging_dir=logging_dir, name=name)
    for field, allowed in (('prediction_kind', losses.PREDICTION_LOSSES),
                           ('prediction_reduction', ('mean', 'sum'))):
      value = getattr(params.losses, field)
      if value not in allowed:
        raise ValueError(f'losses.{field} is {value!r}: choose one of '
                         f'{", ".join(allowed)}.')

  @classmethod
  def create_optimizer(cls, optimizer_config, runtime_config=None,
                       dp_config=None):
    """As the Garden's; refuses what would couple the networks."""
    optimizer = optimizer_config.optimizer.get()
    # AdamW's own field of that kind is on unless it is set to 0.
    for field in ('global_clipnorm', 'gradient_clip_norm'):
      norm = getattr(optimizer, field, None)
      if norm:
        raise ValueError(
            f'{field} is {norm}: it would scale the student by the teacher\'s '
            'gradients and the other way round. Set clipnorm, which clips each '
            f'tensor, and {field} to {0 if "gradient" in field else "null"}.')
    return super().create_optimizer(optimizer_config, runtime_config, dp_config)

  def create_model(self):
    return distiller.build(self.task_config.model)

  def start_from(self, model, source):
    checkpoint = runs.checkpoint(source)
    restore.check_config(self.task_config.model, checkpoint)
    restore.restore_model(model, checkpoint)

  def networks(self, model_or_outputs):
    if isinstance(model_or_outputs, distiller.Distiller):
      networks = model_or_outputs.teacher, model_or_outputs.student
    else:
      networks = model_or_outputs['teacher'], model_or_outputs['student']
    return dict(zip(self.prefixes, networks))

  def build_reader(self):
    # The teacher needs all frames; the model picks the student's.
    model = self.task_config.model
    return reader.FrameReader(model.features, model.max_frames,
                              model.num_classes, model_config.FrameSelection(),
                              with_seeds=model.teacher.draws() or
                              model.student.draws())

  def loss_terms(self, labels, outputs) -> Dict[str, tf.Tensor]:
    """Adds 'student/representation_loss' and 'student/prediction_loss'."""
    teacher, student = outputs['teacher'], outputs['student']
    params = self.task_config.losses
    return {
        **super().loss_terms(labels, outputs),
        'student/representation_loss': losses.representation_loss(
            tf.stop_gradient(teacher['representation']),
            student['representation']),
        'student/prediction_loss': losses.prediction_loss(
            tf.stop_gradient(teacher['predictions']), student['predictions'],
            params.prediction_kind, params.label_epsilon),
    }

  def total_loss(self, terms, regularization, mean, total):
    params = self.task_config.losses
    reduce = total if params.prediction_reduction == 'sum' else mean
    return (
        mean(terms['teacher/label_loss']) +
        params.label_weight * mean(terms['student/label_loss']) +
        params.representation_weight *
        mean(terms['student/representation_loss']) +
        params.prediction_weight * reduce(terms['student/prediction_loss']) +
        tf.add_n(list(regularization.values())))

  def _train_metric_names(self):
    return [*super()._train_metric_names(), 'student/representation_loss',
            'student/prediction_loss']

  @tf.autograph.experimental.do_not_convert  # 3 times faster to trace
  def validation_step(self, inputs, model, metrics=None):
    """Adds the agreement of the two networks, per video."""
    logs = super().validation_step(inputs, model, metrics)
    agreement = metrics_lib.agreement(
        logs['teacher/classes'], logs['student/classes'])
    return {**logs, **{f'agreement/{k}': v for k, v in agreement.items()}}
