"""Training with several workers, where only the chief writes to the run's folder.

Under `MultiWorkerMirroredStrategy` every worker takes part in saving and in
evaluation. The others write to a temporary folder.
"""

import os
import tempfile

from official.common import distribute_utils
from official.core import train_lib
import tensorflow as tf

from yt8m_distill.utils import workers as workers_lib


def create_strategy(runtime, mode: str) -> tf.distribute.Strategy:
  """Returns the strategy of a run; must be a process' first use of TensorFlow.

  Args:
    runtime: the configuration's `runtime`.
    mode: --mode of the driver.

  Raises:
    ValueError: the strategy does not support `mode`, or TF_CONFIG is invalid.
  """
  name = runtime.distribution_strategy
  try:
    spec = (
      tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec().as_dict()
    )
  except (AttributeError, TypeError, ValueError) as error:
    raise ValueError(
      f'TF_CONFIG is {os.environ["TF_CONFIG"]!r}, which describes no cluster: '
      'set it to {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": '
      '"worker", "index": 0}}, or unset it.'
    ) from error
  workers = sum(map(len, spec.values()))
  if workers > 1 and mode == 'continuous_eval':
    raise ValueError(
      f'TF_CONFIG names {workers} processes, but --mode=continuous_eval uses '
      'one: unset TF_CONFIG, or use --mode=train_and_eval.'
    )
  if workers > 1 and name != 'multi_worker_mirrored':
    raise ValueError(
      f'TF_CONFIG names {workers} processes, but '
      f'runtime.distribution_strategy is {name!r}, which uses one: set it to '
      'multi_worker_mirrored, or unset TF_CONFIG.'
    )
  gpus = len(tf.config.list_physical_devices('GPU'))
  if name != 'tpu' and runtime.num_gpus > gpus:
    raise ValueError(
      f'runtime.num_gpus is {runtime.num_gpus}, but TensorFlow sees {gpus} GPUs: '
      f'install TensorFlow with CUDA, or set it to {gpus}.'
    )
  return distribute_utils.get_distribution_strategy(
    distribution_strategy=name,
    all_reduce_alg=runtime.all_reduce_alg,
    num_gpus=runtime.num_gpus,
    tpu_address=runtime.tpu,
  )


def build_runner(
  model_dir: str, strategy: tf.distribute.Strategy, actions, **kwargs
) -> train_lib.OrbitExperimentRunner:
  """Builds the Garden's runner for this worker; waits until all have built theirs.

  Args:
    model_dir: folder of the run, shared by all workers.
    strategy: from create_strategy().
    actions: train_actions and eval_actions, for the chief only.
    **kwargs: further arguments of the runner.

  Raises:
    ValueError: the workers see different folders.
  """
  kwargs['distribution_strategy'] = strategy
  if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
    return train_lib.OrbitExperimentRunner(model_dir=model_dir, **actions, **kwargs)
  with strategy.scope():
    if workers_lib.is_chief():
      runner = train_lib.OrbitExperimentRunner(model_dir=model_dir, **actions, **kwargs)
    else:
      runner = _NonChiefRunner(model_dir, **kwargs)
    steps = workers_lib.gather_objects(int(runner.trainer.global_step.numpy()))
  if len(set(steps)) > 1:
    raise ValueError(
      f'The workers would resume at the steps {steps}: they see different '
      f'checkpoints in --model_dir={model_dir}. Name a folder that all of them '
      'share.'
    )
  return runner


class _NonChiefRunner(train_lib.OrbitExperimentRunner):
  """Runner of a worker that is not the chief.

  Deviations from the Garden's runner: it restores the run's latest checkpoint,
  although it saves to a temporary folder. It does not write the run's best
  checkpoint or summaries.
  """

  def __init__(self, run: str, **kwargs):
    self._run = run
    self._scratch = tempfile.TemporaryDirectory()
    params = kwargs['params'].trainer
    best = os.path.join(params.best_checkpoint_export_subdir, 'info.json')
    if tf.io.gfile.exists(os.path.join(run, best)):
      path = os.path.join(self._scratch.name, best)
      tf.io.gfile.makedirs(os.path.dirname(path))
      tf.io.gfile.copy(os.path.join(run, best), path)
    super().__init__(model_dir=self._scratch.name, save_summary=False, **kwargs)

  def _maybe_build_checkpoint_manager(self):
    trainer = self.params.trainer
    manager = tf.train.CheckpointManager(
      self.trainer.checkpoint,
      directory=self.model_dir,
      max_to_keep=1,
      step_counter=self.trainer.global_step,
      checkpoint_interval=trainer.checkpoint_interval,
      init_fn=self.trainer.initialize,
    )
    # The checkpoint to restore; no public argument names one in another folder.
    manager._latest_checkpoint = tf.train.latest_checkpoint(self._run)
    return manager
