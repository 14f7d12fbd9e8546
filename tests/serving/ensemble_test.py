"""Several networks predict their weighted mean, from runs and as one export.

B videos, W windows, V classes.
"""

import json
import pathlib
import shutil

import numpy as np
import pandas as pd
import pytest
import records as records_lib
import serving_cases
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import run_dir
from yt8m_distill.checkpoints import trained_network
from yt8m_distill.modeling import video_classifier
from yt8m_distill.serving import averaging
from yt8m_distill.serving import ensemble
from yt8m_distill.serving import export as export_lib
from yt8m_distill.serving import signatures
from yt8m_distill.serving import teach
from yt8m_distill.serving import windows
from yt8m_distill.utils import cli

_WEIGHTS = ('2', '1', '1')
_RECORD = 'test0.tfrecord'
_AVERAGE = {'backbone': {'type': 'yt8m_average'}, 'head': {'type': 'logistic'}}


@pytest.mark.parametrize(
  'texts, expected',
  [
    ((), ()),
    (('2', '1', '1'), (0.5, 0.25, 0.25)),
    (('1', '0', '0'), (1.0, 0.0, 0.0)),
    (('7', '7', '7'), ()),  # The plain mean.
    (('1e-300', '3e-300', '0'), (0.25, 0.75, 0.0)),
  ],
)
def test_weights_are_divided_by_their_sum(texts, expected):
  assert averaging.read_weights(texts, 3) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
  'texts, message',
  [
    (('1', '2'), 'model_weights is 1,2, 2 of them for 3 networks: give one weight'),
    (('1', '2', '3', '4'), '4 of them for 3 networks'),
    (('1', 'x', '1'), "model_weights is 1,x,1: .*'x'. Give numbers, such as 2,1,1"),
    (('1', '', '1'), 'model_weights is 1,,1: .*Give numbers'),
    (('1', '-1', '1'), 'model_weights is 1,-1,1: weights must be finite, 0 or more'),
    (('0', '0', '0'), 'model_weights is 0,0,0: .*not all 0'),
    (('nan', '1', '1'), 'model_weights is nan,1,1: weights must be finite'),
    (('1', 'nan', '1'), 'model_weights is 1,nan,1: weights must be finite'),
    (('1', '1', 'inf'), 'model_weights is 1,1,inf: weights must be finite'),
  ],
)
def test_wrong_weights_are_named(texts, message):
  with pytest.raises(ValueError, match=message) as error:
    averaging.read_weights(texts, 3)
  assert '\n' not in str(error.value)


def _module(**fields):
  """Signatures of a tiny network that averages frames."""
  params = tiny.experiment(
    _model(network=_AVERAGE, **fields), experiment='yt8m_distill_single'
  )
  model = params.task.model
  network = video_classifier.build(model, model.network, 'network')
  return signatures.ServingModule(network, model)


def _model(**fields):
  return {'task': {'model': fields}}


@pytest.mark.parametrize(
  'fields, message',
  [
    ({'num_classes': 20}, 'a predicts 12 classes and b 20: name networks for the same'),
    (
      {'features': [{'name': 'rgb', 'size': 8, 'format': 'floats'}]},
      'a reads rgb:8:bytes,audio:4:bytes and b rgb:8:floats: name networks',
    ),
  ],
)
def test_networks_that_do_not_belong_together(fields, message):
  models = [
    tiny.experiment(_model(**each), experiment='yt8m_distill_single').task.model
    for each in ({}, fields)
  ]
  with pytest.raises(ValueError, match=message):
    averaging.check_alike(['a', 'b'], models)


@pytest.mark.parametrize(
  'fields, lacking',
  [
    ([{}, {'max_frames': 300}], set()),
    ([{}, {'max_frames': 301}], {'record_windows'}),
    ([{'features': [{'name': 'rgb', 'size': 8, 'format': 'floats'}]}] * 2, {'frames'}),
    (
      [{'features': [{'name': 'x', 'size': 8, 'format': 'video'}], 'max_frames': 1}]
      * 2,
      {'record_windows', 'frames'},
    ),
  ],
)
def test_functions_are_those_that_all_networks_have(fields, lacking):
  modules = [_module(**each) for each in fields]
  module = averaging.EnsembleModule(modules, ())
  functions = {'records', 'record_windows'}
  names = {'serving_default', 'frames', 'features', 'segments'}
  if 'frames' in lacking:
    lacking = {*lacking, 'segments'}
  assert {*module.record_functions()} == functions - lacking
  assert {*module.get_inference_signatures()} == names - lacking


def _write_run(folder, seed, *overrides):
  """Writes a run of one network with random weights; returns its folder."""
  params = tiny.experiment(*overrides, experiment='yt8m_distill_single')
  model = params.task.model
  network = video_classifier.build(model, model.network, 'network')
  tiny.scatter_weights(network, seed)
  trained_network.write(str(folder), network, params, serving_cases.STEP)
  return str(folder)


def _frames(every_n):
  return {'frames': {'uniform': {'every_n': every_n}}}


@pytest.fixture(name='three', scope='module')
def _three(tmp_path_factory):
  """Runs of three networks, of different weights and frames."""
  folder = tmp_path_factory.mktemp('three')
  return [
    _write_run(folder / '0', 0, _model(network=_frames(tiny.EVERY_N))),
    _write_run(folder / '1', 1, _model(network={**_AVERAGE, **_frames(2)})),
    _write_run(
      folder / '2', 2, _model(network={**_AVERAGE, 'frames': {'type': 'all'}})
    ),
  ]


@pytest.fixture(name='vocabulary', scope='module')
def _vocabulary(tmp_path_factory):
  path = tmp_path_factory.mktemp('names') / 'vocabulary.csv'
  names = [f'name {i}' for i in range(tiny.CLASSES)]
  pd.DataFrame({'Index': range(tiny.CLASSES), 'Name': names}).to_csv(path, index=False)
  return str(path)


@pytest.fixture(name='out', scope='module')
def _out(three, vocabulary, tmp_path_factory):
  """An export of the three, weighted."""
  out = str(tmp_path_factory.mktemp('export') / 'three')
  export_lib.export(
    three, out, top_k=5, vocabulary=vocabulary, model_weights=_WEIGHTS, context=2
  )
  return out


def _read(sources, model_weights=(), segments=None, network='student'):
  return serving_cases.read(sources, network, None, (), segments, model_weights)


def _batch(data):
  serialized = records_lib.read(data / _RECORD)
  count = len(serialized)
  return tf.fill([count], 'a'), tf.range(count, dtype=tf.int64), tf.constant(serialized)


def _assert_equal(found, expected):
  """Asserts that outputs are equal bit for bit."""
  assert found.keys() == expected.keys()
  for key in found:
    np.testing.assert_array_equal(found[key], expected[key], key)


_SEGMENTS = windows.Segments(5)


@pytest.mark.end_to_end
def test_an_export_predicts_what_its_runs_do(three, out, data):
  records = _batch(data)
  exported = _read([out], segments=_SEGMENTS)
  several = _read(three, _WEIGHTS, windows.Segments(5, 2))
  assert exported.extras == several.extras == ()
  _assert_equal(exported(*records), several(*records))
  _assert_equal(exported.windows(*records), several.windows(*records))
  plain = _read(three)(*records)
  assert not np.array_equal(several(*records)['probabilities'], plain['probabilities'])


@pytest.mark.end_to_end
def test_all_signatures_return_the_mean(three, out, data):
  loaded = tf.saved_model.load(out)
  modules = []
  for run in three:
    network = trained_network.Network(run)
    modules.append(
      signatures.ServingModule(network.network, network.model, 5, context=2)
    )
  videos, _ = serving_cases.videos(modules[0].params.features)
  values = {
    'features': tf.cast(videos['frames'], tf.float32) * (4 / 255) + 4 / 512 - 2,
    'num_frames': videos['num_frames'],
  }
  for name, inputs in (
    ('serving_default', {'examples': _batch(data)[-1]}),
    ('frames', videos),
    ('segments', videos),
    ('features', values),
  ):
    found = loaded.signatures[name](**inputs)
    functions = [module.get_inference_signatures()[name] for module in modules]
    each = [function(*inputs.values()) for function in functions]
    mean = np.average([o['predictions'] for o in each], axis=0, weights=[2, 1, 1])
    np.testing.assert_allclose(found['predictions'], mean, atol=1e-6)
    best = np.argsort(-found['predictions'].numpy(), 1)[:, :5]
    np.testing.assert_array_equal(found['class_indices'], best)
    assert found['class_names'].numpy()[0, 0] == b'name %d' % best[0, 0]
    expected = {*each[0], 'class_names'} - {'representation'}
    assert {*found} == expected


@pytest.mark.end_to_end
def test_a_weight_of_all_is_the_network_alone(three, data):
  records = _batch(data)
  alone = _read(three[1:2])(*records)
  del alone['representation']
  _assert_equal(_read(three[1:], ('1', '0'))(*records), alone)


@pytest.mark.end_to_end
def test_an_export_beside_a_run(three, out, data):
  records = _batch(data)
  found = _read([out, three[0]], ('3', '1'))
  flat = _read(three, ('5', '1.5', '1.5'))  # 3/4 x (2, 1, 1)/4, and 1/4 of the first.
  np.testing.assert_allclose(
    found(*records)['probabilities'], flat(*records)['probabilities'], atol=1e-6
  )


@pytest.mark.end_to_end
def test_an_export_is_the_same_teacher_as_its_runs(three, out):
  exported, several, *others = [
    networks.fingerprint()
    for networks in (
      _read([out], segments=_SEGMENTS),
      _read(three, _WEIGHTS, windows.Segments(5, 2)),
      _read(three),
      _read(three, ('5', '1.5', '1.5')),
      _read([out, three[0]], ('3', '1')),
    )
  ]
  assert exported == several
  assert len({several, *others}) == 4


@pytest.mark.end_to_end
def test_an_export_describes_each_network(three, out, vocabulary):
  folder = pathlib.Path(out)
  assert {path.name for path in folder.iterdir()} >= {'labels.csv', 'networks'}
  for absent in ('params.yaml', 'evaluation.json'):
    assert not (folder / absent).exists()
  for number, every_n in enumerate([tiny.EVERY_N, 2]):
    params = run_dir.read_params(str(folder / f'networks/{number}/params.yaml'))
    assert params.task.model.network.frames.uniform.every_n == every_n
  spec = json.loads((folder / 'input.json').read_text())
  assert [n['frames_read']['at_most'] for n in spec['networks']] == [4, 10, 20]
  assert [n['weight'] for n in spec['networks']] == [0.5, 0.25, 0.25]
  assert spec['networks'][0]['max_frames'] == tiny.MAX_FRAMES
  assert 'max_frames' not in spec
  assert 'representation' not in spec['signatures']['frames']['outputs']
  card = (folder / 'model_card.md').read_text()
  networks = [trained_network.Network(run).network for run in three]
  total = sum(network.flops() for network in networks) / 1e9
  size = sum(network.count_params() for network in networks)
  for words in (
    '# Ensemble of 3 video classifiers',
    '| 0 | 0.5 | 4 of up to 20 |',
    '| 1 | 0.25 | 10 of up to 20 |',
    '| 2 | 0.25 | 20 of up to 20 |',
    f'| all | 1 | | {total:.3f} | {size:,} |',
    f'from step 7 of `{three[1]}/ckpt-7`. Of the first\n20 frames, it reads frames 0,',
    'Send all frames.\n',
    'and up to 2 before and after',
    'The ensemble was not evaluated.',
  ):
    assert words in card, words
  assert '- `representation`' not in card
  assert pd.read_csv(folder / 'labels.csv').equals(pd.read_csv(vocabulary))
  assert len(trained_network.student_configs(out)) == 3
  with pytest.raises(ValueError, match=f'{out} holds 3 networks.*leave out --model'):
    trained_network.student_config(out)


@pytest.mark.end_to_end
def test_tables_of_an_export(three, out, data, vocabulary, tmp_path):
  arguments = {'format': 'parquet', 'vocabulary': vocabulary}
  tables = [
    pd.read_parquet(path / 'test0.parquet')
    for path in (
      serving_cases.predict([out], data, tmp_path / 'export', **arguments),
      serving_cases.predict(
        three,
        data,
        tmp_path / 'runs',
        model=three,
        model_weights=_WEIGHTS,
        **arguments,
      ),
    )
  ]
  pd.testing.assert_frame_equal(*tables)
  assert 'embedding' not in tables[0]


@pytest.mark.end_to_end
def test_weights_are_part_of_the_job(three, data, tmp_path):
  arguments = {'model': three, 'model_weights': _WEIGHTS}
  out = serving_cases.predict(three, data, tmp_path / 'weighted', **arguments)
  job = json.loads((out / 'predict.json').read_text())
  assert job['model_weights'] == [0.5, 0.25, 0.25]
  serving_cases.predict(three, data, out, **arguments)
  for weights in ((), ('1', '2', '1')):
    with pytest.raises(ValueError, match='another job: model_weights is .*, was'):
      serving_cases.predict(three, data, out, model=three, model_weights=weights)
  plain = serving_cases.predict(three, data, tmp_path / 'plain', model=three)
  assert 'model_weights' not in json.loads((plain / 'predict.json').read_text())
  assert serving_cases.contents(plain) != serving_cases.contents(out)


@pytest.mark.end_to_end
def test_the_page_shows_the_mean_of_an_export(three, out, data, tmp_path):
  networks = _read([out], segments=_SEGMENTS)
  [mean] = networks.windows_of_each(*_batch(data))
  expected = networks.windows(*_batch(data))
  assert {*mean} == {*expected, 'frames'}
  np.testing.assert_array_equal(mean['predictions'], expected['predictions'])
  for video, start, end, seen in zip(
    *(mean[key].numpy() for key in ('video', 'start', 'end', 'frames'))
  ):
    last = mean['end'].numpy()[mean['video'] == video].max()
    # The third network sees all of them, with 2 before and 2 after the window.
    all_frames = range(max(start - 2, 0), min(end + 2, last))
    assert {*seen[seen >= 0].tolist()} == {*all_frames}
  page = serving_cases.predict([out], data, tmp_path / 'page', format='html')
  assert (page / 'page.html').exists()
  with pytest.raises(ValueError, match='--model_weights is given with --format=html'):
    serving_cases.predict(
      three, data, tmp_path / 'other', format='html', model_weights=_WEIGHTS
    )


@pytest.mark.end_to_end
def test_an_export_teaches_what_its_runs_do(three, out, data, tmp_path, monkeypatch):
  monkeypatch.setattr(ensemble, 'Ensemble', serving_cases.read)
  sizes = {'every_n': tiny.EVERY_N, 'max_frames': tiny.MAX_FRAMES, 'workers': 1}
  written = [
    teach.teach(
      model, f'{data}/*', str(tmp_path / name), model_weights=weights, **sizes
    )
    for name, model, weights in (
      ('runs', three, _WEIGHTS),
      ('export', [out], ()),
      ('plain', three, ()),
    )
  ]
  runs, export, plain = [[pathlib.Path(p).read_bytes() for p in w] for w in written]
  assert runs == export != plain
  jobs = [
    json.loads((tmp_path / n / 'teach.json').read_text()) for n in ('runs', 'plain')
  ]
  assert jobs[0]['model_weights'] == [0.5, 0.25, 0.25]
  assert 'model_weights' not in jobs[1]
  with pytest.raises(ValueError, match='another job: .*model_weights is None, was'):
    teach.teach(three, f'{data}/*', str(tmp_path / 'runs'), **sizes)


@pytest.mark.end_to_end
@pytest.mark.parametrize(
  'arguments, message',
  [
    (
      {'kinds': ['float32']},
      'tflite is float32, but .* are several runs: leave',
    ),
    ({'for_mediapipe': True}, 'mediapipe is True, but .* leave out --mediapipe'),
    ({'model_weights': ['1']}, 'model_weights is 1, 1 of them for 2 networks'),
    ({'run': []}, 'run is empty'),
    ({'vocabulary': 'nowhere.csv'}, 'vocabulary is nowhere.csv, which does not exist'),
  ],
)
def test_what_an_export_of_several_cannot_be(
  three, tmp_path, monkeypatch, arguments, message
):
  monkeypatch.setattr(export_lib.tflite, 'check', lambda kinds: None)
  with pytest.raises(ValueError, match=message) as error:
    export_lib.export(**{'run': three[1:], 'out': str(tmp_path / 'out'), **arguments})
  assert '\n' not in cli.message(error.value)
  assert not (tmp_path / 'out').exists()


@pytest.mark.end_to_end
def test_what_its_description_says_is_checked(out, tmp_path):
  copy = tmp_path / 'out'
  shutil.copytree(out, copy)
  spec = json.loads((copy / 'input.json').read_text())
  spec['networks'][1]['max_frames'] = 320
  (copy / 'input.json').write_text(json.dumps(spec))
  with pytest.raises(ValueError, match=r'windows up to frame \[300, 320, 300\]: name'):
    _read([str(copy)], segments=_SEGMENTS)
  (copy / 'input.json').unlink()
  with pytest.raises(ValueError, match='lacks its input.json: export its run again'):
    _read([str(copy)]).fingerprint()


@pytest.mark.end_to_end
def test_runs_of_different_classes_are_named(three, vocabulary, tmp_path):
  wider = _write_run(tmp_path / 'wider', 0, _model(network=_AVERAGE, num_classes=20))
  message = f'^{three[1]} predicts 12 classes and {wider} 20: name networks'
  with pytest.raises(ValueError, match=message):
    export_lib.export([three[1], wider], str(tmp_path / 'out'), vocabulary=vocabulary)
