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
from typing import Any, Dict, List, Sequence

import tensorflow as tf
import yaml

# It also teaches yaml.FullLoader that 1e-3 is a number.
from official.modeling import hyperparams  # pylint: disable=unused-import
from yt8m_distill.study import expansion


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
  runs: List[expansion.Run]
  columns: str = ''
  order: List[str] = dataclasses.field(default_factory=list)
  rises: List[str] = dataclasses.field(default_factory=list)
  per_class: str = ''
  reference: str = ''

  @property
  def claims(self) -> List[str]:
    """`order` and `per_class`."""
    return [*self.order, *filter(None, [self.per_class])]


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


def _resolve_needs(
    groups: Dict[str, List[expansion.Run]]) -> List[expansion.Run]:
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
  for claim in [*study.claims, *study.rises]:
    for label in claim.split(' > '):
      if label not in labels:
        raise ValueError(f'{claim!r} names {label!r}, but the runs are called '
                         f'{", ".join(sorted(labels))}.')
  if study.per_class.count(' > ') > 1 or any(
      ' > ' not in claim for claim in study.claims):
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
    groups[group['name']] = expansion.expand(group, values, gin_params)
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
