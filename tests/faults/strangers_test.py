"""Files from strangers: damaged, hostile or huge ones end in one line."""

import ast
import collections
import io
import pathlib
import re
import struct
import time
import types

import fuzz_files
import numpy as np
import paths
import pytest
import serving_cases
import tensorflow as tf
import tiny

from experiments.study import study_file
import gin
from yt8m_distill.checkpoints import run_dir
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.dataloaders import shards
from yt8m_distill.features import weights
from yt8m_distill.features import whitening
from yt8m_distill.trainer import configuration
from yt8m_distill.utils import class_csv
from yt8m_distill.utils import cli
from yt8m_distill.utils import yaml_file

pytestmark = pytest.mark.faults

_COUNT = 4  # damaged files per case; fuzz_files.py tries more
_SLOW = (
  'SavedModel, index',
  'SavedModel, data',
  'input.json',
  'baseline.json',
)  # 0.6 s a file


@pytest.mark.parametrize('name', fuzz_files.CASES)
def test_damaged_file_is_refused_in_one_line_or_read(name, tmp_path):
  if name == 'video':
    pytest.importorskip('av')
  count = 2 if name in _SLOW else _COUNT
  outcomes = collections.Counter()
  for kind, outcome, damaged in fuzz_files.run(name, tmp_path, count, seed=1):
    assert outcome in ('read', 'refused'), (kind, damaged[:200])
    outcomes[outcome] += 1
  assert outcomes['refused']


# Each would make `proof` if it were read as Python.
_CODE = (
  '!!python/object/apply:os.system ["touch {proof}"]',
  '!!python/object/new:os.system ["touch {proof}"]',
  '!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path '
  '["{proof}"]]',
  '!!python/name:os.system ""',
  '!!python/module:os ""',
)
_BOMB = '\n'.join(
  ['a0: &a0 [x, x]', *(f'a{n}: &a{n} [*a{n - 1}, *a{n - 1}]' for n in range(1, 40))]
)
_HOSTILE = {
  **{f'code {number}': text for number, text in enumerate(_CODE)},
  'bomb': _BOMB,
  'merged bomb': '\n'.join(
    ['a0: &a0 {x: 1}']
    + [f'a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}' for n in range(1, 40)]
  ),
  'itself': 'task: &a [*a]',
  'deep': '[' * 1_000,
  'deep block': '\n'.join(' ' * n + 'a:' for n in range(900)),
  'huge': 'a: ' + 'x' * 2_000_000,
  'long number': 'a: ' + '9' * 10_000,
  'tab': 'task:\n\tseed: 1',
  'twice': 'task: {seed: 1}\ntask: {seed: 2}',
  'unknown alias': 'task: *nothing',
  'two documents': 'a: 1\n---\nb: 2',
  'binary': '\x00\x01',
  'tag': 'a: !!bool 5',
  'date': 'a: 2026-13-45',
  'root': '- 1',
}


class _Flags(types.SimpleNamespace):
  """Flags of the driver."""

  def __contains__(self, name):
    return hasattr(self, name)


def _configure(**values):
  flags = {
    'gin_file': (),
    'gin_params': (),
    'model_dir': 'run',
    'experiment': 'yt8m_distill_single',
    'mode': 'train',
    'config_file': (),
    'params_override': '',
    'tpu': '',
    'tf_data_service': '',
    **values,
  }
  with gin.unlock_config():
    gin.clear_config()
    try:
      return configuration.read(_Flags(**flags))
    finally:
      gin.clear_config()


_ENTRIES = {
  '--config_file': lambda path: _configure(config_file=[path]),
  '--params_override': lambda path: _configure(
    params_override=pathlib.Path(path).read_text()
  ),
  '--params_override of a file': lambda path: _configure(params_override=path),
  'params.yaml': run_dir.read_params,
  'study': study_file.read,
}


@pytest.mark.parametrize('entry', _ENTRIES)
@pytest.mark.parametrize('name', _HOSTILE)
def test_hostile_yaml_is_refused_in_one_line(entry, name, tmp_path):
  path, proof = tmp_path / 'own.yaml', tmp_path / 'proof'
  path.write_text(_HOSTILE[name].replace('{proof}', str(proof)))
  start = time.process_time()
  with pytest.raises(ValueError) as error:
    _ENTRIES[entry](str(path))
  message = str(error.value)
  assert not proof.exists()
  assert '\n' not in message and len(message) < 1500
  assert re.search(f'{path}|--params_override', message)
  assert time.process_time() - start < 20


def test_plain_yaml_is_read_as_the_garden_does():
  text = 'a: 1e-3\nb: &b [1, yes, null, 1_000]\nc: *b\nd: {<<: {e: 1.5}}'
  assert yaml_file.parse(text) == {
    'a': 0.001,
    'b': [1, True, None, 1000],
    'c': [1, True, None, 1000],
    'd': {'e': 1.5},
  }
  assert yaml_file.parse('!!python/tuple [1, 2]') == (1, 2)
  with pytest.raises(ValueError, match="line 2 repeats the key 'a'"):
    yaml_file.parse('a: 1\na: 2')


def test_gin_text_of_a_run_is_not_executed(tmp_path):
  run = pathlib.Path(serving_cases.write_run(tmp_path / 'run'))
  (run / 'config.gin').write_text('import nothing_of_this_name\nyt8m_distill.k = "x"')
  trained_network.Network(str(run))


def test_checkpoint_outside_of_its_folder_is_refused(tmp_path):
  other = pathlib.Path(serving_cases.write_run(tmp_path / 'other'))
  run = tmp_path / 'run'
  run.mkdir()
  for name in ('../other/ckpt-7', str(other / 'ckpt-7')):
    (run / 'checkpoint').write_text(f'model_checkpoint_path: "{name}"')
    with pytest.raises(ValueError, match=f'{run}/checkpoint names .*outside') as error:
      run_dir.checkpoint(str(run))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['../..', '/tmp/x', 'a/b', '.', 'a\nb', 'a\0b', '-x'])
def test_name_of_a_study_stays_in_its_folder(name):
  group = {'name': name, 'experiment': 'yt8m_distill_single'}
  with pytest.raises(ValueError, match='no name of a folder') as error:
    study_file.parse({'seeds': [0], 'groups': [group]})
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'text',
  ['[]', '3', 'null', '{"step": "x"}', '{"step": 1}', '[' * 100_000, '\x00', '{"a":'],
)
def test_json_of_another_shape_is_refused_in_one_line(tmp_path, text):
  path = tmp_path / 'evaluation.json'
  path.write_text(text)
  with pytest.raises(ValueError, match=f'^{path}') as error:
    run_dir.read_evaluation(str(tmp_path))
  assert '\n' not in str(error.value)


def _npy(shape, dtype='<f4'):
  file = io.BytesIO()
  header = {'descr': dtype, 'fortran_order': False, 'shape': shape}
  np.lib.format.write_array_header_1_0(file, header)
  return file.getvalue()


@pytest.mark.parametrize(
  'content',
  [
    _npy((10**12,)),
    _npy((10**6, 10**6)),
    _npy((2048, 1)),  # No values follow.
    _npy((2048, 1), '|O') + b'cos\nsystem\n(S"touch /tmp/x"\ntR.',
    b'\x93NUMPY\x01\x00' + struct.pack('<H', 65535) + b'{' * 65535,
  ],
)
def test_hostile_array_is_refused_in_one_line(tmp_path, content):
  for name in (weights.MEAN, weights.EIGENVALUES, weights.EIGENVECTORS):
    (tmp_path / name).write_bytes(content)
  with pytest.raises(ValueError, match=weights.MEAN) as error:
    whitening.load_rgb(str(tmp_path))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'text',
  [
    'Index,Name\n999999999999999999999,x',
    'Index,Name\n1e308,x',
    'Index,Name\n-1,x',
    'Index,Name\n,x',
    'Index,Name\ninf,x',
    'Index,Name\n"0,x',
    'Index,Name\n0,a,b,c\n1,a\n2,a,b,c,d,e',
    'Index\n0',
    '\x00\x00',
    '',
  ],
)
def test_hostile_vocabulary_is_refused_in_one_line(tmp_path, text):
  path = tmp_path / 'vocabulary.csv'
  path.write_text(text)
  with pytest.raises(ValueError, match=str(path)) as error:
    class_csv.read(str(path), 'vocabulary', 'Name', tiny.CLASSES, complete=True)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'content',
  [b'', b'\0', b'\xff\xfe', b'no/such', b'@{list}', b'x' * 5000, b'[1', b'{1..'],
)
def test_hostile_list_of_files_is_refused_in_one_line(tmp_path, content):
  path = tmp_path / 'list'
  path.write_bytes(content.replace(b'{list}', str(path).encode()))
  with pytest.raises((ValueError, tf.errors.OpError)) as error:
    shards.sizes(shards.find(f'@{path}'))
  assert '\n' not in cli.message(error.value)


_UNSAFE = re.compile(
  r'eval|exec|compile|__import__|os\.(system|popen)|torch\.load'
  r'|(pickle|marshal|shelve|dill|joblib)\.(loads?|open|Unpickler)'
  r'|yaml\.(unsafe_load|full_load|load_all|UnsafeLoader|Loader)'
)


def _unsafe(tree):
  """Yields what may execute data."""
  for node in ast.walk(tree):
    name = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ''
    if _UNSAFE.fullmatch(name):
      yield name
    if isinstance(node, ast.Call):
      call = ast.unparse(node)
      if re.match(r'yaml\.load\((?!.*, _Loader\))', call):
        yield call
      for word in node.keywords:
        if (word.arg, ast.unparse(word.value)) in (
          ('allow_pickle', 'True'),
          ('shell', 'True'),
        ):
          yield call


def test_no_code_executes_data():
  found = {
    (path.relative_to(paths.ROOT).as_posix(), call)
    for folder in ('yt8m_distill', 'experiments')
    for path in (paths.ROOT / folder).rglob('*.py')
    for call in _unsafe(ast.parse(path.read_text()))
  }
  # Values that processes of one job exchange, which no file holds.
  assert {path for path, _ in found} == {
    'yt8m_distill/utils/workers.py',
    'experiments/benchmarks/exchange.py',
    'experiments/benchmarks/segment_metrics.py',
  }
