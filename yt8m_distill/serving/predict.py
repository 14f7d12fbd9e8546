r"""Predicts all videos of a set of shards, with one or several networks.

  yt8m-distill predict --model=RUN \
    --input_path='test*.tfrecord' --output_dir=OUT

Writes OUT/<shard>.csv or .parquet for each <shard>.tfrecord. In CSV format it also
writes OUT/predictions.csv, with all rows in one file for Kaggle. Files appear when
they are complete. Repeating the command resumes with the missing shards;
OUT/predict.json records its settings.

--model takes runs, checkpoints and exports, separated by commas. Predictions of
several are averaged; --model_weights weights them. Parquet files also hold the
`embedding` of a single network. --stopping stops looking at a video when a nested
network is sure; Parquet files then hold `frames_seen`.

--segments=5 predicts each 5 seconds of the videos in place of whole videos: in CSV
format the best windows of each class, as YouTube-8M Segments asks for, in Parquet the
best classes of each window.

--format=html writes OUT/page.html in place of tables: what each network finds in a few
videos, over time.

--weights=FOLDER takes video files in place of records, and prints their best classes
(without --output_dir, that is all).
It needs the extra `video` and the official files of the networks for features.
"""

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import functools
import inspect
import mimetypes
import os
import re
import tempfile
from typing import IO
from typing import Any
import zlib

from absl import flags
import numpy as np
import tensorflow as tf

from yt8m_distill.configs import data
from yt8m_distill.configs import model as model_config
from yt8m_distill.dataloaders import remote
from yt8m_distill.dataloaders import shard_batches
from yt8m_distill.dataloaders import shards
from yt8m_distill.dataloaders import skip_flags
from yt8m_distill.evaluation import results as results_lib
from yt8m_distill.evaluation import segment_metrics
from yt8m_distill.features import video_list
from yt8m_distill.serving import ensemble
from yt8m_distill.serving import stopping as stopping_lib
from yt8m_distill.serving import tables
from yt8m_distill.serving import video_files
from yt8m_distill.serving import window_page
from yt8m_distill.serving import window_tables
from yt8m_distill.serving import windows
from yt8m_distill.utils import cli
from yt8m_distill.utils import cores
from yt8m_distill.utils import files
from yt8m_distill.utils import parallel
from yt8m_distill.utils import ray_jobs

FLAGS = flags.FLAGS
_FORMATS = ('csv', 'parquet', 'html')
_JOINED, _PAGE = 'predictions.csv', 'page.html'


def predict(
  model: Sequence[str],
  input_path: str,
  output_dir: str,
  format: str = 'csv',
  top_k: int = 20,
  vocabulary: str = '',
  batch_size: int = 64,
  network: str | None = None,
  workers: int = cores.THREADS,
  skip_corrupt_records: bool = False,
  skip_malformed_records: bool = False,
  features: Sequence[str] = (),
  segments: int | None = None,
  classes: str = '',
  video_weight: bool = False,
  context: int | None = None,
  video: Sequence[str] = (),
  weights: str = '',
  model_weights: Sequence[str] = (),
  stopping: str = '',
  ray_address: str | None = None,
):
  """Predicts all shards that have no output yet; prints the result.

  Args: the values of the flags of the same names, which `--help` describes; sequences
    where a flag takes a list.

  Raises:
    ValueError: an argument or a record is invalid, or the folder belongs to another
      job.
    tf.errors.OpError: a file cannot be read or written. Finished files are kept.
  """
  cli.check_least(batch_size=batch_size, workers=workers, segments=segments)
  is_page = format == 'html'
  if is_page and segments is None:
    segments = model_config.WINDOW
  if not is_page:
    network = network or 'student'
  for name, is_given in (
    ('classes', classes),
    ('video_weight', video_weight),
    ('context', context is not None),
  ):
    if is_given and segments is None:
      raise ValueError(
        f'--{name} is given without --segments: add --segments=5, or leave it out.'
      )
  if video and not is_page:
    raise ValueError('--video is given without --format=html: add it, or leave it out.')
  if stopping and segments:
    raise ValueError(
      '--stopping is given with windows, of which a network sees all frames: leave it '
      'out.'
    )
  if model_weights and is_page:
    raise ValueError(
      '--model_weights is given with --format=html, which shows networks side by side '
      'and not their mean: leave it out, or export the networks as one.'
    )
  if ray_address and is_page:
    raise ValueError(
      '--ray_address is given with --format=html, which shows few videos: leave it out.'
    )
  if weights:
    paths = []
    videos = video_list.read(input_path)
    ids = [one.id for one in videos]
    # Before their features are computed, which takes long.
    if is_page:
      window_page.check_ids(video, ids, input_path)
    elif segments and format == 'csv':
      window_tables.check_ids(ids)
  else:
    paths = _find_records(input_path)
    videos = []
  stored = data.parse_features(features)
  networks = ensemble.Ensemble(
    model,
    network,
    top_k,
    stored,
    windows.Segments(segments, context, video_weight) if segments else None,
    model_weights,
    stopping,
  )
  vocabulary = vocabulary or networks.vocabulary
  names = (
    results_lib.read_vocabulary(vocabulary, networks.num_classes) if vocabulary else ()
  )
  chosen = None
  if segments:
    chosen = segment_metrics.read_classes(classes, networks.num_classes)
  if weights:
    paths = video_files.records(
      input_path,
      output_dir,
      weights,
      model,
      network,
      segments,
      stored,
      ray_address,
    )
  page = os.path.join(output_dir, _PAGE)
  outputs: Sequence[str] = [page]
  if not is_page:
    suffix = 'scores.parquet' if segments and format == 'csv' else format
    outputs = _outputs(paths, output_dir, suffix)
  joined = os.path.join(output_dir, _JOINED)
  job: dict[str, Any] = {
    'model': networks.versions,
    'network': network,
    'input_path': input_path,
    'format': format,
    'top_k': top_k,
    'vocabulary': vocabulary,
    'skip_corrupt_records': skip_corrupt_records,
    **skip_flags.given(skip_malformed_records=skip_malformed_records),
    'features': list(features),
  }
  if chosen is not None:
    job.update(
      segments=segments,
      # The file may change while the job is stopped.
      classes=f'{classes or "all"}, CRC {zlib.crc32(chosen.tobytes()):08x}',
      video_weight=video_weight,
      context=context,
    )
  if networks.model_weights:
    job['model_weights'] = networks.model_weights
  if networks.stopping:
    job['stopping'] = networks.stopping._asdict()
  if is_page:
    job['video'] = list(video)
  if weights:
    # A video that was replaced has other records.
    sizes = zlib.crc32(repr(shards.sizes(paths)).encode())
    job.update(weights=weights, records=f'{len(paths)}, CRC {sizes:08x}')
  files.claim_folder(
    os.path.join(output_dir, 'predict.json'),
    job,
    [*outputs, joined],
    inputs=(video_files.FOLDER,),
  )
  if is_page and chosen is not None:
    if not tf.io.gfile.exists(page):
      window_page.write(
        page,
        networks,
        paths,
        video,
        chosen,
        names,
        top_k,
        skip_corrupt_records,
        skip_malformed_records,
        video_files.thumbnails_of(videos) if weights else lambda _: (),
      )
    print(f'{page} is written: open it in a browser.')
    return
  table, join = _formats(format, chosen, top_k, names, networks.extras)
  predict = networks.windows if segments else networks
  written = parallel.write_shards(
    functools.partial(_write_shard, predict, table, skip_malformed_records),
    list(map(parallel.Shard, paths, shards.sizes(paths), outputs)),
    'Predicting',
    'B',
    workers,
    threads=True,  # They share the networks.
    open=functools.partial(shard_batches.of_shards, batch_size, skip_corrupt_records),
    ray_address=ray_address,
  )
  if format == 'csv':
    join(outputs, joined)
  returned = [shard.returned for shard in written] or [(0, 0, 0)]
  count, seen, skipped = map(sum, zip(*returned))
  print(parallel.summary(output_dir, len(outputs), len(written), count, 'video'))
  skip_flags.report(skipped)
  if seen:
    print(f'Frames seen per video: {seen / count:.2f}')
  if weights:
    for line in video_files.summaries(networks, paths, chosen, names):
      print(line)


def _find_records(input_path: str) -> list[str]:
  """Returns the paths of record files; raises a ValueError about a video file."""
  paths = shards.find(input_path)
  for path in paths:
    kind, _ = mimetypes.guess_type(path)
    if kind and kind.startswith('video/'):
      raise ValueError(
        f'{path} is a video file: add --weights, the folder of the networks for '
        'features, or set input_path to records that yt8m-distill extract wrote.'
      )
  return paths


def _formats(
  format: str,
  classes: np.ndarray | None,
  top_k: int,
  names: Sequence[str],
  extras: Sequence[str],
) -> tuple[Callable[[IO[bytes]], Any], Callable[[Sequence[str], str], None]]:
  """Chooses the files to write.

  Args:
    format: 'csv' or 'parquet'.
    classes: classes to predict in windows; None for files of videos.
    top_k: number of best classes of a window.
    names: of all classes; empty if unknown.
    extras: further outputs of videos, see `ensemble.Ensemble`.

  Returns:
    What makes a writer of a shard's file from the open file, and, in CSV format, what
    joins the files of all shards.
  """
  is_csv = format == 'csv'
  if classes is None:
    parquet = functools.partial(tables.Parquet, names=names, extras=extras)
    return tables.Csv if is_csv else parquet, tables.join_csv
  scores = functools.partial(window_tables.Scores, classes=classes)
  labels = functools.partial(
    window_tables.Labels, classes=classes, top_k=top_k, names=names
  )
  join = functools.partial(window_tables.join, classes=classes)
  return scores if is_csv else labels, join


def _outputs(paths, output_dir, suffix) -> Sequence[str]:
  """Returns the path of each shard's output."""
  shards_of = {_JOINED: 'the file of all shards'} if suffix == 'csv' else {}
  for path in paths:
    name = f'{re.sub("[.]tfrecord$", "", remote.file_name(path))}.{suffix}'
    if name in shards_of:
      raise ValueError(
        f'{path} and {shards_of[name]} would both be {name} in {output_dir}: '
        'rename one, or use a separate output_dir for each.'
      )
    shards_of[name] = path
  return [os.path.join(output_dir, name) for name in shards_of if name != _JOINED]


def _write_shard(
  networks: Callable[..., dict[str, tf.Tensor]],
  table: Callable[[IO[bytes]], Any],
  skip_malformed: bool,
  batches: Iterator[shard_batches.Batch],
  partial: str,
) -> Generator[int, None, tuple[int, int, int]]:
  """Predicts one shard, whose size is in bytes; see `parallel.Writer`.

  Args:
    networks: predicts a batch, see `ensemble.Ensemble`.
    table: makes a writer of `tables` or `window_tables` from an open file.
    skip_malformed: whether to leave out malformed records.
    batches: the shard's records.
    partial: path to write to.

  Returns:
    The number of videos, and of the frames that a network saw which stops when it is
    sure, otherwise 0; and how many records were skipped.
  """
  remote.ensure_file_system(partial)  # This process may not have it yet.
  count = seen = skipped = 0
  with (
    tf.io.gfile.GFile(partial, 'wb') as file,
    contextlib.closing(table(file)) as rows,
  ):
    for records in batches:
      predictions, left_out = shard_batches.apply(
        lambda batch: networks(*batch), records, skip_malformed
      )
      skipped += left_out
      if predictions:
        arrays = {key: value.numpy() for key, value in predictions.items()}
        rows.write(arrays)
        count += len(records[-1]) - left_out
        seen += int(np.sum(arrays.get('frames_seen', 0)))
      yield int(tf.reduce_sum(tf.strings.length(records[-1])))
  return count, seen, skipped


def _define_flags():
  ensemble.define_flags()
  ray_jobs.define_flags()
  stopping_lib.define_flags()
  flags.DEFINE_string(
    'input_path',
    None,
    'TFRecord files, with or without labels: patterns, ranges and @lists, '
    'separated by commas. With --weights, video files or a CSV, as for extract.',
    required=True,
  )
  flags.DEFINE_string(
    'output_dir',
    None,
    'Folder of the predictions. Without it, the best classes of video files are '
    'printed and nothing is kept.',
  )
  flags.DEFINE_enum('format', 'csv', _FORMATS, 'Format of the files.')
  flags.DEFINE_integer(
    'top_k',
    20,
    'Number of best classes per video, or with --segments per window; the CSV of '
    'windows holds all classes, HTML the best ones of each video.',
  )
  flags.DEFINE_string(
    'vocabulary',
    '',
    'CSV with Index and Name of the classes, for Parquet, HTML and what is printed of '
    'video files. Default: the vocabulary of the first model that has one.',
  )
  flags.DEFINE_integer('batch_size', 64, 'Videos predicted at once.')
  flags.DEFINE_enum(
    'network',
    None,
    ('student', 'teacher'),
    'Which network of runs that have both. Default: the student; in HTML both.',
  )
  flags.DEFINE_integer(
    'workers',
    cores.THREADS,
    'Number of shards predicted at the same time, with --ray_address on each node.',
  )
  flags.DEFINE_integer(
    'segments',
    None,
    'Predict windows of this many frames (5 in YouTube-8M Segments, and by default in '
    'HTML), not whole videos.',
  )
  flags.DEFINE_string(
    'classes',
    '',
    'With --segments: CSV whose column Index names the classes to predict, such as '
    'segment_label_ids.csv. Default: all.',
  )
  flags.DEFINE_bool(
    'video_weight',
    False,
    "With --segments: multiply a class' probability in a window by that in the video.",
  )
  windows.define_flags()
  flags.DEFINE_list(
    'video',
    [],
    f'With --format=html: ids of the videos to show. Default: the first '
    f'{window_page.MOST}.',
  )
  flags.DEFINE_string(
    'weights',
    '',
    'To predict video files: folder of the networks for features, see '
    'yt8m_distill/features/README.md. Their records are kept in the output folder.',
  )
  skip_flags.define_flags()


def main(_):
  """Runs the command."""
  values = {name: FLAGS[name].value for name in inspect.signature(predict).parameters}
  if values['output_dir']:
    predict(**values)
    return
  if not values['weights'] or values['format'] == 'html':
    raise ValueError(
      'output_dir is missing: name the folder of predictions. Without one, only the '
      'best classes of video files (--weights) are printed.'
    )
  if values['ray_address']:
    raise ValueError(
      'output_dir is missing, and --ray_address is given: name a folder that all nodes '
      'share.'
    )
  with tempfile.TemporaryDirectory() as folder:
    predict(**{**values, 'output_dir': folder})


if __name__ == '__main__':
  _define_flags()
  cli.run(main)
