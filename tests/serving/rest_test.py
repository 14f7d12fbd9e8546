"""The requests that serving/README.md shows, by TensorFlow Serving's rules of JSON.

https://www.tensorflow.org/tfx/serving/api_rest: a row of `instances` is an object of
inputs by name, or the value of the only input; bytes are {"b64": ...}. All values of an
input have one shape, and get its dtype.
"""

import base64
import json
import re

import numpy as np
import paths
import pytest
import serving_cases
import tensorflow as tf

from yt8m_distill.serving import export

pytestmark = pytest.mark.end_to_end

_README = (paths.ROOT / 'yt8m_distill/serving/README.md').read_text()
_SECTION = _README.split('\n## Serve\n')[1].split('\n## ')[0]


def _value(json_value):
  if isinstance(json_value, dict):
    assert list(json_value) == ['b64']
    return base64.b64decode(json_value['b64'], validate=True)
  if isinstance(json_value, list):
    return [_value(each) for each in json_value]
  return json_value


def _tensors(request, signatures):
  """Returns the signature that a request names and its inputs."""
  assert request.keys() <= {'signature_name', 'instances'}
  signature = signatures[request.get('signature_name', 'serving_default')]
  specs = signature.structured_input_signature[1]
  rows = request['instances']
  if len(specs) == 1:
    [name] = specs
    rows = [{name: row} for row in rows]
  inputs = {}
  for name, spec in specs.items():
    assert all(row.keys() == specs.keys() for row in rows)
    values = np.array([_value(row[name]) for row in rows])  # Raises if ragged.
    assert spec.dtype == tf.string or values.dtype == np.int64
    inputs[name] = tf.constant(values, spec.dtype)
    assert spec.shape.is_compatible_with(inputs[name].shape)
  return signature, inputs


@pytest.fixture(name='model', scope='module')
def _model(tmp_path_factory):
  folder = tmp_path_factory.mktemp('rest')
  run = serving_cases.write_run(
    folder / 'run',
    {
      'task': {
        'model': {
          'features': [{'name': 'rgb', 'size': 1024}, {'name': 'audio', 'size': 128}],
          'max_frames': 300,
        }
      }
    },
  )
  vocabulary = folder / 'vocabulary.csv'
  vocabulary.write_text('Index,Name\n' + ''.join(f'{i},class {i}\n' for i in range(12)))
  export.export(run, str(folder / 'out'), top_k=3, vocabulary=str(vocabulary))
  return tf.saved_model.load(str(folder / 'out'))


def test_requests_of_the_readme(model, tmp_path, monkeypatch):
  [code] = re.findall(r'```python\n(.*?)```', _SECTION, re.DOTALL)
  [path] = re.findall(r"TFRecordDataset\('(\S+)'\)", code)
  sent = re.findall(r'curl -d @(\S+) ', _SECTION)
  monkeypatch.chdir(tmp_path)
  (tmp_path / path).write_bytes(paths.FRAME_LEVEL.read_bytes())
  exec(code, {})
  assert sorted(sent) == sorted(file.name for file in tmp_path.glob('*.json'))
  results = {}
  for name in sent:
    request = json.loads((tmp_path / name).read_text())
    signature, inputs = _tensors(request, model.signatures)
    results[name] = signature(**inputs)
    shapes = {value.shape[0] for value in results[name].values()}
    assert len(shapes) == 1  # A response of rows needs this.
  first, second = (results[name]['predictions'] for name in sent)
  np.testing.assert_allclose(first, second, atol=1e-6)
  [response] = re.findall(r'^    (\{"predictions".*)$', _SECTION, re.MULTILINE)
  assert set(re.findall(r'"(\w+)":', response)) - {'predictions'} <= {
    *results[sent[0]]
  } | {'predictions'}


def test_names_of_the_docker_command():
  """The model that is mounted is the one that is asked."""
  [mounted] = re.findall(r':/models/(\w+)', _SECTION)
  assert re.findall(r'MODEL_NAME=(\w+)', _SECTION) == [mounted]
  assert {*re.findall(r'/v1/models/(\w+):predict', _SECTION)} == {mounted}
