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

Where a group of yt8m_distill `needs` another, the teacher of its runs comes
from the other's run of the same seed: it stays as it is in serial training, of
serial.gin, and only starts from there in parallel training.

Runs start in the order of the file: put those that take long first.
"""

from collections.abc import Sequence
import dataclasses
import itertools
import os
from typing import Any

# It also teaches yaml.FullLoader that 1e-3 is a number.
import tensorflow as tf
import yaml

from experiments.study import expansion


@dataclasses.dataclass(frozen=True)
class Study:
  """A study, its runs expanded.

  Attributes:
    runs: in the order in which they start.
    columns: the axis that makes the columns of the table; '' for one column.
    order: claims 'A > B' over two labels: A scores higher.
    rises: labels that are claimed to score higher in each further column.
    per_class: one more claim, 'A > B', whose gain is shown class by class; ''
      for none.
    reference: path of a CSV of published scores: label, the column, gap, map.
  """

  runs: list[expansion.Run]
  columns: str = ''
  order: list[str] = dataclasses.field(default_factory=list)
  rises: list[str] = dataclasses.field(default_factory=list)
  per_class: str = ''
  reference: str = ''

  @property
  def claims(self) -> list[str]:
    """`order` and `per_class`."""
    return [*self.order, *filter(None, [self.per_class])]


# By key: the type of its value, of the elements (None: any), and both in words.
_TYPES = {
  **dict.fromkeys(
    ('name', 'experiment', 'needs', 'label', 'columns', 'per_class', 'reference'),
    ((str,), None, 'a text'),
  ),
  **dict.fromkeys(('order', 'rises'), ((list,), (str,), 'a list of texts')),
  **dict.fromkeys(('set', 'grid'), ((dict,), None, 'a mapping')),
  'axes': ((dict,), (dict,), 'a mapping of mappings'),
  'gin_file': ((str, list), (str,), 'a text, or a list of them'),
  'groups': ((list,), (dict,), 'a list of mappings'),
  'seeds': ((list,), (int,), 'a list of whole numbers'),
}


def _check_type(key: str, value: Any, where: str):
  """Raises ValueError where a value or an element is not of its key's type."""
  types, elements, words = _TYPES[key]
  # Not isinstance: True is no whole number.
  if type(value) not in types or (
    elements
    and any(
      type(element) not in elements
      for element in (value.values() if isinstance(value, dict) else value)
    )
  ):
    raise ValueError(f'{where}: {key} is {value!r}: it must be {words}.')


def _check_keys(values: Any, required: str, optional: str, where: str):
  """Raises ValueError where a mapping is not as its keys ask."""
  if not isinstance(values, dict):
    raise ValueError(f'{where} is {values!r}: it must be a mapping.')
  known = [*required.split(), *optional.split()]
  for key, value in values.items():
    if key not in known:
      raise ValueError(
        f'{where} has the unknown key {key!r}: choose of {", ".join(known)}.'
      )
    _check_type(key, value, where)
  for key in required.split():
    if not values.get(key):
      raise ValueError(f'{where} has no {key}: give it.')


def _resolve_needs(groups: dict[str, list[expansion.Run]]) -> list[expansion.Run]:
  """Puts the name of a run in the place of a group's in every `needs`."""
  for name, runs in groups.items():
    for index, run in enumerate(runs):
      if not run.needs:
        continue
      if run.needs not in groups or run.needs == name:
        raise ValueError(
          f'groups: {name} needs {run.needs!r}, which names no '
          f'other group: choose of {", ".join(groups)}.'
        )
      found = [other.name for other in groups[run.needs] if other.seed == run.seed]
      if len(found) > 1:
        raise ValueError(
          f'groups: {name} needs {run.needs}, which has {len(found)} runs of '
          'a seed: choose a group without a grid.'
        )
      if groups[run.needs][0].needs:
        raise ValueError(
          f'groups: {name} needs {run.needs}, which needs a '
          'teacher itself: choose a group that does not.'
        )
      runs[index] = dataclasses.replace(run, needs=found[0])
  return list(itertools.chain.from_iterable(groups.values()))


def _check_claims(study: Study):
  """Raises ValueError where a claim names what no run is called."""
  labels = {run.label for run in study.runs}
  for claim in [*study.claims, *study.rises]:
    for label in claim.split(' > '):
      if label not in labels:
        raise ValueError(
          f'{claim!r} names {label!r}, but the runs are called '
          f'{", ".join(sorted(labels))}.'
        )
  if study.per_class.count(' > ') > 1 or any(
    ' > ' not in claim for claim in study.claims
  ):
    raise ValueError(
      'order lists claims "A > B" or "A > B > C", and per_class is one "A > B".'
    )


def parse(values: Any, gin_params: Sequence[str] = (), folder: str = '') -> Study:
  """Expands a study.

  Args:
    values: of the YAML file.
    gin_params: for all runs, behind their own.
    folder: where `reference` lies.

  Raises:
    ValueError: something in it is not right.
  """
  _check_keys(
    values,
    'seeds groups',
    'gin_file set axes columns order rises per_class reference',
    'The study',
  )
  if len(set(values['seeds'])) < len(values['seeds']):
    raise ValueError(f'seeds is {values["seeds"]}: list each once.')
  groups = {}
  for group in values['groups']:
    _check_keys(
      group,
      'name experiment',
      'gin_file set grid needs label',
      f'A group ({group!r:.60})',
    )
    if group['name'] in groups:
      raise ValueError(f'groups: two are called {group["name"]!r}: rename one.')
    groups[group['name']] = expansion.expand(group, values, gin_params)
  runs = _resolve_needs(groups)
  columns = values.get('columns', '')
  if columns and not any(columns in run.axes for run in runs):
    raise ValueError(f'columns is {columns!r}, which is an axis of no grid.')
  seen = {}
  for run in runs:
    key = run.label, run.axes.get(columns), run.seed
    if key in seen:
      raise ValueError(
        f'Runs {seen[key]} and {run.name} are both called '
        f'{run.label!r}: give their groups labels that tell '
        'them apart.'
      )
    seen[key] = run.name
  reference = values.get('reference', '')
  study = Study(
    runs,
    columns,
    values.get('order', []),
    values.get('rises', []),
    values.get('per_class', ''),
    reference and os.path.join(folder, reference),
  )
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
