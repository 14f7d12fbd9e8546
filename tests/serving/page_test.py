"""Pages of labels in time: their text, and what a browser makes of them."""

import base64
import html.parser
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf

from yt8m_distill.serving import page

_HOSTILE = '</script><script>document.title="hacked"</script><img src=x>"\'&amp;\n`|'
_NAN = np.nan


def _video(name='v0', **changes):
  """A video of 12 s with 3 windows, 3 classes and 2 networks."""
  return page.Video(
    **{
      'id': name,
      'seconds': 12,
      'classes': ['Game', 'Car', 'Art'],
      'windows': [(0, 5), (5, 10), (10, 12)],
      'networks': [
        page.Network('teacher', range(12), [[0.1, 0, 0.5], [0.2, 0, 0.5], [0.3, 0, 0]]),
        page.Network('student', (0, 5, 6), [[0, 0, 0.6], [0.9, 0.1, 0], [0, 0, 0]]),
      ],
      'labels': ['Car', 'Music'],
      **changes,
    }
  )


class _Element:
  def __init__(self, tag, attributes):
    self.tag = tag
    self.attributes = attributes
    self.text = ''


class _Parser(html.parser.HTMLParser):
  """Collects elements; the text of one is what stands before the next tag."""

  def __init__(self, text):
    super().__init__()
    self.elements = []
    self._in_text = False
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.elements.append(_Element(tag, dict(attrs)))
    self._in_text = True

  def handle_endtag(self, tag):
    self._in_text = False

  def handle_data(self, data):
    if self._in_text:
      self.elements[-1].text += data


def _elements(text, tag, **attributes):
  return [
    element
    for element in _Parser(text).elements
    if element.tag == tag
    and all(element.attributes.get(key) == value for key, value in attributes.items())
  ]


def _texts(text, tag, kind):
  return [element.text for element in _elements(text, tag, **{'class': kind})]


def _paths(text, kind):
  return [e.attributes['d'] for e in _elements(text, 'path', **{'class': kind})]


def _strips(text):
  return [e.attributes['aria-label'] for e in _elements(text, 'div', role='img')]


def _classes(text):
  """Names of the classes that a page of one video shows, in order."""
  names = _texts(text, 'bdi', 'class')
  half = len(names) // 2
  assert names[:half] == names[half:]  # In the chart and in the table.
  return names[:half]


def test_best_classes_come_in_the_order_of_their_highest_probability():
  assert _classes(page.render([_video()], 't')) == ['Game', 'Art', 'Car']
  assert _classes(page.render([_video()], 't', best=2)) == ['Game', 'Art']


def test_rated_classes_come_first():
  ratings = np.full([3, 3], _NAN)
  ratings[0, 1] = 0
  text = page.render([_video(ratings=ratings)], 't', best=2)
  assert _classes(text) == ['Car', 'Game']
  assert 'Ratings are marks' in text
  assert 'Ratings are marks' not in page.render([_video()], 't')


def test_size_does_not_grow_with_the_number_of_classes():
  def size(classes):
    scores = np.zeros([1, classes])
    return len(
      page.render(
        [
          _video(
            windows=[(0, 5)],
            classes=[f'class {index:04}' for index in range(classes)],
            networks=[page.Network('student', [0], scores)],
          )
        ],
        't',
      )
    )

  assert size(10) < size(4000) < size(10) + 10


def test_table_holds_all_values_shown():
  ratings = [[1, _NAN, _NAN], [0, _NAN, _NAN], [_NAN, _NAN, _NAN]]
  text = page.render([_video(ratings=ratings)], 't', best=1)
  values = [element.text.strip() for element in _elements(text, 'td')]
  assert values == [
    *('0.100', '0.200', '0.300'),
    *('0.000', '0.900', '0.000'),
    *('present', 'absent', ''),
  ]
  columns = [element.text.strip() for element in _elements(text, 'th', scope='col')]
  assert columns == ['Window', '0–5 s', '5–10 s', '10–12 s']  # noqa: RUF001


def test_bars_are_as_high_as_the_probability():
  text = page.render([_video(windows=[(0, 5), (5, 9), (10, 12)])], 't', best=1)
  assert _paths(text, 'lane0')[1] == 'M0 100V90H5V80H9V100zM10 100V70H12V100z'
  assert _paths(text, 'lane1')[1] == 'M0 100V100H5V10H9V100zM10 100V100H12V100z'


def test_ratings_are_marks_above_and_below_a_line():
  ratings = [[1, _NAN, _NAN], [_NAN, _NAN, _NAN], [0, _NAN, _NAN]]
  text = page.render([_video(ratings=ratings)], 't')
  assert _paths(text, 'rating') == ['M0 50V0H5V50zM10 50V100H12V50zM0 50H12']
  assert 'Rated present at 0–5 s, absent at 10–12 s.' in _strips(text)[1]  # noqa: RUF001


def test_frames_are_drawn_and_named():
  text = page.render([_video()], 't')
  assert _paths(text, 'lane0')[0] == 'M0 0H12V100H0z'
  assert _paths(text, 'lane1')[0] == 'M0 0H1V100H0zM5 0H7V100H5z'
  assert _strips(text)[0] == (
    'teacher: 12 frames, 0 to 11. student: 3 frames, 0, 5 to 6.'
  )


def test_a_strip_has_a_text_alternative():
  assert _strips(page.render([_video()], 't'))[1:] == [
    'Game. teacher: highest 0.30 at 10–12 s. student: highest 0.90 at 5–10 s.',  # noqa: RUF001
    'Art. teacher: highest 0.50 at 0–5 s. student: highest 0.60 at 0–5 s.',  # noqa: RUF001
    'Car, a true label. teacher: highest 0.00 at 0–5 s. '  # noqa: RUF001
    'student: highest 0.10 at 5–10 s.',  # noqa: RUF001
  ]


def test_true_labels_are_named():
  text = page.render([_video()], 't')
  assert _texts(text, 'bdi', 'label') == ['Car', 'Music']
  assert [e.text.strip() for e in _elements(text, 'small')] == [
    'not shown below',  # Music
    'true label',  # Car
  ]
  assert 'true labels are unknown' in page.render([_video(labels=[])], 't')


@pytest.mark.parametrize(
  'seconds, times', [(1, [0, 1]), (13, [0, 5, 10]), (300, range(0, 301, 60))]
)
def test_axis_names_few_round_seconds(seconds, times):
  video = _video(
    seconds=seconds, windows=[(0, 1)], networks=[page.Network('n', [0], [[0, 0, 0]])]
  )
  text = page.render([video], 't')
  marks = [
    e.text.strip()
    for e in _elements(text, 'span')
    if e.attributes.get('style', '').startswith('left')
  ]
  assert marks == 2 * [str(time) for time in times]


def test_several_videos_have_a_list_to_jump_to():
  text = page.render([_video('a'), _video('b')], 't')
  targets = [element.attributes['href'] for element in _elements(text, 'a')]
  assert targets == [f'#{e.attributes["id"]}' for e in _elements(text, 'section')]
  assert not _elements(page.render([_video()], 't'), 'nav')


def _hostile():
  return _video(
    _HOSTILE,
    classes=['Game', _HOSTILE, '\udc80'],
    labels=[_HOSTILE],
    networks=[page.Network(_HOSTILE, [0], np.full([3, 3], 0.5))],
  )


def test_text_from_data_is_escaped():
  text = page.render([_hostile(), _video()], _HOSTILE)
  assert len(_elements(text, 'script')) == 1
  assert not _elements(text, 'img')
  assert [e.text for e in _elements(text, 'h1')] == [_HOSTILE]
  for kind in ('id', 'class', 'label', 'network'):
    assert _HOSTILE in _texts(text, 'bdi', kind)
  assert '\\udc80' in _texts(text, 'bdi', 'class')
  assert text.encode()


def _jpeg(height=18, width=32):
  return tf.io.encode_jpeg(np.full([height, width, 3], 99, np.uint8)).numpy()


def test_thumbnails_are_part_of_the_page():
  pictures = [_jpeg(), _jpeg(36, 64), _jpeg()]
  images = _elements(page.render([_video(thumbnails=pictures)], 't'), 'img')
  assert [image.attributes['alt'] for image in images] == ['2 s', '6 s', '10 s']
  for image, picture in zip(images, pictures):
    kind, _, encoded = image.attributes['src'].partition(',')
    assert kind == 'data:image/jpeg;base64' and base64.b64decode(encoded) == picture


def test_page_loads_nothing():
  text = page.render([_video('a'), _video('b')], 't')
  for element in _Parser(text).elements:
    assert 'src' not in element.attributes
    assert element.attributes.get('href', '#').startswith('#')
  assert not any(word in text for word in ('://', 'url(', '@import'))


def test_write_leaves_one_whole_file(tmp_path):
  path = tmp_path / 'page.html'
  page.write(str(path), iter([_video('ü')]), 't')
  assert path.read_text('utf-8') == page.render([_video('ü')], 't')
  assert [file.name for file in tmp_path.iterdir()] == ['page.html']


def _network(**changes):
  return [
    page.Network(**{'name': 'n', 'frames': [0], 'scores': np.zeros([3, 3]), **changes})
  ]


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'seconds': 0}, r"video 'v0': seconds is 0: it must be positive\."),
    ({'seconds': _NAN}, 'seconds is nan'),
    ({'classes': []}, 'classes is empty: it must name at least one'),
    ({'windows': []}, 'windows is empty'),
    ({'networks': []}, 'networks is empty'),
    ({'classes': ['a', 'b', ' ']}, r"classes\[2\] is ' ': names .* 'class 7'"),
    ({'classes': ['a', 'b', 'a']}, r"classes\[2\] is 'a': names must be different"),
    ({'windows': [(0, 5, 6)]}, 'windows has 3 columns: it must have start and end'),
    ({'windows': [(0, 5), (5,)]}, "'v0': windows must be a table of numbers"),
    ({'windows': [(0, 5), (4, 9), (9, 10)]}, r'windows\[1\] is \(4, 9\): .* overlap'),
    ({'windows': [(0, 5), (5, 5), (5, 9)]}, r'windows\[1\] is \(5, 5\)'),
    ({'windows': [(-1, 5), (5, 9), (9, 10)]}, r'windows\[0\] is \(-1, 5\)'),
    ({'windows': [(0, 5), (5, 9), (9, 13)]}, r'\(9, 13\): .* within 0 and 12 s'),
    (
      {'classes': ['a', 'b']},
      r"network 'teacher': scores has the shape \[3, 3\]: it must be \[3, 2\], windows",
    ),
    ({'ratings': [[1, 0, 1]]}, r'ratings has the shape \[1, 3\]: it must be \[3, 3\]'),
    ({'thumbnails': [_jpeg(), b'<svg>']}, r'thumbnails\[1\] is no JPEG file: encode'),
    ({'ratings': np.full([3, 3], 0.5)}, 'ratings has other values than 0, 1 and NaN'),
  ],
)
def test_wrong_videos(changes, message):
  with pytest.raises(ValueError, match=message) as error:
    _video(**changes)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'scores': [0.5]}, "network 'n': scores must be a table of numbers"),
    ({'scores': np.full([3, 3], 1.5)}, 'scores are from 1.5 to 1.5: they must be prob'),
    ({'scores': np.full([3, 3], _NAN)}, 'scores are from nan to nan'),
    ({'frames': [0, 12]}, "network 'n': frames has 12: .* below 12, the seconds"),
    ({'frames': [-1]}, 'frames has -1'),
    ({'frames': [0.5]}, 'frames has 0.5: indices of frames must be whole numbers'),
  ],
)
def test_wrong_networks(changes, message):
  with pytest.raises(ValueError, match=message) as error:
    _video(networks=_network(**changes))
  assert '\n' not in str(error.value)


def test_wrong_pages():
  with pytest.raises(ValueError, match='There are no videos'):
    page.render([], 't')
  with pytest.raises(ValueError, match='best is 0: a page must show at least 1 class'):
    page.render([_video()], 't', best=0)


# Below: in a browser.


@pytest.fixture(name='browse')
def _browse(tmp_path):
  """Runs Chromium, without a window, on a file, and returns what it prints."""
  names = ('chromium', 'chromium-browser', 'google-chrome')
  browser = next(filter(None, map(shutil.which, names)), None)
  if not browser:
    pytest.skip(f'needs one of the browsers {", ".join(names)}')

  def browse(path, *flags):
    done = subprocess.run(
      [
        browser,
        '--headless',
        '--disable-gpu',
        '--disable-dev-shm-usage',
        '--hide-scrollbars',
        *(['--no-sandbox'] if os.geteuid() == 0 else []),
        f'--user-data-dir={tmp_path / "profile"}',
        *flags,
        path.as_uri(),
      ],
      capture_output=True,
      text=True,
      check=False,
      timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout

  return browse


def _moving_labels(name, seed):
  """A video of 300 s whose 20 classes come and go."""
  random = np.random.default_rng(seed)
  windows = [(start, start + 5) for start in range(0, 300, 5)]
  middle = random.uniform(0, 60, 20)
  teacher = np.exp(-(((np.arange(60)[:, None] - middle) / 8) ** 2))
  student = np.clip(teacher + random.normal(0, 0.1, teacher.shape), 0, 1)
  ratings = np.full(teacher.shape, _NAN)
  ratings[::9, 0] = teacher[::9, 0] > 0.5
  classes = [f'A class with the long name of number {index}' for index in range(20)]
  return page.Video(
    name,
    300,
    classes,
    windows,
    [
      page.Network('teacher', range(300), teacher),
      page.Network('student', range(0, 300, 10), student),
    ],
    classes[:3],
    ratings,
  )


@pytest.mark.end_to_end
def test_browser_builds_the_page(browse, tmp_path):
  path = tmp_path / 'page.html'
  page.write(str(path), [_moving_labels('first', 0), _hostile()], 'Videos in time')
  text = browse(path, '--dump-dom')
  # What only the script adds.
  assert len(_elements(text, 'div', role='slider', tabindex='0')) == 10 + 3
  assert [e.text for e in _elements(text, 'output')] == ['2 of 2 videos']
  assert len(_elements(text, 'td')) == 10 * 2 * 60 + 60 + 3 * 3
  assert [e.text for e in _elements(text, 'title')] == ['Videos in time']
  assert len(_elements(text, 'script')) == 1


@pytest.mark.end_to_end
def test_browser_runs_no_script_but_the_page_s_own(browse, tmp_path):
  path = tmp_path / 'page.html'
  text = page.render([_video()], 'Videos')
  path.write_text(
    text.replace('</body>', '<script>document.title = "hacked"</script></body>')
  )
  assert '<title>Videos</title>' in browse(path, '--dump-dom')


_STEPS = """<iframe src="page.html" width="400" height="700"></iframe><script>
document.querySelector('iframe').onload = event => {
  const view = event.target.contentWindow, page = view.document;
  const tip = () => page.getElementById('tip').hidden
    ? '' : page.getElementById('tip').textContent;
  const strip = page.querySelector('[role=slider]');
  const send = (type, name, details) =>
    strip.dispatchEvent(new view[type](name, {bubbles: true, ...details}));
  const seen = {width: page.documentElement.scrollWidth, before: tip()};
  seen.pictures = [...page.images].map(image => image.naturalWidth);
  strip.focus();
  seen.focus = tip();
  seen.spoken = strip.getAttribute('aria-valuetext');
  send('KeyboardEvent', 'keydown', {key: 'ArrowRight'});
  seen.right = tip();
  send('KeyboardEvent', 'keydown', {key: 'End'});
  send('KeyboardEvent', 'keydown', {key: 'ArrowRight'});
  seen.end = tip();
  send('KeyboardEvent', 'keydown', {key: 'Escape'});
  seen.escape = tip();
  const box = strip.getBoundingClientRect();
  send('PointerEvent', 'pointermove', {clientX: box.left + box.width / 4});
  seen.hover = tip();
  send('PointerEvent', 'pointerleave', {pointerType: 'mouse'});
  seen.leave = tip();
  const input = page.querySelector('input');
  const shown = text => {
    input.value = text;
    input.dispatchEvent(new view.Event('input'));
    return [...page.querySelectorAll('section, nav li')]
      .filter(part => !part.hidden).map(part => part.querySelector('.id').textContent);
  };
  seen.filter = [shown('MUSIC b'), shown('music'), shown('nothing'), shown('')];
  document.title = JSON.stringify(seen);
};
</script>"""


@pytest.mark.end_to_end
def test_browser_shows_values_and_filters(browse, tmp_path):
  ratings = [[_NAN] * 3, [1, _NAN, _NAN], [_NAN] * 3]
  pictures = [_jpeg(), _jpeg(36, 64)]
  videos = [_video('a', ratings=ratings, thumbnails=pictures), _video('b')]
  page.write(str(tmp_path / 'page.html'), videos, 't')
  steps = tmp_path / 'steps.html'
  steps.write_text(_STEPS)
  text = browse(
    steps,
    '--allow-file-access-from-files',
    '--virtual-time-budget=5000',
    '--dump-dom',
  )
  (title,) = _elements(text, 'title')
  first, middle, last = (
    f'Game\n{window} s\nteacher: {teacher}\nstudent: {student}'
    for window, teacher, student in (
      ('0–5', '0.100', '0.000'),  # noqa: RUF001
      ('5–10', '0.200', '0.900'),  # noqa: RUF001
      ('10–12', '0.300', '0.000'),  # noqa: RUF001
    )
  )
  assert json.loads(title.text) == {
    'width': 400,  # Nothing juts out.
    'before': '',
    'pictures': [32, 64],
    'focus': middle + '\nrated: present',
    'spoken': '5–10 s: teacher: 0.200; student: 0.900; rated: present',  # noqa: RUF001
    'right': last,
    'end': last,
    'escape': '',
    'hover': first,
    'leave': '',
    'filter': [['b', 'b'], ['a', 'b', 'a', 'b'], [], ['a', 'b', 'a', 'b']],
  }


@pytest.mark.end_to_end
def test_browser_paints_the_page_light_and_dark(browse, tmp_path):
  path = tmp_path / 'page.html'
  page.write(str(path), [_moving_labels('first', 0)], 'Videos in time')
  brightness = []
  for width, scheme in ((1280, 1), (400, 0)):
    picture = tmp_path / f'{width}.png'
    browse(
      path,
      f'--window-size={width},900',
      f'--blink-settings=preferredColorScheme={scheme}',
      f'--screenshot={picture}',
    )
    pixels = tf.io.decode_png(picture.read_bytes(), channels=3).numpy()
    assert pixels.shape == (900, width, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    brightness.append(pixels.mean())
  assert brightness[0] > 170 and brightness[1] < 85
