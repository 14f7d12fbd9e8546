"""Reads a study from YAML and expands it into runs.

experiments/study/README.md describes the file. A setting in it is a setting of
gin (gin/README.md); if its name begins with task., trainer. or runtime., a field of
the configuration; or, if it begins with teach., a flag of `yt8m-distill teach`. Later
settings win: the study's `set`, the group's `set`, the axes in the order of the grid,
the seed.
"""

from collections.abc import Sequence
import dataclasses
import itertools
import os
import re
from typing import Any

from absl import flags

from yt8m_distill.configs import settings as settings_lib
from yt8m_distill.utils import yaml_file

# Columns of results.collect() besides the axes.
COLUMNS = (
  'name',
  'group',
  'label',
  'column',
  'seed',
  'network',
  'gap',
  'map',
  'hit_at_one',
  'perr',
  'flops',
  'parameters',
  'num_frames',
  'seconds',
  'steps',
)
_FIELD = re.compile(r'(task|trainer|runtime)\.')
# Flags of teach that a study sets; the others follow from the student.
_TEACH = ('teach.top_k', 'teach.dtype')
_TEACHERS = ('same_seed', 'all')
_NAME = re.compile(r'\w[^/\x00-\x1f\x7f]*')


def define_flags():
  """Defines the flags that say which study a command is about."""
  # Not on import, because other commands define flags of the same names.
  flags.DEFINE_string('config', None, 'YAML file of the study.', required=True)
  flags.DEFINE_string(
    'output_dir', None, 'Local folder of the runs and the reports.', required=True
  )
  flags.DEFINE_multi_string(
    'gin_params', [], 'Gin bindings of all runs; they override the file'
  )


@dataclasses.dataclass(frozen=True)
class Run:
  """One run of the driver.

  Attributes:
    name: name of its folder.
    group: the group that it belongs to.
    label: name of its row in the report: the same for all seeds and columns.
    axes: the value of each axis.
    seed: seed of weights and data.
    experiment: value of --experiment.
    gin_file: values of --gin_file.
    gin_params: values of --gin_params.
    overrides: value of --params_override, nested.
    needs: the group that its teachers come from; '' for none.
    teachers: names of the runs that it learns from: of `needs`, that of the same seed
      or all.
    teach: arguments of `serving.teach.teach` that it sets.
  """

  name: str
  group: str
  label: str
  axes: dict[str, str]
  seed: int
  experiment: str
  gin_file: list[str]
  gin_params: list[str]
  overrides: dict[str, Any]
  needs: str = ''
  teachers: tuple[str, ...] = ()
  teach: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Study:
  """A study with its runs.

  Attributes:
    runs: all runs, in the order in which they start.
    columns: the axis that makes the columns of the table; '' for one column.
    order: claims 'A > B' about two labels: A scores higher.
    rises: labels that are claimed to score higher in each further column.
    per_class: one more claim, 'A > B', whose gain is shown for each class; ''
      for none.
    reference: path of a CSV of published scores: label, the column, gap, map.
  """

  runs: list[Run]
  columns: str = ''
  order: list[str] = dataclasses.field(default_factory=list)
  rises: list[str] = dataclasses.field(default_factory=list)
  per_class: str = ''
  reference: str = ''

  @property
  def claims(self) -> list[str]:
    """`order` and `per_class`."""
    return [*self.order, *filter(None, [self.per_class])]


# For each key: types of its value, types of its elements (None: any), and what an
# error says it must be.
_TYPES = {
  **dict.fromkeys(
    (
      'name',
      'experiment',
      'needs',
      'teachers',
      'label',
      'columns',
      'per_class',
      'reference',
    ),
    ((str,), None, 'a string'),
  ),
  **dict.fromkeys(('order', 'rises'), ((list,), (str,), 'a list of strings')),
  **dict.fromkeys(('set', 'grid'), ((dict,), None, 'a mapping')),
  'axes': ((dict,), (dict,), 'a mapping of mappings'),
  'gin_file': ((str, list), (str,), 'a string, or a list of them'),
  'groups': ((list,), (dict,), 'a list of mappings'),
  'seeds': ((list,), (int,), 'a list of whole numbers'),
}


def _check_type(key: str, value: Any, where: str):
  """Raises ValueError if a value or an element has the wrong type for its key."""
  types, elements, words = _TYPES[key]
  # Not isinstance(), which accepts True as a whole number.
  if type(value) not in types or (
    elements
    and any(
      type(element) not in elements
      for element in (value.values() if isinstance(value, dict) else value)
    )
  ):
    raise ValueError(f'{where}: {key} is {value!r}: it must be {words}. Correct it.')


def _check_keys(values: Any, required: str, optional: str, where: str):
  """Raises ValueError if a mapping has unknown, missing or mistyped keys."""
  if not isinstance(values, dict):
    raise ValueError(f'{where} is {values!r}: it must be a mapping. Correct it.')
  known = [*required.split(), *optional.split()]
  for key, value in values.items():
    if key not in known:
      raise ValueError(
        f'{where} has the unknown key {key!r}: choose one of {", ".join(known)}.'
      )
    _check_type(key, value, where)
  for key in required.split():
    if not values.get(key):
      raise ValueError(f'{where} has no {key}: add it.')


def _settings(values: Any, where: str) -> dict[str, Any]:
  """Returns a mapping of settings; raises ValueError if a name is invalid."""
  if not isinstance(values, dict):
    raise ValueError(f'{where} is {values!r}: it must map settings to values.')
  for name in values:
    if not _is_setting(name):
      raise ValueError(
        f'{where} sets {name!r}: give a setting of gin, such as every_n, a field '
        f'below task., trainer. or runtime., or {" or ".join(_TEACH)}.'
      )
  return values


def _is_setting(name: Any) -> bool:
  return name in (*settings_lib.NAMES, *_TEACH) or bool(
    isinstance(name, str) and _FIELD.match(name)
  )


def _axis(
  name: str, chosen: Any, axes: dict[str, Any], where: str
) -> dict[str, dict[str, Any]]:
  """Returns the settings of each chosen value of an axis."""
  if name in COLUMNS:
    raise ValueError(
      f'{where}: the axis {name!r} has the name of a column of runs.csv: choose a '
      f'name other than {", ".join(COLUMNS)}.'
    )
  if not isinstance(chosen, list) or not chosen:
    raise ValueError(f'{where}: {name} is {chosen!r}: list at least one value.')
  if name not in axes:
    if not _is_setting(name):
      raise ValueError(
        f'{where} names the unknown axis {name!r}: choose one of '
        f'{", ".join(map(str, axes))}, or a setting.'
      )
    return {str(value): {name: value} for value in chosen}
  known = {str(value): settings for value, settings in axes[name].items()}
  for value in map(str, chosen):
    if value not in known:
      raise ValueError(
        f'{where}: {name} has no value {value!r}: choose one of {", ".join(known)}.'
      )
  return {
    value: _settings(known[value], f'axes: {name}: {value}')
    for value in map(str, chosen)
  }


def _nested(fields: dict[str, Any]) -> dict[str, Any]:
  """Turns {'task.seed': 1} into {'task': {'seed': 1}}."""
  tree: dict[str, Any] = {}
  for name, value in fields.items():
    for other in fields:
      if other.startswith(f'{name}.'):
        raise ValueError(
          f'Both {name} (as {value!r}) and {other} are set: set only one of them.'
        )
    *path, leaf = name.split('.')
    node = tree
    for part in path:
      node = node.setdefault(part, {})
    node[leaf] = value
  return tree


def _files(value: Any) -> list[str]:
  return [value] if isinstance(value, str) else list(value or [])


def _label(group: dict[str, Any], axes: dict[str, str], columns: str) -> str:
  """Returns the name of the row that a run belongs to."""
  if 'label' not in group:
    return ' '.join(
      [group['name'], *(f'{k}={v}' for k, v in axes.items() if k != columns)]
    )
  try:
    return re.sub(r'\{(.*?)\}', lambda name: axes[name[1]], group['label'])
  except KeyError as error:
    raise ValueError(
      f'groups: {group["name"]}: label is {group["label"]!r}: it may name the axes '
      f'of the grid, {", ".join(axes) or "none"}. Correct {{{error.args[0]}}}.'
    ) from error


def _expand(
  group: dict[str, Any], study: dict[str, Any], gin_params: Sequence[str]
) -> list[Run]:
  """Returns the runs of a group.

  Args:
    group: one of the study's `groups`; its keys and types were checked.
    study: the values of the YAML file; its keys and types were checked.
    gin_params: bindings for all runs, after their own.

  Returns:
    The runs, without `teachers`.

  Raises:
    ValueError: an axis, a setting or the label is invalid.
  """
  where = f'groups: {group["name"]}'
  grid = {
    name: _axis(name, chosen, study.get('axes', {}), f'{where}: grid')
    for name, chosen in group.get('grid', {}).items()
  }
  runs = []
  for values in itertools.product(*grid.values()):
    axes = dict(zip(grid, values))
    for seed in study['seeds']:
      settings = {
        **_settings(study.get('set', {}), 'set'),
        **_settings(group.get('set', {}), f'{where}: set'),
      }
      for name, value in axes.items():
        settings.update(grid[name][value])
      settings['seed'] = seed
      fields = {name: value for name, value in settings.items() if _FIELD.match(name)}
      runs.append(
        Run(
          name='-'.join(
            [
              group['name'],
              *(f'{k}={v}'.replace('/', '_') for k, v in axes.items()),
              f'seed={seed}',
            ]
          ),
          group=group['name'],
          label=_label(group, axes, study.get('columns', '')),
          axes=axes,
          seed=seed,
          experiment=group['experiment'],
          gin_file=_files(group.get('gin_file', study.get('gin_file'))),
          gin_params=[
            f'yt8m_distill.{name}={value!r}'
            for name, value in settings.items()
            if name not in (*fields, *_TEACH)
          ]
          + list(gin_params),
          overrides=_nested(fields),
          needs=group.get('needs', ''),
          teach={
            name.removeprefix('teach.'): settings[name]
            for name in _TEACH
            if name in settings
          },
        )
      )
  return runs


def _teachers(groups: dict[str, list[Run]], group: dict[str, Any]) -> list[Run]:
  """Returns the runs of a group with their `teachers`."""
  runs, needs = groups[group['name']], group.get('needs', '')
  where = f'groups: {group["name"]}'
  chosen = group.get('teachers', _TEACHERS[0])
  if chosen not in _TEACHERS:
    raise ValueError(
      f'{where}: teachers is {chosen!r}: choose {" or ".join(_TEACHERS)}.'
    )
  if not needs:
    if 'teachers' in group:
      raise ValueError(
        f'{where}: teachers is {chosen!r}, but the group needs no other. Add needs, or '
        'remove teachers.'
      )
    return runs
  if needs not in groups or needs == group['name']:
    raise ValueError(
      f'{where} needs {needs!r}, which names no other group: choose one of '
      f'{", ".join(groups)}.'
    )
  if groups[needs][0].needs:
    raise ValueError(
      f'{where} needs {needs}, which needs a teacher itself: choose a group that does '
      'not.'
    )
  taught = []
  for run in runs:
    found = tuple(
      other.name for other in groups[needs] if chosen == 'all' or other.seed == run.seed
    )
    if chosen != 'all' and len(found) > 1:
      raise ValueError(
        f'{where} needs {needs}, which has {len(found)} runs of a seed: choose a group '
        'without a grid.'
      )
    taught.append(dataclasses.replace(run, teachers=found))
  return taught


def _check_claims(study: Study):
  """Raises ValueError if a claim has an unknown label or the wrong form."""
  labels = {run.label for run in study.runs}
  for claim in [*study.claims, *study.rises]:
    for label in claim.split(' > '):
      if label not in labels:
        raise ValueError(
          f'{claim!r} names {label!r}: choose labels of the runs, '
          f'{", ".join(sorted(labels))}.'
        )
  if study.per_class.count(' > ') > 1 or any(
    ' > ' not in claim for claim in study.claims
  ):
    raise ValueError(
      'order lists claims "A > B" or "A > B > C", and per_class is one "A > B".'
    )


def parse(values: Any, gin_params: Sequence[str] = (), folder: str = '') -> Study:
  """Checks and expands a study.

  Args:
    values: content of the YAML file.
    gin_params: bindings for all runs, after their own.
    folder: folder that `reference` is relative to.

  Returns:
    The study.

  Raises:
    ValueError: a key, a value or a claim is invalid.
  """
  _check_keys(
    values,
    'seeds groups',
    'gin_file set axes columns order rises per_class reference',
    'The study',
  )
  if len(set(values['seeds'])) < len(values['seeds']):
    raise ValueError(f'seeds is {values["seeds"]}: list each once.')
  groups: dict[str, list[Run]] = {}
  for group in values['groups']:
    _check_keys(
      group,
      'name experiment',
      'gin_file set grid needs teachers label',
      f'A group ({group!r:.60})',
    )
    if group['name'] in groups:
      raise ValueError(f'groups: two are named {group["name"]!r}: rename one.')
    groups[group['name']] = _expand(group, values, gin_params)
  runs = [run for group in values['groups'] for run in _teachers(groups, group)]
  for run in runs:
    if not _NAME.fullmatch(run.name):
      raise ValueError(
        f'groups: a run is named {run.name!r}, which is no name of a folder: in the '
        'names of groups and axes, and in their values, leave out "/" and what cannot '
        'be printed, and begin with a letter, a digit or "_".'
      )
  columns = values.get('columns', '')
  if columns and not any(columns in run.axes for run in runs):
    raise ValueError(
      f'columns is {columns!r}: no grid has this axis. Name an axis of a grid.'
    )
  seen: dict[tuple[str, str | None, int], str] = {}
  for run in runs:
    key = run.label, run.axes.get(columns), run.seed
    if key in seen:
      raise ValueError(
        f'Runs {seen[key]} and {run.name} are both labeled {run.label!r}: give '
        'their groups different labels.'
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
  """Reads a study from a file; see parse()."""
  try:
    return parse(yaml_file.read(path), gin_params, os.path.dirname(path))
  except ValueError as error:
    raise ValueError(f'{path or repr(path)}: {error}') from error
