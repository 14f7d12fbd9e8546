"""Times training on stored answers beside serial training, input included.

Writes random records, teaches them with a teacher of random weights, and trains the
same student both ways. The two take turns, so that noise affects them alike. A step
reads its batch from the files. The ratio of the CPU times also holds on a machine that
other programs keep busy. From the repository's root:

  python -m experiments.benchmarks.stored --cells=1024
"""

import os
import statistics
import tempfile
import time

from absl import app
from absl import flags
import tensorflow as tf

from experiments.benchmarks import records
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.configs import experiments
from yt8m_distill.configs import settings as settings_lib
from yt8m_distill.serving import teach
from yt8m_distill.tasks import distillation
from yt8m_distill.tasks import stored

_CELLS = flags.DEFINE_integer(
  'cells', 256, "Cells per LSTM layer; the paper's size is 1024.", lower_bound=1
)
_BATCH = flags.DEFINE_integer('batch', 64, 'Videos per step.', lower_bound=1)
_EVERY_N = flags.DEFINE_integer(
  'every_n', 10, 'The student sees every N-th frame.', lower_bound=2
)
_STUDENT_CHUNKS = flags.DEFINE_integer(
  'student_chunks',
  5,
  'Chunks of the student; must divide the number of frames that it sees.',
  lower_bound=1,
)
_VIDEOS = flags.DEFINE_integer('videos', 128, 'Videos to write.', lower_bound=1)
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Rounds.', lower_bound=1)
_STEPS = flags.DEFINE_integer('steps', 2, 'Steps of a round.', lower_bound=1)


def _settings(path: str, **values) -> settings_lib.Settings:
  return settings_lib.Settings(
    every_n=_EVERY_N.value,
    student_chunks=_STUDENT_CHUNKS.value,
    num_cells=_CELLS.value,
    batch_size=_BATCH.value,
    train_path=path,
    **values,
  )


def _steps(task, params, source):
  """Returns a function that takes steps and waits for them.

  Args:
    task: the task.
    params: its experiment.
    source: run that training starts from.
  """
  task.task_config.init_checkpoint = source
  model = task.build_model()
  task.initialize(model)
  optimizer = task.create_optimizer(params.trainer.optimizer_config, params.runtime)
  batches = iter(task.build_inputs(task.task_config.train_data))

  @tf.function(autograph=False)
  def step(batch):
    return task.train_step(batch, model, optimizer)[task.loss]

  def run():
    for _ in range(_STEPS.value):
      loss = step(next(batches))
    return float(loss)

  return run


def main(_):
  """Prints the bytes, and steps per second both ways."""
  with tempfile.TemporaryDirectory() as folder:
    full, run, taught = (os.path.join(folder, n) for n in ('full', 'run', 'taught'))
    os.makedirs(full)
    records.write(full, _VIDEOS.value, 2)
    full = os.path.join(full, '*')
    serial = experiments.yt8m_distill(_settings(full, training='serial'))
    task = distillation.DistillationTask(serial.task)
    trained_network.write(run, task.build_model(), serial, 0)
    start = time.perf_counter()
    paths = teach.teach([run], full, taught, every_n=_EVERY_N.value)
    seconds = time.perf_counter() - start
    print(f'teach: {_VIDEOS.value / seconds:.1f} videos/s, with its start')
    learns = experiments.yt8m_distill_stored(_settings(','.join(paths)))
    ways = {
      'serial': _steps(task, serial, run),
      'stored': _steps(stored.StoredTask(learns.task), learns, run),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for go in ways.values():
      go()  # Traces the graph.
    for _ in range(_ROUNDS.value):
      for name, go in ways.items():
        start, start_cpu = time.perf_counter(), time.process_time()
        go()
        rates[name].append(_STEPS.value / (time.perf_counter() - start))
        cpu[name].append((time.process_time() - start_cpu) / _STEPS.value)
  for name, values in rates.items():
    print(
      f'{name}: {statistics.median(values):.3f} steps/s (best {max(values):.3f}), '
      f'{statistics.median(cpu[name]):.2f} s of CPU time a step'
    )
  ratios = [b / a for a, b in zip(*rates.values())]
  by_cpu = statistics.median(cpu['serial']) / statistics.median(cpu['stored'])
  print(
    f'{_CELLS.value} cells, batch {_BATCH.value}, every_n {_EVERY_N.value}: stored is '
    f'{statistics.median(ratios):.1f} times as fast (worst {min(ratios):.1f}, best '
    f'{max(ratios):.1f}), {by_cpu:.1f} times by CPU time'
  )


if __name__ == '__main__':
  app.run(main)
