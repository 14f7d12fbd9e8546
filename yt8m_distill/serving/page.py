"""A page of labels in time: one HTML file that needs no server and no network.

  page.write('page.html', [page.Video(...)], title='Concerts')

For each video, the page shows which frames each network looked at, and its best
classes over time: for each class a strip of bars per network, one bar per window, and
ratings where they are known. The values also stand in a table, from which the page's
script takes what it shows on hover and on keyboard focus. Without scripts, the rest
of the page still works.

Ids and names are text from data files: all are escaped, and the page's content security
policy lets no script but its own run and nothing be loaded.

W windows, C classes.
"""

import base64
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import hashlib
import html
import itertools
from typing import Any

import numpy as np

from yt8m_distill.serving import page_assets
from yt8m_distill.utils import files

_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)  # of the axis, s
_MAX_STEPS = 6
_JPEG = b'\xff\xd8\xff'  # its first bytes


@dataclasses.dataclass(eq=False)
class Network:
  """What one network looked at and found in a video.

  Attributes:
    name: such as 'teacher'.
    frames: indices of the frames it looked at; frame i shows second i.
    scores: [W, C] probability of each class in each window.
  """

  name: str
  frames: Sequence[int]
  scores: np.ndarray

  def __post_init__(self):
    self.scores = _array(f'network {self.name!r}: scores', self.scores)


@dataclasses.dataclass(eq=False)
class Video:
  """A video, and what networks found in it.

  Attributes:
    id: any text.
    seconds: its length.
    classes: [C] names of the classes, all different.
    windows: [W] start and end of each window in seconds, in order.
    networks: in the order in which the page shows them, such as teacher and student.
    labels: names of the true labels, also of classes that are not in `classes`; empty
      if they are unknown.
    ratings: [W, C] 1 where a class is present in a window, 0 where it is absent, NaN
      where nobody rated it; None if there are no ratings.
    thumbnails: small pictures of the video at equal distances, JPEG files; each stands
      for its share of the video. Empty if there are none.

  Raises:
    ValueError: sizes or values do not fit together.
  """

  id: str
  seconds: float
  classes: Sequence[str]
  windows: Sequence[tuple[float, float]]
  networks: Sequence[Network]
  labels: Sequence[str] = ()
  ratings: np.ndarray | None = None
  thumbnails: Sequence[bytes] = ()

  def __post_init__(self):
    if not 0 < self.seconds < np.inf:
      self._refuse(f'seconds is {self.seconds}: it must be positive')
    for field in ('classes', 'windows', 'networks'):
      if not len(getattr(self, field)):
        self._refuse(f'{field} is empty: it must name at least one')
    self._check_names()
    self._check_windows()
    for network in self.networks:
      self._check_network(network)
    if self.ratings is not None:
      self.ratings = _array(f'video {self.id!r}: ratings', self.ratings)
      self._check_shape('ratings', self.ratings)
      if not np.isin(self.ratings[~np.isnan(self.ratings)], (0, 1)).all():
        self._refuse('ratings has other values than 0, 1 and NaN')
    for index, picture in enumerate(self.thumbnails):
      if not picture.startswith(_JPEG):
        self._refuse(f'thumbnails[{index}] is no JPEG file: encode it as one')

  def _refuse(self, what: str):
    raise ValueError(f'video {self.id!r}: {what}.')

  def _check_names(self):
    names = set()
    for index, name in enumerate(self.classes):
      if not name.strip() or name in names:
        self._refuse(
          f'classes[{index}] is {name!r}: names must be different and not empty. '
          "Name such a class by its index, as in 'class 7'"
        )
      names.add(name)

  def _check_windows(self):
    windows = _array(f'video {self.id!r}: windows', self.windows)
    if windows.shape[1] != 2:
      self._refuse(
        f'windows has {windows.shape[1]} columns: it must have start and end'
      )
    before = 0.0
    for index, (start, end) in enumerate(windows.tolist()):
      if not before <= start < end <= self.seconds:
        self._refuse(
          f'windows[{index}] is ({start:g}, {end:g}): windows must be in order, not '
          f'overlap, and lie within 0 and {self.seconds:g} s'
        )
      before = end

  def _check_network(self, network: Network):
    name = f'network {network.name!r}'
    self._check_shape(f'{name}: scores', network.scores)
    # A NaN is no probability either.
    if not ((network.scores >= 0) & (network.scores <= 1)).all():
      self._refuse(
        f'{name}: scores are from {network.scores.min():g} to '
        f'{network.scores.max():g}: they must be probabilities from 0 to 1'
      )
    for frame in network.frames:
      if not 0 <= frame < self.seconds or frame % 1:
        self._refuse(
          f'{name}: frames has {frame}: indices of frames must be whole numbers from 0 '
          f'and below {self.seconds:g}, the seconds of the video'
        )

  def _check_shape(self, name: str, array: np.ndarray):
    shape = len(self.windows), len(self.classes)
    if array.shape != shape:
      self._refuse(
        f'{name} has the shape {list(array.shape)}: it must be {list(shape)}, windows '
        'by classes'
      )


def _array(name: str, values: Any) -> np.ndarray:
  try:
    array = np.asarray(values, float)
  except (TypeError, ValueError):
    array = np.empty(0)
  if array.ndim != 2:
    raise ValueError(f'{name} must be a table of numbers: rows of equal length.')
  return array


def write(path: str, videos: Iterable[Video], title: str, best: int = 10):
  """Writes a page, which appears whole.

  Args:
    path: of the HTML file.
    videos: in the order of the page.
    title: heading of the page.
    best: number of classes that a video shows at most.

  Raises:
    ValueError: the file cannot be written, or as `render`.
  """
  files.write_text(path, render(videos, title, best))


def render(videos: Iterable[Video], title: str, best: int = 10) -> str:
  """Returns the page as text; arguments as for `write`.

  Raises:
    ValueError: there is no video, or `best` is not positive.
  """
  if best < 1:
    raise ValueError(f'best is {best}: a page must show at least 1 class.')
  shown = [_Section(number, video, best) for number, video in enumerate(videos)]
  if not shown:
    raise ValueError('There are no videos: a page needs at least 1.')
  digest = base64.b64encode(
    hashlib.sha256(page_assets.SCRIPT.encode()).digest()
  ).decode()
  return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>{page_assets.STYLE}</style>
</head>
<body>
<header>
<h1>{_text(title)}</h1>
<p>Each bar is a window of the video. Its height is the probability of the class, from 0
to 1; the number beside it is the highest. \
{_RATINGS if any(section.rated.any() for section in shown) else ''}
Point at a bar to see the values of its window, or focus a strip and press the arrow
keys.</p>
</header>
{_contents(shown) if len(shown) > 1 else ''}
<main>
{''.join(section.render() for section in shown)}</main>
<div id="tip" aria-hidden="true" hidden></div>
<script>{page_assets.SCRIPT}</script>
</body>
</html>
"""


def _text(text: str) -> str:
  """Escapes untrusted text, also for attributes and where UTF-8 cannot encode it."""
  return html.escape(text.encode(errors='backslashreplace').decode())


def _isolated(text: str, kind: str) -> str:
  """Escapes text whose writing direction must not affect its surroundings."""
  return f'<bdi class="{kind}">{_text(text)}</bdi>'


def _contents(sections: Sequence['_Section']) -> str:
  links = ''.join(section.link() for section in sections)
  return f"""<nav aria-label="Videos">
<p id="filter" hidden><label>Filter by id or class <input type="search"></label>
<output></output></p>
<ul>{links}</ul>
</nav>"""


class _Section:
  """The part of a page that shows one video."""

  def __init__(self, number: int, video: Video, best: int):
    self._number = number
    self._video = video
    self._scores = np.stack([network.scores for network in video.networks])  # [N, W, C]
    self._ratings = (
      np.full(self._scores.shape[1:], np.nan)
      if video.ratings is None
      else video.ratings
    )
    self.rated = ~np.isnan(self._ratings).all(axis=0)  # [C]
    peaks = self._scores.max(axis=(0, 1))
    self._classes = np.lexsort((-peaks, ~self.rated))[:best].tolist()

  def link(self) -> str:
    labels = ', '.join(self._video.labels)
    return (
      f'<li><a href="#video{self._number}">{_isolated(self._video.id, "id")}</a> '
      f'{_isolated(labels, "note")}</li>'
    )

  def render(self) -> str:
    video = self._video
    shown = f'{len(self._classes):,} of {_count(len(video.classes), "class", "es")}'
    order = 'rated ones first, then ' if self.rated.any() else ''
    axis = self._axis()
    return f"""<section id="video{self._number}" \
aria-labelledby="id{self._number}">
<h2 id="id{self._number}">{_isolated(video.id, 'id')}</h2>
<p class="note">{video.seconds:g} s, {_count(len(video.windows), 'window')}, \
{shown}: {order}the most probable</p>
{self._labels()}
<div class="chart">
{self._film()}{self._frames()}{axis}{''.join(map(self._row, self._classes))}{axis}</div>
{self._table()}
</section>
"""

  def _labels(self) -> str:
    video = self._video
    if not video.labels:
      return '<p class="note">Its true labels are unknown.</p>'
    shown = {video.classes[index] for index in self._classes}
    items = ''.join(
      f'<li>{_isolated(label, "label")}'
      f'{"" if label in shown else " <small>not shown below</small>"}</li>'
      for label in video.labels
    )
    return f'<div class="labels">True labels: <ul>{items}</ul></div>'

  def _strip(
    self,
    name: str,
    paths: Sequence[str],
    values: Sequence[str],
    alternative: str,
    ratings: str = '',
    attributes: str = '',
  ) -> str:
    """Returns a line of the chart: a strip with one lane per network.

    Args:
      name: HTML of what the line shows.
      paths: of each network's lane; lanes are 100 high.
      values: text beside these lanes.
      alternative: text that stands for the strip.
      ratings: path of one more lane, if there is one.
      attributes: HTML, further attributes of the strip.
    """
    kinds = [f'lane{number % 4}' for number in range(len(paths))]
    names = [
      f'<span class="{kind}" title="{_text(network.name)}">'
      f'{_isolated(network.name, "network")}</span>'
      for kind, network in zip(kinds, self._video.networks)
    ]
    lanes = list(zip(kinds, paths))
    if ratings:
      names.append('<span>rated</span>')
      lanes.append(('rating', ratings))
    drawn = ''.join(
      f'<path class="{kind}" transform="translate(0 {110 * lane + 5})" d="{path}"/>'
      for lane, (kind, path) in enumerate(lanes)
    )
    height = 110 * len(lanes)
    grid = ''.join(f'M{time:g} 0V{height}' for time in self._times())
    beside = ''.join(f'<span>{value}</span>' for value in values)
    return f"""<div class="row" style="--lanes:{len(lanes)}">
<div class="name">{name}</div>
<div class="lanes" aria-hidden="true">{''.join(names)}</div>
<div class="strip" role="img" aria-label="{_text(alternative)}"{attributes}>
<svg viewBox="0 0 {self._video.seconds:g} {height}" preserveAspectRatio="none" \
aria-hidden="true"><path class="grid" d="{grid}"/>{drawn}</svg></div>
<div class="values" aria-hidden="true">{beside}</div>
</div>
"""

  def _row(self, index: int) -> str:
    """Returns the line of a class."""
    video = self._video
    name = video.classes[index]
    true = name in video.labels
    scores = self._scores[:, :, index]
    highest = scores.argmax(axis=1)
    alternative = [f'{name}{", a true label" if true else ""}.']
    for network, lane, window in zip(video.networks, scores, highest):
      alternative.append(
        f'{network.name}: highest {lane[window]:.2f} at {self._window(window)}.'
      )
    ratings, rated = self._marks(index) if self.rated[index] else ('', '')
    return self._strip(
      _isolated(name, 'class') + (' <small>true label</small>' if true else ''),
      [_bars(video.windows, lane) for lane in scores],
      [f'{score:.2f}' for score in scores.max(axis=1)],
      ' '.join(filter(None, [*alternative, rated])),
      ratings,
      f' data-window="{scores.max(axis=0).argmax()}"',
    )

  def _marks(self, index: int) -> tuple[str, str]:
    """Returns the path of a class' ratings, up or down, and the text for it."""
    path, text = '', []
    for window, rating in enumerate(self._ratings[:, index].tolist()):
      if rating in _RATED:
        start, end = self._video.windows[window]
        path += f'M{start:g} 50V{0 if rating else 100}H{end:g}V50z'
        text.append(f'{_RATED[rating]} at {self._window(window)}')
    return f'{path}M0 50H{self._video.seconds:g}', f'Rated {", ".join(text)}.'

  def _film(self) -> str:
    """Returns the line of thumbnails; '' without any."""
    pictures = self._video.thumbnails
    shown = ''.join(
      f'<img alt="{self._video.seconds * (index + 0.5) / len(pictures):.0f} s" '
      f'src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}">'
      for index, picture in enumerate(pictures)
    )
    return (
      f'<div class="row"><div class="film">{shown}</div></div>\n' if pictures else ''
    )

  def _frames(self) -> str:
    """Returns the line that shows which frames were looked at."""
    video = self._video
    runs = [_runs(network.frames) for network in video.networks]
    counts = [len(set(network.frames)) for network in video.networks]
    paths = [
      ''.join(f'M{start} 0H{end + 1}V100H{start}z' for start, end in lane)
      for lane in runs
    ]
    alternative = ' '.join(
      f'{network.name}: {_count(count, "frame")}'
      + ''.join(f', {_span(start, end)}' for start, end in lane)
      + '.'
      for network, count, lane in zip(video.networks, counts, runs)
    )
    return self._strip(
      'Frames looked at', paths, [f'{count:,}' for count in counts], alternative
    )

  def _times(self) -> list[float]:
    """Returns the seconds that the axis names."""
    seconds = self._video.seconds
    step = next((n for n in _STEPS if n * _MAX_STEPS >= seconds), seconds)
    return np.arange(0, seconds + 1e-9, step).tolist()

  def _axis(self) -> str:
    marks = ''.join(
      f'<span style="left:{time / self._video.seconds:.2%}">{time:g}</span>'
      for time in self._times()
    )
    return (
      '<div class="row axis" aria-hidden="true"><div class="name">Seconds</div>'
      f'<div class="strip">{marks}</div></div>\n'
    )

  def _window(self, index: int) -> str:
    start, end = self._video.windows[index]
    return f'{start:g}–{end:g} s'  # noqa: RUF001

  def _table(self) -> str:
    """Returns all values that the page shows; the script reads them, too."""
    video = self._video
    columns = ''.join(
      f'<th scope="col">{self._window(window)}' for window in range(len(video.windows))
    )
    bodies = []
    for index in self._classes:
      rows = [
        (_isolated(network.name, 'network'), [f'{s:.3f}' for s in lane])
        for network, lane in zip(video.networks, self._scores[:, :, index])
      ]
      if self.rated[index]:
        ratings = self._ratings[:, index].tolist()
        rows.append(('rated', [_RATED.get(rating, '') for rating in ratings]))
      bodies.append(
        f'<tbody><tr><th colspan="{len(video.windows) + 1}" scope="rowgroup">'
        + _isolated(video.classes[index], 'class')
        + ''.join(
          f'<tr><th scope="row">{name}' + ''.join(f'<td>{value}' for value in values)
          for name, values in rows
        )
      )
    return f"""<details><summary>Table of values</summary>
<div class="scroll" role="region" tabindex="0" \
aria-label="Values of {_text(video.id)}">
<table><thead><tr><th scope="col">Window{columns}</thead>
{''.join(bodies)}</table></div></details>"""


def _bars(windows: Sequence[tuple[float, float]], heights: np.ndarray) -> str:
  """Returns a path; adjacent bars are one shape, so that no seam shows."""
  path, before = '', None
  for (start, end), height in zip(windows, heights):
    if start != before:
      path += f'{"V100z" if path else ""}M{start:g} 100'
    path += f'V{100 - 100 * height:.0f}H{end:g}'
    before = end
  return f'{path}V100z'


def _runs(frames: Sequence[int]) -> list[tuple[int, int]]:
  """Returns the first and last index of each run of consecutive frames."""
  runs = []
  for _, run in itertools.groupby(
    enumerate(sorted(map(int, set(frames)))), lambda pair: pair[1] - pair[0]
  ):
    indices = [index for _, index in run]
    runs.append((indices[0], indices[-1]))
  return runs


def _span(start: int, end: int) -> str:
  return f'{start}' if start == end else f'{start} to {end}'


def _count(number: int, noun: str, plural: str = 's') -> str:
  return f'{number:,} {noun}{"" if number == 1 else plural}'


_RATED = {0: 'absent', 1: 'present'}

_RATINGS = """Ratings are marks at a line below the bars: above the line, the class is
present; below it, absent."""
