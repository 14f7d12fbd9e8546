"""Restoring checkpoints, and refusing those of another architecture."""

import collections
import os
import tempfile
from typing import Any

from absl import logging
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2
import tf_keras

from yt8m_distill.checkpoints import run_dir
from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import video_classifier

# Differences that a message names.
_MAX_NAMED = 6
_GRAPH = '_CHECKPOINTABLE_OBJECT_GRAPH'
# What changes neither the weights nor what they compute.
_FREE_FIELDS = ('static_shapes', 'use_cudnn', 'recompute', 'l2_weight_decay', 'dropout')


def restore_model(model: tf_keras.layers.Layer, checkpoint: str, path: str = 'model'):
  """Restores the variables of a model or of a part of one, all or none.

  TensorFlow takes a checkpoint with other variables in silence and leaves the
  unmatched ones random; here that is an error.

  Args:
    model: built.
    checkpoint: prefix of a checkpoint.
    path: of the model in it: 'model', or 'model/student', say.

  Raises:
    ValueError: variables are missing, or have other shapes; names both.
  """
  checkpoint = run_dir.checkpoint(checkpoint)
  # First, as reading assigns what it can before it fails.
  check(model, checkpoint, path)
  try:
    # Slots of an optimizer and the step stay behind.
    _at(model, path).read(checkpoint).expect_partial().assert_existing_objects_matched()
  except (AssertionError, ValueError) as error:
    raise ValueError(_difference(model, checkpoint, path)) from error


def check(model: tf_keras.layers.Layer, checkpoint: str, path: str = 'model'):
  """Raises a ValueError unless both have variables of the same shapes."""
  if sorted(_variables(checkpoint, path).values()) != sorted(
    variable.shape.as_list() for variable in model.variables
  ):
    raise ValueError(_difference(model, checkpoint, path))


def check_config(model: model_config.VideoModel, checkpoint: str):
  """Raises a ValueError where a run was configured with another model.

  Chunks and frames show in no variable. Without a params.yaml beside the
  checkpoint there is nothing to compare.

  Args:
    model: what `task.model` is now.
    checkpoint: prefix.
  """
  path = run_dir.params_path(checkpoint)
  if path:
    _raise_if(
      _config_differences(run_dir.read_params(path).task.model, model), checkpoint
    )


def start_network(
  network: video_classifier.VideoClassifier,
  model: model_config.ClassifierModel,
  source: str,
):
  """Starts a single network from a student, or from a network of its kind.

  With another number of classes than the source's the head stays new. Logs
  which variables were restored and which are new. Frames may be chosen in
  another way than before; that is logged as well.

  Args:
    network: built.
    model: its configuration.
    source: folder of a run or prefix of a checkpoint; of a distillation run the
      student is taken.

  Raises:
    ValueError: no checkpoint, or one of another architecture.
  """
  checkpoint = run_dir.checkpoint(source)
  path = _path(checkpoint, 'student')
  new_head = False
  before = _network_before(checkpoint, 'student')
  if before:
    new_head = before.num_classes != model.num_classes
    _check_start(
      before,
      model,
      checkpoint,
      max_frames=model.max_frames,
      num_classes=model.num_classes,
      network=before.network.replace(
        frames=model.network.frames,
        **({'head': model.network.head} if new_head else {}),
      ),
    )
  part = network.backbone if new_head else network
  restore_model(part, checkpoint, f'{path}/backbone' if new_head else path)
  restored = {variable.ref() for variable in part.variables}
  for variable in network.variables:
    logging.info(
      '%s %s %s',
      'restored' if variable.ref() in restored else 'new',
      variable.name,
      variable.shape,
    )


def find_teacher(model: model_config.DistillerModel, source: str) -> tuple[str, str]:
  """Finds a trained teacher.

  It may have seen other frames than it sees now; that is logged.

  Args:
    model: configuration of the model that it becomes a part of.
    source: folder of a run or prefix of a checkpoint; of a distillation run its
      teacher is taken, of a run of one network that one.

  Returns:
    Prefix of the checkpoint, and the teacher's path in it.

  Raises:
    ValueError: no checkpoint, or one of another architecture.
  """
  checkpoint = run_dir.checkpoint(source)
  before = _network_before(checkpoint, 'teacher')
  if before:
    # As `model`, with the teacher as it was: messages then name the teacher.
    before = model.replace(
      features=before.features,
      max_frames=before.max_frames,
      num_classes=before.num_classes,
      teacher=before.network,
    )
    _check_start(
      before,
      model,
      checkpoint,
      teacher=before.teacher.replace(frames=model.teacher.frames),
    )
  return checkpoint, _path(checkpoint, 'teacher')


def _path(checkpoint: str, name: str) -> str:
  """Of a network: 'model/NAME', or 'model' where there is one alone."""
  path = f'model/{name}'
  return path if _variables(checkpoint, path) else 'model'


def _network_before(checkpoint: str, name: str) -> model_config.ClassifierModel | None:
  """How a network was trained, None without a params.yaml that tells it."""
  params = run_dir.params_path(checkpoint)
  if not params:
    return None
  alone = _path(checkpoint, name) == 'model'
  return model_config.alone(
    run_dir.read_params(params).task.model, 'network' if alone else name
  )


def _check_start(
  before: model_config.VideoModel, now: model_config.VideoModel, checkpoint: str, **free
):
  """Raises where configurations differ but for free fields; logs those."""
  _raise_if(_config_differences(before.replace(**free), now), checkpoint)
  for line in _config_differences(before, now):
    logging.warning('Differs from %s: %s.', checkpoint, line)


def check_trainable(checkpoint: str):
  """Raises a ValueError where training cannot go on from a checkpoint."""
  if not any(
    name.startswith('optimizer/') for name, _ in tf.train.list_variables(checkpoint)
  ):
    raise ValueError(
      f'Checkpoint {checkpoint} holds a network without the state of an '
      'optimizer: training cannot go on in its folder. Set '
      'task.init_checkpoint to it, and --model_dir to a new folder.'
    )


def _at(trackable, path: str) -> tf.train.Checkpoint:
  """A checkpoint that holds a trackable under a path."""
  for name in reversed(path.split('/')):
    holder = tf.Module()
    setattr(holder, name, trackable)
    trackable = holder
  return tf.train.Checkpoint(root=trackable)


def _variables(checkpoint: str, path: str) -> dict[str, list[int]]:
  """Shapes of the variables below a path, by the shortest path to each.

  Paths follow the attributes of the saved objects: what two of them share is
  stored under one key, and found from both.
  """
  reader = tf.train.load_checkpoint(checkpoint)
  if not reader.has_tensor(_GRAPH):
    return {}
  nodes = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
    reader.get_tensor(_GRAPH)
  ).nodes
  shapes = reader.get_variable_to_shape_map()

  def children(node):
    return {child.local_name: child.node_id for child in nodes[node].children}

  node = 0
  for name in path.split('/'):
    if name not in children(node):
      return {}
    node = children(node)[name]
  found, seen, left = {}, {node}, collections.deque([(path, node)])
  while left:
    place, node = left.popleft()
    for attribute in nodes[node].attributes:
      if attribute.name == 'VARIABLE_VALUE':
        found[place] = shapes[attribute.checkpoint_key]
    for name, child in children(node).items():
      if child not in seen:
        seen.add(child)
        left.append((f'{place}/{name}', child))
  return found


def _difference(model: tf_keras.layers.Layer, checkpoint: str, path: str) -> str:
  """Says in which variables a checkpoint and a model differ."""
  # The names that this model's variables have in a checkpoint.
  with tempfile.TemporaryDirectory() as folder:
    wanted = _variables(_at(model, path).write(os.path.join(folder, 'model')), path)
  found = _variables(checkpoint, path)
  return _other_architecture(
    [
      f'{name}: {found.get(name, "absent")} in the checkpoint, '
      f'{wanted.get(name, "absent")} in the model'
      for name in sorted(set(wanted) | set(found))
      if wanted.get(name) != found.get(name)
    ],
    checkpoint,
  )


def _config_differences(
  before: model_config.VideoModel, now: model_config.VideoModel
) -> list[str]:
  found, wanted = _flat(before.as_dict()), _flat(now.as_dict())
  return [
    f'task.model{name} is {found.get(name, "absent")} in its params.yaml, '
    f'{wanted.get(name, "absent")} in this configuration'
    for name in {**found, **wanted}
    if found.get(name) != wanted.get(name) and not name.endswith(_FREE_FIELDS)
  ]


def _flat(values: dict[str, Any], path: str = '') -> dict[str, Any]:
  """Fields by their path; of a one-of config the chosen one alone."""
  if 'type' in values:
    chosen = values['type']
    values = {'type': chosen, chosen: values[chosen]}
  flat = {}
  if 'features' in values:  # Called and stored as the records have it.
    values = {**values, 'features': [f['size'] for f in values['features']]}
  for name, value in values.items():
    if isinstance(value, dict):
      flat.update(_flat(value, f'{path}.{name}'))
    else:
      flat[f'{path}.{name}'] = value
  return flat


def _raise_if(differences: list[str], checkpoint: str):
  if differences:
    raise ValueError(_other_architecture(differences, checkpoint))


def some_of(differences: list[str]) -> str:
  """Names the first of many."""
  more = len(differences) - _MAX_NAMED
  return '; '.join(differences[:_MAX_NAMED]) + (
    f'; and {more} more' if more > 0 else ''
  )


def _other_architecture(differences: list[str], checkpoint: str) -> str:
  return (
    f'Checkpoint {checkpoint} is of another architecture. '
    f'{some_of(differences)}. Configure the model as in the params.yaml '
    'beside the checkpoint, or choose another folder.'
  )
