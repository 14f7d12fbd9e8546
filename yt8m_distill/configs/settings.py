"""The settings that gin binds.

gin has one configurable here, `yt8m_distill`: a gin file or `--gin_params` binds
a setting with `yt8m_distill.every_n = 5`. The factories in
`configs/experiments.py` write every setting into a field of the configuration; no
other code reads gin.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import contextvars
import dataclasses
import difflib
import re
import tokenize
from typing import Any

import gin

_TYPES: dict[Any, str] = {
  int: 'an integer',
  float: 'a number',
  str: 'a string in quotes',
  tuple: 'a list of integers',
}


@gin.configurable('yt8m_distill')
@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of an experiment.

  `Settings()` takes each value from gin, and the default where gin binds none;
  a value that Python passes wins over both.

  Attributes:
    every_n: Interval N of the student's frames 0, N, 2N, ..., where k is 0.
      Allowed: 1 or more.
    k: Number of frames that the student sees. Allowed: 1 or more; 0 for every
      every_n-th frame, which needs frames 'uniform', or for all 5 of a window.
    frames: Frames that the student sees. Allowed: 'uniform', 'random', 'first',
      'middle', 'last', 'first_middle_last', 'window', 'nested', 'all'.
    counts: Numbers of frames at which the student answers, where frames is 'nested'.
      Allowed: a list of ascending integers, 1 or more.
    length: Number of every_n-th frames of a video of n frames. Allowed: 'ceil'
      for ceil(n / every_n); 'original' for the rounding of the authors' code.
    backbone: Backbone of all networks. Allowed: 'hierarchical_lstm', 'netvlad',
      'nextvlad', 'yt8m_dbof', 'yt8m_average'.
    head: Head of all networks. Allowed: 'moe', 'logistic'; '' for the head that
      was published with the backbone.
    student_chunks: Chunks of the student's hierarchical LSTM. Allowed: divisors
      of the number of frames that it sees: k, ceil(max_frames / every_n), 5, or the
      last of counts, if a chunk ends at each of them.
    teacher_chunks: Chunks of the teacher's hierarchical LSTM, and of a single
      network that sees all frames. Allowed: divisors of max_frames.
    num_cells: Cells of every LSTM layer. Allowed: 1 or more.
    num_layers: Layers of each of the two LSTM stacks. Allowed: 1 or more.
    num_mixtures: Experts of a class in a mixture of experts, without the dummy
      expert. Allowed: 1 or more.
    num_classes: Number of classes: 3862 (2018 release), 4716 (2017), 4800 (2016)
      or your own. Allowed: 1 or more.
    max_frames: Longest video; further frames are cut off. Allowed: 1 or more.
    labels: What networks learn and are evaluated on. Allowed: 'video'; 'segments'
      for ratings of windows, in records that split-segments wrote.
    training: Whether the teacher learns together with the student. Allowed:
      'parallel'; 'serial' for a frozen teacher from teacher_checkpoint.
    teacher_checkpoint: Source of the teacher's weights; serial training requires
      it. Allowed: the folder of a run of yt8m_distill_single or yt8m_distill,
      its best_ckpt, or a checkpoint's prefix.
    init_checkpoint: Source of the first weights; fine-tuning requires it. Allowed:
      the folder of a run, its best_ckpt, an extracted student, or a checkpoint's
      prefix; for teacher and student together, those of a distillation run.
    init_network: Network of a distillation run that fine-tuning starts from.
      Allowed: 'student', 'teacher'.
    train_path: Training records; training requires them. Allowed: files,
      patterns, ranges or @lists, separated by commas.
    validation_path: Evaluation records; evaluation requires them. Allowed: as
      train_path.
    batch_size: Videos in a batch over all replicas, in training and evaluation.
      Allowed: 1 or more.
    train_steps: Length of training. Allowed: 1 or more; 0 for 75955 steps, 5
      passes over the 2018 training set, 45573 in fine-tuning, 3 passes, or 2500
      with labels 'segments'.
    learning_rate: Initial learning rate of Adam. Allowed: above 0.
    learning_rate_decay: Factor on the learning rate after every 4,000,000
      videos. Allowed: above 0; 1.0 for a constant rate.
    adam_epsilon: Epsilon of Adam. Allowed: above 0.
    representation_weight: Weight of L_REP. Allowed: 0 or more.
    prediction_reduction: How L_PRED is reduced over the batch. Allowed: 'mean',
      'sum'.
    seed: Seed of the initial weights and of the order of the data. Allowed: 0 or
      more.
  """

  every_n: int = 10
  k: int = 0
  frames: str = 'uniform'
  counts: tuple = (6, 12, 18, 30)
  length: str = 'ceil'
  backbone: str = 'hierarchical_lstm'
  head: str = ''
  student_chunks: int = 5
  teacher_chunks: int = 20
  num_cells: int = 1024
  num_layers: int = 2
  num_mixtures: int = 2
  num_classes: int = 3862
  max_frames: int = 300
  labels: str = 'video'
  training: str = 'parallel'
  teacher_checkpoint: str = ''
  init_checkpoint: str = ''
  init_network: str = 'student'
  train_path: str = ''
  validation_path: str = ''
  batch_size: int = 256
  train_steps: int = 0
  learning_rate: float = 1e-3
  learning_rate_decay: float = 0.95
  adam_epsilon: float = 1e-7
  representation_weight: float = 1e-3
  prediction_reduction: str = 'mean'
  seed: int = 0

  def __post_init__(self):
    """Raises ValueError if a setting has the wrong type."""
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if not _has_type(value, field.type):
        raise ValueError(
          f'yt8m_distill.{field.name} is {value!r}: it must be '
          f'{_TYPES[field.type]}. Write for example {flag(field.name, field.default)}.'
        )


def _has_type(value: Any, wanted: Any) -> bool:
  if wanted is tuple:
    is_list = isinstance(value, tuple | list)
    return is_list and all(_has_type(item, int) for item in value)
  kinds = (int, float) if wanted is float else wanted
  return isinstance(value, kinds) and not isinstance(value, bool)


NAMES = tuple(field.name for field in dataclasses.fields(Settings))
_given = contextvars.ContextVar['Settings | None']('given', default=None)


@contextlib.contextmanager
def using(settings: Settings) -> Iterator[None]:
  """Lets current() return these settings, whatever gin binds."""
  token = _given.set(settings)
  try:
    yield
  finally:
    _given.reset(token)


def without_gin() -> contextlib.AbstractContextManager[None]:
  """Lets current() return the defaults, whatever gin binds."""
  defaults: dict[str, Any] = {
    field.name: field.default for field in dataclasses.fields(Settings)
  }
  return using(Settings(**defaults))  # What Python passes wins over gin.


def current() -> Settings:
  """Returns the settings that gin binds, or those of using() within it.

  Raises:
    ValueError: a setting has the wrong type.
  """
  try:
    return _given.get() or Settings()
  except RecursionError as error:
    raise ValueError(
      'A setting of yt8m_distill is bound to @yt8m_distill(), which holds the setting: '
      'bind it to a value.'
    ) from error


def without_effect(bindings: Sequence[str], build: Callable[[], Any]) -> list[str]:
  """Returns the bindings of settings on which nothing depends.

  Args:
    bindings: values of --gin_params that were parsed.
    build: returns what depends on current(), such as a configuration as a dictionary,
      or raises a ValueError if the settings do not fit.
  """
  settings, built = current(), build()

  def depends(binding):
    name = binding.partition('=')[0].strip().rpartition('.')[2]
    if not hasattr(settings, name):  # A macro, an import or nothing.
      return True
    value = getattr(settings, name)
    try:
      with using(dataclasses.replace(settings, **{name: _another(value)})):
        return build() != built
    except ValueError:
      return True

  return [binding for binding in bindings if not depends(binding)]


def _another(value: Any) -> Any:
  """Returns a value of the same type."""
  if isinstance(value, str):
    return f'{value}x'
  return value + 1 if isinstance(value, int | float) else [*value, 1]


def flag(name: str, value: Any) -> str:
  """Returns a setting as a user types it in a shell."""
  return f'--gin_params="yt8m_distill.{name}={value!r}"'


def parse_gin(gin_files: Sequence[str], bindings: Sequence[str]):
  """Parses gin files and then bindings, and locks gin.

  All error messages are one line.

  Args:
    gin_files: Values of --gin_file.
    bindings: Values of --gin_params.

  Raises:
    ValueError: A binding cannot be parsed, or binds what is not a setting.
    OSError: A gin file cannot be read.
  """
  for path in gin_files:
    with _explained(f'--gin_file={path}'):
      gin.parse_config_file(path)
  for binding in bindings:
    with _explained(f'--gin_params={binding}'):
      gin.parse_config(binding)
  text = gin.config_str()
  # gin takes any name without a dot for a new macro, also one that nothing uses.
  for name in re.findall(r'^([\w/]+) = ', text, re.MULTILINE):
    if not re.search(rf'%{name}\b', text):
      raise ValueError(_unknown(name))
  with _explained('gin'):
    gin.finalize()


@contextlib.contextmanager
def _explained(source: str) -> Iterator[None]:
  """Turns gin's errors into a ValueError of one line that names the source."""
  try:
    yield
  except (SyntaxError, tokenize.TokenError) as error:
    statement = getattr(error, 'text', None) or source.partition('=')[2]
    if isinstance(error, SyntaxError) and error.filename:
      source = f'{error.filename}, line {error.lineno}: {statement.strip()}'
    raise ValueError(
      f'{source} cannot be parsed: a string needs quotes, inside those of the '
      f'shell. Write for example {_example(*statement.partition("=")[::2])}.'
    ) from error
  except (ValueError, ImportError) as error:
    # gin appends two lines: where it met the statement, and the statement.
    reason, *rest = str(error).splitlines()
    if len(rest) > 1 and re.search('No configurable match|have a parameter', reason):
      reason = _unknown(rest[1].partition('=')[0].strip())
    macro = re.search("No bindings specified for '(.*)/gin.macro'", reason)
    if macro:
      reason = (
        f'%{macro[1]} has no value. Write the value itself, as {_example("", "")}.'
      )
    raise ValueError(f'{source}: {reason.rstrip(": ")}') from error
  except OSError as error:
    raise OSError(f'{source}: {" ".join(str(error).split())}') from error


def _unknown(name: str) -> str:
  """Says that a name is no setting, and which ones are spelled like it."""
  if name.partition('.')[0] in ('task', 'trainer', 'runtime'):
    return (
      f'{name} is a field of the configuration, not a setting: set it with '
      f'--params_override={name}=VALUE.'
    )
  short = name.rpartition('.')[2].lower()
  near = [short] if short in NAMES else difflib.get_close_matches(short, NAMES)
  meant = ' or '.join(f'yt8m_distill.{match}' for match in near or NAMES)
  return f'{name} is not a setting. Did you mean {meant}?'


def _example(name: str, value: str) -> str:
  """A binding that gin can parse, near to one that it cannot."""
  name = name.strip().rpartition('.')[2]
  if name not in NAMES:
    return flag('train_path', 'train*.tfrecord')
  default = getattr(Settings, name)
  return flag(name, value.strip(' \n\'"') if isinstance(default, str) else default)
