"""What the documentation names exists: links, paths, commands, settings, fields.

Documentation is all Markdown files, the docstrings of modules, and the comments of
gin files, scripts and YAML files. CHANGELOG.md also names what is gone, so that only
its links are checked.
"""

import ast
import dataclasses
import functools
import re
import subprocess

from official.core import exp_factory
from official.modeling import hyperparams
import paths
import processes
import pytest

import yt8m_distill  # noqa: F401, registers experiments
from yt8m_distill import __main__ as command_line
from yt8m_distill.configs import settings

_FILES = [
  name
  for name in subprocess.run(
    ['git', 'ls-files', '--cached', '--others', '--exclude-standard'],
    cwd=paths.ROOT,
    capture_output=True,
    text=True,
    check=True,
  ).stdout.split()
  if name.endswith(('.md', '.py', '.gin', '.sh', '.yaml'))
  and (name.endswith('.md') or not name.startswith('tests/'))
  and (paths.ROOT / name).exists()
]
_MARKDOWN = [name for name in _FILES if name.endswith('.md')]
_CURRENT = [name for name in _FILES if name != 'CHANGELOG.md']
_PACKAGES = ('yt8m_distill', 'experiments', 'official')

_LINK = re.compile(r'\]\(([^)\s]+)\)')
_PATH = re.compile(
  r'(?<![\w./-])(?:constraints|experiments|gin|tests|yt8m_distill)/[\w./-]*[\w/]'
)
_SCRIPT = re.compile(r'\bbash ([\w./-]+\.sh)')
# Command, module, arguments, up to the end of the line, code span or shell command.
_COMMAND = re.compile(
  r'(?:\byt8m-distill ([a-z][\w-]*)|\bpython3? -m ([\w.]+\w))'
  r'([^\n`|;&)]*)'
)
_FLAG = re.compile(r'(?<=[\s\[])--(\w+)')
_DEFINED = re.compile(r"""(?:DEFINE_\w+|add_argument)\(\s*['"](?:--)?(\w+)['"]""")
_IMPORT = re.compile(
  r'^from ((?:yt8m_distill|experiments)\.\w+) import (\w+)(?: as (\w+))?$', re.MULTILINE
)
_DOTTED = re.compile(r'(?<![\w./@-])((?:yt8m_distill|experiments)(?:\.[a-z_]\w*)+)')
_FIELD = re.compile(r'(?<![\w./])((?:task|trainer|runtime)(?:\.(?:[a-z]\w*|\*))+)')
_GIN_FILE = re.compile(r'(?<![\w/])(\w+\.gin)\b')
_YAML_FILE = re.compile(r'--config_file=((?:experiments/)?[a-z]\w*(?:/\w+)?\.yaml)')


@functools.cache
def _prose(name):
  """What a person reads in a file; each command stands on one line."""
  text = (paths.ROOT / name).read_text()
  if name.endswith('.py'):
    text = ast.get_docstring(ast.parse(text)) or ''
  elif not name.endswith('.md'):
    text = '\n'.join(re.findall(r'(?:^|\s)#(?!!) ?(.*)$', text, re.MULTILINE))
  return re.sub(r'\\\n\s*', ' ', text)


def _missing(pattern, exists):
  """Lists what a pattern finds in the documentation that does not exist."""
  found = [
    (name, match) for name in _CURRENT for match in pattern.findall(_prose(name))
  ]
  assert found  # Otherwise the pattern is wrong.
  return [f'{name}: {match}' for name, match in found if not exists(match)]


def _anchors(path):
  headings = re.findall(r'^#+ (.*)$', path.read_text(), re.MULTILINE)
  return [
    re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings
  ]


def _leads_somewhere(path, target):
  place, _, anchor = target.partition('#')
  linked = (path.parent / place).resolve() if place else path
  return (
    linked.exists()
    and linked.is_relative_to(paths.ROOT)
    and (not anchor or anchor in _anchors(linked))
  )


@pytest.mark.parametrize('name', _MARKDOWN)
def test_links_lead_somewhere(name):
  path = paths.ROOT / name
  targets = _LINK.findall(path.read_text())
  assert not [
    target
    for target in targets
    if not target.startswith('https://') and not _leads_somewhere(path, target)
  ]


def test_paths_exist():
  assert not _missing(_PATH, lambda path: (paths.ROOT / path).exists())


def test_scripts_exist():
  assert not _missing(_SCRIPT, lambda path: (paths.ROOT / path).exists())


def _flags(module):
  """Flags of `python -m MODULE`, from its source; None without such a module."""
  if module == 'official.vision.train':
    module = 'yt8m_distill.train'  # All of its flags are the Garden's.
  path = paths.ROOT.joinpath(*module.split('.'))
  if path.is_dir():
    path /= '__main__'
  if not path.with_suffix('.py').exists():
    return None
  source = path.with_suffix('.py').read_text()
  defined = {'help', 'verbosity', *_DEFINED.findall(source)}
  if 'cli.run(' in source:
    defined.add('import')
  for room, name, alias in _IMPORT.findall(source):
    if re.search(rf'\b{alias or name}\.define_flags\(', source):
      defined |= _flags(f'{room}.{name}')
  if 'parse_known_args()' in source:  # It passes on what it does not know.
    defined |= _flags('yt8m_distill.train')
  return defined | {f'no{flag}' for flag in defined}


def _unknown_in_command(match):
  """What a match of _COMMAND names that does not exist."""
  command, module, arguments = match.groups()
  if command:
    if command not in command_line.MODULES:
      return [match[0]]
    module = f'yt8m_distill.{command_line.MODULES[command]}'
  elif module.partition('.')[0] not in _PACKAGES:
    return []
  known = _flags(module)
  if known is None:
    return [match[0]]
  return [
    f'{module} --{flag}' for flag in _FLAG.findall(arguments) if flag not in known
  ]


def test_commands_and_their_flags_exist():
  assert not [
    f'{name}: {unknown}'
    for name in _CURRENT
    for match in _COMMAND.finditer(_prose(name))
    for unknown in _unknown_in_command(match)
  ]


def _defined_in(path):
  """Names that a module defines at its top level."""
  for node in ast.parse(path.read_text()).body:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
      yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
      yield from (name.id for name in ast.walk(node) if isinstance(name, ast.Name))


def _is_setting_or_module(dotted):
  package, *names = dotted.split('.')
  known = {field.name for field in dataclasses.fields(settings.Settings)}
  if package == 'yt8m_distill' and len(names) == 1 and names[0] in known:
    return True
  place = paths.ROOT / package
  for index, name in enumerate(names):
    if (place / f'{name}.py').exists():
      rest = names[index + 1 :]
      return not rest or rest[0] in _defined_in(place / f'{name}.py')
    place /= name
  return place.is_dir()


def test_settings_and_modules_exist():
  assert not _missing(_DOTTED, _is_setting_or_module)


@functools.cache
def _configurations():
  names = (
    'yt8m_distill',
    'yt8m_distill_single',
    'yt8m_distill_finetune',
    'yt8m_distill_segments',
    'yt8m_distill_stored',
  )
  return [exp_factory.get_exp_config(name) for name in names]


def _has_field(node, names):
  if not names:
    return True
  if not isinstance(node, hyperparams.Config):
    return False
  fields = [field.name for field in dataclasses.fields(node)]
  return any(
    _has_field(getattr(node, field), names[1:])
    for field in fields
    if names[0] in (field, '*')
  )


def test_fields_exist():
  assert not _missing(
    _FIELD,
    lambda field: any(_has_field(node, field.split('.')) for node in _configurations()),
  )


def test_gin_files_exist():
  # A run writes its config.gin.
  assert not _missing(
    _GIN_FILE,
    lambda name: name == 'config.gin' or (paths.ROOT / 'gin' / name).exists(),
  )


def test_yaml_files_exist():
  assert not _missing(
    _YAML_FILE,
    lambda name: (
      (paths.ROOT / 'experiments' / name).exists() or (paths.ROOT / name).exists()
    ),
  )


@pytest.mark.end_to_end
def test_python_example_runs():
  text = (paths.ROOT / 'README.md').read_text()
  (example,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  assert 'gap' in processes.python('-c', example).stdout
