"""Tests of the simulated frame-level shards."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill.dataloaders import simulate
from yt8m_distill.dataloaders import simulated_frames
from yt8m_distill.dataloaders import simulated_records

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_REAL = _ROOT.parent / 'shared' / 'data' / 'yt8m'
_SMALL = dict(num_classes=12, rgb_size=24, audio_size=8)
_RGB = slice(0, 1024)


def _real(pattern):
  if not sorted(_REAL.glob(pattern)):
    pytest.skip(f'no real records {_REAL / pattern}')
  return str(_REAL / pattern)


def _parse(path):
  """Returns (id, labels, rgb, audio) of every record of a shard."""
  feature = tf.io.FixedLenSequenceFeature([], tf.string)
  videos = []
  for serialized in tf.data.TFRecordDataset(str(path)):
    context, frames = tf.io.parse_single_sequence_example(
        serialized,
        {'id': tf.io.FixedLenFeature([], tf.string),
         'labels': tf.io.VarLenFeature(tf.int64)},
        {'rgb': feature, 'audio': feature})
    videos.append((
        context['id'].numpy(), context['labels'].values.numpy(),
        tf.io.decode_raw(frames['rgb'], tf.uint8).numpy(),
        tf.io.decode_raw(frames['audio'], tf.uint8).numpy()))
  return videos


def _floats(quantised):
  return quantised * (4 / 255) + (4 / 512 - 2)


def _correlation(frames, lag):
  """Mean correlation of the feature vectors of frames `lag` apart."""
  frames = frames - frames.mean(1, keepdims=True)
  frames /= np.sqrt(np.square(frames).sum(1, keepdims=True))
  return float((frames[:-lag] * frames[lag:]).sum(1).mean())


def _statistics(frames):
  """Returns std, adjacent and distant correlation of float frames."""
  distant = np.mean([_correlation(frames, lag) for lag in (30, 50, 100)])
  return float(frames.std(1).mean()), _correlation(frames, 1), float(distant)


def _draw(rng, world, mean=None):
  """Returns labels, mean, float frames and the plan of one random video."""
  labels, drawn = simulated_frames.random_record(rng, world, 20)
  mean = drawn if mean is None else mean
  length = simulated_frames.random_length(rng, len(labels), 120, 300)
  plan = simulated_frames.shot_plan(rng, labels, length)
  frames = simulated_frames.simulate_frames(rng, world, mean, *plan)
  assert frames.dtype == np.uint8 and frames.shape == (length, len(mean))
  return labels, mean, _floats(frames), plan


@pytest.fixture(name='world', scope='module')
def _world():
  return simulated_frames.random_world(
      np.random.default_rng(1), 100, 1024, 128)


@pytest.fixture(name='videos', scope='module')
def _videos(world):
  rng = np.random.default_rng(2)
  return [_draw(rng, world) for _ in range(30)]


@pytest.fixture(name='video_level')
def _video_level(tmp_path):
  """Writes small video-level records; returns a function that changes one."""

  def write(name='records', **changes):
    rng = np.random.default_rng(3)
    path = tmp_path / f'{name}.tfrecord'
    with tf.io.TFRecordWriter(str(path)) as writer:
      for number in range(6):
        values = {'id': b'%s%d' % (name.encode(), number),
                  'labels': [number % 3, 5],
                  'mean_rgb': rng.uniform(-1, 1, 24),
                  'mean_audio': rng.uniform(-1, 1, 8)}
        values.update(changes if number == 4 else {})
        example = tf.train.Example()
        for key, value in values.items():
          feature = example.features.feature[key]
          if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
          elif key == 'labels':
            feature.int64_list.value.extend(value)
          else:
            feature.float_list.value.extend(value)
        writer.write(example.SerializeToString())
    return str(tmp_path / '*.tfrecord')

  return write


def test_shards_have_the_official_format(tmp_path):
  paths = simulate.simulate(
      str(tmp_path / 'new'), 'train', 7, 3, num_classes=12, processes=1)
  names = [f'train000{shard}.tfrecord' for shard in range(3)]
  assert [pathlib.Path(path).name for path in paths] == names
  assert sorted(path.name for path in (tmp_path / 'new').iterdir()) == names
  shards = [_parse(path) for path in paths]
  assert [len(shard) for shard in shards] == [3, 3, 1]
  videos = sum(shards, [])
  assert len({video_id for video_id, *_ in videos}) == 7
  for video_id, labels, rgb, audio in videos:
    assert video_id
    assert 1 <= len(labels) == len(set(labels))
    assert 0 <= labels.min() and labels.max() < 12
    assert 120 <= len(rgb) <= 300
    assert rgb.shape[1] == 1024 and audio.shape == (len(rgb), 128)


def test_shards_depend_on_seed_split_and_shard_only(tmp_path):
  def write(name, split='train', seed=4, processes=1):
    paths = simulate.simulate(str(tmp_path / name), split, 6, 3, seed=seed,
                              processes=processes, **_SMALL)
    return [pathlib.Path(path).read_bytes() for path in paths]

  first, second = write('one')
  assert first != second
  assert write('two', processes=2) == [first, second]
  assert not {first, second} & set(write('three', seed=5))
  write('one', split='validate')
  frames = [[rgb.tobytes() for path in sorted((tmp_path / 'one').glob(glob))
             for _, _, rgb, _ in _parse(path)] for glob in ('t*', 'v*')]
  assert len(frames[0]) == len(frames[1]) == 6
  assert not set(frames[0]) & set(frames[1])


def test_splits_of_one_seed_share_their_classes(tmp_path):
  def label_means(split, seed):
    path, = simulate.simulate(str(tmp_path / f'{seed}'), split, 150, seed=seed,
                              num_classes=4, rgb_size=64, audio_size=16)
    sums = np.zeros((4, 64))
    for _, labels, rgb, _ in _parse(path):
      sums[labels] += _floats(rgb).mean(0)
    sums -= sums.mean(0)
    return sums / np.linalg.norm(sums)

  train = label_means('train', 1)
  assert np.sum(train * label_means('validate', 1)) > 0.8
  assert np.sum(train * label_means('train', 2)) < 0.5


@pytest.mark.parametrize('num_labels', [1, 3, 8, 23])
def test_every_label_has_shots_of_its_own(num_labels):
  rng = np.random.default_rng(num_labels)
  labels = 100 + np.arange(num_labels)
  seen = []
  for num_frames in [5 * (num_labels + 1), 121, 180, 300] * 10:
    num_frames = max(num_frames, 5 * (num_labels + 1))
    lengths, shown = simulated_frames.shot_plan(rng, labels, num_frames)
    assert lengths.sum() == num_frames and len(lengths) == len(shown)
    assert lengths.min() >= 5 and lengths.max() <= 30
    assert set(shown) == {*labels, simulated_frames.FILLER}
    seen.append(tuple(shown))
  assert len(set(seen)) > 10


def test_lengths_are_uniform_and_fit_the_labels():
  rng = np.random.default_rng(0)
  lengths = [simulated_frames.random_length(rng, 2, 120, 300)
             for _ in range(4000)]
  assert min(lengths) == 120 and max(lengths) == 300
  assert np.mean(lengths) == pytest.approx(210, abs=4)
  assert simulated_frames.random_length(rng, 59, 120, 300) == 300
  with pytest.raises(ValueError, match='60 labels needs 305 frames'):
    simulated_frames.random_length(rng, 60, 120, 300)


def test_a_labels_frames_are_told_from_the_others(world, videos):
  right = []
  for labels, _, frames, (lengths, shown) in videos:
    shown = np.repeat(shown, lengths)
    for label in labels:
      score = frames @ world.prototypes[label]
      own, other = score[shown == label], score[shown != label]
      right.append(np.mean(own[:, None] > other))
  assert np.mean(right) > 0.95


def test_frames_measure_like_the_real_record(videos):
  for dims, expected in ((_RGB, (1.0, 0.49, 0.05)),
                         (slice(1024, None), (0.92, 0.64, 0.07))):
    measured = np.mean([_statistics(frames[:, dims])
                        for _, _, frames, _ in videos], axis=0)
    np.testing.assert_allclose(measured, expected, atol=0.03)


def test_real_record_measures_like_the_constants():
  path = _real('2/frame/*.tfrecord')
  (_, _, rgb, audio), = _parse(tf.io.gfile.glob(path)[0])
  for quantised, spread in ((rgb, simulated_frames.RGB_SPREAD),
                            (audio, simulated_frames.AUDIO_SPREAD)):
    std, adjacent, distant = _statistics(_floats(quantised))
    assert std == pytest.approx(spread.std, abs=0.01)
    assert adjacent == pytest.approx(spread.adjacent, abs=0.01)
    assert distant == pytest.approx(0.05, abs=0.04)


def test_frames_average_to_the_mean(world, videos):
  for _, mean, frames, _ in videos:
    np.testing.assert_allclose(frames.mean(0), mean, atol=0.01)
  rng = np.random.default_rng(5)
  wide = rng.uniform(*_floats(np.array([0, 255])), 1152).astype(np.float32)
  wide[:4] = _floats(np.array([0, 255, 1, 254]))
  for _ in range(5):
    _, _, frames, _ = _draw(rng, world, wide)
    np.testing.assert_allclose(frames.mean(0), wide, atol=0.01)


def test_labels_are_heavy_tailed_as_in_youtube_8m():
  world = simulated_frames.random_world(np.random.default_rng(0), 3862, 4, 2)
  rng = np.random.default_rng(1)
  labels = [simulated_frames.random_record(rng, world, 20)[0]
            for _ in range(2500)]
  sizes = np.array([len(label) for label in labels])
  assert sizes.min() == 1 and sizes.max() > 7
  assert sizes.mean() == pytest.approx(3.0, abs=0.15)
  assert all(len(set(label)) == len(label) for label in labels)
  share = np.bincount(np.concatenate(labels) + 1, minlength=3863) / len(labels)
  # Shares of the 2018 validation records at these ranks.
  for rank, real in ((1, 0.20), (10, 0.038), (100, 0.0043), (500, 0.0009)):
    about = share[int(np.ceil(rank * 0.9)):int(rank * 1.1) + 1].mean()
    assert real / 2 < about < real * 2


def test_more_frames_tell_more(world):
  rng = np.random.default_rng(6)
  precisions = []
  for _ in range(200):
    labels, _, frames, _ = _draw(rng, world)
    means = np.stack([frames[::every].mean(0) for every in (1, 10, 30)])
    # Average precision of the true labels, ranked by nearest prototype.
    ranks = np.argsort(np.argsort(-means @ world.prototypes.T))[:, labels] + 1
    found = np.arange(1, len(labels) + 1)
    precisions.append((found / np.sort(ranks)).mean(1))
  every, tenth, thirtieth = np.mean(precisions, axis=0)
  assert every > 0.85
  assert every > tenth + 0.004
  assert tenth > thirtieth + 0.03


def test_video_level_records_become_videos(tmp_path, video_level):
  pattern = video_level('a')
  video_level('b')
  for processes, name in ((1, 'one'), (2, 'two')):
    simulate.simulate(str(tmp_path / name), 'x', 10, 4, video_level=pattern,
                      processes=processes, **_SMALL)
  paths = sorted((tmp_path / 'one').iterdir())
  assert [path.read_bytes() for path in paths] == [
      path.read_bytes() for path in sorted((tmp_path / 'two').iterdir())]
  shards = [_parse(path) for path in paths]
  assert [len(shard) for shard in shards] == [4, 4, 2]
  assert [video_id for shard in shards for video_id, *_ in shard] == [
      b'a%d' % number for number in range(6)
  ] + [b'b%d' % number for number in range(4)]
  everything = simulate.simulate(
      str(tmp_path / 'all'), 'x', video_level=pattern, **_SMALL)
  assert sum(len(_parse(path)) for path in everything) == 12
  listed = simulate.simulate(
      str(tmp_path / 'range'), 'x',
      video_level=pattern.replace('*', '{a..b}'), **_SMALL)
  assert [pathlib.Path(path).read_bytes() for path in listed] == [
      pathlib.Path(path).read_bytes() for path in everything]


def test_real_video_level_records_keep_labels_and_means(tmp_path):
  pattern = _real('2/video/validate/validate00*.tfrecord')
  path, = simulate.simulate(str(tmp_path), 'validate', 120, 120,
                            video_level=pattern)
  videos = _parse(path)
  assert len(videos) == 120
  world, files = simulated_records.read_world(
      sorted(tf.io.gfile.glob(pattern)), 120, 3862, 1024, 128)
  stds = []
  for record, (video_id, labels, rgb, audio) in zip(
      simulated_records.read_records(world, files, 0), videos):
    assert video_id == record.video_id
    assert list(labels) == list(record.labels)
    frames = _floats(np.concatenate([rgb, audio], axis=1))
    np.testing.assert_allclose(frames.mean(0), record.mean, atol=0.01)
    stds.append(frames[:, _RGB].std(1).mean())
  assert np.mean(stds) == pytest.approx(1.0, abs=0.03)


def test_2017_records_name_their_video_id(tmp_path):
  pattern = _real('1/video_level/validatea0.tfrecord')
  path, = simulate.simulate(str(tmp_path), 'x', 3, video_level=pattern,
                            num_classes=4716)
  assert [len(video_id) for video_id, *_ in _parse(path)] == [11] * 3


@pytest.mark.parametrize('changes, message', [
    (dict(num_videos=0), 'num_videos is 0: give at least 1'),
    (dict(num_videos=-2), 'num_videos is -2'),
    (dict(videos_per_shard=0), 'videos_per_shard is 0'),
    (dict(num_classes=1), 'num_classes is 1'),
    (dict(seed=-1), 'seed is -1'),
    (dict(rgb_size=0), 'rgb_size is 0'),
    (dict(min_frames=9), 'min_frames is 9'),
    (dict(min_frames=50, max_frames=40), 'max_frames is 40: give at least 50'),
    (dict(split='a/b'), "split is 'a/b'"),
    (dict(video_level='/nowhere/*'),
     r"video_level: .*'/nowhere/\*': no file matches"),
])
def test_bad_arguments_are_named(tmp_path, changes, message):
  arguments = {'split': 'train', 'num_videos': 2, **_SMALL, **changes}
  with pytest.raises(ValueError, match=message):
    simulate.simulate(str(tmp_path), **arguments)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('changes, message', [
    (dict(mean_rgb=[]), "mean_rgb of record b'bad4' of .* 0 floats .* of 24"),
    (dict(mean_audio=[0.] * 9), 'mean_audio of .* has 9 floats'),
    (dict(mean_rgb=[2.1] * 24), 'outside the range of the quantiser'),
    (dict(mean_rgb=[np.nan] * 24), 'outside the range of the quantiser'),
    (dict(labels=[]), "labels of record b'bad4' .* missing: take the train"),
    (dict(labels=[3, 12]), r'are \[3, 12\], not all in 0 to 11'),
    (dict(labels=[-1]), r'are \[-1\], not all in 0 to 11'),
    (dict(id=b''), 'neither id nor video_id'),
])
def test_bad_records_are_named(tmp_path, video_level, changes, message):
  with pytest.raises(ValueError, match=message):
    simulate.simulate(str(tmp_path / 'new'), 'x',
                      video_level=video_level('bad', **changes), **_SMALL)
  assert not (tmp_path / 'new').exists()


def test_damaged_and_empty_files_are_named(tmp_path):
  path = tmp_path / 'records'
  for content, message in ((b'', 'no record in .*records'),
                           (b'text' * 20, 'records is damaged')):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
      simulate.simulate(str(tmp_path), 'x', video_level=str(path), **_SMALL)


def test_shards_are_never_overwritten(tmp_path):
  path = tmp_path / 'train0003.tfrecord'
  path.write_bytes(b'kept')
  with pytest.raises(FileExistsError, match='train0003.tfrecord exists'):
    simulate.simulate(str(tmp_path), 'train', 2, **_SMALL)
  assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b'kept'
  simulate.simulate(str(tmp_path), 'validate', 2, **_SMALL)


def test_a_failed_shard_has_no_final_name(tmp_path, monkeypatch):
  def fail(*unused):
    raise RuntimeError('no frames')

  monkeypatch.setattr(simulated_frames, 'simulate_frames', fail)
  with pytest.raises(RuntimeError, match='no frames'):
    simulate.simulate(str(tmp_path), 'train', 2, **_SMALL)
  assert not list(tmp_path.glob('*.tfrecord'))


def test_command_line(tmp_path):
  subprocess.run(
      [sys.executable, '-m', simulate.__name__, f'--output_dir={tmp_path}',
       '--split=test', '--num_videos=3', '--num_classes=5', '--seed=2',
       '--videos_per_shard=2'], cwd=_ROOT, check=True)
  assert [len(_parse(path)) for path in sorted(tmp_path.iterdir())] == [2, 1]
