"""experiments/audioset.sh: which records it trains and evaluates on."""

import json
import pathlib
import subprocess

import paths
import processes
import pytest
import records
import yaml

from yt8m_distill.checkpoints import run_dir

pytestmark = [
  pytest.mark.end_to_end,
  pytest.mark.long,
  processes.needs_script_environment,
]

_STUDY = {
  'gin_file': 'train.gin',
  'set': {
    'backbone': 'yt8m_average',
    'num_classes': 527,
    'max_frames': 10,
    'batch_size': 20,
    'train_steps': 2,
    'task.model.features': [{'name': 'audio_embedding', 'size': 128}],
    'trainer.steps_per_loop': 2,
    'runtime.run_eagerly': True,
  },
  'seeds': [0],
  'groups': [{'name': 'alone', 'experiment': 'yt8m_distill_single'}],
}


def _write(folder, files):
  """Writes files of 20, 21, ... clips, so that a count names the file."""
  folder.mkdir(parents=True)
  clips = list(records.read(paths.AUDIOSET_TRAIN))
  for number in range(files):
    records.write(folder / f'{number}.tfrecord', clips[: 20 + number])


def _run(folder, **environment):
  return subprocess.run(
    ['bash', paths.ROOT / 'experiments' / 'audioset.sh', folder / 'out'],
    env={**processes.script_environment(), 'DATA': str(folder), **environment},
    cwd=folder,
    capture_output=True,
    text=True,
    check=False,
  )


def test_every_fifth_file_is_held_out(tmp_path):
  _write(tmp_path / 'bal_train', 6)
  _write(tmp_path / 'eval', 1)
  (tmp_path / 'own.yaml').write_text(yaml.safe_dump(_STUDY))
  script = _run(tmp_path, STUDY='own.yaml', VALIDATE='held_out')
  assert script.returncode == 0, script.stderr[-2000:]
  assert '# Study: own' in script.stdout
  train = (tmp_path / 'out' / 'training.txt').read_text().split()
  assert [pathlib.Path(path).name for path in train] == [
    f'{number}.tfrecord' for number in (0, 1, 2, 3, 5)
  ]
  run = str(tmp_path / 'out' / 'own' / 'alone-seed=0')
  assert json.loads((pathlib.Path(run) / 'evaluation.json').read_text())['step'] == 2
  assert run_dir.read_evaluation(run)['videos'] == 24


@pytest.mark.parametrize(
  'files, environment, message',
  [
    (5, {'VALIDATE': 'test'}, 'VALIDATE is test: choose eval or held_out.'),
    (4, {}, 'train) holds 4 files *.tfrecord and eval 1: give at least 5 and 1.'),
  ],
)
def test_what_the_script_refuses(tmp_path, files, environment, message):
  _write(tmp_path / 'train', files)
  _write(tmp_path / 'eval', 1)
  script = _run(tmp_path, **environment)
  assert script.returncode == 2
  assert script.stderr.splitlines()[-1].endswith(message)
  assert not (tmp_path / 'out').exists()
