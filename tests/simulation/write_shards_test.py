"""Tests of shards of simulated videos: format, order, sources and errors."""

import functools
import operator
import pathlib

import frame_readers
import numpy as np
import paths
import processes
import pytest
import records
import tensorflow as tf

from yt8m_distill.dataloaders import split_segments
from yt8m_distill.simulation import frames as frames_lib
from yt8m_distill.simulation import video_level as video_level_lib
from yt8m_distill.simulation import write_shards

_SMALL = dict(num_classes=12, rgb_size=24, audio_size=8)


@pytest.fixture(name='video_level')
def _video_level(tmp_path):
  """Writes small video-level records; returns a function that changes one."""

  def write(name='records', **changes):
    rng = np.random.default_rng(3)
    path = tmp_path / f'{name}.tfrecord'
    videos = []
    for number in range(6):
      values = {
        'id': b'%s%d' % (name.encode(), number),
        'labels': [number % 3, 5],
        'mean_rgb': rng.uniform(-1, 1, 24),
        'mean_audio': rng.uniform(-1, 1, 8),
      }
      values.update(changes if number == 4 else {})
      videos.append(records.video_level(**values))
    records.write(path, videos)
    return str(tmp_path / '*.tfrecord')

  return write


def test_shards_have_the_official_format(tmp_path):
  paths = write_shards.simulate(
    str(tmp_path / 'new'), 'train', 7, 3, num_classes=12, workers=1
  )
  names = [f'train000{shard}.tfrecord' for shard in range(3)]
  assert [pathlib.Path(path).name for path in paths] == names
  assert sorted(path.name for path in (tmp_path / 'new').iterdir()) == [
    'simulate_train.json',
    *names,
  ]
  shards = [records.parse(path) for path in paths]
  assert [len(shard) for shard in shards] == [3, 3, 1]
  videos = functools.reduce(operator.iadd, shards, [])
  assert len({video_id for video_id, *_ in videos}) == 7
  for video_id, labels, rgb, audio in videos:
    assert video_id
    assert 1 <= len(labels) == len(set(labels))
    assert labels.min() >= 0 and labels.max() < 12
    assert 120 <= len(rgb) <= 300
    assert rgb.shape[1] == 1024 and audio.shape == (len(rgb), 128)


def _take_ratings(serialized):
  """Returns {window and class: score} of a record, and the record without them."""
  record = tf.train.SequenceExample.FromString(serialized)
  context = record.context.feature
  starts, ends, class_ids = (
    context.pop(f'segment_{key}').int64_list.value
    for key in ('start_times', 'end_times', 'labels')
  )
  scores = context.pop('segment_scores').float_list.value
  assert len(starts) == len(ends) == len(class_ids) == len(scores)
  assert [*ends] == [start + 5 for start in starts]
  ratings = dict(zip(zip(starts, class_ids), scores))
  assert len(ratings) == len(scores)
  return ratings, record.SerializeToString(deterministic=True)


def test_cutaways_change_frames_only(tmp_path):
  plain, cut = (
    write_shards.simulate(
      str(tmp_path / str(share)),
      'x',
      1,
      segments='dense',
      cutaways=share,
      workers=1,
      **_SMALL,
    )[0]
    for share in (0.0, 0.5)
  )
  (before, before_ratings), (after, after_ratings) = (
    (records.parse(path)[0], _take_ratings(records.read(path)[0])[0])
    for path in (plain, cut)
  )
  assert before_ratings == after_ratings
  assert before[0] == after[0] and [*before[1]] == [*after[1]]
  assert before[2].shape == after[2].shape
  assert not np.array_equal(before[2], after[2])


@pytest.mark.parametrize('segments', ['sparse', 'dense'])
@pytest.mark.parametrize('from_records', [False, True])
def test_ratings_are_true_and_all_that_segments_adds(
  tmp_path, monkeypatch, video_level, segments, from_records
):
  settings = dict(_SMALL, video_level=video_level()) if from_records else _SMALL
  plans = []

  def spied(*arguments, plan=frames_lib.shot_plan):
    plans.append(plan(*arguments))
    return plans[-1]

  monkeypatch.setattr(frames_lib, 'shot_plan', spied)

  def write(name, segments):
    written = write_shards.simulate(
      str(tmp_path / name), 'x', 6, 4, segments=segments, workers=1, **settings
    )
    return [record for path in written for record in records.read(path)]

  rated = write('rated', segments)
  videos = [_take_ratings(record) for record in rated]
  assert len(videos) == len(plans) == 6
  for (ratings, _), (lengths, shown) in zip(videos, plans):
    frames = np.repeat(shown, lengths)
    for (start, class_id), score in ratings.items():
      window = frames[start : start + 5]
      assert score == (np.sum(window == class_id) > len(window) / 2)
  plain = write('plain', None)
  assert plain == [record for _, record in videos]
  # Each rated window becomes a record.
  windows = split_segments.split(
    str(tmp_path / 'rated' / '*.tfrecord'), str(tmp_path / 'windows'), workers=1
  )
  assert sum(len(records.read(path)) for path in windows) == sum(
    len({start for start, _ in ratings}) for ratings, _ in videos
  )
  # The reader takes both for videos with labels.
  reader = frame_readers.reader({'rgb': 24, 'audio': 8}, num_classes=12)
  (inputs, labels), (expected_inputs, expected_labels) = (
    frame_readers.read(reader, *batch) for batch in (rated, plain)
  )
  assert labels.any(1).all()
  np.testing.assert_array_equal(labels, expected_labels)
  for key, value in expected_inputs.items():
    np.testing.assert_array_equal(inputs[key], value)


@pytest.mark.end_to_end
def test_shards_depend_on_seed_split_and_shard_only(tmp_path):
  def write(name, split='train', seed=4, workers=1):
    paths = write_shards.simulate(
      str(tmp_path / name),
      split,
      6,
      3,
      seed=seed,
      segments='sparse',
      workers=workers,
      **_SMALL,
    )
    return [pathlib.Path(path).read_bytes() for path in paths]

  first, second = write('one')
  assert first != second
  assert write('two', workers=2) == [first, second]
  assert not {first, second} & set(write('three', seed=5))
  write('one', split='validate')
  frames = [
    [
      rgb.tobytes()
      for path in sorted((tmp_path / 'one').glob(glob))
      for _, _, rgb, _ in records.parse(path)
    ]
    for glob in ('t*', 'v*')
  ]
  assert len(frames[0]) == len(frames[1]) == 6
  assert not set(frames[0]) & set(frames[1])


def test_splits_of_one_seed_share_their_classes(tmp_path):
  def label_means(split, seed):
    (path,) = write_shards.simulate(
      str(tmp_path / f'{seed}'),
      split,
      150,
      seed=seed,
      num_classes=4,
      rgb_size=64,
      audio_size=16,
    )
    sums = np.zeros((4, 64))
    for _, labels, rgb, _ in records.parse(path):
      sums[labels] += records.dequantize(rgb).mean(0)
    sums -= sums.mean(0)
    return sums / np.linalg.norm(sums)

  train = label_means('train', 1)
  assert np.sum(train * label_means('validate', 1)) > 0.8
  assert np.sum(train * label_means('train', 2)) < 0.5


@pytest.mark.end_to_end
def test_video_level_records_become_videos(tmp_path, video_level):
  pattern = video_level('a')
  video_level('b')
  for workers, name in ((1, 'one'), (2, 'two')):
    write_shards.simulate(
      str(tmp_path / name),
      'x',
      10,
      4,
      video_level=pattern,
      workers=workers,
      **_SMALL,
    )
  paths = sorted((tmp_path / 'one').glob('*.tfrecord'))
  assert [path.read_bytes() for path in paths] == [
    path.read_bytes() for path in sorted((tmp_path / 'two').glob('*.tfrecord'))
  ]
  shards = [records.parse(path) for path in paths]
  assert [len(shard) for shard in shards] == [4, 4, 2]
  assert [video_id for shard in shards for video_id, *_ in shard] == [
    b'a%d' % number for number in range(6)
  ] + [b'b%d' % number for number in range(4)]
  everything = write_shards.simulate(
    str(tmp_path / 'all'), 'x', video_level=pattern, **_SMALL
  )
  assert sum(len(records.parse(path)) for path in everything) == 12
  listed = write_shards.simulate(
    str(tmp_path / 'range'), 'x', video_level=pattern.replace('*', '{a..b}'), **_SMALL
  )
  assert [pathlib.Path(path).read_bytes() for path in listed] == [
    pathlib.Path(path).read_bytes() for path in everything
  ]


@pytest.mark.end_to_end
def test_real_video_level_records_keep_labels_and_means(tmp_path):
  pattern = str(paths.REAL / 'validate00*.tfrecord')
  (path,) = write_shards.simulate(
    str(tmp_path), 'validate', 120, 120, video_level=pattern
  )
  videos = records.parse(path)
  assert len(videos) == 120
  world, files = video_level_lib.read_world(
    sorted(tf.io.gfile.glob(pattern)), 120, 3862, 1024, 128
  )
  stds = []
  for record, (video_id, labels, rgb, audio) in zip(
    video_level_lib.read_records(world, files, 0), videos
  ):
    assert video_id == record.video_id
    assert list(labels) == list(record.labels)
    frames = records.dequantize(np.concatenate([rgb, audio], axis=1))
    np.testing.assert_allclose(frames.mean(0), record.mean, atol=0.01)
    stds.append(frames[:, :1024].std(1).mean())
  assert np.mean(stds) == pytest.approx(1.0, abs=0.03)


def test_2017_records_name_their_video_id(tmp_path):
  pattern = str(paths.REAL / 'validatea0_first32.tfrecord')
  (path,) = write_shards.simulate(
    str(tmp_path), 'x', 3, video_level=pattern, num_classes=4716
  )
  assert [len(video_id) for video_id, *_ in records.parse(path)] == [11] * 3


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(num_videos=0), '^--num_videos is missing: give .* --video_level'),
    (dict(num_videos=-2), 'num_videos is -2'),
    (dict(videos_per_shard=0), 'videos_per_shard is 0'),
    (dict(num_classes=1), 'num_classes is 1'),
    (dict(num_classes=10**12), 'num_classes is 10+: it must be at most 1,000,000'),
    (dict(num_videos=10**12), 'num_videos is 10+ and .* more than 1,000,000 files'),
    (dict(seed=-1), 'seed is -1'),
    (dict(rgb_size=0), 'rgb_size is 0'),
    (dict(min_frames=9), 'min_frames is 9'),
    (dict(min_frames=50, max_frames=40), 'max_frames is 40: it must be 50 or more'),
    (dict(segments='all'), "^segments is 'all': it must be one of sparse, dense. Set"),
    (dict(cutaways=1.0), '^cutaways is 1.0: it must be 0 or more, and below 1.'),
    (dict(cutaways=-0.1), '^cutaways is -0.1'),
    (dict(cutaways=float('nan')), '^cutaways is nan'),
    (dict(split='a/b'), "split is 'a/b'"),
    (dict(video_level='/nowhere/*'), r"video_level is '/nowhere/\*': no file matches"),
  ],
)
def test_bad_arguments_are_named(tmp_path, changes, message):
  arguments = {'split': 'train', 'num_videos': 2, **_SMALL, **changes}
  with pytest.raises(ValueError, match=message):
    write_shards.simulate(str(tmp_path), **arguments)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  'changes, message',
  [
    (dict(mean_rgb=[]), "mean_rgb of record b'bad4' of .* 0 floats: it must have 24"),
    (dict(mean_audio=[0.0] * 9), 'mean_audio of .* has 9 floats'),
    (dict(mean_rgb=[2.1] * 24), 'has invalid values: .* between -1.992 and 2.008'),
    (dict(mean_rgb=[np.nan] * 24), 'has invalid values: .* between -1.992 and 2.008'),
    (dict(labels=[]), "labels of record b'bad4' .* missing. Use the train"),
    (dict(labels=[3, 12]), r'are \[3, 12\]: they must be between 0 and 11'),
    (dict(labels=[-1]), r'are \[-1\]: they must be between 0 and 11'),
    (dict(id=b''), 'neither id nor video_id'),
  ],
)
def test_bad_records_are_named(tmp_path, video_level, changes, message):
  with pytest.raises(ValueError, match=message):
    write_shards.simulate(
      str(tmp_path / 'new'), 'x', video_level=video_level('bad', **changes), **_SMALL
    )
  assert not (tmp_path / 'new').exists()


def test_a_record_that_is_no_protobuf_is_named(tmp_path):
  path = records.write(tmp_path / 'bad.tfrecord', [b'\xff\xff nonsense'])
  with pytest.raises(
    ValueError, match='A record of .*bad.tfrecord is not a tf.train.Ex'
  ):
    write_shards.simulate(str(tmp_path / 'new'), 'x', video_level=path, **_SMALL)


def test_damaged_and_empty_files_are_named(tmp_path):
  path = tmp_path / 'records'
  for content, message in (
    (b'', '1 files, such as .*records, without any record'),
    (b'text' * 20, 'records is corrupt'),
  ):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
      write_shards.simulate(str(tmp_path), 'x', video_level=str(path), **_SMALL)


def test_shards_are_never_overwritten(tmp_path):
  path = tmp_path / 'train0003.tfrecord'
  path.write_bytes(b'kept')
  with pytest.raises(ValueError, match='train0003.tfrecord exists, but no '):
    write_shards.simulate(str(tmp_path), 'train', 2, **_SMALL)
  assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b'kept'
  write_shards.simulate(str(tmp_path), 'validate', 2, **_SMALL)


def test_repeated_call_writes_only_missing_shards(tmp_path, capsys):
  def write(**changes):
    return [
      pathlib.Path(path)
      for path in write_shards.simulate(
        str(tmp_path),
        'train',
        4,
        2,
        workers=1,
        **{**_SMALL, 'segments': 'sparse', **changes},
      )
    ]

  def printed():
    return capsys.readouterr().out.removeprefix(f'{tmp_path}: ')

  first, second = write()
  assert printed() == '2 shards, 4 videos.\n'
  content = second.read_bytes()
  second.unlink()
  first.write_bytes(b'kept')
  assert write() == [first, second]
  assert printed() == '2 shards, 1 of them written now, 2 videos.\n'
  write()
  assert printed() == '2 shards, already complete.\n'
  assert first.read_bytes() == b'kept' and second.read_bytes() == content
  with pytest.raises(ValueError, match='another job: seed is 1, was 0'):
    write(seed=1)
  with pytest.raises(ValueError, match="job: segments is 'dense', was 'sparse'"):
    write(segments='dense')
  with pytest.raises(ValueError, match='job: cutaways is 0.5, was None'):
    write(cutaways=0.5)


def test_a_failed_shard_has_no_final_name(tmp_path, monkeypatch):
  def fail(*unused):
    raise RuntimeError('no frames')

  monkeypatch.setattr(frames_lib, 'simulate_frames', fail)
  with pytest.raises(RuntimeError, match='no frames'):
    write_shards.simulate(str(tmp_path), 'train', 2, **_SMALL)
  assert not list(tmp_path.glob('*.tfrecord'))
  # The corrected job may begin, beside another split.
  monkeypatch.undo()
  for split, videos in (('validate', 2), ('train', 3)):
    write_shards.simulate(str(tmp_path), split, videos, **_SMALL)
  (tmp_path / 'train0000.tfrecord').rename(tmp_path / 'train0000.tfrecord.partial')
  with pytest.raises(ValueError, match='another job: num_videos is 4, was 3'):
    write_shards.simulate(str(tmp_path), 'train', 4, **_SMALL)


@pytest.mark.end_to_end
def test_command_line(tmp_path):
  processes.forked(
    *('-m', write_shards.__name__),
    f'--output_dir={tmp_path}',
    '--split=test',
    '--num_videos=3',
    '--num_classes=5',
    '--seed=2',
    '--videos_per_shard=2',
    '--segments=dense',
  )
  shards = sorted(tmp_path.glob('*.tfrecord'))
  assert [len(records.parse(path)) for path in shards] == [2, 1]
  ratings, _ = _take_ratings(records.read(shards[0])[0])
  assert len(ratings) > 30
