"""Settings and gin files: what each sets, how they combine, how errors read."""

import dataclasses
import inspect
import re

from official.core import exp_factory
import paths
import pytest
import tiny

import gin
from yt8m_distill.configs import settings
from yt8m_distill.utils import cli

_SINGLE = (
  'yt8m_distill_single',
  'yt8m_distill_finetune',
  'yt8m_distill_segments',
  'yt8m_distill_stored',
)
_ALL = ('yt8m_distill', *_SINGLE)
_FOLDER = paths.ROOT / 'gin'
_FILES = sorted(path.name for path in _FOLDER.glob('*.gin'))
_BINDING = re.compile(r'yt8m_distill\.(\w+) = ')

# By file, the values that are not the defaults.
_ORIGINAL = dict(
  num_classes=4716,
  train_steps=95834,
  learning_rate_decay=1.0,
  adam_epsilon=1e-8,
  length='original',
  representation_weight=2.0,
  prediction_reduction='sum',
)
_SEGMENTS = dict(train_steps=2500, frames='window', learning_rate=1e-4)
_VALUES = {
  'average.gin': dict(backbone='yt8m_average'),
  'dbof.gin': dict(backbone='yt8m_dbof'),
  'evaluate.gin': {},
  'finetune.gin': dict(train_steps=45573),
  'netvlad.gin': dict(
    backbone='netvlad',
    batch_size=80,
    train_steps=300000,
    learning_rate=2e-4,
    learning_rate_decay=0.8,
    adam_epsilon=1e-8,
  ),
  'nextvlad.gin': dict(
    backbone='nextvlad',
    batch_size=160,
    train_steps=121529,
    learning_rate=2e-4,
    learning_rate_decay=0.64,
    adam_epsilon=1e-8,
  ),
  'nested.gin': dict(frames='nested'),
  'original.gin': _ORIGINAL,
  'original_finetune.gin': {**_ORIGINAL, 'train_steps': 57500},
  'quickstart.gin': dict(
    num_classes=50, num_cells=64, batch_size=50, train_steps=240, learning_rate=5e-3
  ),
  'segments.gin': _SEGMENTS,
  'segments_distill.gin': {**_SEGMENTS, 'labels': 'segments'},
  'serial.gin': dict(train_steps=75955, training='serial', representation_weight=1.0),
  'skyline.gin': dict(train_steps=75955, frames='all'),
  'stored.gin': dict(train_steps=75955, representation_weight=1.0),
  'train.gin': dict(train_steps=75955),
  'uniform_every_n.gin': {},
}


def _read(build, files=(), *bindings):
  """Returns build(), called while gin holds these files and bindings."""
  with gin.unlock_config():
    gin.clear_config()
    try:
      settings.parse_gin([str(_FOLDER / file) for file in files], bindings)
      return build()
    finally:
      with gin.unlock_config():
        gin.clear_config()


def _configure(experiment, files, **values):
  bindings = [f'yt8m_distill.{name} = {value!r}' for name, value in values.items()]
  return _read(lambda: exp_factory.get_exp_config(experiment), files, *bindings)


def _base(experiment):
  return {
    'yt8m_distill_finetune': 'finetune.gin',
    'yt8m_distill_segments': 'evaluate.gin',  # segments.gin sets other values.
  }.get(experiment, 'train.gin')


def _networks(params):
  """By name; a single network is the student."""
  model = params.task.model
  if hasattr(model, 'network'):
    return {'student': model.network}
  return {'teacher': model.teacher, 'student': model.student}


def _bound(file):
  """Names that a file itself binds, in order."""
  return _BINDING.findall((_FOLDER / file).read_text())


@pytest.mark.parametrize('file', _FILES)
def test_file_holds_the_defaults_but_for_what_it_is_there_for(file):
  values = dataclasses.asdict(_read(settings.Settings, [file]))
  defaults = dataclasses.asdict(settings.Settings())
  assert values == {**defaults, **_VALUES[file]}


@pytest.mark.parametrize('experiment', _ALL)
@pytest.mark.parametrize('file', ['uniform_every_n.gin', 'evaluate.gin', ''])
def test_base_files_configure_what_no_file_does(experiment, file):
  default = exp_factory.get_exp_config(experiment).as_dict()
  assert _configure(experiment, [file or _base(experiment)]).as_dict() == default


@pytest.mark.parametrize('file', _FILES)
def test_file_binds_settings_alone_and_each_once(file):
  lines = (_FOLDER / file).read_text().splitlines()
  for line in lines:
    assert not line or line.startswith(('#', 'import ', 'include ', 'yt8m_distill.'))
  names = _bound(file)
  assert len(set(names)) == len(names) == sum('=' in x for x in lines if x[:1] == 'y')
  assert names


def test_every_setting_is_bound_by_a_file():
  assert {name for file in _FILES for name in _bound(file)} == set(settings.NAMES)


@pytest.mark.parametrize('experiment', _ALL)
def test_settings_reach_every_experiment(experiment):
  params = _configure(
    experiment,
    [_base(experiment)],
    every_n=5,
    length='original',
    student_chunks=12,
    teacher_chunks=15,
    num_cells=7,
    num_layers=3,
    num_mixtures=4,
    max_frames=120,
    num_classes=9,
    batch_size=11,
    train_path='a',
    validation_path='b',
    train_steps=13,
    learning_rate=0.5,
    learning_rate_decay=0.25,
    adam_epsilon=0.125,
    seed=17,
  )
  networks, task = _networks(params), params.task
  uniform = networks['student'].frames.uniform
  assert (uniform.every_n, uniform.length) == (5, 'original')
  for name, network in networks.items():
    lstm = network.backbone.get()
    assert (
      lstm.chunks,
      lstm.num_cells,
      lstm.num_layers,
      network.head.get().num_mixtures,
    ) == ({'student': 12, 'teacher': 15}[name], 7, 3, 4)
  assert (task.model.max_frames, task.model.num_classes) == (120, 9)
  assert (task.train_data.input_path, task.validation_data.input_path) == ('a', 'b')
  assert {
    task.train_data.global_batch_size,
    task.validation_data.global_batch_size,
  } == {11}
  optimizer = params.trainer.optimizer_config
  rate = optimizer.learning_rate.get()
  assert (
    params.trainer.train_steps,
    rate.initial_learning_rate,
    rate.decay_rate,
    rate.decay_steps,
    optimizer.optimizer.get().epsilon,
  ) == (13, 0.5, 0.25, 4_000_000 // 11, 0.125)
  assert {task.seed, task.train_data.seed} == {17}


@pytest.mark.parametrize('experiment', _ALL)
def test_other_frames_and_networks_reach_every_experiment(experiment):
  student = _networks(
    _configure(
      experiment,
      [_base(experiment)],
      frames='last',
      k=7,
      backbone='yt8m_dbof',
      head='logistic',
    )
  )['student']
  assert (student.frames.type, student.frames.last.k) == ('last', 7)
  assert (student.backbone.type, student.head.type) == ('yt8m_dbof', 'logistic')


def test_settings_of_one_experiment_reach_it():
  distilled = _configure(
    'yt8m_distill',
    ['serial.gin'],
    teacher_checkpoint='runs/skyline',
    representation_weight=0.5,
    prediction_reduction='sum',
  ).task
  assert (distilled.training, distilled.teacher_checkpoint) == (
    'serial',
    'runs/skyline',
  )
  assert distilled.losses.representation_weight == 0.5
  assert distilled.losses.prediction_reduction == 'sum'
  tuned = _configure(
    'yt8m_distill_finetune', ['finetune.gin'], init_checkpoint='runs/first'
  )
  assert tuned.task.init_checkpoint == 'runs/first'
  stored = _configure(
    'yt8m_distill_stored',
    ['stored.gin'],
    init_checkpoint='runs/first',
    init_network='teacher',
    prediction_reduction='sum',
  ).task
  assert (stored.init_checkpoint, stored.init_network) == ('runs/first', 'teacher')
  assert not stored.fine_tunes
  assert stored.losses.representation_weight == 1.0
  assert stored.losses.prediction_reduction == 'sum'


def test_segments_reach_their_experiments():
  tuned = _configure(
    'yt8m_distill_segments',
    ['segments.gin'],
    init_checkpoint='runs/first',
    init_network='teacher',
  )
  assert tuned.task.labels == 'segments' and tuned.task.fine_tunes
  assert tuned.task.init_checkpoint == 'runs/first'
  assert tuned.task.init_network == 'teacher'
  assert tuned.task.model.network.frames.type == 'window'
  distilled = _configure(
    'yt8m_distill', ['segments_distill.gin'], init_checkpoint='runs/first', k=3
  )
  task = distilled.task
  assert (task.labels, task.init_checkpoint) == ('segments', 'runs/first')
  assert task.student_experiment == 'yt8m_distill_segments'
  assert task.model.teacher.frames.type == 'all'
  assert task.model.student.frames.window.k == 3
  for params, metric in ((tuned, 'map_at_k'), (distilled, 'student/map_at_k')):
    trainer = params.trainer
    assert trainer.train_steps == 2500
    assert trainer.best_checkpoint_eval_metric == metric
    assert trainer.best_checkpoint_metric_comp == 'higher'
  distilled.task.model.student.backbone.get().chunks = 3
  for params in (tuned, distilled):
    params.validate()


def test_values_from_python_win_over_gin():
  given = _read(
    lambda: settings.Settings(every_n=3), ['train.gin'], 'yt8m_distill.k = 4'
  )
  assert (given.every_n, given.k, given.train_steps) == (3, 4, 75955)


def test_skyline_is_the_teacher_alone():
  teacher = _configure('yt8m_distill', ['train.gin']).task.model.teacher
  skyline = _configure('yt8m_distill_single', ['skyline.gin']).task.model.network
  assert skyline.as_dict() == teacher.as_dict()


@pytest.mark.parametrize('experiment', _ALL)
@pytest.mark.parametrize(
  'file,backbone,head,batch,rate,decay',
  [
    ('average.gin', 'yt8m_average', 'moe', 256, 1e-3, 0.95),
    ('dbof.gin', 'yt8m_dbof', 'moe', 256, 1e-3, 0.95),
    ('netvlad.gin', 'netvlad', 'moe', 80, 2e-4, 0.8),
    ('nextvlad.gin', 'nextvlad', 'logistic', 160, 2e-4, 0.64),
  ],
)
def test_backbone_goes_after_any_file(
  experiment, file, backbone, head, batch, rate, decay
):
  params = _configure(experiment, [_base(experiment), file])
  networks = _networks(params)
  assert {network.backbone.type for network in networks.values()} == {backbone}
  assert {network.head.type for network in networks.values()} == {head}
  assert networks['student'].frames.uniform.every_n == 10
  schedule = params.trainer.optimizer_config.learning_rate.get()
  assert (
    params.task.train_data.global_batch_size,
    schedule.initial_learning_rate,
    schedule.decay_rate,
    schedule.decay_steps,
  ) == (batch, rate, decay, 4_000_000 // batch)


@pytest.mark.parametrize('experiment', _ALL)
def test_original_is_the_same_in_every_stage(experiment):
  tuned = experiment.endswith('finetune')
  params = _configure(
    experiment, ['original_finetune.gin' if tuned else 'original.gin']
  )
  optimizer = params.trainer.optimizer_config
  assert params.task.model.num_classes == 4716
  assert _networks(params)['student'].frames.uniform.length == 'original'
  assert optimizer.optimizer.get().epsilon == 1e-8
  assert optimizer.learning_rate.get().decay_rate == 1.0
  assert params.trainer.train_steps == (57500 if tuned else 95834)


@pytest.mark.parametrize('experiment', _ALL)
def test_quickstart_sizes_go_after_any_file(experiment):
  params = _configure(experiment, [_base(experiment), 'quickstart.gin'])
  assert params.task.model.num_classes == 50
  assert {n.backbone.get().num_cells for n in _networks(params).values()} == {64}
  assert params.trainer.train_steps == 240


def _error(tmp_path, *arguments, mode='train', experiment='yt8m_distill'):
  """The driver's error, which must be one line."""
  with pytest.raises((ValueError, OSError)) as error:
    tiny.run_driver(
      mode, tmp_path / 'run', *arguments, experiment=experiment, sized=False
    )
  message = cli.message(error.value)
  assert '\n' not in message
  return message


@pytest.mark.parametrize(
  'binding,words',
  [
    # Unknown names.
    (
      'yt8m_distill.batchsize=8',
      '--gin_params=yt8m_distill.batchsize=8: yt8m_distill.batchsize is not a '
      'setting. Did you mean yt8m_distill.batch_size?',
    ),
    ('yt8m_distil.every_n=5', 'Did you mean yt8m_distill.every_n?'),
    (
      'BATCHSIZE=8',
      'BATCHSIZE is not a setting. Did you mean yt8m_distill.batch_size?',
    ),
    (
      'BATCH_SIZE=8',
      'BATCH_SIZE is not a setting. Did you mean yt8m_distill.batch_size',
    ),
    (
      'batch_size=8',
      'batch_size is not a setting. Did you mean yt8m_distill.batch_size',
    ),
    (
      'trainer.train_steps=8',
      'trainer.train_steps is a field of the configuration, not a setting: set it with '
      '--params_override=trainer.train_steps=VALUE.',
    ),
    ('xyz=8', 'xyz is not a setting. Did you mean yt8m_distill.every_n or '),
    ('yt8m_distill.k=%KS', 'KS'),
    # Values that are not gin's.
    *(
      (
        f'yt8m_distill.{binding}',
        f'--gin_params=yt8m_distill.{binding} cannot be parsed: a string needs quotes, '
        'inside those of the shell. Write for example '
        f'--gin_params="yt8m_distill.{example}".',
      )
      for binding, example in (
        ('train_path=train*.tfrecord', "train_path='train*.tfrecord'"),
        ('train_path=/data/*', "train_path='/data/*'"),
        ("train_path='train*", "train_path='train*'"),
        ('frames=last', "frames='last'"),
        ('seed=(', 'seed=0'),
        ('seed=3 4', 'seed=0'),
        ('seed=', 'seed=0'),
        ('own=x', "train_path='train*.tfrecord'"),
      )
    ),
    # Values of the wrong type.
    (
      "yt8m_distill.batch_size='8'",
      "yt8m_distill.batch_size is '8': it must be an integer. Write for example "
      '--gin_params="yt8m_distill.batch_size=256".',
    ),
    ('yt8m_distill.batch_size=8.0', 'is 8.0: it must be an integer'),
    ('yt8m_distill.seed=True', 'yt8m_distill.seed is True: it must be an integer'),
    ('yt8m_distill.learning_rate="1"', "is '1': it must be a number"),
    (
      'yt8m_distill.frames=5',
      'yt8m_distill.frames is 5: it must be a string in quotes',
    ),
    ('yt8m_distill.head=None', 'yt8m_distill.head is None: it must be a string'),
    # Values that no experiment has.
    ('yt8m_distill.frames="lst"', "frames is 'lst': it must be one of all, uniform, "),
  ],
)
def test_bad_binding_is_explained_in_one_line(tmp_path, binding, words):
  assert words in _error(tmp_path, f'--gin_params={binding}')


@pytest.mark.parametrize(
  'text,words',
  [
    ('yt8m_distill.frams = "all"', 'own.gin: yt8m_distill.frams is not a setting. Did'),
    ('EVERY_N = 5', 'EVERY_N is not a setting. Did you mean yt8m_distill.every_n?'),
    (
      'yt8m_distill.frames = all',
      'own.gin, line 2: yt8m_distill.frames = all cannot be parsed',
    ),
    ('import yt8m_distil', "own.gin: No module named 'yt8m_distil'"),
    ('include "absent.gin"', 'absent.gin'),
  ],
)
def test_bad_line_of_a_file_is_explained_in_one_line(tmp_path, text, words):
  path = tmp_path / 'own.gin'
  path.write_text(f'import yt8m_distill\n{text}\n')
  assert words in _error(tmp_path, f'--gin_file={path}')


def test_macro_that_a_setting_uses_is_allowed():
  bound = _read(settings.Settings, [], 'N = 6', 'yt8m_distill.every_n = %N')
  assert bound.every_n == 6


@pytest.mark.parametrize('gin_file', ['', '--gin_file=train.gin'])
@pytest.mark.parametrize(
  'mode,experiment,given,setting,example',
  [
    ('train', 'yt8m_distill', '', 'train_path', 'train*.tfrecord'),
    ('train_and_eval', 'yt8m_distill_single', '', 'train_path', 'train*.tfrecord'),
    ('eval', 'yt8m_distill', 'train_path', 'validation_path', 'validate*.tfrecord'),
    (
      'train_and_eval',
      'yt8m_distill',
      'train_path',
      'validation_path',
      'validate*.tfrecord',
    ),
    ('continuous_eval', 'yt8m_distill', '', 'validation_path', 'validate*.tfrecord'),
    ('train', 'yt8m_distill_finetune', 'train_path', 'init_checkpoint', 'RUN'),
  ],
)
def test_missing_value_is_named_as_a_user_types_it(
  tmp_path, gin_file, mode, experiment, given, setting, example
):
  arguments = [f"--gin_params=yt8m_distill.{given}='x'"] if given else []
  message = _error(
    tmp_path, *filter(None, [gin_file]), *arguments, mode=mode, experiment=experiment
  )
  assert f'--gin_params="yt8m_distill.{setting}=\'{example}\'"' in message


def test_missing_teacher_is_named_as_a_user_types_it(tmp_path):
  message = _error(
    tmp_path, '--gin_file=serial.gin', "--gin_params=yt8m_distill.train_path='x'"
  )
  assert '''--gin_params="yt8m_distill.teacher_checkpoint='RUN'"''' in message


def _documented():
  """Rows of README.md's table, from the docstring of the settings."""
  text = inspect.getdoc(settings.Settings).split('Attributes:\n')[1]
  entries = {}
  for line in text.splitlines():
    name = re.match(r'  (\w+): (.*)', line)
    if name:
      entries[name[1]] = [name[2]]
    else:
      entries[next(reversed(entries))].append(line.strip())
  for field in dataclasses.fields(settings.Settings):
    meaning, allowed = ' '.join(entries.pop(field.name)).split(' Allowed: ')
    yield f'| `{field.name}` | `{field.default!r}` | {meaning} | {allowed} |'
  assert not entries


def test_readme_has_every_setting():
  text = (_FOLDER / 'README.md').read_text()
  table = '\n'.join(_documented())
  assert table in text, table


def test_readme_has_every_file():
  text = (_FOLDER / 'README.md').read_text()
  for file in _FILES:
    assert f'`{file}`' in text
