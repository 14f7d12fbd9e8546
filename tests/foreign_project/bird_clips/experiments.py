"""The experiments of yt8m_distill, with this project's classes and features."""

from bird_clips import configs
from yt8m_distill.configs import data
from yt8m_distill.configs import experiments
from yt8m_distill.configs import registry


@registry.register('bird_clips')
def bird_clips():
  """Teacher and student together."""
  return _with_features(
    experiments.yt8m_distill(task=configs.DistillationTask, network=configs.Network)
  )


@registry.register('bird_clips_single')
def bird_clips_single():
  """One network from scratch, such as a teacher for serial training."""
  return _with_features(
    experiments.yt8m_distill_single(
      task=configs.ClassificationTask, network=configs.Network
    )
  )


@registry.register('bird_clips_finetune')
def bird_clips_finetune():
  """The student by itself."""
  return _with_features(
    experiments.yt8m_distill_finetune(
      task=configs.ClassificationTask, network=configs.Network
    )
  )


def _with_features(params):
  params.task.model.features = [data.Feature(name='clip', size=512, format='floats')]
  return params
