"""predict --segments: every window of every video, as a record of it is predicted."""

import json
import pathlib
import re

import numpy as np
import pandas as pd
import pytest
import records
import serving_cases
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.dataloaders import record_errors
from yt8m_distill.dataloaders import split_segments
from yt8m_distill.evaluation import segment_metrics
from yt8m_distill.modeling import video_classifier
from yt8m_distill.serving import ensemble
from yt8m_distill.serving import export as export_lib
from yt8m_distill.utils import cli

pytestmark = pytest.mark.end_to_end

_SEGMENTS = 'yt8m_distill_segments'
_AVERAGE = {'backbone': {'type': 'yt8m_average'}, 'head': {'type': 'logistic'}}
_ALL = {'format': 'parquet', 'top_k': tiny.CLASSES}


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Two runs without recurrence, which are built in a tenth of the time."""
  folder = tmp_path_factory.mktemp('runs')
  return [
    serving_cases.write_run(folder / f'{every_n}', tiny.AVERAGES, _frames(every_n))
    for every_n in (1, 2)
  ]


def _frames(every_n):
  frames = {'uniform': {'every_n': every_n}}
  return {'task': {'model': {'student': {'frames': frames}}}}


def _split(data, folder, rate):
  """Splits all windows of the videos in `data`; returns the folder of the records.

  Args:
    data: folder of the videos.
    folder: to write to: the rated videos to rated/, the windows to windows/.
    rate: returns the ratings of a window: {class: 0 or 1}.
  """

  def add_ratings(_, video):
    [frames, *_] = video.feature_lists.feature_list.values()
    lists = video.context.feature
    for start in range(0, len(frames.feature), 5):
      for label, score in rate(lists['id'].bytes_list.value[0], start).items():
        lists['segment_start_times'].int64_list.value.append(start)
        lists['segment_end_times'].int64_list.value.append(start + 5)
        lists['segment_labels'].int64_list.value.append(label)
        lists['segment_scores'].float_list.value.append(score)

  (folder / 'rated').mkdir()
  for path in data.iterdir():
    records.edit(path, folder / 'rated' / path.name, add_ratings)
  split_segments.split(f'{folder}/rated/*', str(folder / 'windows'), workers=1)
  return folder / 'windows'


@pytest.fixture(scope='module')
def split(data, tmp_path_factory):
  """A folder with the records of all windows."""
  return _split(data, tmp_path_factory.mktemp('split'), lambda *_: {0: 1})


def _write_run(run, **network):
  """Writes a run of one network on rated windows, with random weights."""
  params = tiny.experiment(
    {'task': {'model': {'network': network}}}, experiment=_SEGMENTS
  )
  model = params.task.model
  network = video_classifier.build(model, model.network, 'network')
  tiny.scatter_weights(network)
  trained_network.write(str(run), network, params, serving_cases.STEP)


@pytest.fixture(scope='module')
def student(tmp_path_factory):
  """A run of one network that sees windows only, and an export of it."""
  folder = tmp_path_factory.mktemp('student')
  _write_run(
    folder / 'run',
    frames={'type': 'window'},
    backbone={'hierarchical_lstm': {'chunks': 5}},
  )
  export_lib.export(str(folder / 'run'), str(folder / 'export'))
  return str(folder / 'run'), str(folder / 'export')


def _read(out):
  """All rows of Parquet files, in order."""
  return pd.concat(
    map(pd.read_parquet, sorted(out.glob('*.parquet'))), ignore_index=True
  )


def _windows(out):
  """Predictions of windows by `ID:START`: float [V]."""
  table = _read(out)
  names = table['id'] + ':' + table['start'].astype(str)
  grouped = table.sort_values('class')['probability'].groupby(names, sort=False)
  return {name: values.to_numpy() for name, values in grouped}


def _videos(out):
  """Predictions by id as `predict` writes them without --segments: float [V]."""
  table = _read(out)
  return {
    row['id']: row['probabilities'][np.argsort(row['class_indices'])]
    for _, row in table.iterrows()
  }


@pytest.fixture(scope='module')
def windows(runs, data, tmp_path_factory):
  """Predictions of windows by the first run."""
  out = tmp_path_factory.mktemp('windows') / 'out'
  return _windows(serving_cases.predict(runs, data, out, segments=5, **_ALL))


def _assert_equal(found, expected):
  assert found.keys() == expected.keys()
  for name, values in expected.items():
    np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('batch_size', [1, 64])
def test_windows_are_predicted_as_their_records(
  runs, data, split, tmp_path, batch_size
):
  out = serving_cases.predict(
    runs, data, tmp_path / 'a', segments=5, batch_size=batch_size, **_ALL
  )
  expected = serving_cases.predict(runs, split, tmp_path / 'b', **_ALL)
  _assert_equal(_windows(out), _videos(expected))
  table = _read(out)
  assert list(table) == ['id', 'start', 'end', 'class', 'probability']
  lengths = table['end'] - table['start']
  assert lengths.between(1, 5).all() and table['start'].mod(5).eq(0).all()
  assert lengths.lt(5).any()  # The last window of a video.


@pytest.mark.parametrize('frames', [1, 4, 5, 6, 299, 300])
def test_videos_of_any_length(runs, tmp_path, frames):
  for name in ('data', 'split'):
    (tmp_path / name).mkdir()
  video = records.random_frame_level(frames, {'rgb': 8, 'audio': 4}, (1,), id=b'v')
  records.write(tmp_path / 'data' / 'x.tfrecord', [video])
  windows = _split(tmp_path / 'data', tmp_path / 'split', lambda *_: {0: 1})
  expected = serving_cases.predict(runs, windows, tmp_path / 'expected', **_ALL)
  data = tmp_path / 'data'
  out = serving_cases.predict(runs, data, tmp_path / 'out', segments=5, **_ALL)
  _assert_equal(_windows(out), _videos(expected))
  ends = _read(out).groupby('start')['end'].first()
  assert ends.index.tolist() == list(range(0, frames, 5))
  assert ends.tolist() == [*range(5, frames, 5), frames]
  ranked = serving_cases.predict(runs, data, tmp_path / 'csv', segments=5)
  for line in (ranked / 'predictions.csv').read_text().splitlines()[1:]:
    names = line.partition(',')[2].split(' ')
    assert sorted(names) == sorted(f'v:{start}' for start in range(0, frames, 5))


def test_networks_that_see_windows_and_their_exports(student, data, split, tmp_path):
  run, export = student
  expected = serving_cases.predict([run], split, tmp_path / 'expected', **_ALL)
  for name, model in (('run', [run]), ('export', [export]), ('both', [run, export])):
    out = serving_cases.predict(
      [], data, tmp_path / name, model=model, segments=5, **_ALL
    )
    _assert_equal(_windows(out), _videos(expected))


def test_several_networks_are_averaged(runs, data, windows, tmp_path):
  other, both = (
    _windows(
      serving_cases.predict([], data, tmp_path / name, model=model, segments=5, **_ALL)
    )
    for name, model in (('other', runs[1:]), ('both', runs))
  )
  _assert_equal(both, {name: (windows[name] + other[name]) / 2 for name in windows})


def test_video_weight_multiplies_by_what_the_whole_video_holds(
  runs, data, windows, tmp_path
):
  out = serving_cases.predict(
    runs, data, tmp_path / 'a', segments=5, video_weight=True, **_ALL
  )
  videos = _videos(serving_cases.predict(runs, data, tmp_path / 'c', **_ALL))
  _assert_equal(
    _windows(out),
    {
      name: values * videos[name.rpartition(':')[0]] for name, values in windows.items()
    },
  )


def test_csv_ranks_the_windows_of_each_class(runs, data, windows, tmp_path):
  classes = tmp_path / 'classes.csv'
  classes.write_text('Index\n7\n2\n')
  out = serving_cases.predict(
    runs, data, tmp_path / 'a', segments=5, classes=str(classes)
  )
  lines = (out / 'predictions.csv').read_text().splitlines()
  assert lines[0] == 'Class,Segments'
  assert [line.partition(',')[0] for line in lines[1:]] == ['7', '2']
  for line, label in zip(lines[1:], (7, 2)):
    best = sorted(windows, key=lambda name, c=label: -windows[name][c])
    assert line.partition(',')[2].split(' ') == best
  # One kind of file a shard, from which an interrupted command continues.
  assert sorted(serving_cases.contents(out)) == ['predictions.csv'] + [
    f'test{i}.scores.parquet' for i in range(len(serving_cases.COUNTS))
  ]


def test_csv_scores_as_the_evaluation_of_the_run(data, tmp_path):
  rng = np.random.default_rng(0)
  ratings = {}

  def rate(name, start):
    classes = rng.choice(tiny.CLASSES, 3, replace=False)
    rated = {int(label): int(rng.integers(2)) for label in classes}
    window = f'{name.decode()}:{start}'
    ratings.update({(window, label): score for label, score in rated.items()})
    return rated

  run = tmp_path / 'run'
  _write_run(run, frames={'type': 'window'}, **_AVERAGE)
  windows = _split(data, tmp_path, rate)
  (tmp_path / 'classes.csv').write_text('Index\n7\n2\n3\n0\n')
  out = serving_cases.predict(
    [str(run)], data, tmp_path / 'out', segments=5, classes=f'{tmp_path}/classes.csv'
  )
  scores = set()
  for k in (6, 1000):  # Of 32 windows.
    with tiny.eagerly():
      tiny.run_driver(
        'eval',
        run,
        f'--config_file={run}/params.yaml',
        tiny.override(
          task__validation_data__input_path=f"'{windows}/*.tfrecord'",
          task__validation_data__global_batch_size=7,
          task__evaluation__classes=tmp_path / 'classes.csv',
          task__evaluation__max_windows=k,
        ),
        experiment=_SEGMENTS,
        sized=False,
      )
    evaluated = json.loads((run / 'evaluation.json').read_text())['metrics']
    precisions = segment_metrics.submission_average_precisions(
      str(out / 'predictions.csv'), ratings, (7, 2, 3, 0), k
    )
    score = segment_metrics.map_at_k(precisions)
    assert evaluated['map_at_k'] == score
    scores.add(score)
  assert len(scores) == 2 and all(0 < score < 1 for score in scores)


def test_parquet_of_chosen_classes_has_their_names(runs, data, tmp_path):
  classes, vocabulary = tmp_path / 'classes.csv', tmp_path / 'vocabulary.csv'
  classes.write_text('Index\n7\n2\n')
  vocabulary.write_text(
    'Index,Name\n' + ''.join(f'{i},name {i}\n' for i in range(tiny.CLASSES))
  )
  out = serving_cases.predict(
    runs,
    data,
    tmp_path / 'a',
    segments=5,
    format='parquet',
    classes=str(classes),
    vocabulary=str(vocabulary),
  )
  table = _read(out)
  assert set(table['class']) == {2, 7}
  assert ('name ' + table['class'].astype(str)).equals(table['class_name'])


def test_an_export_has_a_signature_for_windows(student):
  _, folder = student
  spec = json.loads((pathlib.Path(folder) / 'input.json').read_text())
  assert spec['segments'] == {'frames': 5, 'context': 0}
  described = spec['signatures']['segments']
  assert described['inputs'] == spec['signatures']['frames']['inputs']
  assert described['outputs']['predictions']['shape'] == [None, tiny.CLASSES]
  card = (pathlib.Path(folder) / 'model_card.md').read_text()
  assert '| `segments` | ' in card and 'for each window of a video' in card
  outputs = tf.saved_model.load(folder).signatures['segments'](
    frames=tf.zeros([2, 20, 12], tf.uint8), num_frames=tf.constant([20, 6])
  )
  assert outputs['video'].numpy().tolist() == [0, 0, 0, 0, 1, 1]
  assert outputs['end'].numpy().tolist() == [5, 10, 15, 20, 5, 6]


def test_another_job_is_refused(runs, data, tmp_path):
  classes = tmp_path / 'classes.csv'
  classes.write_text('Index\n7\n')
  arguments = {'segments': 5, 'classes': str(classes)}
  out = serving_cases.predict(runs, data, tmp_path / 'out', **arguments)
  before = serving_cases.contents(out)
  for change in (
    {'segments': 10},
    {'classes': ''},
    {'video_weight': True},
    {'context': 3},
    {'segments': None, 'classes': ''},
  ):
    with pytest.raises(ValueError, match=f'another job: .*{next(iter(change))} is '):
      serving_cases.predict(runs, data, out, **{**arguments, **change})
  classes.write_text('Index\n8\n')  # The same file, but other classes.
  with pytest.raises(ValueError, match='another job: .*classes is '):
    serving_cases.predict(runs, data, out, **arguments)
  assert serving_cases.contents(out) == before


@pytest.fixture(scope='module')
def video_level(tmp_path_factory):
  """A run with video-level features, and an export of it."""
  features = [
    {'name': name, 'size': size, 'format': 'video'}
    for name, size in (('rgb', 8), ('audio', 4))
  ]
  folder = tmp_path_factory.mktemp('video_level')
  run = serving_cases.write_run(
    folder / 'run',
    tiny.AVERAGES,
    {
      'task': {
        'model': {
          'features': features,
          'max_frames': 1,
          'student': {'frames': {'type': 'all'}},
        }
      }
    },
  )
  export_lib.export(run, str(folder / 'export'))
  return run, str(folder / 'export')


@pytest.mark.parametrize('source', [0, 1])
def test_video_level_features_have_no_windows(video_level, data, tmp_path, source):
  with pytest.raises(
    ValueError, match='segments is 5, but .*video-level features, which have no windows'
  ):
    serving_cases.predict(
      [], data, tmp_path / 'out', model=[video_level[source]], segments=5
    )
  assert 'segments' not in tf.saved_model.load(video_level[1]).signatures


def test_an_export_loads_without_warnings(student, caplog):
  tf.saved_model.load(student[1])
  assert 'custom gradients' in caplog.text  # What TensorFlow would say.
  caplog.clear()
  ensemble.Ensemble([student[1]], 'student', 1)
  assert not caplog.text


def test_an_export_of_an_older_version_says_so(student, data, tmp_path):
  saved = tmp_path / 'old'
  loaded = tf.saved_model.load(student[1])
  old = tf.Module()
  old.parts, old.records = loaded, loaded.records
  options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
  tf.saved_model.save(old, str(saved), options=options)
  (saved / 'input.json').write_text(
    (pathlib.Path(student[1]) / 'input.json').read_text()
  )
  with pytest.raises(ValueError, match='old lacks the function `record_windows`'):
    serving_cases.predict([], data, tmp_path / 'out', model=[str(saved)], segments=5)


@pytest.mark.parametrize('source', [0, 1])
@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'segments': 6}, 'segments is 6, but .* sees windows of 5 frames: set it to 5'),
    ({'segments': 5, 'video_weight': True}, 'sees windows only .* --video_weight'),
  ],
)
def test_what_networks_for_windows_cannot_do(
  student, data, tmp_path, source, arguments, message
):
  with pytest.raises(ValueError, match=message):
    serving_cases.predict(
      [], data, tmp_path / 'out', model=[student[source]], **arguments
    )


def test_context_of_an_export_is_its_own(student, data, tmp_path):
  with pytest.raises(ValueError, match='context is 2, but .*export, which has its own'):
    serving_cases.predict(
      [], data, tmp_path / 'out', model=[student[1]], segments=5, context=2
    )


def test_an_export_keeps_its_context(tmp_path):
  _write_run(tmp_path / 'run', frames={'type': 'all'}, **_AVERAGE)
  out = tmp_path / 'out'
  with pytest.raises(ValueError, match='context is not set, but .* Set --context to'):
    export_lib.export(str(tmp_path / 'run'), str(out))
  export_lib.export(str(tmp_path / 'run'), str(out), context=3)
  assert json.loads((out / 'input.json').read_text())['segments']['context'] == 3
  assert 'window, and up to 3 before and after.' in (out / 'model_card.md').read_text()


def test_context_is_that_of_the_records_that_were_split(
  runs, data, split, windows, tmp_path
):
  rated = split.parent / 'rated'
  split_segments.split(f'{rated}/*', str(tmp_path / 'wide'), context=4, workers=1)
  expected = serving_cases.predict(runs, tmp_path / 'wide', tmp_path / 'b', **_ALL)
  out = serving_cases.predict(runs, data, tmp_path / 'a', segments=5, context=4, **_ALL)
  _assert_equal(_windows(out), _videos(expected))
  assert not np.allclose([*_windows(out).values()], [*windows.values()], atol=1e-3)


def test_a_thinned_record_is_named(runs, data, tmp_path):
  (tmp_path / 'thin').mkdir()

  def thin(_, video):
    video.context.feature['every_n'].int64_list.value.append(5)
    video.context.feature['every_n/num_frames'].int64_list.value.append(20)

  records.edit(data / 'test0.tfrecord', tmp_path / 'thin' / 'x.tfrecord', thin)
  with pytest.raises(record_errors.RecordError) as error:
    serving_cases.predict(runs, tmp_path / 'thin', tmp_path / 'out', segments=5)
  assert re.match('.*x.tfrecord, record 0 ', cli.message(error.value))


@pytest.mark.parametrize(
  'arguments, message',
  [
    ({'segments': 0}, 'segments is 0: it must be 1 or more'),
    ({'segments': -5}, 'segments is -5: it must be 1 or more'),
    ({'segments': 5, 'context': -1}, 'context is -1: it must be 0 or more'),
    ({'video_weight': True}, '--video_weight is given without --segments'),
    ({'classes': 'a.csv'}, '--classes is given without --segments'),
    ({'context': 0}, '--context is given without --segments'),
    ({'segments': 5, 'classes': 'a.csv'}, "classes is 'a.csv': there is no such file"),
  ],
)
def test_arguments_that_do_not_fit(runs, data, tmp_path, arguments, message):
  with pytest.raises(ValueError, match=message):
    serving_cases.predict(runs, data, tmp_path / 'out', **arguments)
  assert not (tmp_path / 'out').exists()
