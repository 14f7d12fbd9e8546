"""Backbones: from frames to the representation of a video."""

from yt8m_distill.modeling.backbones.average import Average
from yt8m_distill.modeling.backbones.hierarchical_lstm import HierarchicalLstm
