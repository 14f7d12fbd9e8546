"""Wrong values for every flag and argument of every command.

  PYTHONPATH=.:tests python tests/wrong_flags.py

tries all of them and counts how each ends. A command stops where its work would start.
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import functools
import pathlib
import re
import runpy
import shutil
import sys
import tempfile
import time
from typing import NamedTuple
from unittest import mock
import warnings

from absl import app
from absl import flags
from absl.testing import flagsaver
import feature_weights
import paths
import serving_cases
import tiny

from experiments.study import runner
import gin
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.features import weights
from yt8m_distill.serving import ensemble
from yt8m_distill.trainer import cluster
from yt8m_distill.utils import cli
from yt8m_distill.utils import files
from yt8m_distill.utils import parallel
from yt8m_distill.utils import process_exit

# Where the work of commands starts.
_WORK = (
  (parallel, 'write_shards'),
  (files, 'whole_folder'),
  (pipeline, 'build'),
  (cluster, 'build_runner'),
  (trained_network, 'write'),
  (runner, 'prepare'),
)
_NUMBERS = {
  'word': 'maybe',
  'empty': '',
  'negative': '-3',
  'zero': '0',
  'fraction': '1.5',
  'huge': '1000000000000',
  'nan': 'nan',
  'infinity': 'inf',
}
# By the type of a flag, as absl names it.
VALUES = {
  'int': _NUMBERS,
  'float': _NUMBERS,
  'bool': {'word': 'maybe', 'empty': '', 'number': '7'},
  'string enum': {'word': 'maybe', 'empty': ''},
  'string': {
    'empty': '',
    'blank': ' ',
    'word': 'maybe',
    'missing': '{folder}/no/such',
    'missing list': '@{folder}/no/such',
    'folder': '{folder}/empty',
    'text file': '{folder}/text',
    'under a file': '{folder}/text/x',
    'two lines': 'a\nb',
    'number': '-3',
    'scheme': 'nothing://a/b',
    'quote': "'",
  },
}


_TEXTS = dict.fromkeys(('multi string', 'comma separated list of strings'), 'string')


# Of `name kind`: values that are right, or of whose wrongness the work itself tells.
_TAKEN = re.compile(
  r'(OUT|output_dir|model_dir|split) .*'
  r'|(classes|compare_path|evaluation_path|features|gin_params|import|model|model_weights'
  r'|params_override|stopping|tflite|video|video_level|vocabulary|weights) empty'
  r'|(batch_size|context|max_frames|seed|segments|top_k|videos_per_shard|workers'
  r'|mean_frames) huge'
  r'|(context|cutaways|seed) zero'
  r'|mean_frames fraction'
  r'|(input|input_path|video_level) text file'  # Its content is read later.
  r'|(calibration_path|evaluation_path) .*'
  r'|(ray_address|tpu|tf_data_service) .*'  # Any address.
  r'|teacher_chunks .*'  # The checkpoint has no teacher.
)


class _Started(Exception):
  """The work of a command would start now."""


class Command(NamedTuple):
  """A valid command line.

  Attributes:
    module: what `python -m` would run.
    arguments: positional ones, by name.
    flags: values of flags.
  """

  module: str
  arguments: dict[str, str]
  flags: dict[str, str]


_RECORDS = '{folder}/records.tfrecord'
_OUT = '{folder}/out'
COMMANDS = {
  'train': Command(
    'yt8m_distill.train',
    {},
    {
      'experiment': 'yt8m_distill_single',
      'mode': 'train_and_eval',
      'model_dir': _OUT,
      'config_file': '{folder}/sizes.yaml',
      'gin_params': "yt8m_distill.train_path='{folder}/records.tfrecord'",
      'params_override': f'task.validation_data.input_path={_RECORDS},'
      f'task.train_data.input_path={_RECORDS}',
    },
  ),
  'report': Command('yt8m_distill.evaluation.report', {'RUN': '{folder}/run'}, {}),
  'export': Command(
    'yt8m_distill.serving.export', {'RUN': '{folder}/run', 'OUT': _OUT}, {}
  ),
  'predict': Command(
    'yt8m_distill.serving.predict',
    {},
    {'model': '{folder}/run', 'input_path': _RECORDS, 'output_dir': _OUT},
  ),
  'predict windows': Command(
    'yt8m_distill.serving.predict',
    {},
    {
      'model': '{folder}/run',
      'input_path': _RECORDS,
      'output_dir': _OUT,
      'segments': '5',
    },
  ),
  'adapt': Command(
    'yt8m_distill.serving.adapt',
    {},
    {
      'model': '{folder}/nested/run',
      'calibration_path': _RECORDS,
      'output_dir': _OUT,
      'mean_frames': '3',
    },
  ),
  'teach': Command(
    'yt8m_distill.serving.teach',
    {},
    {'model': '{folder}/run', 'input_path': _RECORDS, 'output_dir': _OUT},
  ),
  'extract': Command(
    'yt8m_distill.features.extract',
    {},
    {
      'input': '{folder}/video.mp4',
      'output_dir': _OUT,
      'weights': '{folder}/weights',
    },
  ),
  'thin': Command(
    'yt8m_distill.dataloaders.thin', {}, {'input_path': _RECORDS, 'output_dir': _OUT}
  ),
  'split-segments': Command(
    'yt8m_distill.dataloaders.split_segments',
    {},
    {'input_path': _RECORDS, 'output_dir': _OUT},
  ),
  'simulate': Command(
    'yt8m_distill.simulation.write_shards',
    {},
    {'output_dir': _OUT, 'num_videos': '3', 'num_classes': '10'},
  ),
  'extract-student': Command(
    'yt8m_distill.checkpoints.extract_student',
    {'RUN': '{folder}/run', 'OUT': _OUT},
    {},
  ),
  'import-tf1': Command(
    'yt8m_distill.checkpoints.import_tf1',
    {'CHECKPOINT': str(paths.GOLDEN / 'tf1_checkpoint' / 'student'), 'OUT': _OUT},
    {
      'every_n': '10',
      'student_chunks': '3',
      'teacher_chunks': '4',
      'max_frames': '60',
      'features': 'rgb:12,audio:4',
    },
  ),
  'study': Command(
    'experiments.study.__main__',
    {},
    {'config': '{folder}/study.yaml', 'output_dir': _OUT},
  ),
}


def write_inputs(folder: pathlib.Path):
  """Writes what the valid command lines name into a folder, and an empty `work`."""
  serving_cases.write_run(folder / 'run', tiny.AVERAGES)
  for name in ('empty', 'nested', 'weights', 'work'):
    (folder / name).mkdir()
  serving_cases.write_nested_run(folder / 'nested', [2, 4])
  tiny.sizes_file(folder, 'yt8m_distill_single')
  tiny.write_records(str(folder / 'records.tfrecord'), 3)
  feature_weights.write_inception(folder / 'weights')
  feature_weights.write_whitening(folder / 'weights')
  # Read only when work has started.
  for name in (f'weights/{weights.VGGISH}', 'video.mp4'):
    (folder / name).touch()
  (folder / 'text').write_text('some text\n')
  (folder / 'study.yaml').write_text(
    'seeds: [0]\ngroups: [{name: one, experiment: yt8m_distill_single}]\n'
    'order: [one > one]\n'
  )


@contextlib.contextmanager
def _without_other_flags() -> Iterator[None]:
  """Removes the flags of other commands, which may have the same names."""
  removed = {}
  for name in {*flags.FLAGS} - {'import'}:
    module = flags.FLAGS.find_module_defining_flag(name, '')
    if not module.startswith('absl'):
      removed[name] = flags.FLAGS[name]
  for name in removed:
    delattr(flags.FLAGS, name)
  try:
    yield
  finally:
    for name, flag in removed.items():
      flags.FLAGS[name] = flag


@contextlib.contextmanager
def prepared(
  command: Command,
) -> Iterator[tuple[list[str], Callable[[list[str]], str]]]:
  """Defines the flags of a command; yields them, and what runs it as `_outcome`."""
  with _without_other_flags(), flagsaver.flagsaver(), contextlib.ExitStack() as stack:
    others = {*flags.FLAGS} - {'import'}
    for owner, name, replacement in (
      *((*work, mock.Mock(side_effect=_Started)) for work in _WORK),
      (ensemble, 'Ensemble', serving_cases.read),
      (trained_network, 'Network', functools.cache(trained_network.Network)),
      (app, 'run', lambda main, flags_parser: main(flags_parser(sys.argv))),
      (process_exit, 'end_process', lambda: None),
    ):
      stack.enter_context(mock.patch.object(owner, name, replacement))
    with mock.patch.object(cli, 'run') as run, warnings.catch_warnings():
      warnings.simplefilter('ignore')  # It may have been imported before.
      runpy.run_module(command.module, run_name='__main__')
    execute = functools.partial(cli.run, *run.call_args.args)
    yield sorted({*flags.FLAGS} - others), functools.partial(_outcome, execute)


def _outcome(execute: Callable[[], object], arguments: list[str]) -> str:
  """Returns the error that a command line ends with, '' if its work would start."""
  flags.FLAGS.unparse_flags()
  for name in flags.FLAGS:
    flags.FLAGS[name].unparse()
  with (
    mock.patch.object(sys, 'argv', ['command', *arguments]),
    contextlib.redirect_stdout(None),
    gin.unlock_config(),
  ):
    gin.clear_config()
    try:
      execute()
    except _Started:
      return ''
    except SystemExit as error:
      return str(error)
    except Exception as error:
      return f'{type(error).__name__}: {error}'
    finally:
      gin.clear_config()
  return ''


def line(command: Command, folder: pathlib.Path, **changed: str) -> list[str]:
  """Returns the arguments of a command line, with some values changed."""
  values = {**command.arguments, **command.flags, **changed}
  return [
    (text if name in command.arguments else f'--{name}={text}').replace(
      '{folder}', str(folder)
    )
    for name, text in values.items()
  ]


def _values_of(name: str) -> dict[str, str]:
  """Returns wrong values for a flag, or an argument, by kind."""
  kind = flags.FLAGS[name].flag_type() if name in flags.FLAGS else 'string'
  return VALUES[_TEXTS.get(kind, kind)]


def complaint(name: str, kind: str, value: str, message: str) -> str:
  """Returns what is wrong with the outcome of a wrong value; '' if nothing is.

  Args:
    name: of the flag or argument.
    kind: of the value.
    value: the value.
    message: the error; '' if the value was taken.
  """
  if not message:
    return '' if _TAKEN.fullmatch(f'{name} {kind}') else 'is taken'
  shown = ' '.join(value.lstrip('-@').split()) or "''"
  if not message.startswith('Error: '):
    return 'is no error of a command'
  if '\n' in message or len(message) > 1000:
    return 'is more than a short line'
  if name not in message and shown not in message:
    return 'names neither the flag nor the value'
  return ''


def tried(
  title: str, folder: pathlib.Path, every: int = 1
) -> Iterator[tuple[str, str, str, str]]:
  """Yields name, kind and value of wrong values of a command, and the error.

  Args:
    title: of the command.
    folder: with what `write_inputs` writes.
    every: tries only each `every`-th value.
  """
  command = COMMANDS[title]
  with prepared(command) as (names, outcome), contextlib.chdir(folder / 'work'):
    assert outcome(line(command, folder)) == ''
    values = [
      (name, kind, value.replace('{folder}', str(folder)))
      for name in (*command.arguments, *names)
      for kind, value in _values_of(name).items()
    ]
    for name, kind, value in values[::every]:
      yield name, kind, value, outcome(line(command, folder, **{name: value}))
      for written in (folder / 'out', *(folder / 'work').iterdir()):
        shutil.rmtree(written, ignore_errors=True)


def main():
  """Prints how each wrong value ends that is taken or badly refused, and counts."""
  with tempfile.TemporaryDirectory() as place:
    folder = pathlib.Path(place)
    write_inputs(folder)
    for title in COMMANDS:
      counts = collections.Counter[str]()
      start = time.process_time()
      for name, kind, value, message in tried(title, folder):
        wrong = complaint(name, kind, value, message)
        counts['wrong' if wrong else 'refused' if message else 'taken'] += 1
        if wrong:
          print(f'{title}: {name}, {kind}: {wrong}: {message}')
      print(f'{title}: {dict(counts)}, {time.process_time() - start:.1f} s', flush=True)


if __name__ == '__main__':
  main()
