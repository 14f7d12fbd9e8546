"""A wrong value of any field or setting ends in one line that names it."""

import random
import re

from official.core import exp_factory
import pytest
import wrong_values

import gin
from yt8m_distill.configs import settings

_COUNT = 500
# By kind, as gin files write them.
_SETTINGS = {
  'word': "'maybe'",
  'unquoted': 'maybe',
  'null': 'None',
  'negative': '-3',
  'infinite': '1e999',
  'fraction': '1.5',
  'boolean': 'True',
  'list': "[1, 'a']",
  'mapping': "{'a': 1}",
  'open string': "'a",
  'open list': '[1',
  'nothing': '',
  'itself': '@yt8m_distill()',
  'macro': '%nothing',
}


@pytest.fixture(name='cases', scope='module')
def _cases():
  return random.Random(0).sample(wrong_values.cases(), _COUNT)


@pytest.mark.parametrize('part', range(10))
def test_wrong_values_are_refused_in_one_line(cases, part, tmp_path):
  for index, case in enumerate(cases[part::10]):
    # Half of them in a file.
    result, message = wrong_values.outcome(case, tmp_path if index % 2 else None)
    ends = result == 'taken' and wrong_values.reason_to_take(case)
    assert result == 'refused' or ends, (case, result, message)


def test_every_kind_of_value_meets_every_kind_of_field(cases):
  assert {case.kind for case in cases} == wrong_values.VALUES.keys()
  parts = {part for case in cases for part in case.path.split('.')}
  assert {'backbone', 'features[0]', 'ema', 'stepwise', 'runtime', 'losses'} < parts


def _experiment(name, *bindings):
  """Returns what bindings make of an experiment, and those without effect."""

  def build():
    params = exp_factory.get_exp_config(name)
    params.validate()
    return params.as_dict()

  with gin.unlock_config():
    gin.clear_config()
    try:
      settings.parse_gin((), bindings)
      return build(), settings.without_effect(bindings, build)
    finally:
      gin.clear_config()


@pytest.mark.parametrize('kind', _SETTINGS)
def test_wrong_settings_are_refused_in_one_line(kind):
  for number, name in enumerate(settings.NAMES):
    binding = f'yt8m_distill.{name}={_SETTINGS[kind]}'
    experiment = wrong_values.EXPERIMENTS[number % len(wrong_values.EXPERIMENTS)]
    try:
      _, unused = _experiment(experiment, binding)
    except ValueError as error:
      message = str(error).partition('\n\n')[0].partition('\n  In call')[0]
      assert re.search(rf'\b{name}\b|^(task|trainer)\.\S+ is|@yt8m|%nothing', message)
      assert '\n' not in message
    else:
      default = getattr(settings.Settings, name)
      is_text = kind == 'word' and isinstance(default, str)
      is_number = kind in ('fraction', 'infinite', 'negative') and default != ''
      assert unused or is_text or (is_number and isinstance(default, float)), binding


@pytest.mark.parametrize(
  'bindings, unused',
  [
    (['counts=[2, 4]'], ['counts=[2, 4]']),
    (["frames='nested'", 'counts=[6, 30]'], []),
    (["frames='nested'", 'k=5'], ['k=5']),
    (["frames='all'", 'every_n=5'], ['every_n=5']),
    (['k=5', 'every_n=5'], ['every_n=5']),
    (["backbone='netvlad'", 'num_cells=8', 'student_chunks=3'], None),
    (['train_steps=75955', 'every_n=10'], []),
    (["teacher_checkpoint='a'"], ["teacher_checkpoint='a'"]),
  ],
)
def test_settings_without_effect_are_found(bindings, unused):
  given = [f'yt8m_distill.{binding}' for binding in bindings]
  _, found = _experiment('yt8m_distill_single', *given)
  assert found == (
    given[1:] if unused is None else [f'yt8m_distill.{binding}' for binding in unused]
  )
