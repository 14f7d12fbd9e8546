"""A training step from TFRecords against one from memory.

The Garden's trainer runs its loop over batches that the input reads, with the
defaults of a run, and over one batch that is kept. Both in turns, so that noise
hits them alike, each time with an iterator of its own, whose first steps do not
count: when it begins, threads read ahead as long as there is room.

On a GPU the input works beside the step. On a CPU both share the cores, and the
step must take longer by the input's part of the CPU time, which is measured
with the input alone and printed as what is expected.

  . experiments/environment.sh
  "$python" -m experiments.benchmarks.overlap
"""

import statistics
import time

from absl import app
from absl import flags
from official.core import base_trainer
import orbit
import tensorflow as tf

from experiments.benchmarks import records
from yt8m_distill.configs import experiments
from yt8m_distill.configs import settings
from yt8m_distill.tasks import distillation
from yt8m_distill.trainer import cluster

_INPUT_PATH = flags.DEFINE_string(
  'input_path', '', 'Frame-level records to read; random ones by default.'
)
_CELLS = flags.DEFINE_integer(
  'cells', 256, 'Cells of every LSTM layer; the paper has 1024.', lower_bound=1
)
_BATCH = flags.DEFINE_integer('batch', 64, 'Videos per step.', lower_bound=1)
_STEPS = flags.DEFINE_integer('steps', 30, 'Steps per case and round.', lower_bound=1)
_WARM_UP = flags.DEFINE_integer(
  'warm_up', 8, 'Steps before, which do not count.', lower_bound=1
)
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Rounds.', lower_bound=1)


def _loop(trainer, dataset):
  """Seconds, and CPU seconds, of a step behind the first ones."""

  def train(steps):
    logs = trainer.train(tf.constant(steps))
    float(logs['training_loss'])  # On the host: a GPU has then finished.

  trainer.train_dataset = dataset  # Ends what read for the other case.
  train(_WARM_UP.value)
  cpu, start = time.process_time(), time.perf_counter()
  train(_STEPS.value)
  seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
  return seconds / _STEPS.value, cpu / _STEPS.value


def main(_):
  params = experiments.yt8m_distill(
    settings.Settings(num_cells=_CELLS.value, batch_size=_BATCH.value)
  )
  params.runtime.num_gpus = len(tf.config.list_physical_devices('GPU'))
  strategy = cluster.create_strategy(params.runtime, 'train')
  with records.folder_and_path(_INPUT_PATH.value, 2400, 16) as (_, path):
    params.task.train_data.input_path = path
    task = distillation.DistillationTask(params.task)
    read = task.build_inputs(params.task.train_data)
    kept = tf.data.Dataset.from_tensors(next(iter(read))).repeat()
    with strategy.scope():
      model = task.build_model()
      cases = {
        'from memory': orbit.utils.make_distributed_dataset(strategy, kept),
        'from TFRecords': orbit.utils.make_distributed_dataset(
          strategy, task.build_inputs, params.task.train_data
        ),
      }
      trainer = base_trainer.Trainer(
        params,
        task,
        model,
        task.create_optimizer(params.trainer.optimizer_config, params.runtime),
        evaluate=False,
        train_dataset=cases['from memory'],
      )
      taken = {name: [] for name in cases}
      alone = []
      for _ in range(_ROUNDS.value):
        for name, dataset in cases.items():
          taken[name].append(_loop(trainer, dataset))
        trainer.train_dataset = cases['from memory']
        alone.append(
          records.measure(read, _BATCH.value, _STEPS.value * _BATCH.value).cpu
          / 1000
          * _BATCH.value
        )

  print(
    f'{_CELLS.value} cells, batch {_BATCH.value}, {_STEPS.value} steps, '
    f'{_ROUNDS.value} rounds, {params.runtime.num_gpus} GPUs'
  )
  print(f'{"":<15}{"ms a step":>10}{"least":>9}{"most":>9}{"CPU ms":>9}')
  for name, values in taken.items():
    seconds, cpu = zip(*values)
    print(
      f'{name:<15}{1000 * statistics.median(seconds):>10.1f}'
      f'{1000 * min(seconds):>9.1f}{1000 * max(seconds):>9.1f}'
      f'{1000 * statistics.median(cpu):>9.0f}'
    )
  print(f'the input alone{statistics.median(alone) * 1000:>37.0f}')
  memory, files = taken.values()
  ratio = statistics.median(f[0] / m[0] for m, f in zip(memory, files))
  share = statistics.median(a / m[1] for m, a in zip(memory, alone))
  print(
    f'from TFRecords / from memory: {ratio:.3f} (wanted: at most 1.1); '
    f"the input's CPU time is {share:.3f} of the step's"
  )


if __name__ == '__main__':
  app.run(main)
