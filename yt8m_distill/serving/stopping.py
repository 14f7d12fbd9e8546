"""The rule by which a nested network stops looking at a video.

`yt8m-distill adapt` chooses and writes it. `modeling.adaptive` applies it.
"""

import json
from typing import Any

from absl import flags
import tensorflow as tf

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.modeling import adaptive
from yt8m_distill.serving import fingerprint
from yt8m_distill.utils import files


def write(
  path: str, rule: adaptive.Rule, network: trained_network.Network, **details: Any
):
  """Writes a rule that was calibrated for a network, with further details."""
  files.write_json(
    path,
    {
      **rule._asdict(),
      'network': fingerprint_of(network),
      'checkpoint': network.checkpoint,
      **details,
    },
  )


def read(stopping: str, network: trained_network.Network) -> adaptive.Rule:
  """Returns a rule for a network.

  Args:
    stopping: path of the file that `yt8m-distill adapt` wrote; or a number of frames to
      see of every video, one of those that the network was trained for.
    network: the network that is to follow it.

  Raises:
    ValueError: there is no such file or number, or it is that of another network.
  """
  frames = network.model.network.frames
  counts = frames.counts()
  if not counts:
    raise ValueError(
      f'stopping is {stopping}, but {network.checkpoint} sees frames of type '
      f'{frames.type!r}: only a network with nested frames stops early. Leave it out.'
    )
  answers = f'{network.checkpoint} has answers at {", ".join(map(str, counts))} frames'
  if stopping.isdecimal():
    if int(stopping) not in counts:
      raise ValueError(f'stopping is {stopping}, but {answers}: choose one of these.')
    return adaptive.Rule((int(stopping),), 'top', 1.0)
  path = stopping
  remedy = 'name the stopping.json that yt8m-distill adapt wrote for this network.'
  try:
    with tf.io.gfile.GFile(path) as file:
      values = json.load(file)
    rule = adaptive.Rule(*(values[name] for name in adaptive.Rule._fields))
    calibrated = values['network']
    rule.check()
  except tf.errors.OpError as error:
    raise ValueError(
      f'stopping is {path}, which cannot be read ({error.message}): {remedy}'
    ) from error
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f'stopping is {path}, which holds no rule ({error}): {remedy}'
    ) from error
  if calibrated != fingerprint_of(network):
    raise ValueError(
      f'stopping is {path}, which was calibrated for other weights than those of '
      f'{network.checkpoint}: {remedy}'
    )
  if not set(rule.counts) <= set(counts):
    raise ValueError(
      f'stopping is {path}, whose counts are {rule.counts}, but {answers}: {remedy}'
    )
  return rule


def define_flags():
  """Defines the flag that names a rule."""
  flags.DEFINE_string(
    'stopping',
    '',
    'stopping.json of yt8m-distill adapt: stop looking at a video as soon as the '
    'network is sure. Or a number of frames: see as many of every video. For one run '
    'with nested frames.',
  )


def fingerprint_of(network: trained_network.Network) -> str:
  """Returns a text that differs where the network's weights or frames differ."""
  reads = fingerprint.reads_of(network.model)
  return fingerprint.of([(reads, network.network.variables)])
