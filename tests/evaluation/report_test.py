"""The report of a run, and the baseline in it."""

import json
import re
import shutil

import numpy as np
from official.modeling import hyperparams
import pytest
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import run_dir
from yt8m_distill.evaluation import baseline
from yt8m_distill.evaluation import report


@pytest.fixture(name='run')
def _run(tmp_path):
  """A folder as a finished run leaves it."""
  train = tiny.write_records(tmp_path / 'train.tfrecord', 30, seed=1)
  validation = tiny.write_records(tmp_path / 'validate.tfrecord', 20, seed=2)
  params = tiny.experiment(
    {
      'task': {
        'train_data': {
          'input_path': str(tmp_path / 'train.tfrecord'),
          'global_batch_size': 8,
        },
        'validation_data': {
          'input_path': str(tmp_path / 'validate.tfrecord'),
          'global_batch_size': 8,
        },
      }
    }
  )
  hyperparams.save_params_dict_to_yaml(params, str(tmp_path / 'params.yaml'))
  networks = {
    name: {'frames': frames, 'flops': flops, 'parameters': 1234}
    for name, frames, flops in (('teacher', 20, 1500000), ('student', 4, 600000))
  }
  scores = {
    f'{name}/{key}': value
    for name in networks
    for key, value in zip(
      ('gap', 'map', 'hit_at_one', 'perr'), (0.5, 0.25, 0.75, 0.625)
    )
  }
  (tmp_path / 'evaluation.json').write_text(
    json.dumps(
      {
        'step': 7,
        'input_path': str(tmp_path / 'validate.tfrecord'),
        'videos': 1234,
        'metrics': scores,
        'networks': networks,
      }
    )
  )
  for folder, tags in (
    ('train', ['teacher/label_loss', 'student/gap']),
    ('validation', ['student/gap', 'teacher/gap']),
  ):
    with tf.summary.create_file_writer(str(tmp_path / folder)).as_default():
      for step in (2, 4):
        for tag in tags:
          tf.summary.scalar(tag, 0.1 * step, step=step)
  return tmp_path, train, validation


def _task(folder):
  return run_dir.read_params(str(folder / 'params.yaml')).task


def test_baseline_is_the_ranking_by_training_frequency(run):
  folder, train, validation = run
  task = _task(folder)
  scores = baseline.class_frequency(task)
  # Plainly: all pairs of the top 5 classes, equal for every video.
  frequencies = train.mean(axis=0, dtype=np.float64)
  top = np.argsort(-frequencies, kind='stable')[: task.evaluation.top_k]
  assert scores['hit_at_one'] == pytest.approx(validation[:, top[0]].mean())
  seen = hits = total = 0.0
  for frequency in sorted(set(frequencies[top]), reverse=True):
    # Ties: the expected precision of a group in random order.
    group = validation[:, top[frequencies[top] == frequency]]
    m, g = group.size, group.sum()
    for j in range(m):
      total += g / m * (hits + 1 + j * (g - 1) / (m - 1)) / (seen + j + 1)
    seen, hits = seen + m, hits + g
  assert scores['gap'] == pytest.approx(total / validation.sum())


@pytest.mark.end_to_end
def test_baseline_counts_a_bounded_share_of_the_training_set(run, monkeypatch):
  folder, train, validation = run
  monkeypatch.setattr(baseline, '_BATCH', 5)
  monkeypatch.setattr(baseline, 'MAX_TRAIN_VIDEOS', 10)
  scores = baseline.class_frequency(_task(folder))
  top = [labels.sum(axis=0).argmax() for labels in (train[:10], train)]
  assert top[0] != top[1]
  assert scores['hit_at_one'] == pytest.approx(validation[:, top[0]].mean())
  assert 'of the first 10 training videos' in report.table([str(folder)])


def test_baseline_is_kept_while_the_data_stay_the_same(run, monkeypatch):
  folder, _, _ = run
  first = report.table([str(folder)])
  assert 'training videos' not in first
  calls = []
  monkeypatch.setattr(
    baseline,
    'class_frequency',
    lambda task: (
      calls.append(task.validation_data.input_path)
      or {'gap': 0.5, 'map': 0.5, 'hit_at_one': 0.5, 'perr': 0.5, 'train_videos': 30}
    ),
  )
  assert report.table([str(folder)]) == first and not calls
  # Other data under the same name.
  tiny.write_records(folder / 'validate.tfrecord', 21, seed=3)
  assert report.table([str(folder)]) != first and len(calls) == 1
  # The same data under another name.
  (folder / 'validate.tfrecord').rename(folder / 'other.tfrecord')
  path = folder / 'evaluation.json'
  path.write_text(path.read_text().replace('validate.tfr', 'other.tfr'))
  report.table([str(folder)])
  assert calls[1:] == [str(folder / 'other.tfrecord')]


def test_names_do_not_break_the_table(run, tmp_path):
  folder = tmp_path / 'a|`b\nc'
  folder.mkdir()
  for name in ('params.yaml', 'evaluation.json', 'baseline.json'):
    if (run[0] / name).exists():
      shutil.copy(run[0] / name, folder)
  heading, text = report.table([str(run[0]), str(folder)]).split('\n\n|')
  assert len(heading.splitlines()) == 4  # A title, an empty line and two runs.
  cells = [re.findall(r'(?<!\\)\|', f'|{line}') for line in text.splitlines()]
  assert len({len(row) for row in cells[1:]}) == 1
  assert r'a\|`b c: student' in text


@pytest.mark.parametrize(
  'content', ['{}', '{"inputs": {}, "scores": 3}', 'SCORES', '[]', '{']
)
def test_damaged_baseline_is_named(run, content):
  folder = run[0]
  path = folder / 'baseline.json'
  inputs = baseline._inputs(_task(folder))
  scores = json.dumps({'inputs': inputs, 'scores': {'train_videos': 3, 'gap': 'x'}})
  path.write_text(content.replace('SCORES', scores))
  assert f'baseline is missing: {path}' in report.table([str(folder)])


def test_table_names_networks_costs_scores_and_baseline(run):
  heading, text = report.table([str(run[0])]).split('\n\n|')
  assert heading == (
    f'Evaluated:\n\n- {run[0]}: step 7, 1,234 videos of {run[0]}/validate.tfrecord'
  )
  rows = [
    [cell.strip() for cell in f'|{line}'.strip('|').split('|')]
    for line in text.splitlines()
  ]
  assert rows[0][0] == 'network'
  assert rows[2] == [
    'teacher',
    '20',
    '0.002',
    '1,234',
    '0.5000',
    '0.2500',
    '0.7500',
    '0.6250',
  ]
  assert rows[3][:3] == ['student', '4 (20%)', '0.001 (40%)']
  assert rows[4][:3] == ['class frequency', '0', '0']
  assert 0 < float(rows[4][4]) < 1


@pytest.mark.parametrize(
  'empty_classes, text',
  [
    ('zero', 'mAP over 3,862 classes, 289 of them with positives (the others count as'),
    ('skip', 'mAP over the 289 of 3,862 classes with positives'),
  ],
)
def test_heading_says_which_classes_map_is_over(run, empty_classes, text):
  path = run[0] / 'evaluation.json'
  results = json.loads(path.read_text())
  results |= {
    'num_classes': 3862,
    'classes_with_positives': 289,
    'empty_classes': empty_classes,
  }
  path.write_text(json.dumps(results))
  assert f'validate.tfrecord; {text}' in report.table([str(run[0])])


def test_curves_and_plot(run):
  curves = report.read_curves(str(run[0] / 'validation'))
  steps, values = curves['student/gap']
  assert steps == [2, 4]
  assert values == pytest.approx([0.2, 0.4])
  path = run[0] / 'curves.png'
  report.save(report.plot(str(run[0])), str(path))
  assert path.read_bytes().startswith(b'\x89PNG')
  assert not list(run[0].glob('*.partial*'))


@pytest.mark.parametrize(
  'values, last_step',
  [((3, 8), 240), ((11.9, 12.4), 2_000_000), ((1e-3, 900), 75_955), ((2, 60), 3)],
)
def test_tick_labels_do_not_overlap(tmp_path, values, last_step):
  with tf.summary.create_file_writer(str(tmp_path / 'train')).as_default():
    for step, value in zip((1, last_step), values):
      tf.summary.scalar('label_loss', value, step=step)
      tf.summary.scalar('gap', 0.5, step=step)
  figure = report.plot(str(tmp_path))
  figure.tight_layout()
  figure.canvas.draw()
  for axes in figure.axes:
    for axis in (axes.xaxis, axes.yaxis):
      low, high = sorted(axis.get_view_interval())
      boxes = [
        tick.label1.get_window_extent()
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        if tick.label1.get_text() and low <= tick.get_loc() <= high
      ]
      assert len(boxes) >= 2
      assert sum(a.overlaps(b) for a in boxes for b in boxes) == len(boxes)


def _single(folder, records):
  """A run of one network."""
  folder.mkdir()
  (folder / 'evaluation.json').write_text(
    json.dumps(
      {
        'step': 9,
        'input_path': records,
        'videos': 20,
        'metrics': {'gap': 0.1, 'map': 0.2, 'hit_at_one': 0.3, 'perr': 0.4},
        'networks': {'network': {'frames': 4, 'flops': 0, 'parameters': 5}},
      }
    )
  )
  return str(folder)


def test_several_runs_stand_in_one_table(run, tmp_path):
  records = str(run[0] / 'validate.tfrecord')
  text = report.table([str(run[0]), _single(tmp_path / 'alone', records)])
  labels = [line.split('|')[1].strip() for line in text.splitlines() if '|' in line]
  assert labels[2:] == [
    f'{run[0].name}: teacher',
    f'{run[0].name}: student',
    'alone',
    'class frequency',
  ]
  assert '0.1000 | 0.2000 | 0.3000 | 0.4000' in text
  assert re.search(r'\| alone +\| 4 \(20%\) ', text)
  assert 'different records' not in text
  text = report.table([str(run[0]), _single(tmp_path / 'other', 'elsewhere')])
  assert f'- {tmp_path / "other"}: step 9, 20 videos of elsewhere\n' in text
  assert 'evaluated on different records' in text


def test_folders_without_a_run_or_an_evaluation(run):
  for missing in ('none', 'evaluation.json'):
    with pytest.raises(ValueError, match=f'{missing} is not a folder: name the'):
      report.table([str(run[0]), str(run[0] / missing)])
  (run[0] / 'evaluation.json').unlink()
  with pytest.raises(ValueError, match='neither a checkpoint nor an eval.*train it'):
    report.table([str(run[0])])
  tf.train.CheckpointManager(tf.train.Checkpoint(), str(run[0]), 1).save()
  with pytest.raises(ValueError, match='evaluate it first'):
    report.table([str(run[0])])
  (run[0] / 'params.yaml').write_text('task: {}')
  with pytest.raises(ValueError, match='params.yaml is not the configuration'):
    report.table([str(run[0])])
  (run[0] / 'params.yaml').unlink()
  with pytest.raises(ValueError, match='is not a run: it holds no params.yaml'):
    report.table([str(run[0])])


def test_every_folder_must_be_a_run(run, tmp_path_factory):
  other, inside = tmp_path_factory.mktemp('other'), run[0] / 'best_ckpt'
  inside.mkdir()
  for folder, message in (
    (other, 'is not a run: it holds no params.yaml'),
    (inside, f'is a folder of the run {run[0]}: name the run'),
  ):
    with pytest.raises(ValueError, match=f'^{folder} {message}'):
      report.table([str(run[0]), str(folder)])


def test_a_run_that_is_named_twice_appears_once(run, capsys):
  report.main([str(run[0])])
  once = capsys.readouterr().out
  report.main([str(run[0]), f'{run[0]}/train/..'])
  assert capsys.readouterr().out.replace('/train/..', '') == once
