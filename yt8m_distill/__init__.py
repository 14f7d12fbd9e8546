"""Distillation of video classifiers that look at fewer frames.

Importing the package registers its experiments, tasks and backbones with
TensorFlow Model Garden, and lets gin find the package's gin files by name.
"""

import pathlib
import sys

from yt8m_distill.utils import startup

_module = startup.module()
if _module.startswith(f'{__name__}.'):  # python -m yt8m_distill.train
  startup.hide_messages()
  startup.skip_keras_3()
# The list of commands appears at once: it does not wait for TensorFlow.
if _module != __name__ and pathlib.Path(sys.argv[0]).name != 'yt8m-distill':
  with startup.loading():
    from yt8m_distill import registration
