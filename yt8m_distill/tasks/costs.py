"""Frames, FLOPs and parameters of the networks of a task."""

from collections.abc import Iterable

from absl import logging

from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import video_classifier


def count(
  networks: Iterable[video_classifier.VideoClassifier], params: model_config.VideoModel
) -> dict[str, dict[str, int]]:
  """Counts the cost of each network, and logs it with the network's variables.

  Args:
    networks: the networks, named as their fields in `params`.
    params: the model's configuration.

  Returns:
    By name of the network, and of each of its answers at fewer frames: `frames`, the
    maximum number that it sees; `flops` of a video of full length, 2 per multiply-add;
    and `parameters`.

  Raises:
    ValueError: a backbone or head has no method flops().
  """
  costs = {}
  for network in networks:
    for part in (network.backbone, network.head):
      if not callable(getattr(part, 'flops', None)):
        raise ValueError(
          f'{type(part).__name__} has no method flops(): it must return the FLOPs of a '
          'video of full length.'
        )
    frames = getattr(params, network.name).frames
    parameters = network.count_params()
    found = {
      network.name: {
        'frames': frames.max_selected(params.max_frames),
        'flops': network.flops(),
        'parameters': parameters,
      }
    }
    prefix = model_config.key_prefix(network.name)
    for number in frames.counts()[:-1]:
      found[f'{prefix}{model_config.answer_name(number)}'] = {
        'frames': number,
        'flops': network.flops(number),
        'parameters': parameters,
      }
    for name, cost in found.items():
      logging.info(
        '%s: %d frames, %.4f GFLOPs per video, %s parameters',
        name,
        cost['frames'],
        cost['flops'] / 1e9,
        f'{cost["parameters"]:,}',
      )
    costs.update(found)
    for variable in network.variables:
      logging.info('  %s %s', variable.name, variable.shape)
  return costs
