"""A study's file: what it expands to, and what is wrong with one."""

import fabricated_studies
import paths
import pytest

from experiments.study import study_file


def _runs(**values):
  return {
    run.name: run for run in study_file.parse(fabricated_studies.study(**values)).runs
  }


def test_grid_and_seeds_expand_in_the_order_of_the_file():
  names = list(_runs(seeds=[0, 5]))
  assert names == [
    'skyline-seed=0',
    'skyline-seed=5',
    'serial-k=6-seed=0',
    'serial-k=6-seed=5',
    'serial-k=30-seed=0',
    'serial-k=30-seed=5',
    *(
      f'alone-frames={frames}-k={k}-seed={seed}'
      for frames in ('uniform', 'last')
      for k in (6, 30)
      for seed in (0, 5)
    ),
  ]


def test_run_holds_what_its_axes_set_and_a_later_one_wins():
  values = fabricated_studies.study(
    set={'k': 1, 'batch_size': 5, 'task.seed': 3, 'trainer.train_steps': 4}
  )
  values['groups'][2]['set'] = {'batch_size': 6, 'trainer.train_steps': 5}
  runs = study_file.parse(values, ["yt8m_distill.train_path='a*'"]).runs
  run = runs[-1]
  assert run.gin_params == [
    'yt8m_distill.k=30',
    'yt8m_distill.batch_size=6',
    "yt8m_distill.frames='last'",
    'yt8m_distill.student_chunks=5',
    'yt8m_distill.seed=2',
    "yt8m_distill.train_path='a*'",
  ]
  assert run.overrides == {'task': {'seed': 3}, 'trainer': {'train_steps': 5}}
  assert run.gin_file == ['train.gin']
  assert run.label == 'last-k' and run.axes == {'frames': 'last', 'k': '30'}
  assert runs[3].gin_file == ['serial.gin', 'own.gin']


def test_label_names_an_axis_with_dots():
  values = fabricated_studies.study()
  values['groups'][2].update(
    label='{task.seed} and {k}', grid={'task.seed': [1, 2], 'k': [6]}
  )
  assert [run.label for run in study_file.parse(values).runs[-6::3]] == [
    '1 and 6',
    '2 and 6',
  ]


def test_teacher_is_the_run_of_the_same_seed_or_all():
  values = fabricated_studies.study()
  values['groups'].append({**values['groups'][1], 'name': 'all', 'teachers': 'all'})
  runs = {run.name: run for run in study_file.parse(values).runs}
  assert runs['serial-k=30-seed=2'].teachers == ('skyline-seed=2',)
  assert runs['all-k=30-seed=2'].teachers == tuple(
    f'skyline-seed={n}' for n in range(3)
  )
  assert runs['skyline-seed=2'].teachers == ()


def test_all_runs_of_a_group_with_a_grid_teach():
  values = fabricated_studies.study()
  values['groups'][1].update(needs='alone', teachers='all')
  assert len(study_file.parse(values).runs[3].teachers) == 12


def test_settings_of_teach_are_those_of_no_run():
  values = fabricated_studies.study()
  values['groups'][1].update(set={'teach.top_k': 5}, grid={'teach.dtype': ['float32']})
  run = study_file.parse(values).runs[3]
  assert run.name == 'serial-teach.dtype=float32-seed=0'
  assert run.teach == {'top_k': 5, 'dtype': 'float32'}
  assert run.gin_params == ['yt8m_distill.seed=0'] and run.overrides == {}


def test_label_without_a_template_leaves_out_the_column():
  values = fabricated_studies.study()
  del values['groups'][2]['label']
  assert {run.label for run in study_file.parse(values).runs} == {
    'skyline',
    'serial',
    'alone frames=uniform',
    'alone frames=last',
  }


def _change(index, **values):
  def change(study):
    study['groups'][index].update(values)

  return change


@pytest.mark.parametrize(
  'change, message',
  [
    (lambda s: s.update(seed=1), "unknown key 'seed'"),
    (lambda s: s.pop('seeds'), 'has no seeds'),
    (lambda s: s.update(seeds=3), 'seeds is 3: it must be a list of whole'),
    (lambda s: s.update(seeds=['0']), r"seeds is \['0'\]: it must be a list"),
    (lambda s: s.update(seeds=[True]), r'seeds is \[True\]: it must be'),
    (lambda s: s.update(seeds=[1, 2, 1]), r'\[1, 2, 1\]: list each once'),
    (lambda s: s.update(groups=[3]), 'must be a list of mappings'),
    *(
      (lambda s, key=key: s.update({key: None}), f'study: {key} is None: it m')
      for key in (
        'axes',
        'columns',
        'gin_file',
        'groups',
        'order',
        'per_class',
        'reference',
        'rises',
        'seeds',
        'set',
      )
    ),
    *(
      (_change(0, **{key: None}), f'^A group .*: {key} is None: it must be')
      for key in ('experiment', 'gin_file', 'grid', 'label', 'name', 'needs', 'set')
    ),
    (lambda s: s.update(order='skyline > serial'), 'must be a list of strings'),
    (lambda s: s.update(axes={'k': [6]}), 'must be a mapping of mappings'),
    (lambda s: s['axes']['k'].update({6: None}), 'k: 6 is None: it must map'),
    (_change(0, name=2017), 'name is 2017: it must be a string'),
    (_change(0, label=3), 'label is 3: it must be a string'),
    (_change(0, gin_file=[3]), r'gin_file is \[3\]: it must be a string, or'),
    (_change(2, label='{frames.x}'), 'it may name the axes of the grid, fram'),
    (_change(2, label='{frames[x]}'), 'it may name the axes of the grid, fram'),
    (
      _change(1, set={'task.losses.x': 1, 'task.losses': 3}),
      r'Both task.losses \(as 3\) and task.losses.x are set',
    ),
    (_change(1, grid={3: [1]}), 'names the unknown axis 3: choose one of k'),
    (
      lambda s: (
        s['axes'].update(gap={1: {'k': 1}}),
        s['groups'][1].update(grid={'gap': [1]}),
      ),
      "the axis 'gap' has the name of a column",
    ),
    (lambda s: s['groups'][0].pop('experiment'), 'has no experiment'),
    (_change(0, gird={}), "unknown key 'gird'"),
    (_change(1, name='skyline'), "two are named 'skyline'"),
    (_change(1, grid={'q': [1]}), "unknown axis 'q': choose one of k"),
    (_change(1, grid={'k': []}), r'k is \[\]: list at least one value'),
    (_change(1, grid={'k': 6}), 'k is 6: list at least one value'),
    (_change(1, grid={'k': [7]}), "k has no value '7': choose one of 6, 30"),
    (_change(1, needs='sky'), "needs 'sky', which names no other group"),
    (_change(1, needs='serial'), "needs 'serial', which names no other"),
    (_change(1, needs='alone'), 'has 4 runs of a seed'),
    (_change(1, teachers='both'), "teachers is 'both': choose same_seed or all"),
    (_change(1, teachers=3), 'teachers is 3: it must be a string'),
    (_change(0, teachers='all'), "teachers is 'all', but the group needs no other"),
    (
      _change(1, set={'teach.every_n': 3}),
      "sets 'teach.every_n': .* or teach.top_k or teach.dtype",
    ),
    (
      _change(0, experiment='yt8m_distill', needs='serial', grid={'k': [6]}),
      'needs serial, which',
    ),
    (_change(1, set={'cells': 3}), "sets 'cells'"),
    (_change(1, label='{q}'), 'it may name the axes of the grid, k'),
    (_change(1, label='skyline', grid={}), "are both labeled 'skyline'"),
    (lambda s: s.update(order=['skyline > x']), "names 'x': choose labels of the runs"),
    (lambda s: s.update(order=['skyline']), 'order lists claims'),
    (
      lambda s: s.update(per_class='skyline > serial > last-k'),
      'per_class is one "A > B"',
    ),
    (lambda s: s.update(columns='q'), "columns is 'q'"),
  ],
)
def test_what_is_wrong_is_named(change, message):
  values = fabricated_studies.study()
  change(values)
  with pytest.raises(ValueError, match=message):
    study_file.parse(values)


def test_file_that_is_not_yaml(tmp_path):
  path = tmp_path / 'study.yaml'
  path.write_text('a: [')
  with pytest.raises(ValueError, match='study.yaml: it cannot be read as YAML'):
    study_file.read(str(path))


def test_numbers_of_a_file_are_numbers(tmp_path):
  path = tmp_path / 'study.yaml'
  path.write_text(
    'seeds: [0]\nset: {learning_rate: 5e-3}\n'
    'groups: [{name: a, experiment: b}]\nreference: c.csv'
  )
  study = study_file.read(str(path))
  assert study.runs[0].gin_params == [
    'yt8m_distill.learning_rate=0.005',
    'yt8m_distill.seed=0',
  ]
  assert study.reference == str(tmp_path / 'c.csv')


def test_shipped_study_has_the_papers_comparisons():
  study = study_file.read(str(paths.ROOT / 'experiments/study/paper.yaml'))
  assert len(study.runs) == 84
  runs = {run.name: run for run in study.runs}
  run = runs['serial-k=30-losses=L_PRED-seed=1']
  assert run.teachers == ('skyline-seed=1',)
  assert run.overrides['task']['losses'] == {
    'representation_weight': 0,
    'label_weight': 0,
  }
  assert (
    'yt8m_distill.representation_weight=1.0'
    in runs['parallel-weight-k=30-losses=L_REP+L_PRED+L_CE-weight=1-seed=0'].gin_params
  )


def test_audioset_study_has_the_papers_comparisons():
  study = study_file.read(str(paths.ROOT / 'experiments/study/audioset.yaml'))
  assert len(study.runs) == 195
  labels = {run.label for run in study.runs}
  for losses in ('L_REP', 'L_PRED', 'L_REP+L_CE', 'L_PRED+L_CE', 'L_REP+L_PRED+L_CE'):
    assert f'LSTM serial {losses}' in labels
  for family in ('LSTM', 'NeXtVLAD', 'mean'):
    for row in ('skyline', 'uniform-k', 'parallel L_REP+L_PRED+L_CE'):
      assert f'{family} {row}' in labels
