"""The terms of the loss that `task.losses` weighs, and the registry of them.

The weight of a term NAME is the field `NAME_weight` of `task.losses`, so another
project adds a loss with a registered function and a field. `NAME_reduction`, where it
exists, says whether the batch's values are averaged ('mean') or added ('sum').
L_CE, which every network has, is not registered here: see `tasks.classification`.

B videos.
"""

from collections.abc import Callable
from collections.abc import Iterator
from typing import NamedTuple

from official.core import registry
import tensorflow as tf

from yt8m_distill.modeling import losses


class Term(NamedTuple):
  """A registered term.

  Attributes:
    compute: see register().
    compares: whether it compares the network with its teacher.
  """

  compute: Callable[..., tf.Tensor | None]
  compares: bool


_TERMS: dict[str, Term] = {}


def register(name: str, compares: bool = False) -> Callable:
  """Registers a term of the loss.

  Args:
    name: the term; `task.losses` holds its weight, NAME_weight.
    compares: whether the term compares the student with its teacher. Its weight then
      follows `task.losses.schedule`.

  Returns:
    A decorator of a function of

      labels: bool [B, V].
      network: outputs of the network, in distillation those of the student, projected
        where the model has a projection.
      teacher: the teacher's outputs, as constants; {} in a task without a teacher.
      params: `task.losses`.

    that returns the loss of each video, float32 [B], or None where there is none.
  """

  def decorate(compute):
    registry.register(_TERMS, name)(Term(compute, compares))
    return compute

  return decorate


def weighted(params) -> Iterator[tuple[str, float, Term]]:
  """Yields name, weight and term of each registered term that has a weight.

  Args:
    params: `task.losses`.
  """
  for name, term in _TERMS.items():
    weight = getattr(params, f'{name}_weight', None)
    if weight is not None:
      yield name, weight, term


@register('representation', compares=True)
def _representation(labels, network, teacher, params):
  """L_REP; None if the representations differ in width."""
  del labels, params
  wanted, seen = teacher['representation'], network['representation']
  if wanted.shape[-1] != seen.shape[-1]:
    return None
  return losses.representation_loss(wanted, seen)


@register('intermediate', compares=True)
def _intermediate(labels, network, teacher, params):
  """L_INT; None without a weight, since the model then returns no states."""
  del labels
  if not params.intermediate_weight:
    return None
  return losses.intermediate_loss(
    teacher['moment_states'], network['moment_states'], network['num_moments']
  )


@register('prediction', compares=True)
def _prediction(labels, network, teacher, params):
  """L_PRED."""
  del labels
  return losses.prediction_loss(
    teacher['predictions'],
    network['predictions'],
    params.prediction_kind,
    params.label_epsilon,
    params.prediction_temperature,
  )
