"""Rooms import from their own floor and those below; no files import in a circle."""

import ast
import graphlib
import pathlib

_PACKAGE = pathlib.Path(__file__).resolve().parent.parent / 'yt8m_distill'
_FLOORS = {
  'configs': 1,
  'utils': 1,
  'modeling': 2,
  'checkpoints': 3,
  'dataloaders': 3,
  'evaluation': 3,
  'tasks': 4,
  'registration': 5,
  'trainer': 5,
  'features': 5,
  'serving': 6,
  'simulation': 6,
  'train': 7,
  '__main__': 7,
}


def _module(path):
  parts = path.relative_to(_PACKAGE.parent).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


_MODULES = {_module(path): path for path in _PACKAGE.rglob('*.py')}


def _imports(path):
  """Modules of the package that a file imports; of a room, the one named."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module:
      for alias in node.names:
        name = f'{node.module}.{alias.name}'
        yield name if name in _MODULES else node.module
    elif isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)


def _graph():
  return {
    module: {
      name
      for name in _imports(path)
      if name in _MODULES and name not in (module, 'yt8m_distill')
    }
    for module, path in _MODULES.items()
    if module != 'yt8m_distill'
  }


def _room(module):
  return module.split('.')[1]


def test_every_room_has_a_floor():
  rooms = {_room(module) for module in _MODULES if module != 'yt8m_distill'}
  assert rooms == _FLOORS.keys()


def test_imports_lead_downward():
  upward = [
    (module, imported)
    for module, names in _graph().items()
    for imported in names
    if _FLOORS[_room(imported)] > _FLOORS[_room(module)]
  ]
  assert not upward


def test_no_circles():
  graphlib.TopologicalSorter(_graph()).prepare()
