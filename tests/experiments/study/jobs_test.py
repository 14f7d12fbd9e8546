"""The jobs of a study: configurations, and what teaches which records."""

import dataclasses
import json
import re

import fabricated_studies
import paths
import pytest
import yaml

from experiments.study import jobs
from experiments.study import study_file
import gin
import yt8m_distill  # noqa: F401, registers experiments


def _runs(**values):
  return {
    run.name: run for run in study_file.parse(fabricated_studies.study(**values)).runs
  }


@pytest.mark.parametrize(
  'name', ['paper', 'longer', 'smoke', 'audioset', 'audioset_tuning', 'teachers']
)
def test_every_run_of_the_shipped_studies_has_a_valid_configuration(name):
  study = study_file.read(str(paths.ROOT / f'experiments/study/{name}.yaml'))
  for run in study.runs[:: len({run.seed for run in study.runs})]:
    params = jobs.configuration(run)
    assert params.task.seed == params.task.train_data.seed == run.seed
    model = params.task.model
    for network in ('teacher', 'student', 'network'):
      network = getattr(model, network, None)
      if network:
        frames = network.frames.max_selected(model.max_frames)
        assert frames % getattr(network.backbone.get(), 'chunks', 1) == 0, run.name
        if 'k' in run.axes and network.frames.type != 'all':
          assert frames == int(run.axes['k'])


def test_audioset_study_runs_what_its_tuning_chose():
  """Each network of the table is one of those that were compared."""
  tuning, table = (
    study_file.read(str(paths.ROOT / f'experiments/study/{name}.yaml')).runs
    for name in ('audioset_tuning', 'audioset')
  )

  def choice(run):
    params = jobs.configuration(run)
    task = params.task
    model = task.model.as_dict()
    network = model.get('network') or [model['teacher'], model['student']]
    rate = params.trainer.optimizer_config.learning_rate.get().initial_learning_rate
    return network, rate, task.losses.as_dict()

  compared = [choice(run) for run in tuning]
  chosen = {run.name: run for run in table}
  for name in (
    'skyline-lstm-single=LSTM-seed=0',
    'alone-single=LSTM-k=5-seed=0',
    'alone-single=NeXtVLAD-k=5-seed=0',
    'alone-single=mean-k=5-seed=0',
    'serial-lstm-pair=LSTM-losses=L_REP+L_PRED+L_CE-k=5-seed=0',
    'serial-nextvlad-pair=NeXtVLAD-losses=L_REP+L_PRED+L_CE-k=5-seed=0',
    'parallel-pair=LSTM-losses=L_REP+L_PRED+L_CE-k=5-seed=0',
  ):
    assert choice(chosen[name]) in compared, name


def _run(**values):
  run = next(iter(_runs().values()))
  return dataclasses.replace(run, **{'gin_file': ['train.gin'], **values})


@pytest.mark.parametrize(
  'values, message',
  [
    (
      {'gin_params': ['yt8m_distill.seed=1', 'yt8m_distill.num_cell=3']},
      r'^Run skyline-seed=0 .*num_cell is not a setting.*yt8m_distill.num_cells',
    ),
    ({'gin_params': [' FRAMS = "last"']}, 'FRAMS is not a setting.*frames'),
    ({'gin_params': ['yt8m_distill.every=3']}, 'every is not a setting'),
    ({'gin_params': ['yt8m_distill.seed=(']}, 'skyline-seed=0 .*cannot be parsed'),
    ({'gin_params': ['yt8m_distill.seed=3 4']}, 'seed=3 4 cannot be parsed'),
    ({'gin_params': ["yt8m_distill.batch_size='a'"]}, 'must be an integer'),
    ({'experiment': 'yt8m'}, 'of yt8m: .*never registered'),
    (
      {'overrides': {'task': {'lossses': {}}}},
      'task.lossses is {}: there is no such field',
    ),
  ],
)
def test_setting_that_no_run_can_have_is_named(values, message):
  with pytest.raises(ValueError, match=message):
    jobs.plan([_run(**values)])
  assert 'seed' not in gin.config_str()


def test_settings_reach_the_configuration():
  run = _run(
    gin_params=['yt8m_distill.num_cells=3', "yt8m_distill.validation_path='a'"]
  )
  task = jobs.configuration(run).task
  assert task.model.network.backbone.get().num_cells == 3
  assert task.validation_data.input_path == 'a'


@pytest.mark.parametrize('gin_file', ['serial.gin', 'train.gin'])
def test_teacher_reaches_the_configuration(gin_file):
  run = dataclasses.replace(_runs()['serial-k=6-seed=1'], gin_file=[gin_file])
  params = [
    flag.split('=', 1)[1]
    for flag in jobs.Training(run.name, run).flags('/out')
    if flag.startswith('--gin_params=')
  ]
  task = jobs.configuration(dataclasses.replace(run, gin_params=params)).task
  assert task.teacher_checkpoint == '/out/skyline-seed=1'


def _plan(*groups, seeds=(0, 1)):
  """Returns the jobs of two skylines and of groups of stored answers, by name."""
  values = {
    'seeds': list(seeds),
    'gin_file': 'stored.gin',
    'set': {'train_path': 'a*'},
    'groups': [
      {'name': 'sky', 'experiment': 'yt8m_distill_single', 'gin_file': 'skyline.gin'},
      *(
        {
          'experiment': 'yt8m_distill_stored',
          **group,
          'name': f'g{number}',
          'needs': 'sky',
        }
        for number, group in enumerate(groups)
      ),
    ],
  }
  return {job.name: job for job in jobs.plan(study_file.parse(values).runs)}


def _taught(plan):
  return [job for job in plan.values() if isinstance(job, jobs.Teaching)]


def test_records_are_taught_once_for_all_that_share_teachers_and_frames():
  plan = _plan({}, {'set': {'learning_rate': 0.1, 'teach.top_k': 100}})
  one, other = _taught(plan)
  assert [one.needs, other.needs] == [('sky-seed=0',), ('sky-seed=1',)]
  for seed, job in enumerate((one, other)):
    assert plan[f'g0-seed={seed}'].needs == plan[f'g1-seed={seed}'].needs == (job.name,)
  assert one.arguments == {
    'input_path': 'a*',
    'every_n': 10,
    'max_frames': 300,
    'top_k': 100,
    'dtype': 'float16',
  }


@pytest.mark.parametrize(
  'frames, every_n',
  [
    ({'every_n': 5, 'student_chunks': 3}, 5),
    ({'k': 30}, 1),
    ({'frames': 'random', 'k': 30}, 1),
    ({'frames': 'all', 'teacher_chunks': 20}, 1),
    ({'task.model.network.frames': {'uniform': {'every_n': 20}}}, 20),
  ],
)
def test_records_are_thinned_to_every_nth_frame(frames, every_n):
  [job, _] = _taught(_plan({'set': frames}))
  assert job.arguments['every_n'] == every_n


@pytest.mark.parametrize(
  'change',
  [
    {'set': {'teach.top_k': 20}},
    {'set': {'teach.dtype': 'float32'}},
    {'set': {'train_path': 'b*'}},
    {'set': {'max_frames': 200}},
    {'set': {'every_n': 5}},
  ],
)
def test_what_differs_is_taught_apart(change):
  assert len(_taught(_plan({}, change, seeds=[0]))) == 2


def test_all_seeds_teach_the_same_records():
  without = {'task.losses.representation_weight': 0}
  plan = _plan({'teachers': 'all', 'set': without}, {'set': without})
  both, *single = _taught(plan)
  assert both.needs == ('sky-seed=0', 'sky-seed=1') and len(single) == 2
  assert both.name.startswith('taught-sky-every_n=10-top_k=100-')
  assert single[1].name.startswith('taught-sky-seed=1-every_n=10-top_k=100-')
  assert plan['g0-seed=0'].needs == plan['g0-seed=1'].needs == (both.name,)


def test_run_reads_the_taught_records():
  train_data = {'input_path': 'other', 'shuffle_buffer_size': 3}
  plan = _plan({'set': {'task.train_data': train_data}})
  flags = plan['g0-seed=1'].flags('/out')
  [taught] = plan['g0-seed=1'].needs
  override = json.loads(flags[-1].removeprefix('--params_override='))
  path = f'@/out/{taught}/records.txt'
  assert override['task']['train_data'] == {**train_data, 'input_path': path}
  assert not [flag for flag in flags if 'teacher_checkpoint' in flag]


@pytest.mark.parametrize(
  'group, message',
  [
    (
      {'teachers': 'all'},
      'Run g0-seed=0: task.losses.representation_weight is 1.0, but several teachers '
      'have no representation. Set it to 0, or remove teachers from its group.',
    ),
    ({'set': {'teach.top_k': 0}}, 'Run g0-seed=0: teach.top_k is 0: it must be a w'),
    ({'set': {'teach.top_k': True}}, 'teach.top_k is True: it must be a whole'),
    ({'set': {'teach.top_k': '5'}}, "teach.top_k is '5': it must be a whole"),
    (
      {'set': {'teach.dtype': 'float64'}},
      "teach.dtype is 'float64': choose float16 or float32.",
    ),
    (
      {'experiment': 'yt8m_distill', 'set': {'teach.top_k': 5}},
      'Run g0-seed=0 sets teach.top_k, but no records are taught for it. Remove it',
    ),
    (
      {'experiment': 'yt8m_distill', 'teachers': 'all'},
      'needs all 2 runs of sky, but its experiment yt8m_distill has one teacher.',
    ),
    (
      {'experiment': 'yt8m_distill_single'},
      'g0-seed=0 needs sky, but its experiment yt8m_distill_single has no teacher. '
      'Remove needs from its group.',
    ),
  ],
)
def test_teachers_that_no_run_can_have_are_named(group, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    _plan(group)


def test_teachers_study_shares_what_it_can():
  study = study_file.read(
    str(paths.ROOT / 'experiments/study/teachers.yaml'), ["yt8m_distill.train_path='a'"]
  )
  plan = jobs.plan(study.runs)
  taught = [job for job in plan if isinstance(job, jobs.Teaching)]
  assert len(study.runs) == 24 and len(taught) == 3 * 4 + 1


def test_examples_of_the_readme():
  readme = (paths.ROOT / 'experiments/study/README.md').read_text(encoding='utf-8')
  example, groups = re.findall(r'```yaml\n(.*?)```', readme, re.DOTALL)
  study = study_file.parse(yaml.safe_load(example))
  assert len(jobs.plan(study.runs)) == len(study.runs) == 18
  plan = _plan(*yaml.safe_load(groups))
  assert [job.needs for job in _taught(plan)] == [
    ('sky-seed=0',),
    ('sky-seed=1',),
    ('sky-seed=0', 'sky-seed=1'),
  ]
