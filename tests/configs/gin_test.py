"""gin files: what each of them sets, and that they fit together."""

from official.core import exp_factory
import paths
import pytest

import gin

_SINGLE = ('yt8m_distill_single', 'yt8m_distill_finetune')
_ALL = ('yt8m_distill', *_SINGLE)


def _configure(experiment, files, *params):
  with gin.unlock_config():
    gin.clear_config()
    gin.parse_config_files_and_bindings(
      [str(paths.ROOT / 'gin' / file) for file in files], params
    )
  try:
    return exp_factory.get_exp_config(experiment)
  finally:
    with gin.unlock_config():
      gin.clear_config()


def _student(params):
  model = params.task.model
  return getattr(model, 'student', None) or model.network


@pytest.mark.parametrize(
  'file,experiments',
  [
    ('uniform_every_n.gin', _ALL),
    ('evaluate.gin', _ALL),
    ('train.gin', _ALL[:2]),
    ('finetune.gin', _ALL[2:]),
    ('skyline.gin', _SINGLE[:1]),
    ('original.gin', _ALL[:2]),
    ('original_finetune.gin', _ALL[2:]),
    ('quickstart.gin', _ALL),
  ],
)
def test_defaults_of_a_file_are_those_of_the_experiment(file, experiments):
  """Where a file says nothing of its own, it changes nothing."""
  own = {
    'skyline.gin': {'task.model.network'},
    'original.gin': {'trainer', 'task.losses', 'task.model'},
    'original_finetune.gin': {'trainer', 'task.model'},
    'quickstart.gin': {'task.losses'},
  }.get(file, set())
  for experiment in experiments:
    plain = _configure(experiment, [])
    params = _configure(experiment, [file])
    for path in {
      'trainer',
      'task.losses',
      'task.model.features',
      'task.train_data',
      'task.validation_data',
    } - own:
      values = [plain, params]
      for name in path.split('.'):
        values = [getattr(value, name) for value in values]
      values = [
        v.as_dict() if hasattr(v, 'as_dict') else [item.as_dict() for item in v]
        for v in values
      ]
      assert values[0] == values[1], (file, experiment, path)


@pytest.mark.parametrize('experiment', _ALL)
def test_macros_reach_every_experiment(experiment):
  file = 'finetune.gin' if experiment.endswith('finetune') else 'train.gin'
  params = _configure(
    experiment,
    [file],
    'EVERY_N = 5',
    'STUDENT_CHUNKS = 12',
    'TEACHER_CHUNKS = 15',
    'NUM_CELLS = 7',
    'NUM_LAYERS = 3',
    'NUM_MIXTURES = 4',
    'MAX_FRAMES = 120',
    'NUM_CLASSES = 9',
    'BATCH_SIZE = 11',
    "TRAIN_PATH = 'a'",
    "VALIDATION_PATH = 'b'",
    'TRAIN_STEPS = 13',
    'LEARNING_RATE = 0.5',
    'LEARNING_RATE_DECAY = 0.25',
    'SEED = 17',
  )
  student, task = _student(params), params.task
  lstm = student.backbone.get()
  rate = params.trainer.optimizer_config.learning_rate.get()
  assert (
    student.frames.uniform.every_n,
    lstm.chunks,
    lstm.num_cells,
    lstm.num_layers,
    student.head.get().num_mixtures,
  ) == (5, 12, 7, 3, 4)
  assert (task.model.max_frames, task.model.num_classes) == (120, 9)
  assert (task.train_data.input_path, task.validation_data.input_path) == ('a', 'b')
  assert {
    task.train_data.global_batch_size,
    task.validation_data.global_batch_size,
  } == {11}
  assert (params.trainer.train_steps, rate.initial_learning_rate, rate.decay_rate) == (
    13,
    0.5,
    0.25,
  )
  assert {task.seed, task.train_data.seed} == {17}
  if experiment == 'yt8m_distill':
    assert task.model.teacher.backbone.get().chunks == 15


@pytest.mark.parametrize('experiment', _ALL)
def test_macros_of_other_networks_reach_every_experiment(experiment):
  file = 'finetune.gin' if experiment.endswith('finetune') else 'train.gin'
  student = _student(
    _configure(
      experiment,
      [file],
      "FRAMES = 'last'",
      'K = 7',
      "BACKBONE = 'yt8m_dbof'",
      "HEAD = 'logistic'",
    )
  )
  assert (student.frames.type, student.frames.last.k) == ('last', 7)
  assert (student.backbone.type, student.head.type) == ('yt8m_dbof', 'logistic')


def test_fine_tuning_starts_where_the_macro_says():
  params = _configure(
    'yt8m_distill_finetune', ['finetune.gin'], "INIT_CHECKPOINT = 'runs/first'"
  )
  assert params.task.init_checkpoint == 'runs/first'


def test_skyline_is_the_teacher_alone():
  teacher = _configure('yt8m_distill', ['train.gin']).task.model.teacher
  skyline = _configure('yt8m_distill_single', ['skyline.gin']).task.model.network
  assert skyline.frames.as_dict() == teacher.frames.as_dict()
  assert skyline.backbone.as_dict() == teacher.backbone.as_dict()
  assert skyline.head.as_dict() == teacher.head.as_dict()


@pytest.mark.parametrize('experiment', _ALL)
@pytest.mark.parametrize('file', ['average.gin', 'dbof.gin'])
def test_a_backbone_goes_behind_any_file(experiment, file):
  before = 'finetune.gin' if experiment.endswith('finetune') else 'train.gin'
  params = _configure(experiment, [before, file])
  model = params.task.model
  networks = (
    [model.teacher, model.student] if experiment == 'yt8m_distill' else [model.network]
  )
  for network in networks:
    assert network.backbone.type == 'yt8m_' + file.split('.', maxsplit=1)[0]
    assert network.head.type == 'moe'
  assert _student(params).frames.uniform.every_n == 10


@pytest.mark.parametrize(
  'experiment,file',
  [
    ('yt8m_distill', 'original.gin'),
    ('yt8m_distill_single', 'original.gin'),
    ('yt8m_distill_finetune', 'original_finetune.gin'),
  ],
)
def test_original_is_the_same_in_every_stage(experiment, file):
  params = _configure(experiment, [file])
  optimizer = params.trainer.optimizer_config
  assert params.task.model.num_classes == 4716
  assert _student(params).frames.uniform.length == 'original'
  assert optimizer.optimizer.get().epsilon == 1e-8
  assert optimizer.learning_rate.get().decay_rate == 1.0


@pytest.mark.parametrize('experiment', _ALL)
def test_quickstart_sizes_go_behind_any_file(experiment):
  file = 'finetune.gin' if experiment.endswith('finetune') else 'train.gin'
  params = _configure(experiment, [file, 'quickstart.gin'])
  assert params.task.model.num_classes == 50
  assert _student(params).backbone.get().num_cells == 64
  assert params.trainer.train_steps == 240


@pytest.mark.parametrize('experiment', _ALL)
@pytest.mark.parametrize(
  'backbone,head,batch,decay',
  [('netvlad', 'moe', 80, 0.8), ('nextvlad', 'logistic', 160, 0.64)],
)
def test_backbones_go_behind_any_file(experiment, backbone, head, batch, decay):
  file = 'finetune.gin' if experiment.endswith('finetune') else 'train.gin'
  params = _configure(experiment, [file, f'{backbone}.gin'])
  model = params.task.model
  networks = (
    [model.teacher, model.student] if experiment == 'yt8m_distill' else [model.network]
  )
  assert {network.backbone.type for network in networks} == {backbone}
  assert {network.head.type for network in networks} == {head}
  rate = params.trainer.optimizer_config.learning_rate.get()
  assert (
    params.task.train_data.global_batch_size,
    rate.initial_learning_rate,
    rate.decay_rate,
    rate.decay_steps,
  ) == (batch, 2e-4, decay, 4_000_000 // batch)
