"""Configuration of the networks."""

from collections.abc import Sequence
import dataclasses

from official.modeling import hyperparams

from yt8m_distill.configs import data
from yt8m_distill.configs import fits
from yt8m_distill.configs import validation

WINDOW = 5  # frames of a rated window: seconds, of one frame each
# Wider layers fit no device.
_MAX_WIDTH = 65536


@dataclasses.dataclass
class AllFrames(hyperparams.Config):
  """Every frame of the video."""


@dataclasses.dataclass
class UniformFrames(hyperparams.Config):
  """Frames at a constant interval; exactly one of `every_n` and `k` is not 0.

  Attributes:
    every_n: N: frames 0, N, 2N, ... of the video.
    k: that many frames, spread evenly over the video's true length.
    length: how many of every_n's frames count as real in a video of n frames.
      'ceil': ceil(n / N), all that exist, at least one.
      'original': int(n / max_frames * K) in floating point, where K is max_frames
        / N, rounded down, as in the original code; 0 for a video shorter than N.
  """

  every_n: int = validation.number(1, least=0)
  k: int = validation.number(0, least=0)
  length: str = validation.choice('ceil', 'ceil', 'original')

  def check(self, path: str):
    """Raises where fields exclude each other; see `validation`."""
    if bool(self.every_n) == bool(self.k):
      raise ValueError(
        f'{path}.every_n is {self.every_n} and {path}.k is {self.k}: exactly one of '
        'them must be 0. Set the other one.'
      )
    if self.k and self.length != 'ceil':
      raise ValueError(
        f'{path}.length is {self.length!r}: it applies to every_n only. Set it to '
        'ceil where k is given.'
      )


@dataclasses.dataclass
class SomeFrames(hyperparams.Config):
  """A fixed number of frames; all frames of a shorter video.

  Attributes:
    k: number of frames.
  """

  k: int = validation.number(30, least=1)


@dataclasses.dataclass
class WindowFrames(SomeFrames):
  """Frames of a rated window; fewer where the video ends within it.

  Attributes:
    k: number of frames, spread evenly over the window; 0 for all 5.
  """

  k: int = validation.number(0, least=0, most=WINDOW)


@dataclasses.dataclass
class NestedFrames(hyperparams.Config):
  """Several numbers of frames, each of them spread evenly over the true length.

  The frames of a smaller number are among those of a larger one. One network answers
  at each number: it is trained at all of them.

  Attributes:
    counts: the numbers, ascending. The last one is how many frames the network sees at
      most.
  """

  counts: list[int] = dataclasses.field(default_factory=lambda: [6, 12, 18, 30])

  def check(self, path: str):
    """Raises where fields exclude each other; see `validation`."""
    fits.check_counts(self.counts, f'{path}.counts')


@dataclasses.dataclass
class FrameSelection(hyperparams.OneOfConfig):
  """Which frames a network sees, in temporal order unless they are nested.

  Attributes:
    type: which of the following applies.
    all: every frame.
    uniform: frames at a constant interval.
    random: drawn again each time a video is trained on. In evaluation, export
      and prediction a hash of the video's id draws them, so that results are
      repeatable.
    first: from the start.
    middle: around the middle of the true length.
    last: up to the true end.
    first_middle_last: a third of k from each; if 3 does not divide k, the first
      and then the middle part get one more.
    window: of the rated window only, if the record is that of a window.
    nested: several numbers of frames, to each of which the network has an answer.
  """

  type: str = 'all'
  all: AllFrames = dataclasses.field(default_factory=AllFrames)
  uniform: UniformFrames = dataclasses.field(default_factory=UniformFrames)
  random: SomeFrames = dataclasses.field(default_factory=SomeFrames)
  first: SomeFrames = dataclasses.field(default_factory=SomeFrames)
  middle: SomeFrames = dataclasses.field(default_factory=SomeFrames)
  last: SomeFrames = dataclasses.field(default_factory=SomeFrames)
  first_middle_last: SomeFrames = dataclasses.field(default_factory=SomeFrames)
  window: WindowFrames = dataclasses.field(default_factory=WindowFrames)
  nested: NestedFrames = dataclasses.field(default_factory=NestedFrames)

  def counts(self) -> tuple[int, ...]:
    """Returns the numbers of frames that are answered; () if not nested."""
    return tuple(self.nested.counts) if self.type == 'nested' else ()

  def max_selected(self, max_frames: int) -> int:
    """Returns how many frames of the longest video are kept.

    Args:
      max_frames: frames of the longest video.
    """
    if self.type == 'all':
      return max_frames
    if self.type == 'nested':
      return self.nested.counts[-1]
    every_n = getattr(self.get(), 'every_n', 0)
    return -(-max_frames // every_n) if every_n else self.get().k or WINDOW

  def check_fits(self, max_frames: int, path: str):
    """Raises where more frames are wanted than a video has at most.

    Args:
      max_frames: frames of the longest video.
      path: of this selection, for the message.

    Raises:
      ValueError: `every_n` or `k` is above `max_frames`.
    """
    counts = self.counts()
    if counts and counts[-1] > max_frames:
      raise ValueError(
        f'{path}.nested.counts is {list(counts)}: the last one must be at most '
        f'task.model.max_frames, {max_frames}.'
      )
    for name in ('every_n', 'k'):
      value = getattr(self.get(), name, 0)
      if value > max_frames:
        raise ValueError(
          f'{path}.{self.type}.{name} is {value}: it must be at most '
          f'task.model.max_frames, {max_frames}.'
        )
    if self.max_selected(max_frames) > max_frames:
      raise ValueError(
        f'{path}.type is {self.type!r}: a window has {WINDOW} frames, but '
        f'task.model.max_frames is {max_frames}. Raise it, or choose another type.'
      )


@dataclasses.dataclass
class HierarchicalLstm(hyperparams.Config):
  """Two stacks of LSTM layers: over the frames of a chunk, and over the chunks.

  Attributes:
    chunks: number of equal parts into which the frames are split. It must
      divide the number of frames that the network sees.
    num_cells: cells of every layer.
    num_layers: layers of each stack.
    static_shapes: also compute empty chunks, so that no shape depends on the
      data, as XLA requires. Always done on a TPU.
    use_cudnn: on an NVIDIA GPU, run the layers on cuDNN, unless static_shapes is
      set or intermediate states are compared. Set it to False for graphs that
      must also run on a CPU, and for deterministic operations.
    recompute: recompute the steps in the backward pass instead of storing them.
      Takes more time and less memory, especially on a CPU, where chunks run in
      tiles.
  """

  chunks: int = validation.number(20, least=1)
  num_cells: int = validation.number(1024, least=1, most=_MAX_WIDTH)
  num_layers: int = validation.number(2, least=1, most=100)
  static_shapes: bool = False
  use_cudnn: bool = True
  recompute: bool = False

  def check_input(self, frames: int, sizes: Sequence[int], path: str):
    """Raises a ValueError where the chunks do not divide the frames.

    Args:
      frames: number of frames that the network sees.
      sizes: of the features of a frame.
      path: of this configuration, for the message.
    """
    del sizes
    fits.check_chunks(self.chunks, frames, f'{path}.chunks')

  def check_counts(self, counts: Sequence[int], path: str):
    """Raises a ValueError where a number of frames ends within a chunk.

    Args:
      counts: numbers of frames at which the network answers; `chunks` divides the last.
      path: of this configuration, for the message.
    """
    fits.check_chunk_ends(self.chunks, counts, f'{path}.chunks')


@dataclasses.dataclass
class NetVlad(hyperparams.Config):
  """NetVLAD of "Learnable pooling with context gating" (arXiv 1706.06905).

  Attributes:
    clusters: of the first feature (rgb); each further feature has half as many.
    hidden: units of the layer after the descriptors: the representation.
  """

  clusters: int = validation.number(256, least=1, most=_MAX_WIDTH)
  hidden: int = validation.number(1024, least=1, most=_MAX_WIDTH)

  def check_input(self, frames: int, sizes: Sequence[int], path: str):
    """Raises a ValueError where a feature has no clusters; see HierarchicalLstm."""
    del frames
    fits.check_shares(self.clusters, len(sizes), f'{path}.clusters')


@dataclasses.dataclass
class NextVlad(hyperparams.Config):
  """NeXtVLAD (arXiv 1811.05014).

  Attributes:
    clusters: of the first feature (rgb); each further feature has half as many.
    groups: into which a frame is split; further features have half as many.
    expansion: factor by which a frame is widened before that.
    hidden: units of the layer after the descriptors: the representation.
    dropout: fraction of the descriptor's values that training drops.
    eigenvalues: .npy file of the releases' PCA of rgb, to undo its whitening;
      '' uses the features unchanged.
  """

  clusters: int = validation.number(128, least=1, most=_MAX_WIDTH)
  groups: int = validation.number(8, least=1, most=_MAX_WIDTH)
  expansion: int = validation.number(2, least=1, most=1024)
  hidden: int = validation.number(2048, least=1, most=_MAX_WIDTH)
  dropout: float = validation.number(0.5, least=0, below=1)
  eigenvalues: str = ''

  def draws(self) -> bool:
    """Returns whether training needs random numbers for a video."""
    return self.dropout > 0

  def check_input(self, frames: int, sizes: Sequence[int], path: str):
    """Raises a ValueError where features cannot be split; see HierarchicalLstm."""
    del frames
    fits.check_shares(self.clusters, len(sizes), f'{path}.clusters')
    fits.check_shares(self.groups, len(sizes), f'{path}.groups')
    for index, size in enumerate(sizes):
      groups = self.groups // 2 if index else self.groups
      fits.check_groups(groups, size, self.expansion, f'{path}.groups')


@dataclasses.dataclass
class Dbof(hyperparams.Config):
  """Deep bag of frames (YouTube-8M starter code).

  Attributes:
    clusters: units that each frame activates.
    hidden: units of the layer after the pooling: the representation.
    pooling: over the frames.
  """

  clusters: int = validation.number(8192, least=1, most=_MAX_WIDTH)
  hidden: int = validation.number(1024, least=1, most=_MAX_WIDTH)
  pooling: str = validation.choice('max', 'max', 'average')


@dataclasses.dataclass
class Average(hyperparams.Config):
  """Mean over the frames, or the features of a video-level record."""


@dataclasses.dataclass
class Backbone(hyperparams.OneOfConfig):
  """From frames to the representation of a video."""

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
    num_mixtures: experts per class, in addition to a dummy expert that
      predicts 0.
    l2_weight_decay: factor of sum(w^2) / 2 of both weight matrices.
    input_gate: context gate on the representation (arXiv 1706.06905).
    output_gate: context gate on the predictions.
  """

  num_mixtures: int = validation.number(2, least=1, most=1024)
  l2_weight_decay: float = validation.number(1e-8, least=0)
  input_gate: bool = False
  output_gate: bool = False


@dataclasses.dataclass
class Logistic(hyperparams.Config):
  """Logistic regression per class.

  Attributes:
    l2_weight_decay: factor of sum(w^2) / 2 of the weights.
    input_gate: gate on the representation: 'context' for a full context gate,
      'se' for NeXtVLAD's squeeze-and-excitation gate.
    se_reduction: factor by which the inner layer of 'se' is narrower.
  """

  l2_weight_decay: float = validation.number(1e-8, least=0)
  input_gate: str = validation.choice('none', 'none', 'context', 'se')
  se_reduction: int = validation.number(8, least=1, most=_MAX_WIDTH)


@dataclasses.dataclass
class Head(hyperparams.OneOfConfig):
  """From the representation to the classes."""

  type: str = 'moe'
  moe: Moe = dataclasses.field(default_factory=Moe)
  logistic: Logistic = dataclasses.field(default_factory=Logistic)


@dataclasses.dataclass
class Network(hyperparams.Config):
  """One network: the frames it sees, its backbone and its head.

  Attributes:
    frames: which frames it sees.
    backbone: from frames to the representation.
    head: from the representation to the classes.
    dropout: fraction of the representation's values that training hides from
      the head; teacher and student hide the same ones. The paper mentions 0.5,
      its code applies none.
  """

  frames: FrameSelection = dataclasses.field(default_factory=FrameSelection)
  backbone: Backbone = dataclasses.field(default_factory=Backbone)
  head: Head = dataclasses.field(default_factory=Head)
  dropout: float = validation.number(0.0, least=0, below=1)

  def draws(self) -> bool:
    """Returns whether the network needs random numbers for a video."""
    backbone = self.backbone.get()
    return bool(
      self.frames.type == 'random'
      or self.dropout
      or (hasattr(backbone, 'draws') and backbone.draws())
    )


def _features() -> list[data.Feature]:
  return [data.Feature(name='rgb', size=1024), data.Feature(name='audio', size=128)]


@dataclasses.dataclass
class VideoModel(hyperparams.Config):
  """What the records hold and all networks of a model have in common.

  Attributes:
    features: concatenated in this order along the last axis.
    max_frames: longer videos are cut to this many frames.
    num_classes: 3862 (2018), 4716 (2017), 4800 (2016), or your own.
  """

  features: list[data.Feature] = dataclasses.field(default_factory=_features)
  max_frames: int = validation.number(300, least=1, most=1_000_000)
  num_classes: int = validation.number(3862, least=1, most=10_000_000)

  def _set(self, k, v):
    """Sets a field; the Garden would warn of features that differ in number."""
    is_list = k == 'features' and isinstance(v, list | tuple)
    if is_list and len(v) != len(self.__dict__.get(k) or v):
      self.__dict__[k] = []
    super()._set(k, v)

  def networks(self) -> dict[str, Network]:
    """Returns the networks by name of their field."""
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    return {name: v for name, v in fields.items() if isinstance(v, Network)}

  def earlier_answers(self) -> list[str]:
    """Returns what the last network's answers at fewer frames are called in results."""
    *_, learner = self.networks().values()
    return [answer_name(count) for count in learner.frames.counts()[:-1]]

  def check(self, path: str):
    """Raises where fields exclude each other; see `validation`."""
    data.check_features(self.features, f'{path}.features')
    if self.features[0].format == 'video' and self.max_frames != 1:
      raise ValueError(
        f'{path}.max_frames is {self.max_frames}: features of the format video '
        'count as 1 frame. Set it to 1.'
      )
    for name, network in self.networks().items():
      self._check_network(network, f'{path}.{name}')

  def _check_network(self, network: Network, path: str):
    network.frames.check_fits(self.max_frames, f'{path}.frames')
    backbone, place = network.backbone.get(), f'{path}.backbone.{network.backbone.type}'
    if hasattr(backbone, 'check_input'):
      backbone.check_input(
        network.frames.max_selected(self.max_frames),
        [feature.size for feature in self.features],
        place,
      )
    counts = network.frames.counts()
    if counts and hasattr(backbone, 'check_counts'):
      backbone.check_counts(counts, place)


@dataclasses.dataclass
class ClassifierModel(VideoModel):
  """A single network.

  Attributes:
    network: the network.
  """

  network: Network = dataclasses.field(default_factory=Network)


@dataclasses.dataclass
class StoredModel(ClassifierModel):
  """A student whose teacher's answers are stored in the records.

  Attributes:
    projected_size: width of the teacher's representation, if the student's is to be
      compared with it and differs in width: a linear map from one to the other is
      learned. 0 for none.
  """

  projected_size: int = validation.number(0, least=0, most=_MAX_WIDTH)


@dataclasses.dataclass
class DistillerModel(VideoModel):
  """Teacher and student side by side.

  Attributes:
    teacher: the network that sees more frames.
    student: the network that sees fewer frames.
    share_head: use one head for both, as in the paper; its code has two.
    projection: learn linear maps from the student's representation and states
      to the teacher's, if they are compared and differ in width.
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

  def check(self, path: str):
    """Raises where fields exclude each other; see `validation`."""
    if self.teacher.frames.counts():
      raise ValueError(
        f"{path}.teacher.frames.type is 'nested': a teacher answers at one number of "
        'frames. Choose another type.'
      )
    super().check(path)
    heads = [network.head.as_dict() for network in (self.teacher, self.student)]
    if self.share_head and heads[0] != heads[1]:
      raise ValueError(
        f'{path}.share_head is True, but the heads are configured differently: '
        f'{heads[0]} of the teacher, {heads[1]} of the student. Make them equal, or '
        'set share_head to False.'
      )


def answer_name(count: int) -> str:
  """Returns what a nested network's answer at fewer frames is called in results."""
  return f'at_{count}'


def key_prefix(network: str) -> str:
  """Returns the prefix of a network's metric keys; '' for a single network."""
  return '' if network == 'network' else f'{network}/'


def single_network(model: VideoModel, name: str) -> ClassifierModel:
  """Returns one network of a model as a model of its own.

  Args:
    model: the model.
    name: the field of `model` that holds the network: teacher, student or
      network.
  """
  return ClassifierModel(
    features=model.features,
    max_frames=model.max_frames,
    num_classes=model.num_classes,
    network=getattr(model, name),
  )
