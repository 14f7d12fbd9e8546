"""Lists of video files, with ids and labels: a CSV file, or paths and patterns."""

from collections.abc import Iterator
from collections.abc import Sequence
import concurrent.futures
import csv
import io
import os
import re
from typing import NamedTuple

import tensorflow as tf

from yt8m_distill.dataloaders import remote
from yt8m_distill.dataloaders import shards

_PATH, _LABELS, _ID = 'path', 'labels', 'id'
_COLUMNS = (_PATH, _LABELS, _ID)
_THREADS = 16  # they wait for file systems
# At most 9 digits: far above any class, far below what int64 holds.
_CLASS = re.compile('[0-9]{1,9}')


class Video(NamedTuple):
  """A video file.

  Attributes:
    path: the file.
    id: what its record is called.
    labels: its classes; None if they are unknown.
    place: where it is listed, for messages.
  """

  path: str
  id: str
  labels: tuple[int, ...] | None
  place: str


def read(source: str) -> list[Video]:
  """Reads a list of videos.

  Args:
    source: a file NAME.csv, with a header and the columns `path` (relative to the
      folder of the CSV file, absolute, or a URL), optionally `labels` (indices of
      classes, separated by spaces or ';') and `id`; or video files and patterns, see
      `dataloaders.file_patterns`, which are sorted. Patterns skip folders. Without an
      id, a video is called by its file's name without the extension.

  Returns:
    The videos, at least one, in order. All files exist, and all ids differ.

  Raises:
    ValueError: see above; names the line of a CSV file.
  """
  is_csv = source.lower().endswith('.csv')
  videos = list(_rows(source) if is_csv else _files(source))
  if not videos:
    raise ValueError(f'{source} lists no videos: add a line for each, with its path.')
  videos = _without_folders(videos, may_skip=not is_csv and _has_patterns_only(source))
  known: dict[str, Video] = {}
  for video in videos:
    other = known.setdefault(video.id, video)
    if other is not video:
      raise ValueError(
        f'{video.place}: {video.path} has the id {video.id!r}, as has {other.path} '
        f'({other.place}). Give them different ids in the column {_ID} of a CSV file.'
      )
  return videos


def _files(source: str) -> Iterator[Video]:
  if not source.strip(', '):
    raise ValueError(
      'input is empty: name a CSV file, or video files and patterns, such as '
      "'videos/*.mp4'."
    )
  try:
    paths = shards.find(source)
  except ValueError as error:
    raise ValueError(re.sub(r'\binput_path\b', 'input', str(error))) from error
  for path in paths:
    yield Video(path, _stem(path), None, 'input')


def _without_folders(videos: list[Video], may_skip: bool) -> list[Video]:
  """Returns the videos, at least one, without folders that patterns match.

  Such a folder may hold the output of an earlier job.

  Args:
    videos: paths that must exist.
    may_skip: whether folders may be left out. Otherwise they are errors.
  """
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    is_folder = list(pool.map(_is_folder, videos))
  found = [video for video, skipped in zip(videos, is_folder) if not skipped]
  if len(found) == len(videos) or (found and may_skip):
    return found
  folder = videos[is_folder.index(True)]
  raise ValueError(
    f'{folder.place}: {folder.path} is a folder. Name the files in it, such as '
    f"'{folder.path.rstrip('/')}/*.mp4'."
  )


def _has_patterns_only(source: str) -> bool:
  return all('*' in item or '?' in item for item in source.split(',') if item.strip())


def _stem(path: str) -> str:
  return os.path.splitext(remote.file_name(path))[0]


def _rows(source: str) -> Iterator[Video]:
  def content():
    with tf.io.gfile.GFile(source, 'rb') as file:
      return file.read()

  try:
    text = remote.retry(source, content).decode('utf-8-sig')  # Excel writes a BOM.
    rows = csv.DictReader(io.StringIO(text, newline=''), strict=True)
    _check_columns(source, rows.fieldnames or [])
    for row in rows:
      yield _video(source, f'{source}, line {rows.line_num}', row)
  except (UnicodeDecodeError, csv.Error) as error:
    raise ValueError(
      f'{source} is not a CSV file in UTF-8 ({error}). Save it as one, with the '
      f'columns {", ".join(_COLUMNS)}.'
    ) from error


def _check_columns(source: str, names: Sequence[str]):
  wanted = (
    f'It must have {_PATH}, may have {_LABELS} and {_ID}, and no others, separated by '
    'commas'
  )
  if _PATH not in names:
    raise ValueError(
      f'{source} has no column {_PATH!r}, only {[*names]}. {wanted}: add a header.'
    )
  for name in names:
    if name not in _COLUMNS or names.count(name) > 1:
      raise ValueError(
        f'{source} has the columns {[*names]}. {wanted}: rename or remove {name!r}.'
      )


def _video(source: str, place: str, row: dict) -> Video:
  """Reads a line of a CSV file; raises a ValueError that names it."""
  if None in row or None in row.values():
    raise ValueError(
      f'{place} does not have as many values as there are columns. Quote values that '
      'contain a comma.'
    )
  row = {name: value.strip() for name, value in row.items()}
  path = row[_PATH]
  if not path:
    raise ValueError(f'{place}: its {_PATH} is empty. Name a video file.')
  if not remote.scheme(path):
    path = os.path.join(os.path.dirname(source), path)
  if _ID in row and not row[_ID]:
    raise ValueError(
      f'{place}: its {_ID} is empty. Give one, or leave out the column to call videos '
      'by their files.'
    )
  labels = None
  if _LABELS in row:
    names = re.split(r'[\s;]+', row[_LABELS]) if row[_LABELS] else []
    for name in names:
      if not _CLASS.fullmatch(name):
        raise ValueError(
          f'{place}: its {_LABELS} are {row[_LABELS]!r}, but {name!r} is not the index '
          "of a class, a whole number from 0. Write them as in '3 17' or '3;17'."
        )
    labels = tuple(map(int, names))
  return Video(path, row.get(_ID) or _stem(path), labels, place)


def _is_folder(video: Video) -> bool:
  """Whether a path is a folder; raises a ValueError if it does not exist."""
  try:
    return remote.retry(video.path, lambda: tf.io.gfile.stat(video.path)).is_directory
  except ValueError as error:
    raise ValueError(f'{video.place}: {error}') from error
