"""Files of labels in time: which windows they hold, and in which order.

W windows, V classes of the networks.
"""

import contextlib

import numpy as np
import pandas as pd
import pytest

from yt8m_distill.serving import window_tables

_CLASSES = 7  # V


def _outputs(names, counts, seed, levels=5):
  """A batch of videos with these numbers of windows; few levels give ties."""
  rng = np.random.default_rng(seed)
  video = np.repeat(np.arange(len(names)), counts).astype(np.int32)
  start = np.concatenate([5 * np.arange(count) for count in counts]).astype(np.int32)
  scores = rng.integers(0, levels + 1, [len(video), _CLASSES]) / levels
  return {
    'id': names,
    'video': video,
    'start': start,
    'end': start + 5,
    'predictions': scores.astype(np.float32),
  }


def _write(path, batches, table, *arguments):
  with (
    open(path, 'wb') as file,
    contextlib.closing(table(file, *arguments)) as rows,
  ):
    for batch in batches:
      rows.write(batch)
  return str(path)


_SHARDS = [
  [_outputs([b'a', b'b'], [3, 60], 0), _outputs([b'c'], [1], 1)],
  [],
  [_outputs([b'd', b'x:1', b'e'], [7, 2, 30], 2)],
]


def _csv(tmp_path, classes):
  paths = [
    _write(tmp_path / f'{number}.parquet', batches, window_tables.Scores, classes)
    for number, batches in enumerate(_SHARDS)
  ]
  window_tables.join(paths, str(tmp_path / 'out.csv'), classes)
  return (tmp_path / 'out.csv').read_text()


def _plain_csv(classes, most):
  """States what the file holds, one class at a time."""
  lines = ['Class,Segments\n']
  for label in classes:
    ranking = [
      (-batch['predictions'][window, label], f'{batch["id"][video].decode()}:{start}')
      for batches in _SHARDS
      for batch in batches
      for window, (video, start) in enumerate(zip(batch['video'], batch['start']))
    ]
    ranking.sort(key=lambda pair: pair[0])  # Stable.
    lines.append(f'{label},{" ".join(name for _, name in ranking[:most])}\n')
  return ''.join(lines)


@pytest.mark.parametrize('most', [1, 8, 50, 103, 1000])
@pytest.mark.parametrize('read', [1, 13, 1024])
def test_csv_holds_the_best_windows_of_each_class(tmp_path, monkeypatch, most, read):
  monkeypatch.setattr(window_tables, '_MOST', most)
  monkeypatch.setattr(window_tables, '_READ', read)
  classes = np.array([5, 0, 3])
  assert _csv(tmp_path, classes) == _plain_csv(classes, most)


def test_csv_orders_by_all_digits(tmp_path):
  score = np.float32(1e-7)
  batch = _outputs([b'a'], [3], 0)
  batch['predictions'][:, 2] = [score, np.nextafter(score, 1, dtype=np.float32), 0]
  path = _write(tmp_path / 'a', [batch], window_tables.Scores, np.array([2]))
  window_tables.join([path], str(tmp_path / 'out.csv'), np.array([2]))
  assert (tmp_path / 'out.csv').read_text() == 'Class,Segments\n2,a:5 a:0 a:10\n'


@pytest.mark.parametrize('name', [b'a b', b'a,b', b'a\n'])
def test_an_id_that_would_break_a_line_is_refused(tmp_path, name):
  with pytest.raises(ValueError, match='has the id .a.* use --format=parquet'):
    _write(tmp_path / 'a', [_outputs([name], [1], 0)], window_tables.Scores, [0])


@pytest.mark.parametrize('named', [False, True])
def test_parquet_holds_the_best_classes_of_each_window(tmp_path, named):
  classes = np.array([6, 1, 4, 2])
  names = [f'name {i}' for i in range(_CLASSES)] if named else []
  batches = [_outputs([b'a', b'\xff b'], [2, 1], seed, 1000) for seed in range(2)]
  path = _write(tmp_path / 'a', batches, window_tables.Labels, classes, 3, names)
  expected = []
  for batch in batches:
    for video, start, scores in zip(
      batch['video'], batch['start'], batch['predictions']
    ):
      for label in sorted(classes, key=lambda label, s=scores: -s[label])[:3]:
        row = {'id': ['a', '\\xff b'][video], 'start': start, 'end': start + 5}
        row['class'] = label
        if named:
          row['class_name'] = f'name {label}'
        expected.append({**row, 'probability': scores[label]})
  table = pd.read_parquet(path)
  pd.testing.assert_frame_equal(table, pd.DataFrame(expected), check_dtype=False)
  assert len(table) == 2 * 3 * 3
