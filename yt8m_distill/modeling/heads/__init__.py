"""Heads: from the representation of a video to its classes."""

from yt8m_distill.modeling.heads.logistic import LogisticHead
from yt8m_distill.modeling.heads.moe import MoeHead
