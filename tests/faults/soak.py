r"""A run of hours: whether memory, speed and files stay as they are.

  python tests/faults/soak.py --hours=2

trains and evaluates tiny networks in one process of one core, evaluated about once a
minute. Prints what the process uses every --every seconds, ends it as a machine that
is taken away would, and fails if memory or the folder grows or training slows down.
TensorBoard's event files grow by design; the last line says how fast.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

from absl import app
from absl import flags
import pandas as pd

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_TESTS = _ROOT / 'tests'
sys.path.append(str(_TESTS))

_HOURS = flags.DEFINE_float('hours', 2.0, 'How long to train.')
_EVERY = flags.DEFINE_float('every', 30.0, 'Seconds between two samples.')

_WARM_UP = 0.25  # part of the time that is not judged
# Of the last third that is judged, relative to the one before. The allocator alone
# makes memory move by about 1%.
_MOST_MEMORY = 1.02
_LEAST_SPEED = 0.8  # steps per second of CPU time, which a busy machine lowers too
_MOST_FILES = 1.1  # while a checkpoint is written there are a few more
_TICKS = os.sysconf('SC_CLK_TCK')


def _start(folder):
  """Starts training in a folder; returns the process, which prints to `out` there."""
  import tiny

  for name, count in (('train', 64), ('validate', 32)):
    tiny.write_records(folder / f'{name}.tfrecord', count)
  with (folder / 'out').open('w') as out:
    return subprocess.Popen(
      [
        sys.executable,
        *('-m', 'yt8m_distill', 'train', '--experiment=yt8m_distill'),
        '--mode=train_and_eval',
        f'--model_dir={folder / "run"}',
        f'--config_file={tiny.sizes_file(folder)}',
        tiny.override(
          task__train_data__input_path=folder / 'train.tfrecord',
          task__train_data__global_batch_size=4,
          task__validation_data__input_path=folder / 'validate.tfrecord',
          task__validation_data__global_batch_size=4,
          trainer__train_steps=10**9,
          trainer__validation_interval=10_000,
          trainer__checkpoint_interval=1_000,
          trainer__steps_per_loop=500,
          trainer__summary_interval=500,
        ),
      ],
      stdout=out,
      stderr=subprocess.STDOUT,
      preexec_fn=lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))}),
      env={
        **os.environ,
        'PYTHONPATH': str(_ROOT),
        'CUDA_VISIBLE_DEVICES': '-1',
        'TF_NUM_INTRAOP_THREADS': '1',
        'TF_NUM_INTEROP_THREADS': '1',
      },
    )


def _sample(pid, folder, start):
  """Returns what the process uses now, and what its folder holds."""
  proc = pathlib.Path('/proc', str(pid))
  memory = int(re.search(r'VmRSS:\s+(\d+)', (proc / 'status').read_text())[1])
  times = (proc / 'stat').read_text().rpartition(')')[2].split()
  steps = re.findall(r'^step (\d+)/', (folder / 'out').read_text(), re.M)
  files, events = [], 0
  for path in (folder / 'run').rglob('*'):
    try:
      size = path.stat().st_size
    except FileNotFoundError:  # An old checkpoint, removed meanwhile.
      continue
    if '.tfevents.' in path.name:
      events += size
    elif path.is_file() and path.parent.name != 'logs':
      files.append(size)
  return {
    'hours': (time.monotonic() - start) / 3600,
    'step': int(steps[-1]) if steps else 0,
    'cpu_seconds': (int(times[11]) + int(times[12])) / _TICKS,
    'memory_mb': memory / 1024,
    'open_files': len(os.listdir(proc / 'fd')),
    'threads': len(os.listdir(proc / 'task')),
    'files': len(files),
    'files_kb': sum(files) / 1024,
    'events_kb': events / 1024,
    'log_kb': sum(p.stat().st_size for p in (folder / 'run').glob('logs/*.log.*'))
    / 1024,
  }


def judge(samples: pd.DataFrame) -> list[str]:
  """Returns what grows or slows down without bound, as lines.

  Args:
    samples: rows of `_sample`.
  """
  judged = samples[samples.hours >= samples.hours.max() * _WARM_UP]
  before, after = (
    judged[len(judged) * third // 3 : len(judged) * (third + 1) // 3]
    for third in (1, 2)
  )
  hours = judged.hours.iloc[-1] - judged.hours.iloc[0]
  for name in ('memory_mb', 'events_kb', 'log_kb'):
    growth = (judged[name].iloc[-1] - judged[name].iloc[0]) / hours
    print(f'{name}: {growth:+.1f} per hour')
  memory = after.memory_mb.median() / before.memory_mb.median()
  speeds = [
    part.step.diff().sum() / part.cpu_seconds.diff().sum() for part in (before, after)
  ]
  speed = speeds[1] / speeds[0]
  print(f'Of the third before: {memory:.1%} of the memory, {speed:.1%} of the speed')
  faults = [
    f'{name} grows from {before[name].max():.0f} to {after[name].max():.0f}'
    for name in ('open_files', 'threads', 'files', 'files_kb')
    if after[name].max() > _MOST_FILES * before[name].max()
  ]
  if memory > _MOST_MEMORY:
    faults.append(f'memory grows to {memory:.1%}')
  if speed < _LEAST_SPEED:
    faults.append(f'training slows down to {speed:.1%}')
  return faults


def main(_):
  """Trains, samples and judges."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    process = _start(folder)
    start, samples = time.monotonic(), []
    while time.monotonic() - start < _HOURS.value * 3600 and process.poll() is None:
      time.sleep(_EVERY.value)
      samples.append(_sample(process.pid, folder, start))
      print(pd.DataFrame(samples[-1:]).round(3).to_string(header=len(samples) == 1))
      sys.stdout.flush()
    process.send_signal(signal.SIGTERM)
    process.wait()
    if process.returncode not in (-signal.SIGTERM, 128 + signal.SIGTERM):
      sys.exit(f'Training ended by itself: {(folder / "out").read_text()[-2000:]}')
    print(f'Evaluations: {(folder / "out").read_text().count("evaluation of")}')
  faults = judge(pd.DataFrame(samples))
  sys.exit('\n'.join(faults) or None)


if __name__ == '__main__':
  app.run(main)
