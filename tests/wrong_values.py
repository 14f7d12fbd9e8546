"""Single wrong values for every field of the registered experiments.

  PYTHONPATH=.:tests python tests/wrong_values.py

tries all of them and counts how each ends.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
import copy
import dataclasses
import functools
import math
import re
import typing
from typing import Any
from typing import NamedTuple

from official.core import train_utils
from official.modeling import hyperparams
import tiny
import yaml

EXPERIMENTS = (
  'yt8m_distill',
  'yt8m_distill_single',
  'yt8m_distill_finetune',
  'yt8m_distill_segments',
  'yt8m_distill_stored',
)
# By kind: most fields mean none of these; reason_to_take() says which do.
VALUES = {
  'word': 'maybe',
  'null': None,
  'negative': -3,
  'zero': 0,
  'huge': 10**12,
  'fraction': 1.5,
  'infinity': math.inf,
  'nan': math.nan,
  'boolean': True,
  'number': 7,
  'text': '5',
  'list': [1, 'a'],
  'mapping': {'a': 1},
  'misspelt': 0,
}


_PATH = re.compile(r'(task|trainer|runtime)\.[\w.\[\]]+ is ')
# Fields that hold any name, path or address.
_FREE_TEXT = {
  'best_checkpoint_export_subdir',
  'eigenvalues',
  'evaluation.classes',
  'init_checkpoint',
  'input_path',
  'name',
  'teacher_checkpoint',
  'tf_data_service_address',
  'tf_data_service_job_name',
  'tpu',
  'trainer_id',
  'validation_summary_subdir',
  'vocabulary',
  'worker_hosts',
}
# Fields that may be null: the default then, nothing, or what is computed later.
_OPTIONAL = {
  'all_reduce_alg',
  'autotune_algorithm',
  'best_checkpoint_eval_metric',
  'best_checkpoint_export_subdir',
  'class_weights',
  'clipnorm',
  'clipvalue',
  'dataset_num_private_threads',
  'deterministic',
  'eigenvalues',
  'evaluation.classes',
  'exclude_from_layer_adaptation',
  'exclude_from_weight_decay',
  'global_clipnorm',
  'gpu_thread_mode',
  'include_in_weight_decay',
  'init_checkpoint',
  'input_path',
  'loss_scale',
  'mixed_precision_dtype',
  'prefetch_buffer_size',
  'ram_budget',
  'staircase',
  'task.name',
  'teacher_checkpoint',
  'tf_data_service_address',
  'tf_data_service_job_name',
  'tfds_data_dir',
  'tfds_name',
  'tfds_skip_decoding_feature',
  'tfds_split',
  'tpu',
  'tpu_enable_xla_dynamic_padder',
  'trainer_id',
  'vocabulary',
  'warmup.type',
  'worker_hosts',
}
# Whole numbers that may be 0: none, as many as there are, from the start.
_MAY_BE_ZERO = {
  'bagging_seed',
  'continuous_eval_timeout',
  'default_shard_dim',
  'num_examples',
  'num_gpus',
  'num_packs',
  'offset',
  'per_gpu_thread_count',
  'prefetch_buffer_size',
  'projected_size',
  'recovery_begin_steps',
  'recovery_max_trials',
  'schedule.steps',
  'seed',
  'start_step',
  'task_index',
  'train_steps',
  'uniform.k',
  'validation_interval',
  'window.k',
}
# Numbers of any sign.
_SIGNED = {
  'beta_2_decay',
  'offset',
  'power.power',
  'power_linear.power',
  'power_with_offset.power',
}
# Numbers that must be above 0, or within other bounds that leave 0 out.
_NOT_ZERO = {
  'beta_2_decay',
  'clip_threshold',
  'clipnorm',
  'clipvalue',
  'clipping_norm',
  'constant.learning_rate',
  'decay_rate',
  'epsilon',
  'initial_learning_rate',
  'label_epsilon',
  'loss_scale',
  'loss_upper_bound',
  'linear_decay_fraction',
  'prediction_temperature',
}

# By alternative: fields without a valid default.
_RATE = {'initial_learning_rate': 0.1}
_NEEDED = {
  'optimizer.adamw': {'gradient_clip_norm': 0.0},
  'optimizer.adamw_experimental': {'global_clipnorm': 0.0},
  'learning_rate.cosine': {**_RATE, 'decay_steps': 9},
  'learning_rate.exponential': {**_RATE, 'decay_steps': 9, 'decay_rate': 0.5},
  'learning_rate.polynomial': {**_RATE, 'decay_steps': 9},
  'learning_rate.power': _RATE,
  'learning_rate.power_linear': {**_RATE, 'total_decay_steps': 9},
  'learning_rate.power_with_offset': _RATE,
  'learning_rate.step_cosine_with_offset': {
    'boundaries': [2, 4],
    'values': [0.1, 0.2],
  },
  'learning_rate.stepwise': {'boundaries': [2, 4], 'values': [0.1, 0.2, 0.3]},
  'warmup.linear': {'warmup_steps': 2},
  'warmup.polynomial': {'warmup_steps': 2},
}
_NOT_IMPLEMENTED = ('adafactor', 'slide')  # Optimizers of the Garden.


class Case(NamedTuple):
  """A wrong value.

  Attributes:
    experiment: its experiment.
    path: of the field.
    kind: a key of VALUES.
    values: what overrides the experiment: the value, and what makes it count.
    hint: annotation of the field.
  """

  experiment: str
  path: str
  kind: str
  values: dict[str, Any]
  hint: Any

  def text(self) -> str:
    """Returns `values` as YAML in one line, as --params_override takes it."""
    return yaml.safe_dump(self.values, default_flow_style=True, width=math.inf)


_Wrap = Callable[[dict[str, Any]], dict[str, Any]]


def _leaves(config, path: str, wrap: _Wrap) -> Iterator[tuple[str, _Wrap, Any]]:
  """Yields the plain fields below a configuration, of all alternatives.

  Args:
    config: the configuration.
    path: of it.
    wrap: from values of its fields to values of the whole configuration.

  Yields:
    The field's path, `wrap` of the configuration that holds it, its annotation.
  """
  hints = typing.get_type_hints(type(config))
  for field in dataclasses.fields(config):
    name, hint, value = field.name, hints[field.name], getattr(config, field.name)
    place = f'{path}.{name}' if path else name
    if value is None:  # A configuration that is optional.
      options = [o for o in typing.get_args(hint) if dataclasses.is_dataclass(o)]
      value = options[0]() if options else None
    if name in _NOT_IMPLEMENTED:
      continue
    if isinstance(value, hyperparams.Config):
      chosen = {'type': name} if isinstance(config, hyperparams.OneOfConfig) else {}
      needed = _NEEDED.get('.'.join(place.split('.')[-2:]), {})
      yield from _leaves(value, place, _within(wrap, name, chosen, needed))
    elif isinstance(value, list) and value and dataclasses.is_dataclass(value[0]):
      yield from _leaves(value[0], f'{place}[0]', _within_list(wrap, name, value))
    else:
      yield place, wrap, hint


def _within(wrap, name, chosen, needed) -> _Wrap:
  return lambda values: wrap({**chosen, name: {**needed, **values}})


def _within_list(wrap, name, items) -> _Wrap:
  first, *others = (item.as_dict() for item in items)
  return lambda values: wrap({name: [{**first, **values}, *others]})


def cases() -> list[Case]:
  """Returns all wrong values of all fields."""
  found = []
  for experiment in EXPERIMENTS:
    for path, wrap, hint in _leaves(_base(experiment), '', lambda values: values):
      for kind, value in VALUES.items():
        place = f'{path}x' if kind == 'misspelt' else path
        values = wrap({place.rpartition('.')[2]: value})
        found.append(Case(experiment, place, kind, values, hint))
  return found


@functools.cache
def _base(experiment):
  """A tiny experiment before it is overridden."""
  return tiny.experiment(experiment=experiment)


class _Parser(train_utils.ExperimentParser):
  """The Garden's, but builds each experiment once, which takes most of the time."""

  def base_experiment(self):
    return copy.deepcopy(_base(self._flags_obj.experiment))


def parse(case: Case, folder=None):
  """Configures the case's experiment as a driver does.

  Args:
    case: the case.
    folder: where a YAML file is written; None uses --params_override.

  Returns:
    The configuration.
  """
  files, override = [], case.text()
  if folder:
    path = folder / 'own.yaml'
    path.write_text(yaml.safe_dump(case.values))
    files, override = [str(path)], ''
  params = _Parser(
    train_utils.ParseConfigOptions(
      experiment=case.experiment, config_file=files, params_override=override
    )
  ).parse()
  params.validate()
  return params


def _named(case: Case, names: set[str]) -> bool:
  """Whether the last one or two parts of the path are among names."""
  parts = case.path.split('.')
  return not names.isdisjoint([parts[-1], '.'.join(parts[-2:])])


def reason_to_take(case: Case) -> str:
  """Says why a value is rightly taken; '' if it must be refused.

  Where a value has the field's type, it may be refused for its bounds, or because of
  other fields.
  """
  types = {case.hint, *typing.get_args(case.hint)}
  number, is_float = bool(types & {int, float}), float in types
  for reason, holds in {
    'runs keep the name of their experiment': case.path == 'experiment',
    'any text is a name or a path': (
      case.kind in ('word', 'text') and _named(case, _FREE_TEXT)
    ),
    'null says that there is none': case.kind == 'null' and _named(case, _OPTIONAL),
    'text of a number is a number': case.kind == 'text' and is_float,
    '7 is a number': case.kind == 'number' and number,
    '1.5 is a number': case.kind == 'fraction' and is_float,
    'true is right or wrong': case.kind == 'boolean' and bool in types,
    'a number may be large': case.kind == 'huge' and is_float,
    'a seed may be large': case.kind == 'huge'
    and _named(case, {'seed', 'bagging_seed'}),
    'the number may be 0': (
      case.kind == 'zero'
      and (_named(case, _MAY_BE_ZERO) or (is_float and not _named(case, _NOT_ZERO)))
    ),
    'the number may be negative': case.kind == 'negative' and _named(case, _SIGNED),
  }.items():
    if holds:
      return reason
  return ''


def outcome(case: Case, folder=None) -> tuple[str, str]:
  """Returns how a case ends, and the message of its error.

  Args:
    case: the case.
    folder: see parse().

  Returns:
    'refused' in one line that starts with the field's path, or, for a value that is
    right in itself, with that of a related one; 'taken'; or 'other'.
  """
  try:
    parse(case, folder)
  except ValueError as error:
    message = str(error)
    related = bool(reason_to_take(case)) and _PATH.match(message)
    clear = '\n' not in message and (related or message.startswith(f'{case.path} '))
    return ('refused' if clear else 'other'), message
  except Exception as error:  # Whatever a driver would end with.
    return 'other', repr(error)
  return 'taken', ''


def main():
  """Tries all cases; prints counts, and what ends neither refused nor rightly taken."""
  counts = collections.Counter[str]()
  for case in cases():
    result, message = outcome(case)
    if result == 'taken':
      result = f'taken: {reason_to_take(case) or "WRONGLY"}'
    counts[result] += 1
    if result in ('other', 'taken: WRONGLY'):
      print(f'{result}: {case.path} is {VALUES[case.kind]!r}. {message}')
  for result, count in counts.most_common():
    print(f'{count:6} {result}')


if __name__ == '__main__':
  main()
