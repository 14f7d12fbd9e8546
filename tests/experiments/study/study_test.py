"""A tiny study from end to end."""

import json
import subprocess

import fabricated_studies
import paths
import processes
import pytest
import tiny

from experiments.study import jobs
from experiments.study import runner
from experiments.study import study_file
from yt8m_distill.checkpoints import run_dir

_STUDY = {
  'set': {
    'every_n': tiny.EVERY_N,
    'student_chunks': 2,
    'teacher_chunks': 5,
    'num_cells': 4,
    'num_layers': 1,
    'max_frames': tiny.MAX_FRAMES,
    'num_classes': tiny.CLASSES,
    'batch_size': 4,
    'train_steps': 2,
    'task.model.features': [{'name': 'rgb', 'size': 8}, {'name': 'audio', 'size': 4}],
    'trainer.steps_per_loop': 1,
    'trainer.validation_interval': 2,
    'runtime.run_eagerly': True,
  },
  'seeds': [3],
  'groups': [
    {'name': 'skyline', 'experiment': 'yt8m_distill_single', 'gin_file': 'skyline.gin'},
    {
      'name': 'serial',
      'experiment': 'yt8m_distill',
      'gin_file': 'serial.gin',
      'needs': 'skyline',
    },
    {
      'name': 'stored',
      'experiment': 'yt8m_distill_stored',
      'gin_file': 'stored.gin',
      'needs': 'skyline',
      'set': {'teach.top_k': 3},
    },
  ],
}


@pytest.mark.end_to_end
@pytest.mark.long
def test_students_of_a_skyline_and_teaching_that_fails_once(tmp_path):
  tiny.write_records(tmp_path / 'records', 9)
  study = study_file.parse(
    _STUDY,
    [
      f"yt8m_distill.{name}_path='{tmp_path}/records'"
      for name in ('train', 'validation')
    ],
  )
  plan, out = jobs.plan(study.runs), tmp_path / 'out'
  [taught] = [job.name for job in plan if isinstance(job, jobs.Teaching)]
  (out / taught / 'records').mkdir(parents=True)
  unknown = out / taught / 'records' / 'records'
  unknown.touch()
  failed = runner.execute(plan, str(out), workers=2)
  assert failed.keys() == {taught, 'stored-seed=3'}
  assert failed[taught].startswith(f'ValueError: {unknown} exists, but no')
  assert failed['stored-seed=3'] == f'needs {taught}, which failed'
  assert fabricated_studies.finished(out) == ['serial-seed=3', 'skyline-seed=3']
  unknown.unlink()
  assert runner.execute(plan, str(out), workers=2) == {}
  evaluations = {
    name: run_dir.read_evaluation(str(out / f'{name}-seed=3'))['metrics']
    for name in ('skyline', 'serial', 'stored')
  }
  # The frozen teacher is the skyline, and the other student learns from it too.
  assert evaluations['serial']['teacher/gap'] == (
    pytest.approx(evaluations['skyline']['gap'])
  )
  assert 'gap' in evaluations['stored']
  settings = json.loads((out / taught / 'records' / 'teach.json').read_text())
  teacher = json.loads((out / 'stored-seed=3' / 'teacher.json').read_text())
  assert settings['model'] == [str(out / 'skyline-seed=3')]
  assert settings['every_n'] == tiny.EVERY_N and settings['top_k'] == 3
  assert teacher['teacher'] == settings['teacher']


@processes.needs_script_environment
def test_script_refuses_other_data_in_the_same_folder(tmp_path):
  out = tmp_path / 'out'
  out.mkdir()
  (out / 'settings.json').write_text('{"DATA": "/other"}')
  (out / 'runs.csv').touch()
  script = subprocess.run(
    ['bash', paths.ROOT / 'experiments' / 'study' / 'study.sh', out],
    env={**processes.script_environment(), 'DATA': str(tmp_path)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert script.returncode == 1
  assert f"DATA is '{tmp_path}', was '/other'" in script.stderr
