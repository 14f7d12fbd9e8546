"""Whole files and folders, and claimed folders."""

import contextlib
import errno
import json
import os
import pathlib

import processes
import pytest
import tensorflow as tf

from yt8m_distill.utils import files


def test_file_appears_once_it_is_complete(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_text('old')
  with files.whole_file(str(path)) as partial:
    with open(partial, 'w', encoding='utf-8') as file:
      file.write('new')
    assert path.read_text() == 'old'
  assert path.read_text() == 'new'
  assert os.listdir(tmp_path) == ['a.txt']


def test_interrupted_file_is_removed(tmp_path):
  path = tmp_path / 'a.txt'
  path.write_text('old')
  with pytest.raises(KeyboardInterrupt), files.whole_file(str(path)) as partial:
    with open(partial, 'w', encoding='utf-8') as file:
      file.write('half')
    raise KeyboardInterrupt
  assert path.read_text() == 'old'
  assert os.listdir(tmp_path) == ['a.txt']


def test_folder_appears_once_it_is_complete(tmp_path):
  path = tmp_path / 'out'
  path.mkdir()
  with files.whole_folder(f'{path}/') as partial:
    (pathlib.Path(partial) / 'a').touch()
    assert not os.listdir(path)
  assert os.listdir(path) == ['a']
  with (
    pytest.raises(ValueError, match='out is not empty'),
    files.whole_folder(str(path)),
  ):
    pass
  assert os.listdir(tmp_path) == ['out']


def test_of_two_writers_of_a_file_the_last_one_wins(tmp_path):
  path = tmp_path / 'a.txt'
  for number, partial in enumerate(_both(files.whole_file, path)):
    pathlib.Path(partial).write_text(str(number))
  assert path.read_text() == '1'
  assert os.listdir(tmp_path) == ['a.txt']


def test_of_two_writers_of_a_folder_the_first_one_wins(tmp_path):
  path = tmp_path / 'out'
  with pytest.raises(ValueError, match='out is not empty'):
    for number, partial in enumerate(_both(files.whole_folder, path)):
      (pathlib.Path(partial) / str(number)).touch()
  assert os.listdir(tmp_path) == ['out'] and os.listdir(path) == ['0']


def _both(whole, path):
  """Yields the partial names of two writers; the first to start ends first."""
  first, second = contextlib.ExitStack(), contextlib.ExitStack()
  with second:
    with first:
      yield first.enter_context(whole(str(path)))
      other = second.enter_context(whole(str(path)))
    yield other


_KILLED = """
import os, sys
from yt8m_distill.utils import files

with files.whole_file(sys.argv[1] + '/a'), files.whole_folder(sys.argv[1] + '/b'):
  os.kill(os.getpid(), 9)
"""


def test_only_what_nobody_writes_is_abandoned(tmp_path):
  processes.forked('-c', _KILLED, tmp_path, check=False)
  left = sorted(path.name[:2] for path in tmp_path.iterdir())
  assert left == ['a.', 'b.']
  (tmp_path / 'download.partial').touch()  # Of another program.
  with files.whole_file(str(tmp_path / 'c')) as partial:
    files.remove_abandoned(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {
      'download.partial',
      os.path.basename(partial),
    }
  files.remove_abandoned(str(tmp_path / 'missing'))


def test_a_lock_has_one_owner(tmp_path):
  folder = str(tmp_path)
  with files.locked(folder), pytest.raises(BlockingIOError), files.locked(folder):
    pass
  with files.locked(str(tmp_path)), files.locked('gs://bucket/run'):
    pass


@pytest.mark.parametrize(
  'fault, remedy',
  [
    (errno.ENOSPC, 'Free space there'),
    (errno.EDQUOT, 'Free space there'),
    (errno.EROFS, 'Make it writable'),
  ],
)
@pytest.mark.parametrize('from_tensorflow', [False, True])
def test_a_disk_that_takes_no_more_is_named(tmp_path, fault, remedy, from_tensorflow):
  text = os.strerror(fault)
  error = (
    tf.errors.UnknownError(None, None, f'x.partial; {text}')
    if from_tensorflow
    else OSError(fault, text)
  )
  path = tmp_path / 'a'
  with (
    pytest.raises(ValueError) as raised,
    files.whole_file(str(path)),
  ):
    raise error
  assert str(raised.value) == (
    f'{path} cannot be written: {text}. {remedy}, and repeat the command.'
  )
  assert not os.listdir(tmp_path)


def test_other_errors_stay_as_they_are(tmp_path):
  with pytest.raises(FileNotFoundError), files.whole_file(str(tmp_path / 'a')):
    raise FileNotFoundError(errno.ENOENT, 'of another file')


def test_failed_folder_is_removed(tmp_path):
  with pytest.raises(OSError), files.whole_folder(str(tmp_path / 'out')):
    raise OSError
  assert not os.listdir(tmp_path)


def test_claim_accepts_the_same_job_only(tmp_path):
  path = tmp_path / 'new' / 'job.json'
  output = path.parent / 'output'
  job = {'steps': (1, 2), 'names': {3: 'x'}}
  files.claim_folder(str(path), job, [str(output)])
  output.touch()
  before = path.read_bytes()
  files.claim_folder(str(path), job, [str(output)])
  assert json.loads(before) == {'steps': [1, 2], 'names': {'3': 'x'}}
  for other, message in (
    ({**job, 'steps': 5}, r'job: steps is 5, was \[1, 2\]\. Name'),
    ({**job, 'more': 1}, 'job: more is 1, was None'),
    ({'steps': (1, 2)}, "job: names is None, was {'3': 'x'}"),
  ):
    with pytest.raises(ValueError, match=message):
      files.claim_folder(str(path), other)
  assert path.read_bytes() == before


def test_claim_refuses_outputs_of_an_unknown_job(tmp_path):
  (tmp_path / 'output').touch()
  with pytest.raises(ValueError, match=r'output exists, but no .*job\.json'):
    files.claim_folder(str(tmp_path / 'job.json'), {}, [str(tmp_path / 'output')])
  assert os.listdir(tmp_path) == ['output']


def test_claim_names_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(ValueError, match='file/out cannot be written.*Name a writable'):
    files.claim_folder(str(tmp_path / 'file' / 'out' / 'job.json'), {})


def _claim(folder):
  files.claim_folder(os.path.join(folder, 'job.json'), {})


def _fill(folder):
  with files.whole_folder(folder):
    pass


@pytest.mark.parametrize('use', [_claim, _fill])
def test_an_output_folder_without_a_name_is_refused(use):
  with pytest.raises(ValueError, match="folder is '': name one"):
    use('')


@pytest.mark.parametrize('use', [_fill, lambda folder: files.write_text(folder, '')])
def test_what_cannot_be_written_is_named(tmp_path, use):
  (tmp_path / 'file').touch()
  path = str(tmp_path / 'file' / 'out')
  with pytest.raises(ValueError, match=f'{path} cannot be written: .*Name a writable'):
    use(path)


def test_a_file_is_no_output_folder(tmp_path):
  (tmp_path / 'out').touch()
  with pytest.raises(ValueError, match='out is a file. Name another'):
    _fill(str(tmp_path / 'out'))


def test_damaged_json_is_named(tmp_path):
  (tmp_path / 'job.json').write_text('{"steps": 3')
  with pytest.raises(ValueError, match='job.json is not valid JSON .*Restore or'):
    _claim(str(tmp_path))


def test_a_job_that_wrote_nothing_yields_to_the_next_one(tmp_path):
  path, output = tmp_path / 'job.json', tmp_path / 'output'
  for steps in (1, 2):
    files.claim_folder(str(path), {'steps': steps}, [str(output)])
    assert json.loads(path.read_text()) == {'steps': steps}
  # Its files may have other names, and a partial one may be growing.
  (tmp_path / 'other.partial').touch()
  with pytest.raises(ValueError, match='job: steps is 3, was 2'):
    files.claim_folder(str(path), {'steps': 3}, [str(output)])
  files.claim_folder(str(path), {'steps': 3}, [str(output)], shared=True)
  output.touch()
  with pytest.raises(ValueError, match='job: steps is 4, was 3'):
    files.claim_folder(str(path), {'steps': 4}, [str(output)], shared=True)
