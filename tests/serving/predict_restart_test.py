"""predict goes on where it stopped, and with its own job alone."""

import os
import re
import shutil
import signal
import time

import processes
import pytest
import serving_cases
import tensorflow as tf

from yt8m_distill.serving import tables

pytestmark = pytest.mark.end_to_end


def _times(out, suffix='csv'):
  return {path.name: path.stat().st_mtime_ns for path in out.glob(f'test*.{suffix}')}


def test_a_corrupt_shard_stops_the_job_which_goes_on_once_it_is_whole(
  runs, data, tmp_path, capsys
):
  mended, out = tmp_path / 'mended', tmp_path / 'out'
  shutil.copytree(data, mended)
  last = mended / f'test{len(serving_cases.COUNTS) - 1}.tfrecord'
  last.write_bytes(last.read_bytes()[:-1])
  with pytest.raises(
    tf.errors.InvalidArgumentError,
    match=rf'{last.name}: unreadable from byte \d+ of \d+',
  ):
    serving_cases.predict(runs, mended, out, workers=1)
  finished = _times(out)
  assert set(finished) == {'test0.csv', 'test1.csv'}
  assert set(os.listdir(out)) == {*finished, 'predict.json'}

  shutil.copy(data / last.name, last)
  for result in (
    f'1 of them written now, {serving_cases.COUNTS[-1]} videos.',
    'already complete.',
  ):
    capsys.readouterr()
    serving_cases.predict(runs, mended, out)
    assert capsys.readouterr().out == f'{out}: 3 shards, {result}\n'
  assert finished.items() <= _times(out).items()
  whole = serving_cases.predict(runs, data, tmp_path / 'whole')
  assert serving_cases.contents(out) == serving_cases.contents(whole)


def test_an_interrupt_leaves_whole_files_only(
  runs, data, tmp_path, monkeypatch, request
):
  write, calls = tables.Csv.write, []

  def interrupt(self, outputs):
    calls.append(None)
    if len(calls) == 3:  # In the second shard or the third.
      signal.raise_signal(signal.SIGINT)
      time.sleep(0.2)
    write(self, outputs)

  monkeypatch.setattr(tables.Csv, 'write', interrupt)
  # A process that was started in the background ignores it.
  handler = signal.signal(signal.SIGINT, signal.default_int_handler)
  request.addfinalizer(lambda: signal.signal(signal.SIGINT, handler))
  out = tmp_path / 'out'
  with pytest.raises(KeyboardInterrupt):
    serving_cases.predict(runs, data, out, workers=1, batch_size=4)
  monkeypatch.undo()
  whole = serving_cases.contents(
    serving_cases.predict(runs, data, tmp_path / 'whole', batch_size=4)
  )
  left = serving_cases.contents(out)
  assert left and left.items() < whole.items()
  serving_cases.predict(runs, data, out, batch_size=4)
  assert serving_cases.contents(out) == whole


@pytest.mark.parametrize(
  'change',
  [
    {'top_k': 3},
    {'format': 'parquet'},
    {'network': 'teacher'},
    {'input_path': '{data}/test0.tfrecord'},
    {'model': '{runs[1]}'},
  ],
)
def test_a_folder_of_another_job_is_refused(runs, data, tmp_path, change):
  out = serving_cases.predict(runs, data, tmp_path / 'out')
  before = serving_cases.contents(out)
  change = {
    key: value.format(data=data, runs=runs) if isinstance(value, str) else value
    for key, value in change.items()
  }
  if 'model' in change:
    change['model'] = [change['model']]
  with pytest.raises(
    ValueError,
    match=f'records another job: .*{next(iter(change))} is .*, was .*output_dir',
  ):
    serving_cases.predict(runs, data, out, **change)
  assert serving_cases.contents(out) == before


@pytest.mark.parametrize('name', ['test1.csv', 'predictions.csv'])
def test_files_that_no_job_made_stay_as_they_are(runs, data, tmp_path, name):
  (tmp_path / name).write_text('mine')
  with pytest.raises(ValueError, match=f'{name} exists, but no .*predict'):
    serving_cases.predict(runs, data, tmp_path)
  assert (tmp_path / name).read_text() == 'mine'


def _flags(run, data, out):
  return [
    f'--model={run}',
    f'--input_path={data}/*.tfrecord',
    f'--output_dir={out}',
    f'--top_k={serving_cases.TOP_K}',
    '--workers=1',
  ]


def test_a_command_that_fails_says_why_in_one_line(runs, data, tmp_path):
  cut = tmp_path / 'cut'
  shutil.copytree(data, cut)
  path = cut / 'test2.tfrecord'
  path.write_bytes(path.read_bytes()[:-1])
  done = processes.forked(
    '-m',
    'yt8m_distill.serving.predict',
    *_flags(runs[0], cut, tmp_path / 'out'),
    check=False,
  )
  assert done.returncode == 1
  assert 'Traceback' not in done.stderr
  assert re.match(
    rf'Error: {path}: unreadable from byte \d+ of \d+: .*',
    done.stderr.splitlines()[-1],
  )
