"""Times the networks and the training step.

Uses random videos and the experiment `yt8m_distill` with its own task and
optimizer. The cases and a large matrix product take turns in each round, so that
noise affects them alike and the product shows what the machine can do at that
time. Videos/s and GFLOP/s are of the fastest round. `of matmul` is a case's share
of the product's rate in the fastest rounds; `median` is the median over the
rounds.

Memory is the peak of the process (on a GPU, of the device) after the first run of
each case; forward passes come before training. It includes the inputs, the weights
and, after training, the optimizer.

On a GPU the LSTM layers run on cuDNN, or in the time loop with --cudnn=false; the
output says which. With --recompute they store no steps for the backward pass. With
--compare the plain graph of the same networks runs too (plain.py). From the
repository's root:

  python -m experiments.benchmarks.model --cells=1024 --batch=64 --compare
"""

import statistics
import time

from absl import app
from absl import flags
import numpy as np
from official.modeling import performance
import tensorflow as tf

from experiments.benchmarks import plain as plain_lib
from experiments.benchmarks import usage
from yt8m_distill.configs import experiments
from yt8m_distill.configs import settings
from yt8m_distill.modeling import lstm_stack
from yt8m_distill.tasks import distillation

_CELLS = flags.DEFINE_integer(
  'cells', 256, "Cells per LSTM layer; the paper's size is 1024.", lower_bound=1
)
_BATCH = flags.DEFINE_integer('batch', 64, 'Videos per step.', lower_bound=1)
_PRECISION = flags.DEFINE_enum(
  'precision',
  'float32',
  ['float32', 'bfloat16', 'float16'],
  'Precision of matrix products; float16 scales the loss.',
)
_CLASSES = flags.DEFINE_integer('classes', 4716, 'Number of classes.', lower_bound=1)
_EVERY_N = flags.DEFINE_integer(
  'every_n', 10, 'The student sees every N-th frame.', lower_bound=1
)
_STUDENT_CHUNKS = flags.DEFINE_integer(
  'student_chunks',
  5,
  'Chunks of the student; must divide the number of frames that it sees.',
  lower_bound=1,
)
_REPEATS = flags.DEFINE_integer('repeats', 5, 'Rounds.', lower_bound=1)
_NUM_FRAMES = flags.DEFINE_enum(
  'num_frames',
  'full',
  ['full', 'real'],
  'Lengths of the videos: all 300 frames, or uniformly 120 to 300. Chunks without '
  'frames count as no work.',
)
_MATMUL_SIZE = flags.DEFINE_integer(
  'matmul_size', 4096, 'Rows and columns of the large matrix product.', lower_bound=1
)
_TILE = flags.DEFINE_integer(
  'tile', lstm_stack.CPU_TILE, 'Chunks that a CPU computes at a time.', lower_bound=1
)
_CUDNN = flags.DEFINE_bool(
  'cudnn', True, 'Run the LSTM layers on cuDNN if there is a GPU.'
)
_RECOMPUTE = flags.DEFINE_bool(
  'recompute',
  False,
  'Recompute steps in the backward pass instead of storing them.',
)
_COMPARE = flags.DEFINE_bool(
  'compare', False, 'Time the plain graph in the same rounds.'
)
_PROFILE = flags.DEFINE_string(
  'profile', '', 'Folder for a trace of one more train step (TensorBoard).'
)


def _work(network, num_frames):
  """Returns the FLOPs of a batch, forward and in training.

  The backward pass of a matrix product y = xW has two products of the same size,
  for the gradients of W and of x. So training takes three times the FLOPs of the
  forward pass, less those of the gradient of the frames (the x of the lower stack's
  first layer), which nothing needs.
  """
  backbone = network.backbone
  settings = backbone.get_config()
  length = settings['num_frames'] // settings['chunks']
  features = sum(settings['feature_sizes'])
  filled = -(-num_frames // length)
  forward = int(
    filled.sum() * backbone.lower.flops(length)
    + sum(backbone.upper.flops(int(n)) for n in filled)
    + len(num_frames) * network.head.flops()
  )
  frames_gradient = int(
    2 * filled.sum() * length * features * 4 * backbone.lower.num_cells
  )
  return forward, 3 * forward - frames_gradient


def _matmul(dtype):
  """Returns a function that computes one number of the large product, and its FLOPs."""
  size = [_MATMUL_SIZE.value] * 2
  a, b = (tf.cast(tf.random.stateless_uniform(size, [0, k]), dtype) for k in range(2))
  product = tf.function(lambda a, b: tf.matmul(a, b)[0, 0], autograph=False)
  return lambda: product(a, b), 2 * _MATMUL_SIZE.value**3


def _peak_mib():
  if tf.config.list_physical_devices('GPU'):
    return tf.config.experimental.get_memory_info('GPU:0')['peak'] / 2**20
  return usage.peak_mib()


def _seconds(run):
  start = time.perf_counter()
  # Reading the number on the host waits for a GPU.
  float(run())
  return time.perf_counter() - start


def _graph(function):
  return tf.function(function, autograph=False)


def _cases():
  """Builds what to time.

  Returns:
    {name: (function that returns one number, FLOPs)}; a function that raises if
    the plain graph computes other values; and how the LSTM layers run.
  """
  dtype = _PRECISION.value
  if dtype != 'float32':
    performance.set_mixed_precision_policy(dtype)
  params = experiments.yt8m_distill(
    settings.Settings(
      every_n=_EVERY_N.value,
      student_chunks=_STUDENT_CHUNKS.value,
      num_cells=_CELLS.value,
      num_classes=_CLASSES.value,
      batch_size=_BATCH.value,
    )
  )
  for network in (params.task.model.teacher, params.task.model.student):
    network.backbone.hierarchical_lstm.override(
      {'use_cudnn': _CUDNN.value, 'recompute': _RECOMPUTE.value}
    )
  if dtype == 'float16':
    params.override(
      {'runtime': {'mixed_precision_dtype': dtype, 'loss_scale': 'dynamic'}}
    )
  model_params = params.task.model
  rng = np.random.default_rng(0)
  size = sum(feature.size for feature in model_params.features)
  frames = rng.integers(
    256, size=[_BATCH.value, model_params.max_frames, size], dtype=np.uint8
  )
  num_frames = np.full([_BATCH.value], model_params.max_frames, np.int32)
  if _NUM_FRAMES.value == 'real':
    num_frames = rng.integers(120, 301, _BATCH.value, np.int32)
  seen = -(-num_frames // _EVERY_N.value)
  inputs, student_inputs = (
    {'frames': tf.constant(f), 'num_frames': tf.constant(n)}
    for f, n in ((frames, num_frames), (frames[:, :: _EVERY_N.value], seen))
  )
  labels = tf.constant(rng.random([_BATCH.value, _CLASSES.value]) < 3 / _CLASSES.value)

  task = distillation.DistillationTask(params.task)
  model = task.build_model()
  optimizer = task.create_optimizer(params.trainer.optimizer_config, params.runtime)
  teacher, teacher_training = _work(model.teacher, num_frames)
  student, student_training = _work(model.student, seen)

  def case(run, training=None):
    """Returns a graph of one number; a sum, so that all predictions are computed."""
    if training is None:
      return _graph(lambda: tf.reduce_sum(run()['predictions']))
    return _graph(
      lambda: task.train_step((inputs, labels), training, optimizer)[task.loss]
    )

  cases = {
    'teacher forward': (case(lambda: model.teacher(inputs, training=False)), teacher),
    'student forward': (
      case(lambda: model.student(student_inputs, training=False)),
      student,
    ),
    'train step': (case(None, model), teacher_training + student_training),
  }
  plain = plain_lib.PlainDistiller(
    model.teacher,
    model.student,
    model_params.teacher.frames,
    model_params.student.frames,
  )
  if _COMPARE.value:
    cases.update(
      {
        'teacher forward, plain': (
          case(lambda: plain_lib.plain_network(model.teacher, inputs)),
          teacher,
        ),
        'student forward, plain': (
          case(lambda: plain_lib.plain_network(model.student, student_inputs)),
          student,
        ),
        'train step, plain': (case(None, plain), teacher_training + student_training),
      }
    )
  way = 'on cuDNN' if model.teacher.backbone.lower.runs_on_cudnn() else 'in a time loop'
  if _RECOMPUTE.value:
    way += ', steps recomputed'
  return cases, lambda: _check_same(model, plain, inputs), way


def _check_same(model, plain, inputs):
  """Raises AssertionError unless both graphs agree on a few videos."""
  few = {name: value[:2] for name, value in inputs.items()}
  tolerance = 1e-4 if _PRECISION.value == 'float32' else 0.02
  # By default a GPU multiplies float32 in TF32, which is less exact.
  tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
  tf.config.experimental.enable_tensor_float_32_execution(False)
  tf.nest.map_structure(
    lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance),
    _graph(model)(few),
    _graph(plain)(few),
  )
  tf.config.experimental.enable_tensor_float_32_execution(tf32)


def main(_):
  """Prints a row per case."""
  lstm_stack.CPU_TILE = _TILE.value
  cases, check_same, way = _cases()
  products = {'matmul float32': _matmul(tf.float32)}
  if _PRECISION.value != 'float32':
    dtype = _PRECISION.value
    products[f'matmul {dtype}'] = _matmul(tf.as_dtype(dtype))
  memory = {'start': _peak_mib()}
  for name, (run, _) in cases.items():
    _seconds(run)
    memory[name] = _peak_mib()
  if _COMPARE.value:
    check_same()
  for run, _ in products.values():
    _seconds(run)

  cases = {**products, **cases}
  seconds: dict[str, list[float]] = {name: [] for name in cases}
  for _ in range(_REPEATS.value):
    for name, (run, _) in cases.items():
      seconds[name].append(_seconds(run))

  if _PROFILE.value:
    with tf.profiler.experimental.Profile(_PROFILE.value):
      _seconds(cases['train step'][0])

  print(
    f'{_CELLS.value} cells, {_CLASSES.value} classes, batch '
    f'{_BATCH.value}, {_PRECISION.value}, every_n {_EVERY_N.value}, '
    f'{_NUM_FRAMES.value} lengths, {_REPEATS.value} rounds, '
    f'LSTM layers {way}'
  )
  print(
    f'{"case":<23}{"best s":>9}{"median s":>10}{"videos/s":>10}'
    f'{"GFLOP":>9}{"GFLOP/s":>9}{"of matmul":>10}{"median":>8}'
    f'{"peak MiB":>10}'
  )
  print(f'{"before all cases":<79}{memory["start"]:>19.0f}')
  base, base_flops = seconds['matmul float32'], cases['matmul float32'][1]
  for name, (_, flops) in cases.items():
    best, median = min(seconds[name]), statistics.median(seconds[name])
    shares = [flops / s / (base_flops / b) for s, b in zip(seconds[name], base)]
    videos = peak = ''
    if name in memory:
      videos, peak = f'{_BATCH.value / best:.1f}', f'{memory[name]:.0f}'
    print(
      f'{name:<23}{best:>9.4f}{median:>10.4f}{videos:>10}'
      f'{flops / 1e9:>9.1f}{flops / best / 1e9:>9.1f}'
      f'{flops / best / (base_flops / min(base)):>10.2f}'
      f'{statistics.median(shares):>8.2f}{peak:>10}'
    )
  if _COMPARE.value:
    for name in ('teacher forward', 'student forward', 'train step'):
      ratios = [
        plain / ours for plain, ours in zip(seconds[f'{name}, plain'], seconds[name])
      ]
      print(
        f'{name}: {statistics.median(ratios):.2f} times as fast as the '
        f'plain graph (best {max(ratios):.2f}, worst {min(ratios):.2f})'
      )


if __name__ == '__main__':
  app.run(main)
