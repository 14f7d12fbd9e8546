"""Packages import from their own layer and lower ones; no modules import in a cycle."""

import ast
import graphlib
import pathlib

_PACKAGE = pathlib.Path(__file__).resolve().parent.parent / 'yt8m_distill'
_LAYERS = {
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
  """Modules of the package that a file imports; of a package, the one named."""
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


def _package(module):
  return module.split('.')[1]


def test_every_package_has_a_layer():
  packages = {_package(module) for module in _MODULES if module != 'yt8m_distill'}
  assert packages == _LAYERS.keys()


def test_imports_lead_downward():
  upward = [
    (module, imported)
    for module, names in _graph().items()
    for imported in names
    if _LAYERS[_package(imported)] > _LAYERS[_package(module)]
  ]
  assert not upward


def test_no_cycles():
  graphlib.TopologicalSorter(_graph()).prepare()
