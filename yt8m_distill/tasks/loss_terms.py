"""The terms of the loss that `task.losses` weighs, and the registry of them.

The weight of a term NAME is the field `NAME_weight` of `task.losses`, so another
project adds a loss with a registered function and a field. Fields of other names may
not end in `_weight`. `NAME_reduction`, where it
exists, says whether the batch's values are averaged ('mean') or added ('sum').
L_CE, which every network has, is not registered here: see `tasks.classification`.

B videos.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

from official.core import registry
import tensorflow as tf

from yt8m_distill.modeling import losses


class Term(NamedTuple):
  """A registered term.

  Attributes:
    compute: see register().
    compares: names of the network's outputs that it compares with its teacher's.
  """

  compute: Callable[..., tf.Tensor | None]
  compares: Sequence[str]


_TERMS: dict[str, Term] = {}


def register(name: str, compares: Sequence[str] = ()) -> Callable:
  """Registers a term of the loss.

  Args:
    name: the term; `task.losses` holds its weight, NAME_weight.
    compares: names of the outputs that the term compares with the teacher's, such as
      'representation'. Where they differ in width, the model needs a projection. The
      weight of a term that compares follows `task.losses.schedule`.

  Returns:
    A decorator of a function of

      labels: bool [B, V].
      network: outputs of the network, in distillation those of the student, with
        projected ones in place of those that have a projection.
      teacher: the teacher's outputs, as constants; {} in a task without a teacher.
      params: `task.losses`.

    that returns the loss of each video, float32 [B], or None where there is none.

  Raises:
    KeyError: the name is taken.
  """

  def decorate(compute):
    if name == 'label':
      raise KeyError('label is the name of L_CE: register another one.')
    registry.register(_TERMS, name)(Term(compute, compares))
    return compute

  return decorate


def weighted(params) -> Iterator[tuple[str, float, Term]]:
  """Yields name, weight and term of each registered term that has a weight.

  Args:
    params: `task.losses`.
  """
  weights = params.weights()
  for name, term in _TERMS.items():
    if name in weights:
      yield name, weights[name], term


def check(params):
  """Raises a ValueError where a weight in `task.losses` has no registered term."""
  for name, weight in params.weights().items():
    if name not in _TERMS:
      raise ValueError(
        f'task.losses.{name}_weight is {weight}, but no loss {name!r} is registered.'
        ' Import the module that registers it with '
        'yt8m_distill.tasks.loss_terms.register, or override loss_terms() in a task of '
        'your own.'
      )


@register('representation', compares=['representation'])
def _representation(labels, network, teacher, params):
  """L_REP; None without the teacher's, or if the representations differ in width."""
  del labels, params
  wanted, seen = teacher.get('representation'), network['representation']
  if wanted is None or wanted.shape[-1] != seen.shape[-1]:
    return None
  return losses.representation_loss(wanted, seen)


@register('intermediate', compares=['moment_states'])
def _intermediate(labels, network, teacher, params):
  """L_INT; None without a weight, since the model then returns no states."""
  del labels
  if not params.intermediate_weight:
    return None
  return losses.intermediate_loss(
    teacher['moment_states'], network['moment_states'], network['num_moments']
  )


@register('prediction', compares=['predictions'])
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
