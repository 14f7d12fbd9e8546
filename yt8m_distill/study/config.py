"""Reads a study from YAML: groups of runs that vary along axes.

A study is a file such as

  gin_file: train.gin
  set: {NUM_CELLS: 64, trainer.validation_interval: 60}
  seeds: [0, 1, 2]
  axes:
    k:
      6: {K: 6, STUDENT_CHUNKS: 3}
      30: {K: 30, STUDENT_CHUNKS: 5}
  groups:
    - name: skyline
      experiment: yt8m_distill_single
      gin_file: skyline.gin
    - name: alone
      experiment: yt8m_distill_single
      label: '{FRAMES}-k'
      grid: {FRAMES: [uniform, random], k: [6, 30]}
    - name: serial
      experiment: yt8m_distill
      gin_file: serial.gin
      needs: skyline
      grid: {k: [30]}
  columns: k
  order: [skyline > serial > uniform-k]

Whatever is set is a gin parameter (K, yt8m_distill.every_n) or, where its name
begins with task., trainer. or runtime., a field of the configuration. A later
one wins: the study's `set`, the group's, the axes in the order of the grid, the
seed. An axis that `axes` does not list is itself such a name.

Runs start in the order of the file: put those that take long first.
"""

import dataclasses
import itertools
import json
import os
import re
from typing import Any, Dict, List, Optional, Sequence

import tensorflow as tf
import yaml

# It also teaches yaml.FullLoader that 1e-3 is a number.
from official.modeling import hyperparams  # pylint: disable=unused-import

_FIELD = re.compile(r'(task|trainer|runtime)\.')
_GIN_NAME = re.compile(r'[A-Z][A-Z0-9_]*|[a-z]\w*(\.\w+)+')


@dataclasses.dataclass(frozen=True)
class Run:
  """One run of the driver.

  Attributes:
    name: of its folder.
    group: it belongs to.
    label: of what is compared: the same for all seeds, and in all columns.
    axes: the value of each axis.
    seed: of weights and data.
    experiment: --experiment.
    gin_file: values of --gin_file.
    gin_params: values of --gin_params.
    overrides: nested, of --params_override.
    needs: name of the run whose network is the teacher; None for none.
  """
  name: str
  group: str
  label: str
  axes: Dict[str, str]
  seed: int
  experiment: str
  gin_file: List[str]
  gin_params: List[str]
  overrides: Dict[str, Any]
  needs: Optional[str]


@dataclasses.dataclass(frozen=True)
class Study:
  """A study, its runs expanded.

  Attributes:
    runs: in the order in which they start.
    columns: the axis that makes the columns of the table; '' for one column.
    order: claims 'A > B' over two labels: A scores higher.
    rises: labels that are claimed to score higher in each further column.
    per_class: one more claim, whose gain is shown class by class; '' for none.
    reference: path of a CSV of published scores: label, the column, gap, map.
  """
  runs: List[Run]
  columns: str = ''
  order: List[str] = dataclasses.field(default_factory=list)
  rises: List[str] = dataclasses.field(default_factory=list)
  per_class: str = ''
  reference: str = ''


def _check_keys(values: Any, required: str, optional: str, where: str):
  """Raises ValueError where a mapping lacks a key or has one too many."""
  if not isinstance(values, dict):
    raise ValueError(f'{where} is {values!r}: it must be a mapping.')
  known = [*required.split(), *optional.split()]
  for key in values:
    if key not in known:
      raise ValueError(f'{where} has the unknown key {key!r}: choose of '
                       f'{", ".join(known)}.')
  for key in required.split():
    if not values.get(key):
      raise ValueError(f'{where} has no {key}: give it.')


def _settings(values: Any, where: str) -> Dict[str, Any]:
  """Returns a mapping of settings, checked for names that none can have."""
  if not isinstance(values, dict):
    raise ValueError(f'{where} is {values!r}: it must map names to values.')
  for name in values:
    if not _is_setting(name):
      raise ValueError(
          f'{where} sets {name!r}: give a gin macro in capitals, an argument as '
          'in yt8m_distill.every_n, or a field below task., trainer. or '
          'runtime.')
  return values


def _is_setting(name: Any) -> bool:
  return isinstance(name, str) and bool(_GIN_NAME.fullmatch(name))


def _axis(name: str, chosen: Any, axes: Dict[str, Any],
          where: str) -> Dict[str, Dict[str, Any]]:
  """Returns what each chosen value of an axis sets."""
  if not isinstance(chosen, list) or not chosen:
    raise ValueError(f'{where}: {name} is {chosen!r}: list at least one value.')
  if name not in axes:
    if not _is_setting(name):
      raise ValueError(f'{where} names the unknown axis {name!r}: choose of '
                       f'{", ".join(axes)}, or a gin macro in capitals.')
    return {str(value): {name: value} for value in chosen}
  known = {str(value): settings for value, settings in axes[name].items()}
  for value in map(str, chosen):
    if value not in known:
      raise ValueError(f'{where}: {name} has no value {value!r}: choose of '
                       f'{", ".join(known)}.')
  return {value: _settings(known[value], f'axes: {name}: {value}')
          for value in map(str, chosen)}


def _nested(fields: Dict[str, Any]) -> Dict[str, Any]:
  """{'task.seed': 1} as {'task': {'seed': 1}}."""
  tree = {}
  for name, value in fields.items():
    *path, leaf = name.split('.')
    node = tree
    for part in path:
      node = node.setdefault(part, {})
    node[leaf] = value
  return tree


def _files(value: Any) -> List[str]:
  return [value] if isinstance(value, str) else list(value or [])


def _label(group: Dict[str, Any], axes: Dict[str, str], columns: str) -> str:
  """What the runs of all seeds, and of all columns, are called."""
  if 'label' not in group:
    return ' '.join([group['name'], *(
        f'{k}={v}' for k, v in axes.items() if k != columns)])
  try:
    return group['label'].format(**axes)
  except (KeyError, IndexError) as error:
    raise ValueError(
        f'groups: {group["name"]}: label is {group["label"]!r}: it may name '
        f'the axes of the grid, {", ".join(axes) or "none"}.') from error


def _expand(group: Dict[str, Any], study: Dict[str, Any],
            gin_params: Sequence[str]) -> List[Run]:
  """Returns the runs of a group; `needs` is that group's name as yet."""
  where = f'groups: {group["name"]}'
  grid = {name: _axis(name, chosen, study.get('axes', {}), f'{where}: grid')
          for name, chosen in group.get('grid', {}).items()}
  runs = []
  for values in itertools.product(*grid.values()):
    axes = dict(zip(grid, values))
    for seed in study['seeds']:
      settings = {**_settings(study.get('set', {}), 'set'),
                  **_settings(group.get('set', {}), f'{where}: set')}
      for name, value in axes.items():
        settings.update(grid[name][value])
      settings['SEED'] = seed
      fields = {name: value for name, value in settings.items()
                if _FIELD.match(name)}
      runs.append(Run(
          name='-'.join([group['name'], *(
              f'{k}={v}'.replace('/', '_') for k, v in axes.items()),
                         f'seed={seed}']),
          group=group['name'],
          label=_label(group, axes, study.get('columns', '')),
          axes=axes, seed=seed, experiment=group['experiment'],
          gin_file=_files(group.get('gin_file', study.get('gin_file'))),
          gin_params=[f'{name}={value!r}' for name, value in settings.items()
                      if name not in fields] + list(gin_params),
          overrides=_nested(fields), needs=group.get('needs')))
  return runs


def _resolve_needs(groups: Dict[str, List[Run]]) -> List[Run]:
  """Puts the name of a run in the place of a group's in every `needs`."""
  for name, runs in groups.items():
    for index, run in enumerate(runs):
      if not run.needs:
        continue
      if run.needs not in groups or run.needs == name:
        raise ValueError(f'groups: {name} needs {run.needs!r}, which names no '
                         f'other group: choose of {", ".join(groups)}.')
      found = [other.name for other in groups[run.needs]
               if other.seed == run.seed]
      if len(found) > 1:
        raise ValueError(
            f'groups: {name} needs {run.needs}, which has {len(found)} runs of '
            'a seed: choose a group without a grid.')
      if groups[run.needs][0].needs:
        raise ValueError(f'groups: {name} needs {run.needs}, which needs a '
                         'teacher itself: choose a group that does not.')
      runs[index] = dataclasses.replace(run, needs=found[0])
  return list(itertools.chain.from_iterable(groups.values()))


def _check_claims(study: Study):
  """Raises ValueError where a claim names what no run is called."""
  labels = {run.label for run in study.runs}
  for claim in [*study.order, *study.rises, *filter(None, [study.per_class])]:
    for label in claim.split(' > '):
      if label not in labels:
        raise ValueError(f'{claim!r} names {label!r}, but the runs are called '
                         f'{", ".join(sorted(labels))}.')
  if study.per_class.count(' > ') > 1 or any(
      ' > ' not in claim for claim in [
          *study.order, *filter(None, [study.per_class])]):
    raise ValueError('order lists claims "A > B" or "A > B > C", and per_class '
                     'is one "A > B".')


def parse(values: Any, gin_params: Sequence[str] = (),
          folder: str = '') -> Study:
  """Expands a study.

  Args:
    values: of the YAML file.
    gin_params: for all runs, behind their own.
    folder: where `reference` lies.

  Raises:
    ValueError: something in it is not right.
  """
  _check_keys(values, 'seeds groups', 'gin_file set axes columns order rises '
              'per_class reference', 'The study')
  if not isinstance(values['seeds'], list):
    raise ValueError(f'seeds is {values["seeds"]!r}: list whole numbers.')
  groups = {}
  for group in values['groups']:
    _check_keys(group, 'name experiment', 'gin_file set grid needs label',
                f'A group ({json.dumps(group)[:60]})')
    if group['name'] in groups:
      raise ValueError(f'groups: two are called {group["name"]!r}: rename one.')
    groups[group['name']] = _expand(group, values, gin_params)
  runs = _resolve_needs(groups)
  columns = values.get('columns', '')
  if columns and not any(columns in run.axes for run in runs):
    raise ValueError(f'columns is {columns!r}, which is an axis of no grid.')
  seen = {}
  for run in runs:
    key = run.label, run.axes.get(columns), run.seed
    if key in seen:
      raise ValueError(f'Runs {seen[key]} and {run.name} are both called '
                       f'{run.label!r}: give their groups labels that tell '
                       'them apart.')
    seen[key] = run.name
  reference = values.get('reference', '')
  study = Study(runs, columns, values.get('order', []),
                values.get('rises', []), values.get('per_class', ''),
                reference and os.path.join(folder, reference))
  _check_claims(study)
  return study


def read(path: str, gin_params: Sequence[str] = ()) -> Study:
  """As parse(), of a file."""
  with tf.io.gfile.GFile(path) as file:
    try:
      values = yaml.load(file, yaml.FullLoader)
    except yaml.YAMLError as error:
      raise ValueError(f'{path} is not YAML: {error}') from error
  return parse(values, gin_params, os.path.dirname(path))
