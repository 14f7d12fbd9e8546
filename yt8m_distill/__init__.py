"""Distillation of video classifiers that look at fewer frames.

Importing the package registers its experiments, tasks and backbones with
TensorFlow Model Garden, and lets gin find the package's gin files by name.
"""

import pathlib

# gin locks once its files are parsed, and a Garden module with configurables
# of its own that is imported later raises: all of them come in here.
from official.core import train_lib as _train_lib

import gin
from yt8m_distill import tasks
from yt8m_distill.configs import experiments as _experiments
from yt8m_distill.modeling import backbones

_PACKAGE = pathlib.Path(__file__).resolve().parent
# In a wheel the files are in the package, in a checkout beside it.
for _folder in (_PACKAGE / 'gin_files', _PACKAGE.parent / 'gin'):
  if _folder.is_dir():
    gin.add_config_file_search_path(str(_folder))
