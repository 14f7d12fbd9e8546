"""Networks converted for LiteRT, and run by it.

Tolerances are absolute; predictions of any two of these videos differ by 0.05
or more.
"""

import contextlib
import dataclasses
import io
import sys
import types

import numpy as np
import pytest
import serving_cases
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import frame_selection
from yt8m_distill.serving import export
from yt8m_distill.serving import signatures
from yt8m_distill.serving import tflite

pytestmark = pytest.mark.end_to_end

interpreter = pytest.importorskip('ai_edge_litert.interpreter')

# Chunks of 6 frames, whose clip LiteRT would take for a Relu6, and
# weights that outweigh the graph.
_SIZES = {
  'task': {
    'model': {
      'max_frames': 24,
      'teacher': {'backbone': {'hierarchical_lstm': {'chunks': 4}}},
      'student': {
        'frames': {'uniform': {'every_n': 2}},
        'backbone': {'hierarchical_lstm': {'chunks': 2, 'num_cells': 64}},
      },
    }
  }
}
_VIDEOS = 6
_TOLERANCES = {'float32': 1e-5, 'dynamic': 1e-2, 'float16': 5e-4}
_BACKBONES = {
  'yt8m_average': {},
  'yt8m_dbof': {'clusters': 32, 'hidden': 16},
  'netvlad': {'clusters': 8, 'hidden': 16},
  'nextvlad': {'clusters': 8, 'groups': 4, 'hidden': 16},
}


@pytest.fixture(name='exported', scope='module')
def _exported(tmp_path_factory):
  """The run, its export, and what the export printed."""
  path = tmp_path_factory.mktemp('tflite')
  run = serving_cases.write_run(path / 'run', _SIZES, scale=0.25)
  tiny.write_records(path / 'vid`eos.tfrecord', _VIDEOS)
  with contextlib.redirect_stdout(io.StringIO()) as printed:
    export.export(
      run,
      str(path / 'out'),
      top_k=3,
      kinds=tflite.KINDS,
      compare_path=f'{path}/vid`eos*',
    )
  return run, path / 'out', printed.getvalue().splitlines()


@pytest.mark.parametrize('kind', tflite.KINDS)
def test_agrees_with_the_saved_model(exported, kind):
  run, out, _ = exported
  serve = tf.saved_model.load(str(out)).signatures['frames']
  lite = interpreter.Interpreter(
    model_path=str(out / 'tflite' / f'{kind}.tflite')
  ).get_signature_runner()
  features = trained_network.Network(run).model.features
  for length in (1, 2, 13, 24):
    videos, _ = serving_cases.videos(features, [length], seed=length)
    padded = tf.pad(videos['frames'], [[0, 0], [0, 24 - length], [0, 0]])
    results = lite(frames=padded.numpy(), num_frames=np.array([length], np.int32))
    expected = serve(**videos)
    assert results.keys() == expected.keys()
    np.testing.assert_allclose(
      results['predictions'], expected['predictions'], atol=_TOLERANCES[kind]
    )
    np.testing.assert_array_equal(
      results['probabilities'], -np.sort(-results['predictions'])[:, :3]
    )


def test_sizes_and_differences_are_said(exported):
  """Printed, and in the model card: those of the videos that were named."""
  run, out, printed = exported
  sizes = {
    kind: (out / 'tflite' / f'{kind}.tflite').stat().st_size for kind in tflite.KINDS
  }
  assert sizes['dynamic'] < sizes['float16'] < sizes['float32']
  card = (out / 'model_card.md').read_text()
  assert 'on the first videos of `` ' in card and 'vid`eos* ``:' in card
  network = trained_network.Network(run)
  module = signatures.ServingModule(network.network, network.model, 3)
  videos = list(tflite.recorded_videos(module, str(out.parent / 'vid`eos*')))
  assert len(videos) == _VIDEOS
  for kind, line in zip(tflite.KINDS, printed):
    content = (out / 'tflite' / f'{kind}.tflite').read_bytes()
    with tiny.eagerly():
      found = tflite.difference(content, module, videos)
    assert line.startswith(f'{kind}.tflite: {sizes[kind] / 1e6:.2f} MB')
    assert f'{found.same_best} of {_VIDEOS} videos keep their best class' in line
    difference = line.split(' up to ')[1].split()[0]
    assert float(difference) == pytest.approx(found.largest, abs=1e-6, rel=0.1)
    assert 0 < float(difference) <= _TOLERANCES[kind]
    assert (
      f'{sizes[kind] / 1e6:.2f} MB | {difference} | {found.same_best} of {_VIDEOS} |'
      in card
    )
  assert len(printed) == len(tflite.KINDS) + 1


def test_the_best_class_is_counted(monkeypatch):
  """Of three videos, the second gets another best class, by 0.25."""
  expected = np.array([[0.5, 0.25], [0.5, 0.25], [0.25, 0.5]], np.float32)
  lite = expected + np.array([[0, 0], [-0.125, 0.25], [0, 0.125]], np.float32)

  def model(table):
    return lambda number: {'predictions': tf.constant(table[number : number + 1])}

  def runner():
    return lambda number: {'predictions': lite[number : number + 1]}

  content = types.SimpleNamespace(get_signature_runner=runner)
  monkeypatch.setattr(tflite, '_litert', lambda: lambda model_content: model_content)
  module = types.SimpleNamespace(serve_all_frames=model(expected))
  found = tflite.difference(content, module, [{'number': n} for n in range(3)])
  assert found == (3, 0.25, 2)


@pytest.mark.parametrize('backbone, sizes', _BACKBONES.items())
def test_other_backbones(tmp_path, backbone, sizes):
  student = {'backbone': {'type': backbone, backbone: sizes}}
  run = serving_cases.write_run(
    tmp_path / 'run', {'task': {'model': {'student': student}}}, scale=0.25
  )
  network = trained_network.Network(run)
  module = signatures.ServingModule(network.network, network.model, 3)
  with tiny.eagerly():
    for kind, content in tflite.convert(network, 3, tflite.KINDS):
      found = tflite.difference(content, module, tflite.random_videos(module))
      assert found.largest < _TOLERANCES[kind], kind


@pytest.mark.parametrize(
  'arguments, match',
  [
    ({'compare_path': 'a*'}, 'compare_path is a.*, but there is no model.*--tflite'),
    ({'compare_path': 'nowhere*', 'kinds': ['float32']}, '--compare_path: .*nowhere'),
  ],
)
def test_records_to_compare_on(exported, tmp_path, arguments, match):
  out = tmp_path / 'out'
  with pytest.raises(ValueError, match=match):
    export.export(exported[0], str(out), **arguments)
  assert not out.exists()


def test_every_selection_converts():
  """All in one graph, of videos of each length up to 24."""
  selections = {
    f'every 5th, {length}': model_config.FrameSelection(
      type='uniform', uniform=model_config.UniformFrames(every_n=5, length=length)
    )
    for length in ('ceil', 'original')
  }
  for kind in [f.name for f in dataclasses.fields(model_config.FrameSelection)][1:]:
    selections[kind] = frames = model_config.FrameSelection(type=kind)
    if kind == 'uniform':
      frames.uniform.every_n = 0
    if kind != 'all':
      frames.get().k = 4 if kind == 'window' else 7

  @tf.function(input_signature=[tf.TensorSpec([1], tf.int32, 'num_frames')])
  def choose(num_frames):
    results = {}
    starts = num_frames // 2
    for name, frames in selections.items():
      results[f'{name} indices'], results[f'{name} count'] = (
        frame_selection.frame_indices(num_frames, frames, 24, (0,), starts)
      )
    return results

  module = tf.Module()
  module.choose = choose
  converter = tf.lite.TFLiteConverter.from_concrete_functions(
    [choose.get_concrete_function()], module
  )
  lite = interpreter.Interpreter(
    model_content=converter.convert()
  ).get_signature_runner()
  for length in range(1, 25):
    num_frames = np.array([length], np.int32)
    actual, expected = lite(num_frames=num_frames), choose(num_frames)
    for name, value in expected.items():
      np.testing.assert_array_equal(actual[name], value, name)


def test_random_frames(tmp_path):
  frames = {'type': 'random', 'random': {'k': 12}}
  run = serving_cases.write_run(
    tmp_path / 'run',
    _SIZES,
    {'task': {'model': {'student': {'frames': frames}}}},
    scale=0.25,
  )
  network = trained_network.Network(run)
  [(_, content)] = tflite.convert(network, 3, ['float32'])
  module = signatures.ServingModule(network.network, network.model, 3)
  with tiny.eagerly():
    found = tflite.difference(content, module, tflite.random_videos(module))
  assert found.videos == 5 and found.largest < _TOLERANCES['float32']


def test_without_litert(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'ai_edge_litert', None)
  with pytest.raises(ImportError, match='pip install ai-edge-litert'):
    export.export('run', str(tmp_path / 'out'), kinds=['float32'])


def test_network_that_does_not_convert(exported, monkeypatch):
  def fail(_):
    raise RuntimeError('no such operation\nand more')

  converter = type('Converter', (), {'convert': fail})
  monkeypatch.setattr(
    tf.lite.TFLiteConverter, 'from_saved_model', lambda *_, **__: converter()
  )
  with pytest.raises(
    ValueError,
    match='ckpt-7 cannot be converted.*float32.*no such operation Omit --tflite',
  ):
    list(tflite.convert(trained_network.Network(exported[0]), 1, ['float32']))
