r"""Splits the records of YouTube-8M Segments into one record per rated window.

  yt8m-distill split-segments --input_path='3/frame/validate/*.tfrecord' \
    --output_dir=windows/validate --context=0

A rated window is 5 frames (seconds) of a video. Its record holds them and, with
--context, frames around them; `window_records` describes it. Frames are copied
unchanged. Output files keep the names of their sources and appear only when complete.
After an interruption, the same command writes the files that are missing;
split_segments.json in the output folder records its settings.

A window that starts after the last frame of its video is left out; the official
records have such windows. Their number is printed at the end.
"""

from collections.abc import Sequence
import functools

from absl import flags
import tensorflow as tf

from yt8m_distill.configs import model as model_config
from yt8m_distill.dataloaders import record_errors
from yt8m_distill.dataloaders import record_parser
from yt8m_distill.dataloaders import rewrite
from yt8m_distill.dataloaders import segment_records
from yt8m_distill.dataloaders import shard_batches
from yt8m_distill.dataloaders import shards
from yt8m_distill.dataloaders import window_records
from yt8m_distill.utils import cli
from yt8m_distill.utils import parallel
from yt8m_distill.utils import startup


def split_record(
  serialized: bytes, context: int, path: str, index: int
) -> tuple[list[bytes], int]:
  """Splits a video into its rated windows.

  Args:
    serialized: a record of YouTube-8M Segments.
    context: frames to keep before and after each window; -1 for the whole video.
    path: file of the record, for messages and a missing id.
    index: its position in the file, likewise.

  Returns:
    The windows' records, serialized, in the order of their starts; and how many
    windows are left out because they start after the last frame.

  Raises:
    ValueError: the record is not frame-level, was thinned, or has no valid ratings.
  """
  name = record_errors.name_of(path, index)
  video, num_frames = rewrite.parse(serialized, name)
  features = video.context.feature
  video_id = record_parser.video_id(features, path, index)
  ratings = segment_records.ratings(
    features, f'{name} (id {record_errors.escape(video_id)})'
  )
  for key in segment_records.LISTS:
    del features[key]
  starts = sorted(start for start in ratings if start < num_frames)
  windows = []
  for start in starts:
    first, last = 0, num_frames
    if context >= 0:
      first, last = max(0, start - context), start + model_config.WINDOW + context
    window = tf.train.SequenceExample(context=video.context)
    _set(window, 'id', bytes_list=[b'%s:%d' % (video_id, start)])
    _set(window, window_records.START, int64_list=[start - first])
    _set(window, window_records.LABELS, int64_list=ratings[start])
    _set(window, window_records.SCORES, float_list=ratings[start].values())
    for key, frames in video.feature_lists.feature_list.items():
      window.feature_lists.feature_list[key].feature.extend(frames.feature[first:last])
    windows.append(rewrite.serialize(window))
  return windows, len(ratings) - len(starts)


def _set(record, key: str, **values):
  """Sets a value of a record's context."""
  feature = record.context.feature[key]
  feature.Clear()
  for kind, value in values.items():
    getattr(feature, kind).value.extend(value)


def split(
  input_path: str,
  output_dir: str,
  context: int = 0,
  skip_corrupt_records: bool = False,
  skip_malformed_records: bool = False,
  workers: int | None = None,
  ray_address: str | None = None,
) -> list[str]:
  """Splits the shards that are not split yet; prints the result.

  Args:
    input_path: see `file_patterns`.
    output_dir: folder for the new shards; created if missing.
    context: frames to keep before and after each window; -1 for the whole video.
    skip_corrupt_records: log and skip records that fail their checksum.
    skip_malformed_records: log and skip records that are invalid otherwise.
    workers: as for `parallel.write_shards`.
    ray_address: see `parallel.write_shards`.

  Returns:
    The paths of all shards, in the order of their sources.

  Raises:
    ValueError: an argument or a record is invalid, or the folder belongs to another
      job.
  """
  if context < -1:
    raise ValueError(
      f'context is {context}: it must be a number of frames, or -1 for the whole video.'
    )
  outputs, written = rewrite.rewrite(
    functools.partial(_change, context=context),
    input_path,
    output_dir,
    'split_segments.json',
    {'context': context},
    'Splitting',
    skip_corrupt_records,
    skip_malformed_records,
    workers,
    ray_address=ray_address,
  )
  windows = sum(shards.count_by_file([shard.output for shard in written]))
  print(parallel.summary(output_dir, len(outputs), len(written), windows, 'window'))
  left_out = sum(shard.returned for shard in written)
  if left_out:
    print(
      'Left out, because they start after the last frame of their video: '
      f'{left_out:,} of {windows + left_out:,}.'
    )
  return outputs


def _change(records: Sequence[shard_batches.Record], context: int):
  """Splits records; see `rewrite.Change`."""
  for path, index, serialized in records:
    yield split_record(serialized, context, path, index)


def _define_flags():
  rewrite.define_flags()
  flags.DEFINE_integer(
    'context',
    0,
    'Frames to keep before and after each window, for networks that see more than the '
    'window; -1 for the whole video.',
  )


def main(_):
  """Runs the command."""
  startup.use_no_accelerator()
  values = flags.FLAGS
  split(
    values.input_path,
    values.output_dir,
    values.context,
    values.skip_corrupt_records,
    values.skip_malformed_records,
    ray_address=values.ray_address,
  )


if __name__ == '__main__':
  _define_flags()
  cli.run(main)
