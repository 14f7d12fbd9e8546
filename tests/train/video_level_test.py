"""Video-level records from training to prediction."""

import csv
import json

import golden_cases
import numpy as np
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import run_dir
from yt8m_distill.evaluation import baseline
from yt8m_distill.evaluation import report
from yt8m_distill.serving import export
from yt8m_distill.serving import predict

_FEATURES = {'mean_rgb': 6, 'mean_audio': 2}
_SIZES = {
  'task': {
    'model': {
      'features': [
        {'name': name, 'size': size, 'format': 'video'}
        for name, size in _FEATURES.items()
      ],
      'max_frames': 1,
      'num_classes': tiny.CLASSES,
      'network': {
        'frames': {'type': 'all'},
        'backbone': {'type': 'yt8m_average'},
        'head': {'type': 'logistic'},
      },
    },
    'evaluation': {'top_k': 5},
  }
}
_RECORDS = golden_cases.SHARED / 'data' / 'yt8m' / '2' / 'video' / 'validate'


def _write(path, with_labels=True):
  """Writes 9 videos; returns their features, float32 [9, 8], and records."""
  rng = np.random.default_rng(0)
  values = rng.normal(size=[9, 8]).astype('f')
  records = []
  for number, row in enumerate(values):
    features = tf.train.Example().features
    features.feature['id'].bytes_list.value.append(b'v%d' % number)
    features.feature['mean_rgb'].float_list.value.extend(row[:6])
    features.feature['mean_audio'].float_list.value.extend(row[6:])
    if with_labels:
      features.feature['labels'].int64_list.value.append(number % tiny.CLASSES)
    records.append(tf.train.Example(features=features).SerializeToString())
  with tf.io.TFRecordWriter(str(path)) as writer:
    for record in records:
      writer.write(record)
  return values, records


def _drive(tmp_path, run, experiment, **values):
  """Trains for 2 steps and evaluates."""
  sizes = tmp_path / 'video.yaml'
  sizes.write_text(json.dumps(_SIZES))  # JSON is YAML.
  records = tmp_path / 'train.tfrecord'
  with tiny.eagerly():
    tiny.run_driver(
      'train_and_eval',
      run,
      f'--config_file={sizes}',
      tiny.override(
        task__train_data__input_path=records,
        task__train_data__global_batch_size=4,
        task__validation_data__input_path=records,
        task__validation_data__global_batch_size=4,
        trainer__train_steps=2,
        trainer__steps_per_loop=1,
        trainer__validation_interval=2,
        **values,
      ),
      experiment=experiment,
      sized=False,
    )


def test_trained_fine_tuned_exported_and_predicted(tmp_path):
  _write(tmp_path / 'train.tfrecord')
  run, tuned = tmp_path / 'run', tmp_path / 'tuned'
  _drive(tmp_path, run, 'yt8m_distill_single')
  _drive(tmp_path, tuned, 'yt8m_distill_finetune', task__init_checkpoint=run)
  results = json.loads((tuned / 'evaluation.json').read_text())
  assert results['videos'] == 9
  assert results['networks']['network']['frames'] == 1
  assert 'class frequency' in report.table([str(tuned)])

  values, records = _write(tmp_path / 'test.tfrecord', with_labels=False)
  export.export(str(tuned), str(tmp_path / 'export'))
  served = tf.saved_model.load(str(tmp_path / 'export')).signatures
  assert sorted(served) == ['features', 'serving_default']
  outputs = served['serving_default'](examples=tf.constant(records))
  again = served['features'](
    features=tf.constant(values[:, None]), num_frames=tf.ones([9], tf.int32)
  )
  np.testing.assert_array_equal(outputs['predictions'], again['predictions'])
  card = (tmp_path / 'export' / 'model_card.md').read_text()
  assert 'tf.train.Example`s with a float list of `mean_rgb`' in card

  predict.predict(
    [str(tuned)],
    str(tmp_path / 'test.tfrecord'),
    str(tmp_path / 'out'),
    features=[f'{k}:{v}:video' for k, v in _FEATURES.items()],
  )
  with open(tmp_path / 'out' / 'predictions.csv', encoding='utf-8') as file:
    rows = list(csv.reader(file))[1:]
  assert [row[0] for row in rows] == [f'v{number}' for number in range(9)]
  for row, indices in zip(rows, outputs['class_indices'].numpy()):
    assert [int(item) for item in row[1].split()[::2]] == indices.tolist()


@golden_cases.needs_shared
def test_a_real_shard_is_learned(tmp_path):
  """Better than by class frequencies."""
  run = tmp_path / 'run'
  tiny.run_driver(
    'train_and_eval',
    run,
    '--gin_file=train.gin',
    '--gin_file=average.gin',
    f'--config_file={tiny.ROOT}/experiments/video_2018.yaml',
    f"--gin_params=yt8m_distill.train_path='{_RECORDS}/validate0000.tfrecord'",
    f"--gin_params=yt8m_distill.validation_path='{_RECORDS}/validate0001.tfrecord'",
    "--gin_params=yt8m_distill.head='logistic'",
    '--gin_params=yt8m_distill.batch_size=64',
    '--gin_params=yt8m_distill.learning_rate=0.01',
    '--gin_params=yt8m_distill.train_steps=40',
    tiny.override(
      trainer__steps_per_loop=40,
      trainer__summary_interval=40,
      trainer__validation_interval=40,
    ),
    experiment='yt8m_distill_single',
    sized=False,
  )
  results = json.loads((run / 'evaluation.json').read_text())['metrics']
  frequency = baseline.class_frequency(
    run_dir.read_params(str(run / 'params.yaml')).task
  )
  assert results['gap'] > 2 * frequency['gap']
  assert results['hit_at_one'] > 1.5 * frequency['hit_at_one']
