"""Shows how much of a job is done: a bar on a terminal, otherwise lines.

A bar redraws its line, which would make a log unreadable. So a log gets a line now and
then, and one at the end with the total and the mean rate. All of it goes to stderr.
"""

import re
import sys
import time
from typing import Any

import tqdm

# A line of a log follows the last one after both of these.
_SECONDS = 30.0
_SHARE = 0.05  # of the total, so that a long job's log stays short


class _Terminal(tqdm.tqdm):
  """A bar that also reads well where a unit, such as ' videos', takes seconds."""

  @staticmethod
  def format_meter(*args, **kwargs) -> str:
    """Returns the line with '2.50 s/video' for tqdm's '2.50s/ videos'."""
    return re.sub(r's/ (\w+)s\b', r' s/\1', tqdm.tqdm.format_meter(*args, **kwargs))


class Lines:
  """Shows progress as lines; has those parts of `tqdm.tqdm` that the package uses."""

  def __init__(self, desc: str, total: int | None, unit: str, unit_scale: bool):
    """Starts the clock; see `tqdm.tqdm`."""
    self.n = 0
    self._meter: dict[str, Any] = {
      'total': total,
      'prefix': desc,
      'unit': unit,
      'unit_scale': unit_scale,
      'ncols': 0,  # no bar
    }
    self._interval = (total or 0) * _SHARE
    self._start = self._last_time = time.monotonic()
    self._last_n = 0

  def __enter__(self) -> 'Lines':
    return self

  def __exit__(self, *error):
    self._show()

  def update(self, n: int = 1):
    """Adds `n` to what is done."""
    self.n += n
    if (
      time.monotonic() - self._last_time >= _SECONDS
      and self.n - self._last_n >= self._interval
      and self.n != self._meter['total']  # The last line follows at once.
    ):
      self._show()

  def set_postfix_str(self, s: str, refresh: bool = False):
    """Sets a text that the next line ends with."""
    del refresh
    self._meter['postfix'] = s

  def _show(self):
    self._last_time, self._last_n = time.monotonic(), self.n
    text = _Terminal.format_meter(
      self.n, elapsed=self._last_time - self._start, **self._meter
    )
    print(text, file=sys.stderr, flush=True)


Bar = tqdm.tqdm | Lines


def start(description: str, total: int | None, unit: str) -> Bar:
  """Starts a progress bar, a context manager.

  Args:
    description: what is done.
    total: size of the job; None if unknown. A job of size 1 shows nothing.
    unit: its unit. Numbers of 'B' (bytes) are shown as 1.00k, 1.00M, ...
  """
  if total == 1 or sys.stderr is None:  # None: it was closed.
    return tqdm.tqdm(disable=True)
  kind = _Terminal if sys.stderr.isatty() else Lines
  return kind(desc=description, total=total, unit=unit, unit_scale=unit == 'B')
