"""Progress on a terminal and in a log."""

import io
import sys

import pytest

from yt8m_distill.utils import progress_bar


def test_nothing_is_shown_of_one_thing_or_without_a_screen(monkeypatch, capsys):
  with progress_bar.start('Counting', 1, ' files') as bar:
    bar.update()
  assert not capsys.readouterr().err
  monkeypatch.setattr('sys.stderr', None)
  with progress_bar.start('Counting', 5, ' files') as bar:
    bar.update()


class _Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.fixture
def clock(monkeypatch):
  """Seconds by the clock of the lines, in a list that a test changes."""
  now = [0.0]
  monkeypatch.setattr(progress_bar.time, 'monotonic', lambda: now[0])
  return now


def _log(monkeypatch):
  monkeypatch.setattr(sys, 'stderr', io.StringIO())
  return sys.stderr


def test_a_terminal_shows_a_bar(monkeypatch):
  monkeypatch.setattr(sys, 'stderr', _Terminal())
  with progress_bar.start('Predicting', 4, 'B') as bar:
    bar.update(4)
  assert '\rPredicting: 100%|##########| 4.00/4.00' in sys.stderr.getvalue()


@pytest.mark.parametrize('seconds, lines', [(29, 1), (60, 2), (3600, 20)])
def test_a_log_has_few_lines_however_many_updates(monkeypatch, clock, seconds, lines):
  log = _log(monkeypatch)
  with progress_bar.start('Predicting', 1000, 'B') as bar:
    for number in range(1000):
      clock[0] += seconds / 1000
      bar.set_postfix_str(f'{number + 1}/1000 shards', refresh=False)
      bar.update()
  shown = log.getvalue().splitlines()
  assert len(shown) == lines
  assert shown[-1].startswith('Predicting: 100% 1.00k/1.00k [')
  assert shown[-1].endswith(', 1000/1000 shards]')
  assert '\r' not in log.getvalue()


def test_lines_tell_what_is_done_and_how_long_the_rest_takes(monkeypatch, clock):
  log = _log(monkeypatch)
  with progress_bar.start('Thinning', 400, 'B') as bar:
    clock[0] = 50
    bar.update(100)
  assert log.getvalue().splitlines() == 2 * [
    'Thinning:  25% 100/400 [00:50<02:30, 2.00B/s]'
  ]


def test_units_that_take_seconds(monkeypatch, clock):
  log = _log(monkeypatch)
  with progress_bar.start('Extracting', 4, ' videos') as bar:
    clock[0] = 5
    bar.update(2)
  assert log.getvalue() == 'Extracting:  50% 2/4 [00:05<00:05,  2.50 s/video]\n'
  monkeypatch.setattr(sys, 'stderr', _Terminal())
  with progress_bar.start('Extracting', 4, ' videos') as bar:
    bar.update(2)
    assert bar.format_meter(2, 4, 5, unit=' videos').endswith(' 2.50 s/video]')


def test_a_job_of_unknown_size_has_a_line_per_half_minute(monkeypatch, clock):
  log = _log(monkeypatch)
  with progress_bar.start('Reading labels', None, ' videos') as bar:
    for _ in range(7):
      clock[0] += 10
      bar.update(1000)
  assert [line.split(' [')[0] for line in log.getvalue().splitlines()] == [
    f'Reading labels: {n} videos' for n in (3000, 6000, 7000)
  ]


def test_what_was_done_before_an_error_is_shown(monkeypatch, clock):
  log = _log(monkeypatch)
  clock[0] = 1
  with pytest.raises(ValueError), progress_bar.start('Thinning', 4, 'B') as bar:
    bar.update(3)
    raise ValueError
  assert log.getvalue().startswith('Thinning:  75% 3.00/4.00')
