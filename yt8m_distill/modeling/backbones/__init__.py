"""Backbones: from frames to the representation of a video."""

from yt8m_distill.modeling.backbones.average import Average
from yt8m_distill.modeling.backbones.dbof import Dbof
from yt8m_distill.modeling.backbones.hierarchical_lstm import HierarchicalLstm
from yt8m_distill.modeling.backbones.netvlad import NetVlad
from yt8m_distill.modeling.backbones.nextvlad import NextVlad
