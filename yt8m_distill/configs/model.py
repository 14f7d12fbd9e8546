"""Configuration of the networks."""

import dataclasses
from typing import List

from official.modeling import hyperparams
from yt8m_distill.configs import data


@dataclasses.dataclass
class AllFrames(hyperparams.Config):
  """Every frame of the video."""


@dataclasses.dataclass
class UniformFrames(hyperparams.Config):
  """Frames 0, N, 2N, ... of the video.

  Attributes:
    every_n: N.
    length: how many of them count as real for a video of n frames.
      'ceil': ceil(n / N), all that exist, at least one.
      'original': int(n / max_frames * (max_frames / N)) in floating point, as
        the original code has it; 0 for a video shorter than N.
  """
  every_n: int = 1
  length: str = 'ceil'  # ceil | original


@dataclasses.dataclass
class FrameSelection(hyperparams.OneOfConfig):
  """Which frames a network sees."""
  type: str = 'all'  # all | uniform
  all: AllFrames = dataclasses.field(default_factory=AllFrames)
  uniform: UniformFrames = dataclasses.field(default_factory=UniformFrames)


@dataclasses.dataclass
class HierarchicalLstm(hyperparams.Config):
  """Two stacks of LSTM layers, over the frames of a chunk and over chunks.

  Attributes:
    chunks: into how many pieces of equal length the frames are split; it must
      divide the number of frames that the network sees.
    num_cells: cells of every layer.
    num_layers: layers of each stack.
    static_shapes: run empty chunks too, so that no shape depends on the data.
      For XLA; on a TPU it is always so.
  """
  chunks: int = 20
  num_cells: int = 1024
  num_layers: int = 2
  static_shapes: bool = False


@dataclasses.dataclass
class Backbone(hyperparams.OneOfConfig):
  """From frames to the representation of a video."""
  type: str = 'hierarchical_lstm'  # hierarchical_lstm
  hierarchical_lstm: HierarchicalLstm = dataclasses.field(
      default_factory=HierarchicalLstm)


@dataclasses.dataclass
class Moe(hyperparams.Config):
  """Mixture of logistic experts.

  Attributes:
    num_mixtures: experts per class, beside the dummy expert that says 0.
    l2_weight_decay: times sum(w^2) / 2 of both weight matrices.
  """
  num_mixtures: int = 2
  l2_weight_decay: float = 1e-8


@dataclasses.dataclass
class Head(hyperparams.OneOfConfig):
  """From the representation to the classes."""
  type: str = 'moe'  # moe
  moe: Moe = dataclasses.field(default_factory=Moe)


@dataclasses.dataclass
class Network(hyperparams.Config):
  """One network: the frames it sees, its backbone and its head."""
  frames: FrameSelection = dataclasses.field(default_factory=FrameSelection)
  backbone: Backbone = dataclasses.field(default_factory=Backbone)
  head: Head = dataclasses.field(default_factory=Head)


def _features() -> List[data.Feature]:
  return [data.Feature(name='rgb', size=1024),
          data.Feature(name='audio', size=128)]


@dataclasses.dataclass
class VideoModel(hyperparams.Config):
  """What the records hold and the networks must agree on.

  Attributes:
    features: read in this order and joined along the last axis.
    max_frames: longer videos are cut here.
    num_classes: 3862 (2018), 4716 (2017), 4800 (2016), or your own.
  """
  features: List[data.Feature] = dataclasses.field(default_factory=_features)
  max_frames: int = 300
  num_classes: int = 3862


@dataclasses.dataclass
class ClassifierModel(VideoModel):
  """A single network."""
  network: Network = dataclasses.field(default_factory=Network)


@dataclasses.dataclass
class DistillerModel(VideoModel):
  """Teacher and student side by side."""
  teacher: Network = dataclasses.field(default_factory=Network)
  student: Network = dataclasses.field(default_factory=lambda: Network(
      frames=FrameSelection(type='uniform', uniform=UniformFrames(every_n=10)),
      backbone=Backbone(hierarchical_lstm=HierarchicalLstm(chunks=5))))


def alone(model: VideoModel, name: str) -> ClassifierModel:
  """One network of a model as a model of its own.

  Args:
    model: with a field `name`: teacher, student or network.
    name: which.
  """
  return ClassifierModel(
      features=model.features, max_frames=model.max_frames,
      num_classes=model.num_classes, network=getattr(model, name))
