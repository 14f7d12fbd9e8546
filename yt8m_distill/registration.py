"""Registers experiments, tasks and backbones, and lets gin find the gin files."""
# ruff: noqa: F401

# gin locks once its files are parsed, and a Garden module with configurables
# that is imported later raises: all of them are imported here.
from official.core import train_lib

from yt8m_distill import tasks
from yt8m_distill.configs import experiments
from yt8m_distill.modeling import backbones
from yt8m_distill.utils import shipped

shipped.register_gin_files()
