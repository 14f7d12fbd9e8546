"""A tiny study from end to end."""

import subprocess

import fabricated_studies
import paths
import processes
import pytest
import tiny

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
      'name': 'wrong',
      'experiment': 'yt8m_distill_single',
      'gin_file': 'train.gin',
      'set': {'student_chunks': 3},
    },
  ],
}


@pytest.mark.end_to_end
def test_serial_student_of_a_skyline_and_a_run_that_fails(tmp_path):
  tiny.write_records(tmp_path / 'records', 9)
  study = study_file.parse(
    _STUDY,
    [
      f"yt8m_distill.{name}_path='{tmp_path}/records'"
      for name in ('train', 'validation')
    ],
  )
  failed = runner.execute(study.runs, str(tmp_path / 'out'), workers=2)
  assert list(failed) == ['wrong-seed=3']
  assert failed['wrong-seed=3'].startswith('ValueError: ')
  evaluations = {
    name: run_dir.read_evaluation(str(tmp_path / 'out' / name))
    for name in fabricated_studies.finished(tmp_path / 'out')
  }
  assert list(evaluations) == ['serial-seed=3', 'skyline-seed=3']
  # The frozen teacher is the skyline.
  assert evaluations['serial-seed=3']['metrics']['teacher/gap'] == (
    pytest.approx(evaluations['skyline-seed=3']['metrics']['gap'])
  )


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
