"""The HTML page of labels in time: a few videos, with all networks side by side.

W windows of a video, C classes that are predicted, V classes.
"""

import collections
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import os

import numpy as np
import tensorflow as tf

from yt8m_distill.configs import model as model_config
from yt8m_distill.dataloaders import record_errors
from yt8m_distill.dataloaders import record_parser
from yt8m_distill.dataloaders import segment_records
from yt8m_distill.dataloaders import shard_batches
from yt8m_distill.dataloaders import shards
from yt8m_distill.dataloaders import skipped
from yt8m_distill.serving import ensemble
from yt8m_distill.serving import page
from yt8m_distill.utils import cli
from yt8m_distill.utils import parallel
from yt8m_distill.utils import progress_bar

MOST = 10  # videos on a page for which no ids are given
_BATCH = 16  # records read at once
_UNNAMED = 'class {}'


def write(
  path: str,
  networks: ensemble.Ensemble,
  input_path: str | Sequence[str],
  ids: Sequence[str],
  classes: np.ndarray,
  names: Sequence[str],
  best: int,
  skip_corrupt: bool = False,
  skip_malformed: bool = False,
  thumbnails: Callable[[str], Sequence[bytes]] = lambda _: (),
):
  """Writes the page.

  Args:
    path: of the HTML file, which appears whole.
    networks: with `segments`.
    input_path: records, with or without labels and ratings; see `file_patterns`.
    ids: of the videos to show, in this order; empty for the first `MOST` videos.
    classes: int64 [C], those to choose from.
    names: of all classes of the networks; empty if unknown.
    best: number of best classes that it shows of each video.
    skip_corrupt: as for `shards.read`.
    skip_malformed: log, count and leave out malformed records.
    thumbnails: returns JPEG files for the id of a video.

  Raises:
    ValueError: there is no such video, or a record or its ratings are invalid
      (RecordError).
    tf.errors.OpError: a file cannot be read or written.
  """
  records = find(input_path, ids, skip_corrupt, skip_malformed)
  names = distinct_names(names, networks.num_classes)
  videos = []
  for record in records:
    with _skipping(skip_malformed):
      videos.append(_video(record, networks, classes, names, thumbnails))
  if not videos:
    raise ValueError(
      f'{input_path}: all videos to show are malformed records. Name others with '
      '--video.'
    )
  page.write(path, videos, 'Labels in time', best)


@contextlib.contextmanager
def _skipping(malformed: bool) -> Iterator[None]:
  """Logs and counts a malformed record instead of raising, if told."""
  try:
    yield
  except record_errors.RecordError as error:
    if not malformed:
      raise
    skipped.malformed(str(error))


def distinct_names(names: Sequence[str], num_classes: int) -> list[str]:
  """Returns a name for each class, all different.

  Args:
    names: of all classes; empty if unknown.
    num_classes: V.
  """
  names = [name.strip() for name in names] or [''] * num_classes
  counts = collections.Counter(names)
  return [
    name
    if name and counts[name] == 1
    else (f'{name} (class {index})' if name else _UNNAMED.format(index))
    for index, name in enumerate(names)
  ]


def find(
  input_path: str | Sequence[str],
  ids: Sequence[str],
  skip_corrupt: bool = False,
  skip_malformed: bool = False,
) -> list[shard_batches.Record]:
  """Returns the records of videos.

  Args:
    input_path: see `write`.
    ids: see `write`.
    skip_corrupt: as for `shards.read`.
    skip_malformed: see `write`.

  Raises:
    ValueError: there is no such video.
  """
  paths = shards.find(input_path)
  sizes = shards.sizes(paths)
  found: dict[str, shard_batches.Record] = {}
  total = sum(sizes) if ids else 1  # The first ones are found at once.
  with progress_bar.start('Looking for videos', total, 'B') as bar:
    for record in _read(list(map(parallel.Shard, paths, sizes, paths)), skip_corrupt):
      bar.update(len(record.serialized))
      if _may_be(record, ids):
        with _skipping(skip_malformed):
          name, _ = parse(record)
          if not ids or name in ids:
            found.setdefault(name, record)
      if len(found) == (len(set(ids)) or MOST):
        break
  check_ids(ids, found, cli.some_of(paths))
  return [found[name] for name in dict.fromkeys(ids)] or list(found.values())


def parse(record: shard_batches.Record) -> tuple[str, tf.train.SequenceExample]:
  """Returns the id of a video, and its record; raises a RecordError if it is none."""
  video = record_errors.parse(str(record), record.serialized)
  name = record_parser.video_id(video.context.feature, record.path, record.position)
  return name.decode(errors='backslashreplace'), video


def check_ids(ids: Sequence[str], found: Collection[str], source: str):
  """Raises a ValueError if `source` lacks an id to show; it has those `found`."""
  missing = [name for name in ids if name not in found]
  if missing:
    raise ValueError(
      f'video has {", ".join(map(repr, missing))}, but {source} holds no such id: '
      'name ids that it holds, or leave out --video for the first ones.'
    )


def _read(
  group: Sequence[parallel.Shard], skip_corrupt: bool
) -> Iterator[shard_batches.Record]:
  for batches in shard_batches.of_shards(_BATCH, skip_corrupt, group):
    for batch in batches:
      yield from shard_batches.records_of(batch)


def _may_be(record: shard_batches.Record, ids: Sequence[str]) -> bool:
  """Whether a record can have one of these ids; spares parsing the others."""
  position = f'{os.path.basename(record.path)}:{record.position}'
  return not ids or any(
    name.encode() in record.serialized or name == position for name in ids
  )


def _video(
  record: shard_batches.Record,
  networks: ensemble.Ensemble,
  classes: np.ndarray,
  names: Sequence[str],
  thumbnails: Callable[[str], Sequence[bytes]],
) -> page.Video:
  """Predicts a video."""
  outputs = [
    {key: value.numpy() for key, value in windows.items()}
    for windows in networks.windows_of_each(*shard_batches.batch_of([record]))
  ]
  windows = list(zip(outputs[0]['start'].tolist(), outputs[0]['end'].tolist()))
  name, video = parse(record)
  features = video.context.feature
  labels = features['labels'].int64_list.value  # Also of a release with more classes.
  is_rated = any(key in features for key in segment_records.LISTS)
  return page.Video(
    id=name,
    seconds=windows[-1][1],
    classes=[names[index] for index in classes.tolist()],
    windows=windows,
    networks=[
      page.Network(
        label,
        np.unique(output['frames'][output['frames'] >= 0]).tolist(),
        output['predictions'][:, classes],
      )
      for label, output in zip(_labels(networks.names), outputs)
    ],
    labels=[
      names[index] if 0 <= index < len(names) else _UNNAMED.format(index)
      for index in labels
    ],
    ratings=_ratings(record, features, windows, classes)
    if is_rated and networks.segments.length == model_config.WINDOW
    else None,
    thumbnails=thumbnails(name),
  )


def _labels(names: Sequence[tuple[str, str]]) -> list[str]:
  """Returns short names of networks, all different; see `ensemble.Ensemble.names`."""
  sources = list(dict.fromkeys(source for source, _ in names))
  if len(sources) == 1:
    return [name or os.path.basename(source.rstrip('/')) for source, name in names]
  short = [os.path.basename(source.rstrip('/')) for source in sources]
  labels = dict(zip(sources, short if len(set(short)) == len(short) else sources))
  return [': '.join(filter(None, (labels[source], name))) for source, name in names]


def _ratings(
  record: shard_batches.Record,
  features,
  windows: Sequence[tuple[int, int]],
  classes: np.ndarray,
) -> np.ndarray:
  """Returns ratings of windows, [W, C]; those of other windows are left out."""
  rows = {start: row for row, (start, _) in enumerate(windows)}
  columns = {label: column for column, label in enumerate(classes.tolist())}
  table = np.full([len(rows), len(columns)], np.nan)
  found = segment_records.ratings(features, str(record))
  for start, scores in found.items():
    for label, score in scores.items():
      if start in rows and label in columns:
        table[rows[start], columns[label]] = score
  return table
