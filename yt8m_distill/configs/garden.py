"""What the Garden's own configurations allow; it does not check them itself.

Bounds are declared by field, relations between fields in `check`.
"""

import functools

from official.core import config_definitions as cfg
from official.modeling.optimization.configs import learning_rate_config as rates
from official.modeling.optimization.configs import optimization_config
from official.modeling.optimization.configs import optimizer_config
from official.modeling.privacy import configs as privacy

from yt8m_distill.configs import allowed

_Bounds = allowed.Bounds
_COUNT = _Bounds(least=0)
_POSITIVE_COUNT = _Bounds(least=1)
_POSITIVE = _Bounds(above=0)
_DECAY = _Bounds(least=0, below=1)
_FRACTION = _Bounds(least=0, most=1)
_REQUIRED = _Bounds(least=0, null=False)
_POSITIVE_REQUIRED = _Bounds(above=0, null=False)
_ALL_REDUCE = {
  'mirrored': ('nccl', 'hierarchical_copy'),
  'multi_worker_mirrored': ('nccl', 'ring'),
}

# Optimizers and schedules have no base class that holds the fields they share.
_SCHEDULE_BOUNDS = {
  'learning_rate': _POSITIVE_REQUIRED,
  'initial_learning_rate': _POSITIVE_REQUIRED,
  'warmup_learning_rate': _REQUIRED,
  'pre_offset_learning_rate': _COUNT,
  'end_learning_rate': _COUNT,
  'alpha': _FRACTION,
  'linear_decay_fraction': _Bounds(above=0, most=1),
  # Null where the driver computes them from epochs.
  'decay_steps': _POSITIVE_COUNT,
  'warmup_steps': _POSITIVE_COUNT,
  'total_decay_steps': _Bounds(least=1, null=False),
  'decay_rate': _POSITIVE_REQUIRED,
  'boundaries': _Bounds(least=0, null=False),
  'values': _REQUIRED,
}
_BOUNDS: dict[type, dict[str, allowed.Bounds]] = {
  cfg.DataConfig: {
    'block_length': _POSITIVE_COUNT,
    'ram_budget': _Bounds(least=1, most=1_000_000),
  },
  cfg.RuntimeConfig: {
    # Not parameter_server, with which the Garden's trainer cannot evaluate.
    'distribution_strategy': _Bounds(
      choices=('mirrored', 'one_device', 'multi_worker_mirrored', 'tpu', 'off')
    ),
    'gpu_thread_mode': _Bounds(choices=('global', 'gpu_private', 'gpu_shared')),
    'dataset_num_private_threads': _Bounds(least=1, most=10_000),
    'per_gpu_thread_count': _Bounds(least=0, most=10_000),
    'num_gpus': _Bounds(least=0, most=1024),
    'task_index': _Bounds(least=-1),
    'all_reduce_alg': _Bounds(choices=('nccl', 'hierarchical_copy', 'ring')),
    'num_packs': _COUNT,
    'mixed_precision_dtype': _Bounds(choices=('float32', 'float16', 'bfloat16')),
    'loss_scale': _Bounds(choices=('dynamic',), above=0),
    'num_cores_per_replica': _POSITIVE_COUNT,
    'default_shard_dim': _Bounds(least=-1),
  },
  cfg.TrainerConfig: {
    'steps_per_loop': _POSITIVE_COUNT,
    'summary_interval': _POSITIVE_COUNT,
    'checkpoint_interval': _POSITIVE_COUNT,
    'max_to_keep': _POSITIVE_COUNT,
    'continuous_eval_timeout': _COUNT,
    'train_steps': _COUNT,
    'validation_steps': _Bounds(least=-1),
    'validation_interval': _COUNT,
    'best_checkpoint_metric_comp': _Bounds(choices=('higher', 'lower')),
    'loss_upper_bound': _POSITIVE,
    'recovery_begin_steps': _COUNT,
    'recovery_max_trials': _COUNT,
  },
  optimization_config.OptimizerConfig: {'type': _Bounds(null=False)},
  optimization_config.LrConfig: {'type': _Bounds(null=False)},
  optimizer_config.BaseOptimizerConfig: {
    'clipnorm': _POSITIVE,
    'clipvalue': _POSITIVE,
    'global_clipnorm': _POSITIVE,
    'gradient_clip_norm': _COUNT,
    'clip_threshold': _POSITIVE,
    'learning_rate': _COUNT,
    'decay': _COUNT,
    'beta_1': _DECAY,
    'beta_2': _DECAY,
    'beta_2_decay': _Bounds(below=0),
    'momentum': _DECAY,
    'rho': _DECAY,
    'average_decay': _DECAY,
    'start_step': _COUNT,
    'initial_accumulator_value': _COUNT,
    'epsilon': _POSITIVE,  # Weights without a gradient would become NaN.
    'epsilon_1': _COUNT,
    'epsilon_2': _COUNT,
    'eeta': _COUNT,
    'weight_decay': _COUNT,
    'weight_decay_rate': _COUNT,
  },
  # It cannot be null there.
  optimizer_config.AdamWeightDecayExperimentalConfig: {'global_clipnorm': _COUNT},
  privacy.DifferentialPrivacyConfig: {
    'clipping_norm': _POSITIVE,
    'noise_multiplier': _COUNT,
  },
  rates.PolynomialLrConfig: {**_SCHEDULE_BOUNDS, 'power': _POSITIVE},
  rates.PolynomialWarmupConfig: {**_SCHEDULE_BOUNDS, 'power': _COUNT},
  **dict.fromkeys(
    (
      rates.ConstantLrConfig,
      rates.CosineLrConfig,
      rates.DirectPowerLrConfig,
      rates.ExponentialLrConfig,
      rates.LinearWarmupConfig,
      rates.PowerAndLinearDecayLrConfig,
      rates.PowerDecayWithOffsetLrConfig,
      rates.StepCosineLrConfig,
      rates.StepwiseLrConfig,
    ),
    _SCHEDULE_BOUNDS,
  ),
}


def bounds(owner: type, name: str) -> allowed.Bounds:
  """Returns the bounds of a field that the Garden declares.

  Args:
    owner: class of the configuration, perhaps a subclass of the Garden's.
    name: of the field.
  """
  for base in owner.__mro__:
    if name in _BOUNDS.get(base, ()):
      return _BOUNDS[base][name]
  return _Bounds()


@functools.singledispatch
def check(config, path: str):
  """Raises where fields of a configuration of the Garden exclude each other.

  Args:
    config: any configuration.
    path: of it, for the message.

  Raises:
    ValueError: names the field by its full path, its value and the remedy.
  """


@check.register
def _(config: cfg.RuntimeConfig, path: str):
  strategy, gpus = config.distribution_strategy, config.num_gpus
  if strategy in ('one_device', 'off') and gpus > 1:
    raise ValueError(
      f'{path}.num_gpus is {gpus}: the distribution_strategy {strategy} uses one '
      'device. Set it to 1, or distribution_strategy to mirrored.'
    )
  choices = (*_ALL_REDUCE.get(strategy, ()), 'null')
  if config.all_reduce_alg and config.all_reduce_alg not in choices:
    allowed.fail(
      f'{path}.all_reduce_alg',
      config.all_reduce_alg,
      f'with the distribution_strategy {strategy}, choose one of {", ".join(choices)}',
    )


@check.register
def _(config: cfg.TrainerConfig, path: str):
  if config.summary_interval % config.steps_per_loop:
    raise ValueError(
      f'{path}.summary_interval is {config.summary_interval}: it must be a multiple of '
      f'steps_per_loop, {config.steps_per_loop}. Set both to the same number.'
    )
  if not config.validation_steps:
    raise ValueError(
      f'{path}.validation_steps is 0: no video would be evaluated. Set it to -1 for '
      'the whole set.'
    )
  for name in ('train', 'eval'):
    loop, function = f'{name}_tf_while_loop', f'{name}_tf_function'
    if getattr(config, loop) and not getattr(config, function):
      raise ValueError(
        f'{path}.{loop} is True: a loop of TensorFlow needs {function}. Set it to '
        f'False, or {function} to True.'
      )
  if config.eval_tf_while_loop and config.validation_steps < 0:
    raise ValueError(
      f'{path}.eval_tf_while_loop is True: a loop of TensorFlow needs a number of '
      'steps. Set it to False, or validation_steps to at least 1.'
    )
  if config.allow_tpu_summary and not config.train_tf_while_loop:
    raise ValueError(
      f'{path}.allow_tpu_summary is True: it needs train_tf_while_loop. Set it to '
      'False, or train_tf_while_loop to True.'
    )


@check.register
def _(config: optimization_config.OptimizerConfig, path: str):
  if config.type in ('adafactor', 'slide'):
    raise ValueError(
      f'{path}.type is {config.type!r}: the Garden declares this optimizer, but does '
      'not implement it. Choose another one, such as adam or adafactor_keras.'
    )


@check.register
def _(config: optimizer_config.BaseOptimizerConfig, path: str):
  if None not in (config.clipnorm, config.global_clipnorm):
    raise ValueError(
      f'{path}.global_clipnorm is {config.global_clipnorm}, and clipnorm is '
      f'{config.clipnorm}: an optimizer takes only one of them. Set the other one to '
      'null.'
    )


@check.register
def _(config: optimizer_config.EMAConfig, path: str):
  for name in ('clipnorm', 'clipvalue', 'global_clipnorm'):
    value = getattr(config, name)
    if value is not None:
      raise ValueError(
        f'{path}.{name} is {value}: the average of the weights clips nothing. Set it '
        f"to null, and the optimizer's {name} instead."
      )


@check.register
def _(config: rates.StepwiseLrConfig, path: str):
  _check_steps(config, path, len(config.boundaries) + 1)


@check.register
def _(config: rates.StepCosineLrConfig, path: str):
  _check_steps(config, path, len(config.boundaries))


def _check_steps(config, path: str, values: int):
  """Raises where boundaries do not grow, or there are not as many values."""
  boundaries = list(config.boundaries)
  if not boundaries or boundaries != sorted(set(boundaries)):
    raise ValueError(
      f'{path}.boundaries is {config.boundaries}: it must hold steps, each larger than '
      'the one before. Correct it.'
    )
  if len(config.values) != values:
    raise ValueError(
      f'{path}.values is {config.values}: {len(config.boundaries)} boundaries need '
      f'{values} values. Correct either.'
    )
