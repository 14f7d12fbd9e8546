"""Expands one group of a study into its runs."""

from collections.abc import Sequence
import dataclasses
import itertools
import re
from typing import Any

from yt8m_distill.configs import settings as settings_lib

# Of results.collect(), beside the axes.
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
    needs: name of the run whose network is the teacher, or, in a run that is
      not serial, what the teacher starts from; None for none.
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
  needs: str | None


def _settings(values: Any, where: str) -> dict[str, Any]:
  """Returns a mapping of settings, checked for names that none can have."""
  if not isinstance(values, dict):
    raise ValueError(f'{where} is {values!r}: it must map names to values.')
  for name in values:
    if not _is_setting(name):
      raise ValueError(
        f'{where} sets {name!r}: give a setting of gin, such as every_n, or a '
        'field below task., trainer. or runtime.'
      )
  return values


def _is_setting(name: Any) -> bool:
  return isinstance(name, str) and bool(
    name in settings_lib.NAMES or _FIELD.match(name)
  )


def _axis(
  name: str, chosen: Any, axes: dict[str, Any], where: str
) -> dict[str, dict[str, Any]]:
  """Returns what each chosen value of an axis sets."""
  if name in COLUMNS:
    raise ValueError(
      f'{where}: the axis {name!r} is called as a column of '
      f'runs.csv: give it a name other than '
      f'{", ".join(COLUMNS)}.'
    )
  if not isinstance(chosen, list) or not chosen:
    raise ValueError(f'{where}: {name} is {chosen!r}: list at least one value.')
  if name not in axes:
    if not _is_setting(name):
      raise ValueError(
        f'{where} names the unknown axis {name!r}: choose of '
        f'{", ".join(map(str, axes))}, or a setting of gin.'
      )
    return {str(value): {name: value} for value in chosen}
  known = {str(value): settings for value, settings in axes[name].items()}
  for value in map(str, chosen):
    if value not in known:
      raise ValueError(
        f'{where}: {name} has no value {value!r}: choose of {", ".join(known)}.'
      )
  return {
    value: _settings(known[value], f'axes: {name}: {value}')
    for value in map(str, chosen)
  }


def _nested(fields: dict[str, Any]) -> dict[str, Any]:
  """{'task.seed': 1} as {'task': {'seed': 1}}."""
  tree = {}
  for name, value in fields.items():
    for other in fields:
      if other.startswith(f'{name}.'):
        raise ValueError(
          f'Both {name} (as {value!r}) and {other} are set: set fields of one depth.'
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
  """What the runs of all seeds, and of all columns, are called."""
  if 'label' not in group:
    return ' '.join(
      [group['name'], *(f'{k}={v}' for k, v in axes.items() if k != columns)]
    )
  try:
    return group['label'].format(**axes)
  except (LookupError, ValueError, AttributeError, TypeError) as error:
    raise ValueError(
      f'groups: {group["name"]}: label is {group["label"]!r}: it may name '
      f'the axes of the grid, {", ".join(axes) or "none"}.'
    ) from error


def expand(
  group: dict[str, Any], study: dict[str, Any], gin_params: Sequence[str]
) -> list[Run]:
  """Returns the runs of a group.

  Args:
    group: one of the study's `groups`, its keys and their types checked.
    study: the values of the YAML file, likewise.
    gin_params: for all runs, behind their own.

  Returns:
    The runs; `needs` is a group's name as yet.

  Raises:
    ValueError: an axis, a setting, the label or `needs` is not right.
  """
  where = f'groups: {group["name"]}'
  if group.get('needs') and group['experiment'] != 'yt8m_distill':
    raise ValueError(
      f'{where} needs {group["needs"]!r}, but is of '
      f'{group["experiment"]}: only yt8m_distill has a teacher.'
    )
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
            if name not in fields
          ]
          + list(gin_params),
          overrides=_nested(fields),
          needs=group.get('needs'),
        )
      )
  return runs
