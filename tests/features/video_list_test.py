"""Lists of videos: what is read of a CSV file, and what is refused."""

import pytest

from yt8m_distill.features import video_list


@pytest.fixture(name='folder')
def _folder(tmp_path):
  """A folder of files that exist."""
  for name in ('a.mp4', 'b.c.mkv', 'sub/a.mp4'):
    path = tmp_path / 'videos' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  return tmp_path / 'videos'


def _csv(folder, *lines, encoding='utf-8'):
  path = folder / 'list.csv'
  path.write_bytes('\r\n'.join(lines).encode(encoding))
  return str(path)


def _read(source):
  return [(v.path, v.id, v.labels) for v in video_list.read(source)]


def test_files_and_patterns(folder):
  assert _read(f'{folder}/*.m*, {folder}/a.mp4') == [
    (f'{folder}/a.mp4', 'a', None),
    (f'{folder}/b.c.mkv', 'b.c', None),
  ]


def test_patterns_skip_folders(folder):
  (folder / 'a').mkdir()  # Its id would be that of a.mp4.
  assert _read(f'{folder}/*') == _read(f'{folder}/*.m*')


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
def test_paths_are_relative_to_the_csv_file(folder, encoding):
  source = _csv(
    folder, 'path', 'sub/a.mp4', '', f'"{folder}/b.c.mkv"', encoding=encoding
  )
  assert _read(source) == [
    (f'{folder}/sub/a.mp4', 'a', None),
    (f'{folder}/b.c.mkv', 'b.c', None),
  ]


def test_labels_and_ids(folder):
  source = _csv(
    folder,
    'labels,id,path',
    '3 17,one,a.mp4',
    '0;5; 7,"t,wo",a.mp4',
    ',3é,sub/a.mp4',
    ' 3861 , vier ,b.c.mkv',
  )
  assert [row[1:] for row in _read(source)] == [
    ('one', (3, 17)),
    ('t,wo', (0, 5, 7)),
    ('3é', ()),
    ('vier', (3861,)),
  ]


@pytest.mark.parametrize(
  'lines, message',
  [
    ([''], r"list.csv has no column 'path', only \[\].*add a header"),
    (['path'], 'list.csv lists no videos: add a line'),
    (['path;labels', 'a.mp4;3'], r"no column 'path', only \['path;labels'\].*commas"),
    (['path,label', 'a.mp4,3'], "rename or remove 'label'"),
    (['path,path', 'a.mp4,a.mp4'], "rename or remove 'path'"),
    (['path,id', 'a.mp4,x', ',y'], 'list.csv, line 3: its path is empty. Name'),
    (['path,id', 'a.mp4,'], 'list.csv, line 2: its id is empty. Give one'),
    (['path,id', 'a.mp4'], 'list.csv, line 2 does not have as many values'),
    (['path', 'a.mp4,3'], 'list.csv, line 2 does not have as many values'),
    (
      ['path', 'a.mp4', 'no.mp4'],
      r'list.csv, line 3: .*/no.mp4: no such file.*Correct',
    ),
    (['path', 'a.mp4', 'sub'], r"line 3: .*/sub is a folder\. Name .*sub/\*\.mp4'"),
    (['path,labels', 'a.mp4,3 x'], r"line 2: its labels are '3 x', but 'x' is not"),
    (['path,labels', 'a.mp4,-1'], "line 2: its labels are '-1', but '-1' is not"),
    (['path,labels', 'a.mp4,1.5'], "'1.5' is not the index of a class, a whole number"),
    (['path,labels', f'a.mp4,{10**9}'], "'1000000000' is not the index"),
    (
      ['path', 'a.mp4', 'sub/a.mp4'],
      r"line 3: .*/sub/a.mp4 has the id 'a', as has .*/videos/a.mp4 \(.*, line 2\)",
    ),
    (['path,id', 'a.mp4,x', 'b.c.mkv,x'], "line 3: .*/b.c.mkv has the id 'x', as has"),
    (
      ['path', '"a.mp4'],
      r'list.csv is not a CSV file in UTF-8 \(unexpected end of data',
    ),
  ],
)
def test_bad_csv_files_are_one_line(folder, lines, message):
  with pytest.raises(ValueError, match=message) as error:
    video_list.read(_csv(folder, *lines))
  assert '\n' not in str(error.value)


def test_a_file_in_another_encoding_is_named(folder):
  with pytest.raises(ValueError, match=r'list.csv is not a CSV file in UTF-8 .*0xe9'):
    video_list.read(_csv(folder, 'path,id', 'a.mp4,é', encoding='latin-1'))


@pytest.mark.parametrize(
  'source, message',
  [
    ('', "^input is empty: name a CSV file, or .*'videos/"),
    (' , ', '^input is empty'),
    ('no*.mp4', r"^input is '{folder}/no\*.mp4': no file matches"),
    ('no.csv', r'{folder}/no.csv: no such file'),
    ('no.mp4', r'^input: {folder}/no.mp4: no such file'),
    (
      'sub',
      r"^input: {folder}/sub is a folder\. Name .*, such as '{folder}/sub/\*.mp4",
    ),
    ('s*', '^input: {folder}/sub is a folder'),
    # A pattern beside it must not make it look read.
    ('*.mp4,{folder}/sub', '^input: {folder}/sub is a folder'),
    (
      'a.mp4,{folder}/sub/a.mp4',
      "/sub/a.mp4 has the id 'a', as has .*column id of a CSV",
    ),
  ],
)
def test_bad_inputs_are_one_line(folder, source, message):
  source = source.format(folder=folder)
  with pytest.raises(ValueError, match=message.format(folder=folder)) as error:
    video_list.read(f'{folder}/{source}' if source.strip(' ,') else source)
  assert '\n' not in str(error.value)
