"""Tasks: what the Garden's trainer runs."""

from yt8m_distill.tasks.classification import ClassificationTask
from yt8m_distill.tasks.distillation import DistillationTask
from yt8m_distill.tasks.stored import StoredTask
