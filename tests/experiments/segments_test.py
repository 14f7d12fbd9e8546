"""experiments/segments.sh: its stages on windows, the table, and a second run."""

import json
import re
import subprocess

import paths
import processes
import pytest
import tiny

from yt8m_distill.dataloaders import split_segments
from yt8m_distill.simulation import write_shards

pytestmark = [
  pytest.mark.end_to_end,
  pytest.mark.long,
  processes.needs_script_environment,
]

_SIZES = {
  'task': {
    'model': {'features': [{'name': 'rgb', 'size': 8}, {'name': 'audio', 'size': 4}]}
  },
  'trainer': {'steps_per_loop': 2, 'validation_interval': 2},
  'runtime': {'run_eagerly': True},  # Spares the tracing of graphs.
}
_SETTINGS = dict(
  num_classes=tiny.CLASSES, num_cells=4, num_layers=1, batch_size=5, train_steps=2
)

_VIDEOS = dict(
  num_classes=tiny.CLASSES,
  rgb_size=8,
  audio_size=4,
  min_frames=20,
  max_frames=20,
  workers=1,
)


def _run(folder):
  """Runs the script to its end; returns what it prints."""
  sizes = folder / 'sizes.yaml'
  sizes.write_text(json.dumps(_SIZES))
  script = subprocess.run(
    [
      'bash',
      paths.ROOT / 'experiments' / 'segments.sh',
      folder / 'out',
      f'--config_file={sizes}',
      *(
        f'--gin_params=yt8m_distill.{name}={value}' for name, value in _SETTINGS.items()
      ),
    ],
    env=processes.script_environment(),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    check=False,
  )
  assert script.returncode == 0, script.stdout[-4000:]
  return script.stdout


def _files(folder):
  return {path: path.stat().st_mtime_ns for path in folder.rglob('*')}


def test_stages_on_windows_and_their_table(tmp_path):
  # The stages before, without a process for each.
  out = tmp_path / 'out'
  data = str(out / 'data')
  for split, segments in (('train', None), ('tune', 'sparse'), ('evaluate', 'dense')):
    write_shards.simulate(data, split, 4, segments=segments, **_VIDEOS)
  split_segments.split(
    f'{data}/tune*.tfrecord,{data}/evaluate*.tfrecord',
    str(out / 'windows'),
    context=2,
    workers=1,
  )
  tiny.drive('train', out / 'videos', out / 'data' / 'train0000.tfrecord')
  for stage in ('simulate', 'videos', 'split'):
    (out / f'{stage}.complete').touch()

  printed = _run(tmp_path)
  table = (out / 'before' / 'report.md').read_text()
  assert table in printed and 'cannot be compared' not in table
  rows = [
    [cell.strip() for cell in line.split('|')[1:]]
    for line in table.splitlines()
    if line.startswith('| ')
  ]
  assert [row[:2] for row in rows] == [
    ['network', 'frames'],
    ['before: teacher', '9'],
    ['before: student', '2 (22.2%)'],
    ['student', '2 (22.2%)'],
    ['distilled: teacher', '9'],
    ['distilled: student', '2 (22.2%)'],
  ]
  assert rows[0][4] == 'MAP@K' and all(0 <= float(row[4]) <= 1 for row in rows[1:])
  csv = (out / 'predictions' / 'predictions.csv').read_text().splitlines()
  assert csv[0] == 'Class,Segments' and len(csv) == 1 + tiny.CLASSES
  assert 'evaluate-0000003' in (out / 'page' / 'page.html').read_text()

  before = _files(out)
  printed = _run(tmp_path)
  assert len(re.findall(r'^\d/\d .*: complete$', printed, re.MULTILINE)) == 9
  assert table in printed
  assert _files(out) == before
