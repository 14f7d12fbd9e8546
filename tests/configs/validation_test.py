"""One line about the first invalid field, before anything is built."""

import dataclasses
import math

from official.core import exp_factory
from official.modeling import hyperparams
import pytest
import tiny

from yt8m_distill.configs import data
from yt8m_distill.configs import model
from yt8m_distill.configs import validation
from yt8m_distill.tasks import distillation

_LSTM = 'task.model.student.backbone.hierarchical_lstm'
_EVERY_N = 'task.model.student.frames.uniform.every_n'
_ADAM = 'trainer.optimizer_config.optimizer.adam'
_RATE = 'trainer.optimizer_config.learning_rate.exponential'
_STEPS = 'trainer.optimizer_config.learning_rate.stepwise'
_COUNT = 'it must be a whole number of at least 1'
_SHARE = 'it must be a finite number of at least 0 and below 1'


def _nested(path, value):
  for name in reversed(path.split('.')):
    value = {name: value}
  return value


def _experiment(*fields):
  return tiny.experiment(*(_nested(path, value) for path, value in fields))


def _message(*fields):
  with pytest.raises(ValueError) as error:
    _experiment(*fields).validate()
  message = str(error.value)
  assert '\n' not in message and message.endswith(('.', '?'))
  return message


@pytest.mark.parametrize(
  'experiment',
  [
    'yt8m_distill',
    'yt8m_distill_single',
    'yt8m_distill_finetune',
    'yt8m_distill_segments',
    'yt8m_distill_stored',
  ],
)
@pytest.mark.parametrize(
  'optimizer',
  ['sgd', 'adam', 'adamw_experimental', 'adagrad', 'lamb', 'lars', 'rmsprop'],
)
@pytest.mark.parametrize('warmup', [None, 'linear', 'polynomial'])
def test_defaults_are_valid(experiment, optimizer, warmup):
  params = exp_factory.get_exp_config(experiment)
  optimization = params.trainer.optimizer_config
  optimization.optimizer.type = optimizer
  optimization.warmup.type = warmup
  if warmup:
    optimization.warmup.get().warmup_steps = 3
  if optimizer == 'adamw_experimental':
    optimization.optimizer.get().global_clipnorm = 0.0  # Refused in distillation.
  params.validate()


@pytest.mark.parametrize(
  'path, value, allowed',
  [
    # Types.
    (_EVERY_N, '5', 'it must be a whole number of at least 0. Here it is text: wr'),
    (_EVERY_N, 2.5, 'it must be a whole number of at least 0'),
    (_EVERY_N, True, 'it must be a whole number of at least 0'),
    (f'{_LSTM}.chunks', 'many', _COUNT),
    (f'{_LSTM}.use_cudnn', 'maybe', 'it must be true or false'),
    (f'{_LSTM}.use_cudnn', 1, 'it must be true or false'),
    ('task.seed', 1.5, 'it must be a whole number'),
    ('task.train_data.cache', 'maybe', 'it must be true or false'),
    ('task.train_data.sharding', 'maybe', 'it must be true or false'),
    ('task.train_data.deterministic', -1, 'it must be true or false, or null'),
    ('task.train_data.input_path', 3, 'it must be a string or a list, each item a'),
    ('task.train_data.input_path', ['a', 3], 'it must be a string or a list, each'),
    ('task.model.features', [-1], 'each item a mapping with the keys name, size, f'),
    ('task.train_epochs', 'five', 'it must be a finite number from 0 to 1000000'),
    ('trainer.train_steps', 'many', 'it must be a whole number of at least 0'),
    ('trainer.train_steps', 1.5, 'it must be a whole number of at least 0'),
    ('trainer.best_checkpoint_eval_metric', 3, 'it must be a string'),
    ('runtime.num_gpus', 'two', 'it must be a whole number from 0 to 1024'),
    ('runtime.dataset_num_private_threads', 'x', 'number from 1 to 10000, or null'),
    (
      'runtime.loss_scale',
      [],
      'it must be dynamic or a finite number above 0, or null',
    ),
    # Null.
    (f'{_LSTM}.num_cells', None, 'it must be a whole number from 1 to 65536'),
    ('task.train_data.is_training', None, 'it must be true or false'),
    ('task.train_data.skip_corrupt_records', None, 'it must be true or false'),
    ('task.train_data.global_batch_size', None, 'number from 1 to 1000000'),
    ('task.model.student.dropout', None, _SHARE),
    ('task.losses.schedule.start', None, 'it must be a finite number of at least 0'),
    ('task.losses', None, 'it must be a mapping with the keys label_kind, '),
    (f'{_RATE}.initial_learning_rate', None, 'it must be a finite number above 0'),
    # Not finite.
    ('task.losses.label_epsilon', math.inf, 'it must be a finite number above 0'),
    ('task.losses.schedule.end', math.nan, 'it must be a finite number of at least 0'),
    ('task.losses.prediction_weight', -math.inf, 'it must be a finite number of at '),
    (f'{_RATE}.initial_learning_rate', math.inf, 'it must be a finite number above 0'),
    (f'{_RATE}.initial_learning_rate', 0.0, 'it must be a finite number above 0'),
    # Bounds.
    (_EVERY_N, -1, 'it must be a whole number of at least 0'),
    (f'{_LSTM}.num_layers', 0, 'it must be a whole number from 1 to 100'),
    ('task.model.num_classes', 0, 'it must be a whole number from 1 to 10000000'),
    ('task.model.features', [{'name': 'a', 'size': 0}], 'number from 1 to 1000000'),
    ('task.model.student.dropout', 1.0, _SHARE),
    ('task.model.student.head.moe.num_mixtures', 0, 'number from 1 to 1024'),
    ('task.model.student.head.moe.l2_weight_decay', -1.0, 'number of at least 0'),
    ('task.losses.label_epsilon', 0.0, 'it must be a finite number above 0'),
    ('task.losses.regularization_penalty', -1.0, 'it must be a finite number of at l'),
    ('task.losses.intermediate_weight', -1.0, 'it must be a finite number of at le'),
    ('task.losses.prediction_temperature', 0.0, 'it must be a finite number above 0'),
    ('task.losses.schedule.steps', -3, 'it must be a whole number of at least 0'),
    ('task.evaluation.top_k', 0, _COUNT),
    ('task.train_data.global_batch_size', 0, 'number from 1 to 1000000'),
    ('task.train_data.block_length', 0, _COUNT),
    ('task.train_data.cycle_length', 0, 'number from 1 to 10000'),
    ('task.train_data.shuffle_buffer_size', 0, _COUNT),
    ('task.train_data.num_examples', -1, 'it must be a whole number of at least 0'),
    ('task.train_data.bagging_seed', -2, 'it must be a whole number of at least -1'),
    ('trainer.checkpoint_interval', -1, _COUNT),
    ('trainer.recovery_max_trials', -1, 'it must be a whole number of at least 0'),
    (f'{_ADAM}.beta_2', -1, _SHARE),
    (f'{_ADAM}.clipnorm', 0, 'it must be a finite number above 0, or null'),
    # Choices.
    ('task.training', 'both', 'choose one of parallel, serial'),
    ('task.losses.label_kind', 'l1', 'choose one of cross_entropy, softmax, hinge, w'),
    ('task.losses.prediction_kind', 'l1', 'choose one of kl, mse, bce'),
    ('task.losses.prediction_reduction', 'max', 'choose one of mean, sum'),
    ('task.losses.schedule.type', 'step', 'choose one of constant, linear, cosine'),
    ('task.evaluation.empty_classes', 'none', 'choose one of zero, skip'),
    ('task.model.student.frames.type', 'centre', 'choose one of all, uniform, random'),
    ('task.model.student.frames.uniform.length', 'x', 'choose one of ceil, original'),
    ('task.model.teacher.backbone.type', 'x', 'choose one of hierarchical_lstm, netv'),
    ('task.model.teacher.head.type', None, 'it must be a string'),
    ('task.model.teacher.head.type', 'type', 'choose one of moe, logistic'),
    ('task.train_data.autotune_algorithm', 'x', 'choose one of DEFAULT, HILL_CLIMB'),
    ('runtime.mixed_precision_dtype', 'int8', 'choose one of float32, float16, bfl'),
    ('trainer.best_checkpoint_metric_comp', 'more', 'choose one of higher, lower'),
    ('runtime.distribution_strategy', 'parameter_server', 'choose one of mirrored, on'),
    ('runtime.gpu_thread_mode', 'x', 'choose one of global, gpu_private, gpu_shared'),
    # Several fields together.
    (f'{_LSTM}.chunks', 3, 'it must divide the 4 frames that the network sees. Set '),
    (f'{_LSTM}.chunks', 9, 'it must divide the 4 frames that the network sees. Set '),
    ('runtime.all_reduce_alg', 'ring', 'with the distribution_strategy mirrored, choo'),
    ('trainer.best_checkpoint_eval_metric', 'gap', 'choose one of teacher/gap, teach'),
    ('trainer.validation_steps', 0, 'no video would be evaluated. Set it to -1'),
    ('trainer.summary_interval', 7, 'it must be a multiple of steps_per_loop, 100'),
    ('trainer.eval_tf_while_loop', True, 'a loop of TensorFlow needs a number of st'),
    ('trainer.optimizer_config.optimizer.type', 'slide', 'does not implement it'),
    (f'{_ADAM}.global_clipnorm', 5.0, ', and clipnorm is 1.0: an optimizer takes on'),
    (f'{_RATE}.decay_steps', None, 'it needs a number of steps. Set it, or task.deca'),
    ('task.train_data.is_training', False, 'it says what the records are for. Set it'),
    ('task.train_data.tfds_split', 'train', 'only TFRecord files are read. Set input'),
    ('task.validation_data.bagging_seed', 0, 'evaluation reads every record once'),
    ('task.validation_data.drop_remainder', True, 'evaluation would lose the last'),
    ('task.train_data.enable_tf_data_service', True, 'it needs tf_data_service_addr'),
    ('task.losses.class_weights', 'w.csv', 'label_kind cross_entropy uses no weights'),
    (_EVERY_N, 21, 'it must be at most task.model.max_frames, 20'),
    (_EVERY_N, 0, f'and {_EVERY_N[:-7]}k is 0: exactly one of them must be 0'),
    ('task.model.features', [], 'give at least one feature'),
    ('task.student_experiment', 'x', 'no such experiment is registered. Correct the'),
    ('task.model.features', [{'name': '', 'size': 3}], 'give the key of the feature'),
  ],
)
def test_invalid_value(path, value, allowed):
  message = _message((path, value))
  # Of the items of a list, the one that is invalid is named.
  assert message.startswith(path)
  if not isinstance(value, list):
    assert message.removeprefix(path).startswith(f' is {value!r}')
  assert allowed in message


@pytest.mark.parametrize(
  'fields, message',
  [
    (
      [
        ('task.losses.prediction_kind', 'mse'),
        ('task.losses.prediction_temperature', 2),
      ],
      'task.losses.prediction_temperature is 2: it applies to prediction_kind kl only',
    ),
    (
      [('task.losses.label_kind', 'weighted_cross_entropy')],
      "task.losses.class_weights is '': label_kind weighted_cross_entropy needs",
    ),
    (
      [('task.losses.schedule.type', 'cosine')],
      'task.losses.schedule.steps is 0: a cosine schedule takes at least 1 step',
    ),
    (
      [
        ('task.model.student.frames.uniform', {'k': 4, 'every_n': 0}),
        ('task.model.student.frames.uniform.length', 'original'),
      ],
      "task.model.student.frames.uniform.length is 'original': it applies to every_n",
    ),
    (
      [
        ('task.model.student.frames.type', 'last'),
        ('task.model.student.frames.last.k', 21),
      ],
      'task.model.student.frames.last.k is 21: it must be at most',
    ),
    (
      [('task.model.features', [{'name': 'a', 'size': 1}, {'name': 'a', 'size': 2}])],
      "task.model.features has the names ['a', 'a']: give each one once",
    ),
    (
      [
        (
          'task.model.features',
          [{'name': 'a', 'size': 1}, {'name': 'b', 'size': 2, 'format': 'floats'}],
        )
      ],
      "task.model.features has the formats ['bytes', 'floats']: bytes combines only",
    ),
    (
      [(f'{_ADAM}.global_clipnorm', 5.0), (f'{_ADAM}.clipnorm', None)],
      f'{_ADAM}.global_clipnorm is 5.0: it would scale the gradients of each network',
    ),
    (
      [('trainer.optimizer_config.optimizer.type', 'adamw')],
      f'{_ADAM}w.gradient_clip_norm is 1.0: it would scale the gradients of each ne',
    ),
    (
      [('task.differential_privacy_config', {'noise_multiplier': 1.0})],
      f'{_ADAM}.clipnorm is 1.0: task.differential_privacy_config clips gradients',
    ),
    (
      [('trainer.optimizer_config.ema', {'clipnorm': 1.0})],
      'trainer.optimizer_config.ema.clipnorm is 1.0: the average of the weights clips',
    ),
    (
      [('task.model.share_head', True), ('task.model.student.head.type', 'logistic')],
      'task.model.share_head is True, but the heads are configured differently: {',
    ),
    (
      [
        ('task.losses.intermediate_weight', 1.0),
        ('task.model.teacher.frames.type', 'middle'),
        ('task.model.teacher.frames.middle.k', 20),
      ],
      "task.model.teacher.frames.type is 'middle', but task.losses.intermediate_weigh",
    ),
    (
      [('trainer.train_tf_function', False)],
      'trainer.train_tf_while_loop is True: a loop of TensorFlow needs train_tf_functi',
    ),
    (
      [
        ('task.model.student.backbone.type', 'nextvlad'),
        ('task.model.student.backbone.nextvlad.groups', 3),
      ],
      'task.model.student.backbone.nextvlad.groups is 3 for a feature of 8 values with',
    ),
    (
      [
        ('task.model.student.backbone.type', 'netvlad'),
        ('task.model.student.backbone.netvlad.clusters', 1),
      ],
      'task.model.student.backbone.netvlad.clusters is 1: it must be at least 2, since',
    ),
    (
      [
        ('trainer.optimizer_config.learning_rate.type', 'stepwise'),
        (f'{_STEPS}.boundaries', [3, 2]),
        (f'{_STEPS}.values', [1.0, 2.0, 3.0]),
      ],
      f'{_STEPS}.boundaries is [3, 2]: it must hold steps, each larger than the one b',
    ),
    (
      [
        ('trainer.optimizer_config.learning_rate.type', 'stepwise'),
        (f'{_STEPS}.boundaries', [2, 3]),
        (f'{_STEPS}.values', [1.0, 2.0]),
      ],
      f'{_STEPS}.values is [1.0, 2.0]: 2 boundaries need 3 values. Correct either.',
    ),
    (
      [('task.model.features', [{'name': 'a', 'size': 1, 'format': 'video'}])],
      'task.model.max_frames is 20: features of the format video count as 1 frame',
    ),
    (
      [
        ('task.train_data.enable_tf_data_service', True),
        ('task.train_data.tf_data_service_address', 'grpc://a:1'),
        ('task.train_data.skip_corrupt_records', True),
      ],
      'task.train_data.skip_corrupt_records is True: it runs Python code',
    ),
    (
      [
        ('task.validation_data.enable_tf_data_service', True),
        ('task.validation_data.tf_data_service_address', 'grpc://a:1'),
      ],
      'task.validation_data.enable_tf_data_service is True: it is for training',
    ),
  ],
)
def test_fields_that_exclude_each_other(fields, message):
  assert _message(*fields).startswith(message)


def test_what_is_not_chosen_has_no_effect():
  path = 'task.model.student.backbone'
  clusters, chosen = f'{path}.netvlad.clusters', f'{path}.type'
  assert _message((clusters, 8)) == (
    f"{clusters} is 8: it has no effect, since {chosen} is 'hierarchical_lstm'. Set "
    'that to netvlad, or leave the field out.'
  )
  # A study may configure several and choose one; only that one is checked.
  _experiment((clusters, -1), (chosen, 'hierarchical_lstm')).validate()
  message = _message((clusters, -1), (chosen, 'netvlad'))
  assert message == f'{clusters} is -1: it must be a whole number from 1 to 65536.'


def test_chosen_alternative_may_change_later():
  cells, chosen = f'{_LSTM}.num_cells', 'task.model.student.backbone.type'
  _experiment((cells, 8), (chosen, 'netvlad')).validate()


@pytest.mark.parametrize(
  'path, value, message',
  [
    ('task.model.clases', 5, 'there is no such field. Did you mean task.model.num_cla'),
    ('task.model.features', [{'nam': 'a'}], 'there is no such field. Did you mean'),
    ('task.model', 'student', 'it must be a mapping with the keys features, max_frame'),
    ('task.model.student.backbone', 'netvlad', 'yt8m_average. To choose netvlad, set '),
    ('task.model.num_classes', {'a': 1}, 'it must be a whole number from 1 to 10000'),
    ('trainer.optimizer_config.ema', 5, 'it must be a mapping with the keys clipnorm'),
    ('trainer.optimizer_config.ema.average', 0.5, 'Did you mean trainer.optimizer_con'),
    ('task.differential_privacy_config.noise', 1, 'The fields of task.differential_pr'),
    ('task.train_data.input_path', [['a']], 'it must be a string or a list, each item'),
    ('runtime', None, 'it must be a mapping with the keys distribution_strategy, '),
    ('runtime.distribution_strategy', False, 'and no as true and false: put it in quo'),
    ('task.name', 5, 'it must be a string, or null. YAML reads it as a number: put it'),
    ('trainer.train_steps', 1e3, 'Write 1000, without a point or an exponent.'),
    ('trainer.train_steps', 10**12, 'It may be at most 2147483647.'),
    ('task.seed', 2**63, 'It may be at most 9223372036854775807.'),
  ],
)
def test_name_or_kind_is_wrong(path, value, message):
  # Of a list, the item is named.
  assert _message((path, value)).startswith((f'{path} is {value!r}: ', f'{path}[0].'))
  assert message in _message((path, value))


def test_text_of_a_number_is_a_number():
  schedule = 'trainer.optimizer_config.learning_rate'
  params = _experiment(
    ('task.losses.label_weight', '1e-3'),
    (f'{_ADAM}.clipnorm', '2'),
    (f'{schedule}.type', 'stepwise'),
    (f'{schedule}.stepwise', {'boundaries': [2], 'values': ['1e-3', 1e-4]}),
  )
  params.validate()
  assert params.task.losses.label_weight == 1e-3
  assert params.trainer.optimizer_config.optimizer.get().clipnorm == 2.0
  assert params.trainer.optimizer_config.learning_rate.get().values == [1e-3, 1e-4]


def test_null_is_no_path():
  """As --params_override=task.init_checkpoint= gives it."""
  params = _experiment(('task.init_checkpoint', None))
  params.validate()
  assert params.task.init_checkpoint == ''


def test_whole_numbers_are_numbers_and_tuples_are_lists():
  params = _experiment(('task.losses.label_weight', 2), ('task.train_epochs', 3))
  params.task.train_data.input_path = ('a', 'b')
  validation.validate(params)


@pytest.mark.parametrize('path', ['task.losses.label_weight', 'task.evaluation.top_k'])
def test_a_task_checks_its_configuration(path):
  with pytest.raises(ValueError, match=f'^{path} is -1: it must be'):
    distillation.DistillationTask(_experiment((path, -1)).task)


@pytest.mark.parametrize(
  'name, value',
  [
    ('trainer__validation_steps', '1.5'),
    ('task__model__num_classes', 'fifty'),
    ('task__train_data__cache', 'maybe'),
    ('task__train_epochs', 'inf'),
  ],
)
def test_the_driver_checks_before_it_builds(tmp_path, name, value):
  source, field = '--params_override', name.replace('__', '.')
  with pytest.raises(ValueError, match=f'^{source}: {field} is .*: it must'):
    tiny.drive('train', tmp_path / 'run', tmp_path, **{name: value})
  assert not (tmp_path / 'run').exists()


@dataclasses.dataclass
class _OwnHead(model.Head):
  """A head of another project, with fields of kinds that are not known here."""

  own: hyperparams.Config = dataclasses.field(default_factory=hyperparams.Config)
  table: dict | None = None


def test_configurations_of_others_may_have_further_fields():
  config = model.Network(head=_OwnHead(type='own', table={'a': 1}))
  validation.validate(config)
  config.head.type = 'other'
  with pytest.raises(ValueError, match="^head.type is 'other': choose.*logistic, own"):
    validation.validate(config)


@pytest.mark.parametrize(
  'items, message',
  [
    (['rgb'], "--features has the item 'rgb': write NAME:SIZE"),
    (['rgb:0'], '--features.size is 0: it must be a whole number from 1 to 1000000'),
    (['rgb:2:text'], "--features.format is 'text': choose one of bytes"),
    (['a:1', 'a:2'], "--features has the names ['a', 'a']"),
  ],
)
def test_features_of_a_command_line(items, message):
  with pytest.raises(ValueError) as error:
    data.parse_features(items)
  assert str(error.value).startswith(message)


@pytest.mark.parametrize('sizes', [[512], [1, 2], [1, 2, 3]])
def test_features_of_any_number_are_set_without_a_warning(sizes, caplog):
  features = [{'name': f'f{size}', 'size': size} for size in sizes]
  params = tiny.experiment({'task': {'model': {'features': features}}})
  params.task.model.features = [data.Feature(**feature) for feature in features]
  assert [feature.size for feature in params.task.model.features] == sizes
  assert all(isinstance(f, data.Feature) for f in params.task.model.features)
  assert not caplog.records


def test_features_are_written_as_they_are_read():
  text = 'rgb:1024:bytes,audio:128:quantized_floats'
  assert data.format_features(data.parse_features(text.split(','))) == text
