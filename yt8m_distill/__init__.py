"""Distillation of video classifiers that look at fewer frames.

Importing the package registers its experiments, tasks and backbones with
TensorFlow Model Garden, and lets gin find the package's gin files by name.
"""

import pathlib
import sys

# The list of commands appears at once: it does not wait for TensorFlow.
if (
  sys.orig_argv[1:3] != ['-m', __name__]
  and pathlib.Path(sys.argv[0]).name != 'yt8m-distill'
):
  from yt8m_distill import registration
