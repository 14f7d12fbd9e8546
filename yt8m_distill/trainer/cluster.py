"""Training with several workers, where only the chief writes to the run's folder.

Under `MultiWorkerMirroredStrategy` every worker takes part in saving and in
evaluation. The others write to a temporary folder.
"""

import os
import tempfile

from official.common import distribute_utils
from official.core import train_lib
from official.core import train_utils
import tensorflow as tf

from yt8m_distill.trainer import saving
from yt8m_distill.utils import cli
from yt8m_distill.utils import workers as workers_lib


def create_strategy(runtime, mode: str) -> tf.distribute.Strategy:
  """Returns the strategy of a run; must be a process' first use of TensorFlow.

  Args:
    runtime: the configuration's `runtime`.
    mode: --mode of the driver.

  Raises:
    ValueError: the strategy does not support `mode` or lacks devices, or TF_CONFIG is
      invalid.
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
      f'install TensorFlow with CUDA, or set it to {gpus}. With '
      'TF_CPP_MIN_LOG_LEVEL=0 in the environment TensorFlow says what it lacks.'
    )
  try:
    return distribute_utils.get_distribution_strategy(
      distribution_strategy=name,
      all_reduce_alg=runtime.all_reduce_alg,
      num_gpus=runtime.num_gpus,
      tpu_address=runtime.tpu,
    )
  except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
    if name != 'tpu':
      raise
    reason = cli.message(error).split('. ')[0].rstrip('.')
    raise ValueError(
      f"runtime.distribution_strategy is 'tpu', but --tpu={runtime.tpu or ''} leads to "
      f'none ({reason}). On a TPU VM set --tpu=local, otherwise the name or address of '
      'a TPU; without a TPU, set the strategy to mirrored.'
    ) from error


def describe(strategy: tf.distribute.Strategy) -> str:
  """Returns the devices that a strategy computes on, such as '2 GPU'."""
  try:
    names = strategy.extended.worker_devices
  except RuntimeError:  # The default strategy names none; it takes the first GPU.
    names = ['/GPU:0' if tf.config.list_physical_devices('GPU') else '/CPU:0']
  devices = {tf.DeviceSpec.from_string(name).device_type for name in names}
  count = strategy.num_replicas_in_sync
  unused = (
    ' (to use a GPU, set runtime.num_gpus)'
    if devices == {'CPU'} and tf.config.list_physical_devices('GPU')
    else ''
  )
  return f'{f"{count} " if count > 1 else ""}{" and ".join(sorted(devices))}{unused}'


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
    return _Runner(model_dir=model_dir, **actions, **kwargs)
  with strategy.scope():
    if workers_lib.is_chief():
      runner = _Runner(model_dir=model_dir, **actions, **kwargs)
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


class _PartialCheckpoint(tf.train.Checkpoint):
  """A checkpoint of which some values may be left over, without a warning."""

  def restore(self, save_path, options=None):
    return super().restore(save_path, options).expect_partial()


class _Runner(train_lib.OrbitExperimentRunner):
  """The Garden's runner, which saves as `saving` describes.

  Without training, it leaves out the optimizer's state. The task compares the model
  with the checkpoint before.
  """

  def _build_best_checkpoint_exporter(self):
    trainer = self.params.trainer
    folder, metric = (
      trainer.best_checkpoint_export_subdir,
      trainer.best_checkpoint_eval_metric,
    )
    if not (folder and metric):
      return None
    return saving.BestCheckpoint(
      os.path.join(self.model_dir, folder), metric, trainer.best_checkpoint_metric_comp
    )

  def _max_to_keep(self) -> int:
    return self.params.trainer.max_to_keep

  def _maybe_build_checkpoint_manager(self):
    trainer = self.params.trainer
    return saving.CheckpointManager(
      self.trainer.checkpoint,
      directory=self.model_dir,
      max_to_keep=self._max_to_keep(),
      step_counter=self.trainer.global_step,
      checkpoint_interval=trainer.checkpoint_interval,
      init_fn=self.trainer.initialize,
    )

  def _latest_checkpoint(self) -> str | None:
    return tf.train.latest_checkpoint(self.model_dir)

  def _build_trainer(self, task, train, evaluate):
    trainer = super()._build_trainer(task, train, evaluate)
    checkpoint = self._latest_checkpoint()
    if not train or (
      checkpoint
      and train_utils.read_global_step_from_checkpoint(checkpoint)
      >= self.params.trainer.train_steps
    ):
      trainer._checkpoint = _PartialCheckpoint(root=trainer.checkpoint)
    return trainer


class _NonChiefRunner(_Runner):
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

  def _latest_checkpoint(self):
    return tf.train.latest_checkpoint(self._run)

  def _max_to_keep(self):
    return 1

  def _maybe_build_checkpoint_manager(self):
    manager = super()._maybe_build_checkpoint_manager()
    # The checkpoint to restore; no public argument names one in another folder.
    manager._latest_checkpoint = self._latest_checkpoint()
    return manager
