"""predict --format=html: a page of what networks find in videos, over time."""

import html.parser
import shutil

import numpy as np
import pandas as pd
import pytest
import records
import serving_cases
import tiny

from yt8m_distill.serving import export as export_lib
from yt8m_distill.serving import window_page

pytestmark = pytest.mark.end_to_end

_LABELS = (2, 40)  # The second one is of a release with more classes.
_FIRST = ['0-0', '0-1', '0-2', '0-3', '0-4', '1-0', '2-0', '2-1', '2-2', '2-3']


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """Two runs without recurrence, which are built in a tenth of the time."""
  folder = tmp_path_factory.mktemp('runs')
  frames = {'task': {'model': {'student': {'frames': {'uniform': {'every_n': 2}}}}}}
  return [
    serving_cases.write_run(folder / 'a', tiny.AVERAGES),
    serving_cases.write_run(folder / 'b', tiny.AVERAGES, frames),
  ]


@pytest.fixture(scope='module')
def rated(tmp_path_factory):
  """A shard of one video of 13 frames, with ratings of its windows."""
  ratings = {
    'segment_start_times': np.array([0, 5, 5, 10, 10, 7]),
    'segment_end_times': np.array([5, 10, 10, 15, 15, 12]),
    'segment_labels': np.array([2, 2, 7, 7, 11, 2]),
    'segment_scores': np.array([1, 0, 1, 0, 1, 1], np.float32),
  }
  record = records.random_frame_level(
    13, {'rgb': 8, 'audio': 4}, _LABELS, id=b'rated', **ratings
  )
  folder = tmp_path_factory.mktemp('rated')
  records.write(folder / 'rated.tfrecord', [record])
  return folder


class _Page(html.parser.HTMLParser):
  """What a page says: ids of videos, texts by class, values and strips."""

  def __init__(self, path):
    super().__init__()
    self.texts = {'id': [], 'class': [], 'label': [], 'network': []}
    self.strips, self.cells = [], []
    self._into = None
    self.feed(path.read_text())

  def handle_starttag(self, tag, attrs):
    attributes = dict(attrs)
    self._into = self.texts.get(attributes.get('class')) if tag == 'bdi' else None
    if tag == 'td':
      self._into = self.cells
    if self._into is not None:
      self._into.append('')
    if attributes.get('role') == 'img':
      self.strips.append(attributes['aria-label'])

  def handle_endtag(self, tag):
    self._into = None

  def handle_data(self, data):
    if self._into is not None:
      self._into[-1] += data.strip()


def _page(out):
  return _Page(out / 'page.html')


def _ids(out):
  """Ids in the order of the page, each of which is also in its list of videos."""
  shown = _page(out).texts['id']
  assert shown[: len(shown) // 2] == shown[len(shown) // 2 :]
  return shown[: len(shown) // 2]


def _predict(*arguments, **options):
  return serving_cases.predict(
    *arguments, **{'format': 'html', 'top_k': tiny.CLASSES, **options}
  )


def test_each_network_has_the_predictions_of_its_own(runs, rated, tmp_path):
  page = _page(_predict(runs, rated, tmp_path / 'page'))
  shown = [int(name.split()[-1]) for name in page.texts['class']]
  shown = shown[: len(shown) // 2]  # In the chart, and again in the table.
  assert set(shown[:3]) == {2, 7, 11} and len(shown) == tiny.CLASSES  # Rated first.
  expected = []
  for network in ('teacher', 'student'):
    tables = serving_cases.predict(
      runs,
      rated,
      tmp_path / network,
      format='parquet',
      network=network,
      segments=5,
      top_k=tiny.CLASSES,
    )
    table = pd.read_parquet(tables / 'rated.parquet')
    expected.append(table.pivot(index='class', columns='start', values='probability'))
  cells = iter(page.cells)
  for place, label in enumerate(shown):
    found = [next(cells) for _ in range(9 if place < 3 else 6)][:6]
    values = np.concatenate([network.loc[label] for network in expected])
    np.testing.assert_allclose(np.float64(found), values, atol=0.00051)


def test_ratings_and_true_labels(runs, rated, tmp_path):
  page = _page(_predict(runs, rated, tmp_path / 'page'))
  found = dict(zip(page.texts['class'], [page.cells[i : i + 3] for i in (6, 15, 24)]))
  assert found == {  # The rating from second 7 on is of no window of the page.
    'class 2': ['present', 'absent', ''],
    'class 7': ['', 'present', 'absent'],
    'class 11': ['', '', 'present'],
  }
  assert page.texts['label'] == ['class 2', 'class 40']


def test_windows_of_another_length_have_no_ratings(runs, rated, tmp_path):
  page = _page(_predict(runs, rated, tmp_path / 'page', segments=10))
  assert len(page.cells) == 2 * 2 * tiny.CLASSES and not any(
    'Rated' in s for s in page.strips
  )


def test_frames_that_each_network_saw(runs, rated, tmp_path):
  out = _predict(runs, rated, tmp_path / 'page', model=runs)
  page = _page(out)
  # Every 5th and every 2nd frame of each window, whose first one is 0, 5 or 10.
  assert page.strips[0] == (
    'a: teacher: 13 frames, 0 to 12. a: student: 3 frames, 0, 5, 10. '
    'b: teacher: 13 frames, 0 to 12. '
    'b: student: 8 frames, 0, 2, 4 to 5, 7, 9 to 10, 12.'
  )


def test_context_is_seen_too(runs, rated, tmp_path):
  out = _predict(
    runs, rated, tmp_path / 'page', network='student', context=1, segments=3
  )
  # Windows from 0, 3, ..., 12, which networks see from a frame before.
  assert _page(out).strips[0] == 'a: 5 frames, 0, 2, 5, 8, 11.'


def test_an_export_beside_its_run(runs, rated, tmp_path):
  export = str(tmp_path / 'export')
  export_lib.export(runs[0], export)
  page = _page(_predict([], rated, tmp_path / 'page', model=[export, *runs[:1]]))
  assert page.texts['network'][:3] == ['export', 'a: teacher', 'a: student']
  kept = [page.cells[start : start + 3] for start in range(0, 9, 3)]
  assert kept[0] == kept[2] != kept[1]


def test_runs_of_the_same_name_are_named_by_their_paths(runs, rated, tmp_path):
  copies = [tmp_path / parent / 'run' for parent in 'xy']
  for run, copy in zip(runs, copies):
    copy.parent.mkdir()
    copy.symlink_to(run)
  page = _page(
    _predict(
      [], rated, tmp_path / 'page', model=list(map(str, copies)), network='student'
    )
  )
  assert page.texts['network'][:2] == list(map(str, copies))


def test_the_first_videos_are_shown(runs, data, tmp_path):
  assert _ids(_predict(runs, data, tmp_path / 'page')) == _FIRST
  assert len(_FIRST) == window_page.MOST


def test_chosen_videos_are_shown_in_the_order_of_their_ids(runs, data, tmp_path):
  ids = ['2-6', '0-3', '2-6']
  assert _ids(_predict(runs, data, tmp_path / 'page', video=ids)) == ids[:2]


def test_a_video_without_an_id_is_named_by_its_place(runs, data, tmp_path):
  for path in data.iterdir():
    records.edit(
      path, tmp_path / path.name, lambda _, video: video.context.feature.pop('id')
    )
  ids = ['test1.tfrecord:0', 'test2.tfrecord:3']
  assert _ids(_predict(runs, tmp_path, tmp_path / 'page', video=ids)) == ids


def test_an_id_that_no_record_has(runs, data, tmp_path):
  with pytest.raises(
    ValueError, match=r"video has 'no', .*test\*?.* holds no such id: name ids that"
  ):
    serving_cases.predict(
      runs,
      data,
      tmp_path / 'page',
      format='html',
      input_path=f'{data}/test*.tfrecord',
      video=['0-1', 'no'],
    )
  assert not (tmp_path / 'page' / 'page.html').exists()


def test_classes_of_one_name_are_told_apart(runs, rated, tmp_path):
  vocabulary = tmp_path / 'vocabulary.csv'
  names = ['Car'] * 3 + [''] + [f'name {i}' for i in range(4, tiny.CLASSES)]
  vocabulary.write_text(
    'Index,Name\n' + ''.join(f'{i},{name}\n' for i, name in enumerate(names))
  )
  out = _predict(runs, rated, tmp_path / 'page', vocabulary=str(vocabulary))
  page = _page(out)
  assert set(page.texts['class']) == {
    *(f'Car (class {i})' for i in range(3)),
    'class 3',
    *names[4:],
  }
  assert page.texts['label'] == ['Car (class 2)', 'class 40']


def test_names_from_files_are_only_text(runs, tmp_path):
  hostile = '</script><script>x</script><img src=x>"\'`|\ny'
  run = tmp_path / 'a<img src=x>"\'`|'
  shutil.copytree(runs[0], run)
  record = records.random_frame_level(
    13, {'rgb': 8, 'audio': 4}, [2], id=hostile.encode()
  )
  data = tmp_path / 'data<img src=x>"\'`|'
  data.mkdir()
  records.write(data / 'videos.tfrecord', [record])
  vocabulary = tmp_path / 'vocabulary.csv'
  names = pd.DataFrame({'Name': [f'{hostile}{n}' for n in range(tiny.CLASSES)]})
  names.to_csv(vocabulary, index_label='Index')
  out = _predict(
    [str(run)],
    data,
    tmp_path / 'page',
    vocabulary=str(vocabulary),
    model=[str(run), runs[1]],
  )
  page = _page(out)
  assert set(page.texts['id']) == {hostile}
  assert page.texts['label'] == [f'{hostile}2']
  assert set(page.texts['class']) == {*names['Name']}
  assert f'{run.name}: teacher' in page.texts['network']
  text = (out / 'page.html').read_text()
  assert text.count('<script') == 1 and '<img' not in text


def test_only_chosen_classes_are_shown(runs, rated, tmp_path):
  classes = tmp_path / 'classes.csv'
  classes.write_text('Index\n7\n5\n')
  out = _predict(runs, rated, tmp_path / 'page', classes=str(classes))
  assert set(_page(out).texts['class']) == {'class 7', 'class 5'}


def test_video_weight_is_that_of_each_network(runs, rated, tmp_path):
  pages = [
    _page(
      _predict(
        runs,
        rated,
        tmp_path / f'{weight}',
        video_weight=weight,
        network='student',
        segments=20,
      )
    )
    for weight in (False, True)
  ]
  by_class = [
    dict(zip(p.texts['class'][: tiny.CLASSES], np.reshape(p.cells, [-1, 1])))
    for p in pages
  ]
  # Of one window that is the whole video, the product is the square.
  for name, cells in by_class[0].items():
    squares = np.square(np.float64(cells))
    np.testing.assert_allclose(np.float64(by_class[1][name]), squares, atol=0.0016)


def test_the_same_command_again_keeps_the_page(runs, rated, tmp_path, capsys):
  out = _predict(runs, rated, tmp_path / 'page')
  before = (out / 'page.html').stat().st_mtime_ns
  _predict(runs, rated, tmp_path / 'page')
  assert (out / 'page.html').stat().st_mtime_ns == before
  assert sorted(path.name for path in out.iterdir()) == ['page.html', 'predict.json']
  assert capsys.readouterr().out.count('page.html is written: open it in a') == 2
  with pytest.raises(ValueError, match=r'another job: .*video is'):
    _predict(runs, rated, tmp_path / 'page', video=['rated'])


@pytest.mark.parametrize(
  'change, message',
  [
    (
      lambda context: context['segment_scores'].float_list.value.pop(),
      'rated.tfrecord, record 0: its lists have .* must have one of each per rating',
    ),
    (
      lambda context: context['window_start'].int64_list.value.append(0),
      'record 0: .* window_start, so it was split before. Set input_path to the off',
    ),
  ],
)
def test_ratings_are_checked(runs, rated, tmp_path, change, message):
  records.edit(
    rated / 'rated.tfrecord',
    tmp_path / 'rated.tfrecord',
    lambda _, video: change(video.context.feature),
  )
  with pytest.raises(ValueError, match=message):
    _predict(runs, tmp_path, tmp_path / 'page')


def test_ids_are_for_pages_only(runs, data, tmp_path):
  with pytest.raises(ValueError, match='--video is given without --format=html'):
    serving_cases.predict(runs, data, tmp_path / 'out', video=['0-1'])
