"""Trains video classifiers that look at fewer frames, and uses them.

  yt8m-distill COMMAND [arguments]
  yt8m-distill COMMAND --help

or python -m yt8m_distill COMMAND. A first run: simulate, train, report, export,
predict. The commands are:
"""

import ast
from collections.abc import Sequence
import difflib
import importlib
import pathlib
import runpy
import sys

from yt8m_distill.utils import process_exit
from yt8m_distill.utils import startup

# What each runs, as `python -m yt8m_distill.MODULE` does.
MODULES = {
  'train': 'train',
  'report': 'evaluation.report',
  'export': 'serving.export',
  'predict': 'serving.predict',
  'adapt': 'serving.adapt',
  'teach': 'serving.teach',
  'extract': 'features.extract',
  'thin': 'dataloaders.thin',
  'split-segments': 'dataloaders.split_segments',
  'simulate': 'simulation.write_shards',
  'extract-student': 'checkpoints.extract_student',
  'import-tf1': 'checkpoints.import_tf1',
}


def _summary(module: str) -> str:
  """Returns the first line of a module's docstring without importing it."""
  path = pathlib.Path(__file__).parent.joinpath(*module.split('.'))
  source = path.with_suffix('.py').read_text(encoding='utf-8')
  return (ast.get_docstring(ast.parse(source)) or '').split('\n')[0]


def _list_commands():
  print(__doc__)
  for command, module in MODULES.items():
    print(f'  {command:<17}{_summary(module)}')


def main(argv: Sequence[str] | None = None):
  """Runs a command, or lists all of them.

  Args:
    argv: the command and its arguments; those of the process by default.
  """
  command, *arguments = argv or sys.argv[1:] or ['--help']
  if command in ('-h', '--help', 'help'):
    with process_exit.when_output_closes():
      _list_commands()
    return
  if command not in MODULES:
    near = difflib.get_close_matches(command, MODULES)
    sys.exit(
      f'Error: COMMAND is {command}: choose {", ".join(MODULES)}.'
      + (f' Did you mean {" or ".join(near)}?' if near else '')
    )
  startup.hide_messages()
  startup.skip_keras_3()
  with startup.loading():
    importlib.import_module('yt8m_distill.registration')
  sys.argv[1:] = arguments
  runpy.run_module(
    f'yt8m_distill.{MODULES[command]}', run_name='__main__', alter_sys=True
  )


if __name__ == '__main__':
  main()
