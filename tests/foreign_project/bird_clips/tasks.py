"""A loss, and tasks whose configuration has its weight."""

from official.core import task_factory
import tensorflow as tf

from bird_clips import configs
from yt8m_distill import tasks
from yt8m_distill.tasks import loss_terms


@loss_terms.register('entropy')
def entropy(labels, network, teacher, params):
  """Entropy of the predictions, which keeps them from hedging; float32 [B]."""
  del labels, teacher, params
  p = tf.clip_by_value(network['predictions'], 1e-6, 1 - 1e-6)
  return -tf.reduce_sum(p * tf.math.log(p) + (1 - p) * tf.math.log(1 - p), axis=-1)


@task_factory.register_task_cls(configs.DistillationTask)
class DistillationTask(tasks.DistillationTask):
  """The task of that configuration."""


@task_factory.register_task_cls(configs.ClassificationTask)
class ClassificationTask(tasks.ClassificationTask):
  """The task of that configuration."""

  def create_model(self):
    """Returns the model; freezes its backbone if wanted."""
    model = super().create_model()
    model.backbone.trainable = not self.task_config.freeze_backbone
    return model
