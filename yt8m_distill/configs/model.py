"""Configuration of the networks."""

import dataclasses

from official.modeling import hyperparams

from yt8m_distill.configs import data

SELECTIONS = (
  'all',
  'uniform',
  'random',
  'first',
  'middle',
  'last',
  'first_middle_last',
)


@dataclasses.dataclass
class AllFrames(hyperparams.Config):
  """Every frame of the video."""


@dataclasses.dataclass
class UniformFrames(hyperparams.Config):
  """Frames a constant interval apart; one of `every_n` and `k` is 0.

  Attributes:
    every_n: N: frames 0, N, 2N, ... of the video.
    k: as many frames, spread over the video's true length.
    length: how many of every_n's frames count as real for a video of n frames.
      'ceil': ceil(n / N), all that exist, at least one.
      'original': int(n / max_frames * (max_frames / N)) in floating point, as
        the original code has it; 0 for a video shorter than N.
  """

  every_n: int = 1
  k: int = 0
  length: str = 'ceil'  # ceil | original


@dataclasses.dataclass
class SomeFrames(hyperparams.Config):
  """As many frames of the video; all of one that has fewer.

  Attributes:
    k: frames.
  """

  k: int = 30


@dataclasses.dataclass
class FrameSelection(hyperparams.OneOfConfig):
  """Which frames a network sees, always in the order of time.

  Attributes:
    type: which of these.
    all: every frame.
    uniform: a constant interval apart.
    random: drawn anew each time a video is trained on; in evaluation, export
      and prediction by a hash of its id, so that results repeat.
    first: from the start.
    middle: around the middle of the true length.
    last: up to the true end.
    first_middle_last: a third of the k from each; what 3 does not divide goes
      to the first, then to the middle.
  """

  type: str = 'all'  # of SELECTIONS
  all: AllFrames = dataclasses.field(default_factory=AllFrames)
  uniform: UniformFrames = dataclasses.field(default_factory=UniformFrames)
  random: SomeFrames = dataclasses.field(default_factory=SomeFrames)
  first: SomeFrames = dataclasses.field(default_factory=SomeFrames)
  middle: SomeFrames = dataclasses.field(default_factory=SomeFrames)
  last: SomeFrames = dataclasses.field(default_factory=SomeFrames)
  first_middle_last: SomeFrames = dataclasses.field(default_factory=SomeFrames)


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
    use_cudnn: on a GPU of NVIDIA's, run the layers on cuDNN, but for those with
      static_shapes or of which states on the way are compared. False for graphs
      that must run on a CPU as well, and for deterministic operations.
    recompute: compute what the backward pass needs of the steps again, instead
      of keeping it: more time and, most on a CPU, where chunks run in tiles,
      less memory.
  """

  chunks: int = 20
  num_cells: int = 1024
  num_layers: int = 2
  static_shapes: bool = False
  use_cudnn: bool = True
  recompute: bool = False


@dataclasses.dataclass
class NetVlad(hyperparams.Config):
  """NetVLAD of "Learnable pooling with context gating" (arXiv 1706.06905).

  Attributes:
    clusters: of the first feature (rgb); every further one has half as many.
    hidden: units of the layer behind the descriptors, the representation.
  """

  clusters: int = 256
  hidden: int = 1024


@dataclasses.dataclass
class NextVlad(hyperparams.Config):
  """NeXtVLAD (arXiv 1811.05014).

  Attributes:
    clusters: of the first feature (rgb); every further one has half as many.
    groups: into which a frame is split; further features have half as many.
    expansion: how much wider a frame becomes before that.
    hidden: units of the layer behind the descriptors, the representation.
    dropout: share of the descriptor's values that training leaves out.
    eigenvalues: .npy of the releases' PCA of rgb, to undo its whitening; '' to
      take features as they are.
  """

  clusters: int = 128
  groups: int = 8
  expansion: int = 2
  hidden: int = 2048
  dropout: float = 0.5
  eigenvalues: str = ''


@dataclasses.dataclass
class Dbof(hyperparams.Config):
  """Deep bag of frames (YouTube-8M starter code).

  Attributes:
    clusters: units that each frame excites.
    hidden: units of the layer behind the pooled ones, the representation.
    pooling: over the frames.
  """

  clusters: int = 8192
  hidden: int = 1024
  pooling: str = 'max'  # max | average


@dataclasses.dataclass
class Average(hyperparams.Config):
  """Mean over the frames, or what a video-level record holds."""


@dataclasses.dataclass
class Backbone(hyperparams.OneOfConfig):
  """From frames to the representation of a video."""

  # hierarchical_lstm | netvlad | nextvlad | yt8m_dbof | yt8m_average
  type: str = 'hierarchical_lstm'
  hierarchical_lstm: HierarchicalLstm = dataclasses.field(
    default_factory=HierarchicalLstm
  )
  netvlad: NetVlad = dataclasses.field(default_factory=NetVlad)
  nextvlad: NextVlad = dataclasses.field(default_factory=NextVlad)
  yt8m_dbof: Dbof = dataclasses.field(default_factory=Dbof)
  yt8m_average: Average = dataclasses.field(default_factory=Average)


@dataclasses.dataclass
class Moe(hyperparams.Config):
  """Mixture of logistic experts.

  Attributes:
    num_mixtures: experts per class, beside the dummy expert that says 0.
    l2_weight_decay: times sum(w^2) / 2 of both weight matrices.
    input_gate: context gate on the representation (arXiv 1706.06905).
    output_gate: context gate on the predictions.
  """

  num_mixtures: int = 2
  l2_weight_decay: float = 1e-8
  input_gate: bool = False
  output_gate: bool = False


@dataclasses.dataclass
class Logistic(hyperparams.Config):
  """Logistic regression per class.

  Attributes:
    l2_weight_decay: times sum(w^2) / 2 of the weights.
    input_gate: gate on the representation: a full context gate, or NeXtVLAD's
      squeeze-and-excitation gate.
    se_reduction: how much narrower the inner layer of the latter is.
  """

  l2_weight_decay: float = 1e-8
  input_gate: str = 'none'  # none | context | se
  se_reduction: int = 8


@dataclasses.dataclass
class Head(hyperparams.OneOfConfig):
  """From the representation to the classes."""

  type: str = 'moe'  # moe | logistic
  moe: Moe = dataclasses.field(default_factory=Moe)
  logistic: Logistic = dataclasses.field(default_factory=Logistic)


@dataclasses.dataclass
class Network(hyperparams.Config):
  """One network: the frames it sees, its backbone and its head.

  Attributes:
    dropout: share of the representation's values that training hides from the
      head; teacher and student hide the same ones. The paper speaks of 0.5, its
      code applies none.
  """

  frames: FrameSelection = dataclasses.field(default_factory=FrameSelection)
  backbone: Backbone = dataclasses.field(default_factory=Backbone)
  head: Head = dataclasses.field(default_factory=Head)
  dropout: float = 0.0

  def draws(self) -> bool:
    """Whether anything is drawn at random for a video."""
    return bool(
      self.frames.type == 'random'
      or self.dropout
      or getattr(self.backbone.get(), 'dropout', 0.0)
    )


def _features() -> list[data.Feature]:
  return [data.Feature(name='rgb', size=1024), data.Feature(name='audio', size=128)]


@dataclasses.dataclass
class VideoModel(hyperparams.Config):
  """What the records hold and the networks must agree on.

  Attributes:
    features: read in this order and joined along the last axis.
    max_frames: longer videos are cut here.
    num_classes: 3862 (2018), 4716 (2017), 4800 (2016), or your own.
  """

  features: list[data.Feature] = dataclasses.field(default_factory=_features)
  max_frames: int = 300
  num_classes: int = 3862


@dataclasses.dataclass
class ClassifierModel(VideoModel):
  """A single network."""

  network: Network = dataclasses.field(default_factory=Network)


@dataclasses.dataclass
class DistillerModel(VideoModel):
  """Teacher and student side by side.

  Attributes:
    share_head: one head for both, as the paper says; its code has two.
    projection: learn linear maps from the student's representation and states
      to the teacher's, where they differ in width and are compared.
  """

  teacher: Network = dataclasses.field(default_factory=Network)
  student: Network = dataclasses.field(
    default_factory=lambda: Network(
      frames=FrameSelection(type='uniform', uniform=UniformFrames(every_n=10)),
      backbone=Backbone(hierarchical_lstm=HierarchicalLstm(chunks=5)),
    )
  )
  share_head: bool = False
  projection: bool = False


def alone(model: VideoModel, name: str) -> ClassifierModel:
  """One network of a model as a model of its own.

  Args:
    model: with a field `name`: teacher, student or network.
    name: which.
  """
  return ClassifierModel(
    features=model.features,
    max_frames=model.max_frames,
    num_classes=model.num_classes,
    network=getattr(model, name),
  )
