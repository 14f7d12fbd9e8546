"""A Garden project of its own that builds on yt8m_distill.

Importing it registers its experiments, tasks, networks and loss. It classifies clips
of birds by embeddings of their frames: 512 floats each, 10 species.
"""

from bird_clips import experiments
from bird_clips import networks
from bird_clips import tasks
