"""The life of a run whose experiment, networks and loss belong to another project."""

import contextlib
import dataclasses
import json

import bird_clips
from bird_clips import configs
import numpy as np
from official.core import exp_factory
from official.core import task_factory
from official.core import train_utils
import paths
import processes
import pytest
import records as records_lib
import tensorflow as tf
import tiny

import gin
from yt8m_distill.checkpoints import extract_student
from yt8m_distill.checkpoints import run_dir
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.configs import experiments
from yt8m_distill.configs import registry
from yt8m_distill.evaluation import report
from yt8m_distill.modeling import video_classifier
from yt8m_distill.serving import export
from yt8m_distill.tasks import loss_terms

pytestmark = [pytest.mark.end_to_end, pytest.mark.each_tensorflow]

_GIN_FILE = paths.ROOT / 'tests/foreign_project/bird_clips/bird_clips.gin'
_STEPS = 6


def _write(path, count, seed):
  rng = np.random.default_rng(seed)
  videos = []
  for number in range(count):
    frames = np.float32(rng.normal(size=[rng.integers(1, 45), 512]))
    labels = rng.choice(10, 2, replace=False)
    videos.append(
      records_lib.frame_level({'clip': frames}, labels, id=b'clip%d' % number)
    )
  return records_lib.write(path, videos)


@contextlib.contextmanager
def registered(name, factory):
  """Registers an experiment for the time of a test."""
  registry.register(name)(factory)
  try:
    yield
  finally:
    del exp_factory._REGISTERED_CONFIGS[name]


@pytest.fixture(name='flags', scope='module')
def _flags(tmp_path_factory):
  """Flags of the driver: the project's gin file, records and sizes."""
  folder = tmp_path_factory.mktemp('records')
  train = _write(folder / 'train.tfrecord', 24, 0)
  validate = _write(folder / 'validate.tfrecord', 10, 1)
  return [
    f'--gin_file={_GIN_FILE}',
    f'--gin_params=yt8m_distill.train_path = {train!r}',
    f'--gin_params=yt8m_distill.validation_path = {validate!r}',
    f'--gin_params=yt8m_distill.train_steps = {_STEPS}',
    '--gin_params=yt8m_distill.batch_size = 8',
    '--params_override=trainer.steps_per_loop=2,trainer.checkpoint_interval=2,'
    f'trainer.validation_interval={_STEPS},trainer.summary_interval=2',
  ]


def _drive(mode, run, flags, experiment='bird_clips'):
  tiny.run_driver(mode, run, *flags, experiment=experiment, sized=False)
  return json.loads((run / 'evaluation.json').read_text())


@pytest.fixture(name='run', scope='module')
def _run(flags, tmp_path_factory):
  """The folder of a run that never stopped."""
  run = tmp_path_factory.mktemp('whole') / 'run'
  _drive('train_and_eval', run, flags)
  return run


@pytest.fixture(name='tuned', scope='module')
def _tuned(run, flags, tmp_path_factory):
  """The folder of the fine-tuned student of that run."""
  student, tuned = (tmp_path_factory.mktemp('student') / name for name in 'st')
  extract_student.extract(str(run), str(student))
  _drive(
    'train_and_eval',
    tuned,
    [
      *flags,
      f"--gin_params=yt8m_distill.init_checkpoint = '{student}'",
      '--params_override=task.freeze_backbone=true',
    ],
    'bird_clips_finetune',
  )
  return tuned


def test_run_is_read_with_the_classes_of_its_project(run):
  params = run_dir.read_params(str(run / 'params.yaml'))
  assert params.experiment == 'bird_clips'
  assert type(params.task) is configs.DistillationTask
  assert type(params.task.model.student.backbone) is configs.Backbone
  assert params.task.losses.entropy_weight == 0.01
  network = trained_network.Network(str(run)).network
  assert isinstance(network.backbone, bird_clips.networks.Conv)
  assert isinstance(network.head, bird_clips.networks.Cosine)


def test_evaluation_repeats_itself(run, flags):
  before = json.loads((run / 'evaluation.json').read_text())
  assert 'student/entropy_loss' in before['metrics']
  assert _drive('eval', run, flags) == before


def test_killed_run_is_continued_by_the_stock_driver(run, flags, tmp_path):
  killed = tmp_path / 'run'
  arguments = [
    '--experiment=bird_clips',
    '--mode=train_and_eval',
    f'--model_dir={killed}',
    *flags,
  ]
  first = processes.forked(
    '-c', processes.killed_driver(killed / 'ckpt-2'), *arguments, check=False
  )
  assert first.returncode == -9
  assert not (killed / f'ckpt-{_STEPS}.index').exists()
  processes.forked('-m', 'official.vision.train', *arguments)
  expected = tiny.checkpoint_values(run / f'ckpt-{_STEPS}')
  actual = tiny.checkpoint_values(killed / f'ckpt-{_STEPS}')
  assert actual.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(actual[name], value, err_msg=name)
  assert run_dir.read_params(str(killed / 'params.yaml')).experiment == 'bird_clips'


def test_student_is_fine_tuned(run, tuned):
  student = trained_network.Network(str(run)).network
  network = trained_network.Network(str(tuned))
  assert type(network.params.task) is configs.ClassificationTask
  assert network.params.task.losses.entropy_weight == 0.01
  np.testing.assert_array_equal(
    network.network.backbone.get_weights()[0], student.backbone.get_weights()[0]
  )
  assert np.any(network.network.head.get_weights()[0] != student.head.get_weights()[0])


def test_fine_tuning_needs_a_trained_network(flags, tmp_path):
  with pytest.raises(ValueError, match="task.init_checkpoint is ''"):
    _drive('train', tmp_path / 'run', flags, 'bird_clips_finetune')


def test_extracted_network_keeps_fields_of_its_task(tuned):
  network = trained_network.Network(str(tuned))
  task = extract_student.params_of(network).task
  assert task.freeze_backbone
  assert task.train_data == network.params.task.train_data
  assert not task.init_checkpoint


def test_next_command_imports_the_project(run, flags, capsys):
  _drive('train_and_eval', run, flags)
  assert (
    f'Next: yt8m-distill report --import=bird_clips {run}' in capsys.readouterr().out
  )


def test_run_is_read_whatever_gin_binds(run, flags):
  with gin.unlock_config():
    gin.clear_config()
    try:
      gin.parse_config(
        "yt8m_distill.backbone = 'netvlad'\nyt8m_distill.head = 'absent'"
      )
      task = run_dir.read_params(str(run / 'params.yaml')).task
    finally:
      gin.clear_config()
  assert task.model.student.backbone.type == 'conv'


def test_serial_student_learns_from_a_teacher_of_the_project(flags, tmp_path):
  run = tmp_path / 'teacher'
  _drive(
    'train_and_eval',
    run,
    [*flags, "--gin_params=yt8m_distill.frames = 'all'"],
    'bird_clips_single',
  )
  _drive(
    'train_and_eval',
    tmp_path / 'serial',
    [
      *flags,
      "--gin_params=yt8m_distill.training = 'serial'",
      f"--gin_params=yt8m_distill.teacher_checkpoint = '{run}'",
    ],
  )
  teacher = trained_network.Network(str(run)).network
  same = trained_network.Network(str(tmp_path / 'serial'), 'teacher').network
  for before, after in zip(teacher.get_weights(), same.get_weights()):
    np.testing.assert_array_equal(before, after)


def test_export_predicts_as_the_run(tuned, tmp_path):
  export.export(str(tuned), str(tmp_path / 'export'))
  frames = np.float32(np.random.default_rng(2).normal(size=[3, 40, 512]))
  counts = tf.constant([40, 7, 1])
  served = tf.saved_model.load(str(tmp_path / 'export')).signatures['features'](
    features=tf.constant(frames), num_frames=counts
  )
  expected = trained_network.Network(str(tuned)).network(
    {'frames': tf.constant(frames[:, ::4]), 'num_frames': -(-counts // 4)}
  )
  np.testing.assert_allclose(
    served['predictions'], expected['predictions'], rtol=1e-5, atol=1e-6
  )


def test_report_compares_the_runs(run, tuned):
  text = report.table([str(run), str(tuned)])
  assert text.count('| 10 ') >= 2  # The student and its fine-tuned self see 10 frames.
  assert 'class frequency' in text


def test_commands_import_the_project(tuned, tmp_path):
  records = run_dir.read_params(str(tuned / 'params.yaml')).task.train_data.input_path
  arguments = (
    '-m',
    'yt8m_distill',
    'predict',
    f'--model={tuned}',
    f'--input_path={records}',
    f'--output_dir={tmp_path / "predictions"}',
  )
  refused = processes.forked(*arguments, check=False)
  assert refused.returncode == 1
  assert refused.stderr.splitlines()[-1].endswith(
    f'{tuned}/params.yaml is the configuration of the experiment '
    "'bird_clips_finetune', which is not registered. Add --import=MODULE with the "
    'module that registers it.'
  )
  processes.forked(*arguments, '--import=bird_clips')
  rows = (tmp_path / 'predictions/predictions.csv').read_text().splitlines()
  assert len(rows) == 25
  absent = processes.forked(*arguments, '--import=bird_chips', check=False)
  assert absent.stderr.splitlines()[-1] == (
    "Error: --import=bird_chips: No module named 'bird_chips'. Install the project, or "
    'set PYTHONPATH to the folder that holds it.'
  )


def test_student_needs_an_experiment_that_can_hold_it(run, tmp_path):
  params = run_dir.read_params(str(run / 'params.yaml'))
  params.task.student_experiment = 'yt8m_distill_finetune'
  with pytest.raises(ValueError, match='student_experiment is.*cannot hold.*conv'):
    params.validate()
  for path in run.glob('ckpt-*'):
    (tmp_path / path.name).write_bytes(path.read_bytes())
  (tmp_path / 'checkpoint').write_bytes((run / 'checkpoint').read_bytes())
  train_utils.serialize_config(params, str(tmp_path))
  with pytest.raises(
    ValueError, match='yt8m_distill_finetune.*student_experiment to an'
  ):
    extract_student.extract(str(tmp_path), str(tmp_path / 'out'))


def test_experiment_that_could_not_be_read_again_is_refused():
  params = exp_factory.get_exp_config('bird_clips')
  params.validate()
  params.experiment = 'yt8m_distill'
  with pytest.raises(
    ValueError, match="experiment is 'yt8m_distill'.*registry.register"
  ):
    params.validate()


def test_teacher_of_another_project_is_refused_in_one_line(run):
  params = tiny.experiment({'task': {'teacher_checkpoint': str(run)}}).task
  task = task_factory.get_task(params)
  with pytest.raises(ValueError, match='teacher.backbone.type is conv') as error:
    task.initialize(task.build_model())
  assert '\n' not in str(error.value)


def test_unregistered_head_is_named():
  config = experiments.yt8m_distill_single(network=configs.Network).task.model
  config.network.backbone.type = 'yt8m_average'

  @dataclasses.dataclass
  class Head(configs.Head):
    cosyne: configs.Cosine = dataclasses.field(default_factory=configs.Cosine)

  config.network.head = Head(type='cosyne')
  with pytest.raises(ValueError, match="the head 'cosyne'.*--import=MODULE"):
    video_classifier.build(config, config.network, 'mine')


def test_task_has_the_loss_terms_that_its_configuration_weighs():
  params = tiny.experiment(experiment='yt8m_distill_single').task
  losses = configs.LabelLoss(entropy_weight=0.5)
  names = [name for name, _, _ in loss_terms.weighted(losses)]
  assert names == ['entropy']
  assert not list(loss_terms.weighted(params.losses))


def test_task_that_is_not_registered_is_named(flags, tmp_path):
  @dataclasses.dataclass
  class Task(configs.ClassificationTask):
    """A configuration without a task."""

  with (
    registered('mine', lambda: experiments.yt8m_distill_single(task=Task)),
    pytest.raises(ValueError, match='Task: decorate the class of the task with'),
  ):
    tiny.run_driver(
      'train', tmp_path / 'run', *flags[1:3], experiment='mine', sized=False
    )


def test_experiment_of_the_garden_alone_is_refused(tmp_path):
  with pytest.raises(
    ValueError, match='--experiment is image_classification.*registry'
  ):
    tiny.run_driver(
      'train', tmp_path / 'run', experiment='image_classification', sized=False
    )
