"""What the project adds to the configuration."""

import dataclasses

from official.modeling import hyperparams

from yt8m_distill.configs import classification
from yt8m_distill.configs import distillation
from yt8m_distill.configs import model
from yt8m_distill.configs import validation


@dataclasses.dataclass
class Conv(hyperparams.Config):
  """Fields of the backbone.

  Attributes:
    filters: of each layer.
    kernel_size: frames that a filter spans.
  """

  filters: int = validation.number(64, least=1)
  kernel_size: int = validation.number(3, least=1)


@dataclasses.dataclass
class Backbone(model.Backbone):
  """Adds an alternative to those of yt8m_distill."""

  conv: Conv = dataclasses.field(default_factory=Conv)


@dataclasses.dataclass
class Cosine(hyperparams.Config):
  """Fields of the head.

  Attributes:
    scale: factor of the cosine in the logit.
  """

  scale: float = validation.number(8.0, above=0)


@dataclasses.dataclass
class Head(model.Head):
  """Adds an alternative to those of yt8m_distill."""

  cosine: Cosine = dataclasses.field(default_factory=Cosine)


@dataclasses.dataclass
class Network(model.Network):
  """A network with these alternatives."""

  backbone: Backbone = dataclasses.field(default_factory=Backbone)
  head: Head = dataclasses.field(default_factory=Head)


@dataclasses.dataclass
class DistillationLoss(distillation.DistillationLoss):
  """Adds a weight, which belongs to the loss of that name in tasks.py."""

  entropy_weight: float = validation.number(0.01, least=0)


@dataclasses.dataclass
class DistillationTask(distillation.DistillationTask):
  """Distillation with that loss."""

  losses: DistillationLoss = dataclasses.field(default_factory=DistillationLoss)
  student_experiment: str = 'bird_clips_finetune'


@dataclasses.dataclass
class LabelLoss(classification.LabelLoss):
  """The same for a single network."""

  entropy_weight: float = validation.number(0.01, least=0)


@dataclasses.dataclass
class ClassificationTask(classification.ClassificationTask):
  """A single network with that loss.

  Attributes:
    freeze_backbone: train the head only.
  """

  losses: LabelLoss = dataclasses.field(default_factory=LabelLoss)
  freeze_backbone: bool = False
