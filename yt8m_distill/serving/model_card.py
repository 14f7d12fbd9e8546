"""Describes an export: input.json and model_card.md."""

from collections.abc import Sequence
from typing import Any

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.configs import model as model_config
from yt8m_distill.evaluation import results
from yt8m_distill.modeling import adaptive
from yt8m_distill.serving import averaging
from yt8m_distill.serving import fingerprint
from yt8m_distill.serving import mediapipe
from yt8m_distill.serving import signatures
from yt8m_distill.serving import tflite
from yt8m_distill.utils import markdown
from yt8m_distill.utils import quantization

_RELEASES = ({('rgb', 1024), ('audio', 128)}, {('mean_rgb', 1024), ('mean_audio', 128)})
_STORED = {
  'bytes': 'byte string',
  'float32_bytes': 'byte string (little-endian float32)',
  'floats': 'float list',
  'quantized_floats': 'float list (clipped to [-2, 2])',
  'video': 'float list',
}
_OUTPUTS = """- `class_indices` and `probabilities` of the best classes, best first
- `class_names` of these classes, if there is a `labels.csv`
- `predictions`: the probability of each class. Classes do not exclude each other,
  so the sum is not 1."""
_WEIGHTS = {'float32': 'as trained', 'float16': '16 bits', 'dynamic': '8 bits'}
_Module = signatures.ServingModule | averaging.EnsembleModule


def input_spec(module: signatures.ServingModule) -> dict[str, Any]:
  """Returns the content of input.json: how to prepare requests."""
  reads = fingerprint.reads_of(module.params)
  if module.stopping:
    reads['stopping'] = module.stopping._asdict()
  return _spec(module, module.params, reads)


def ensemble_spec(ensemble: averaging.EnsembleModule) -> dict[str, Any]:
  """Returns the content of the input.json of several networks."""
  modules = ensemble.modules
  return _spec(
    ensemble,
    modules[0].params,
    {
      'networks': [
        {
          'weight': share,
          **fingerprint.reads_of(module.params),
          'context': module.context,
        }
        for share, module in zip(_shares(ensemble), modules)
      ]
    },
  )


def _shares(ensemble: averaging.EnsembleModule) -> Sequence[float]:
  return averaging.shares(ensemble.weights, len(ensemble.modules))


def _spec(
  module: _Module, model: model_config.ClassifierModel, reads: dict[str, Any]
) -> dict[str, Any]:
  """Returns input.json; of several networks, `model` is any of them."""
  return {
    'signatures': {
      name: _signature(function)
      for name, function in module.get_inference_signatures().items()
    },
    **reads,
    'dequantization': {
      'formula': 'feature = byte * scale + bias',
      'scale': quantization.SCALE,
      'bias': quantization.BIAS,
      'range': [quantization.BIAS, quantization.HIGHEST],
    },
    'num_classes': model.num_classes,
    'segments': {'frames': model_config.WINDOW, 'context': module.context},
  }


def _signature(function) -> dict[str, Any]:
  outputs = function.get_concrete_function().structured_outputs
  return {
    'inputs': {spec.name: _tensor(spec) for spec in function.input_signature},
    'outputs': {name: _tensor(outputs[name]) for name in sorted(outputs)},
  }


def _tensor(spec) -> dict[str, Any]:
  """Describes a tensor; a dimension that requests may choose is null."""
  return {'dtype': spec.dtype.name, 'shape': spec.shape.as_list()}


def model_card(
  network: trained_network.Network,
  module: signatures.ServingModule,
  for_mediapipe: bool = False,
  converted: Sequence[tflite.Converted] = (),
  compare_path: str = '',
) -> str:
  """Returns the content of model_card.md.

  Args:
    network: the network.
    module: its signatures.
    for_mediapipe: whether there is a SavedModel for MediaPipe.
    converted: its models for LiteRT.
    compare_path: records that these were compared on; '' for random videos.
  """
  model = network.model
  frames = model.network.frames.max_selected(model.max_frames)
  return f"""# Video classifier ({model.network.backbone.type})

Classifies videos into {model.num_classes} classes from features of their frames.
Exported by `yt8m_distill` from step {network.step} of \
{markdown.code(network.checkpoint)}.

| frames read per video | GFLOPs per video | parameters |
|---|---|---|
| {frames} of up to {model.max_frames} | {network.network.flops() / 1e9:.3f} | \
{network.network.count_params():,} |

## Input

{_vectors(model)}

{_inputs(module, module)}

`input.json` lists all names, types and shapes.

## Output

{_OUTPUTS}
- `representation`: an embedding of the video, \
{network.network.backbone.representation_size} values
{_stops(network, module)}{_windows(module)}{_mediapipe(model) if for_mediapipe else ''}\
{_lite(converted, compare_path)}
## Quality

{_quality(network, module)}
## Data

{_data(network)}"""


def ensemble_card(
  networks: Sequence[trained_network.Network], ensemble: averaging.EnsembleModule
) -> str:
  """Returns the content of the model_card.md of several networks."""
  rows, sources, flops, sizes = [], [], 0, 0
  for number, (network, share) in enumerate(zip(networks, _shares(ensemble))):
    model = network.model
    frames = model.network.frames.max_selected(model.max_frames)
    flops += network.network.flops()
    sizes += network.network.count_params()
    rows.append(
      f'| {number} | {share:.6g} | {frames} of up to {model.max_frames} | '
      f'{network.network.flops() / 1e9:.3f} | {network.network.count_params():,} |\n'
    )
    sources.append(
      f'- Network {number} ({model.network.backbone.type}) is from step {network.step} '
      f'of {markdown.code(network.checkpoint)}.{_selects(model, "it")}\n'
    )
  model = networks[0].model
  return f"""# Ensemble of {len(networks)} video classifiers

Classifies videos into {model.num_classes} classes from features of their frames. The
predictions are the weighted mean of those of {len(networks)} networks. Exported by
`yt8m_distill`.

| network | weight | frames read per video | GFLOPs per video | parameters |
|---|---|---|---|---|
{''.join(rows)}| all | 1 | | {flops / 1e9:.3f} | {sizes:,} |

{''.join(sources)}
`{trained_network.NETWORKS}/0/params.yaml` and so on are their configurations.

## Input

{_vector(model)}

{_inputs(ensemble, ensemble.modules[0])}

`input.json` lists all names, types and shapes.

## Output

{_OUTPUTS}
{_windows(ensemble)}
## Quality

The ensemble was not evaluated.

## Data

{''.join(dict.fromkeys(map(_data, networks)))}"""


def _stops(network: trained_network.Network, module: signatures.ServingModule) -> str:
  """Says when the network stops looking at a video, if it does."""
  if not module.stopping:
    return ''
  counts, measure, threshold = module.stopping
  seen = '- `frames_seen`: how many frames of the video the model looked at\n'
  if len(counts) == 1:
    cost = network.network.flops(counts[0]) / 1e9
    return (
      f'{seen}\nThe model looks at {counts[0]} frames of every video, {cost:.4f} '
      'GFLOPs.\n'
    )
  flops = adaptive.flops_of(network.network, counts)
  rows = '\n'.join(f'| {n} | {cost / 1e9:.4f} |' for n, cost in zip(counts, flops))
  return f"""{seen}
The model starts with {counts[0]} frames and goes on as long as the confidence \
`{measure}` is below
{threshold:.6g}. What a video costs:

| frames seen | GFLOPs |
|---|---|
{rows}
"""


def _vectors(model: model_config.ClassifierModel) -> str:
  return _vector(model) + _selects(model, 'the model')


def _vector(model: model_config.ClassifierModel) -> str:
  features = ' and then '.join(
    f'{feature.size} of {markdown.code(feature.name)}' for feature in model.features
  )
  if model.features[0].format == 'video':
    return f'One vector per video, passed as its only frame: {features}.'
  return f'One vector per frame: {features}. Send all frames.'


def _selects(model: model_config.ClassifierModel, name: str) -> str:
  """Returns a sentence about the frames that a network of this name selects."""
  if model.features[0].format == 'video':
    return ''
  return (
    f' Of the first\n{model.max_frames} frames, {name} reads '
    f'{_reading(model.network.frames)}.'
  )


def _inputs(module: _Module, network: signatures.ServingModule) -> str:
  """Returns the table of a module's signatures, which take what the network does."""
  shape = (
    f'[videos, frames, {network.frame_size}], padded at the end, and '
    '`num_frames` int32 [videos]'
  )
  features = network.params.features
  stored = ', '.join(
    f'a {_STORED[feature.format]} of {markdown.code(feature.name)}'
    for feature in features
  )
  message = (
    '`tf.train.Example`s with'
    if features[0].format == 'video'
    else '`tf.train.SequenceExample`s with, per frame'
  )
  takes = {
    'serving_default': f'`examples`, serialized {message} {stored}',
    'frames': f'`frames` uint8 {shape}; a byte is the value '
    f'`byte * {quantization.SCALE:.6g} + {quantization.BIAS:.6g}`',
    'features': f'`features`, the values, float32 {shape}',
    'segments': 'what `frames` takes, to classify windows of the videos',
  }
  return '\n'.join(
    ['| signature | takes |', '|---|---|']
    + [
      f'| `{name}` | {markdown.cell(takes[name])} |'
      for name in module.get_inference_signatures()
    ]
  )


def _windows(module: _Module) -> str:
  if 'segments' not in module.get_inference_signatures():
    return ''
  around = f', and up to {module.context} before and after' if module.context else ''
  return f"""
`segments` returns classes, probabilities and predictions for each window of a video: \
frames 0 to
{model_config.WINDOW - 1}, the next {model_config.WINDOW}, and so on; the last one may \
be shorter. The model sees the frames of the
window{around}. `video` is the video's row in the request, `start` the
window's first frame, and `end` the one after its last.
"""


def _mediapipe(model: model_config.ClassifierModel) -> str:
  return f"""
`{mediapipe.FOLDER}/` is a SavedModel for MediaPipe's YouTube-8M graphs: from
`rgb_and_audio`, the values, float32 [segments, frames, 1152], and `num_frames` int32
[segments, 1], to `predictions` float32 [segments, {model.num_classes}].
"""


def _lite(converted: Sequence[tflite.Converted], compare_path: str) -> str:
  """Describes the models for LiteRT, if there are any."""
  if not converted:
    return ''
  rows = '\n'.join(
    f'| `tflite/{kind}.tflite` | {_WEIGHTS[kind]} | {size / 1e6:.2f} MB | '
    f'{largest:.1e} | {same} of {videos} |'
    for kind, size, (videos, largest, same) in converted
  )
  compared = 'random videos'
  if compare_path:
    compared = f'the first videos of {markdown.code(compare_path)}'
  return f"""
## LiteRT

Compared with the SavedModel on {compared}:

| model | weights | size | largest difference of a probability | same best class |
|---|---|---|---|---|
{rows}
"""


def _reading(frames: model_config.FrameSelection) -> str:
  n = frames.uniform.every_n
  if frames.type == 'nested':
    return f'{frames.nested.counts[-1]} at equal intervals'
  if frames.type == 'uniform' and n:
    return f'frames 0, {n}, {2 * n} and so on'
  if frames.type == 'all':
    return 'all'
  how = {
    'uniform': '{} at equal intervals',
    'random': '{} at random (drawn by the id of a record; without ids, the '
    'same ones for all videos of a length)',
    'first': 'the first {}',
    'middle': 'the middle {}',
    'last': 'the last {}',
    'first_middle_last': '{}, a third each from start, middle and end',
    'window': '{} of the window that starts at `window_start` of a record, otherwise '
    'at the first frame',
  }
  return how[frames.type].format(frames.get().k or 'all')


def _quality(network: trained_network.Network, module: signatures.ServingModule) -> str:
  evaluation = network.evaluation
  if not evaluation:
    return 'This step was not evaluated.\n'
  rows: list[str] = ['| metric | value |', '|---|---|']
  for key, value in evaluation['metrics'].items():
    rows.append(f'| {markdown.cell(results.TITLES.get(key, key))} | {value:.4f} |')
  seen = ', at all frames, not as few as here' if module.stopping else ''
  return (
    f'On {evaluation["videos"]:,} validation videos{seen}:\n\n' + '\n'.join(rows) + '\n'
  )


def _data(network: trained_network.Network) -> str:
  trained = network.params.task.train_data.input_path
  text = f'Trained on {markdown.code(trained)}.\n' if trained else ''
  if {(f.name, f.size) for f in network.model.features} in _RELEASES:
    text += (
      'The features have the names and sizes of those in YouTube-8M, which '
      'Google offers\nunder CC BY 4.0. Whether they come from there is not '
      'recorded.\n'
    )
  return text or 'The configuration names no training data.\n'
