"""Restores checkpoints; refuses those of a different architecture."""

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
from yt8m_distill.utils import cli

_GRAPH = '_CHECKPOINTABLE_OBJECT_GRAPH'
# Fields that change neither the weights nor what they compute.
_IGNORED_FIELDS = (
  'static_shapes',
  'use_cudnn',
  'recompute',
  'l2_weight_decay',
  'dropout',
)


def restore_model(model: tf_keras.layers.Layer, checkpoint: str, path: str = 'model'):
  """Restores all variables of a model or of a part of one.

  TensorFlow restores a checkpoint with other variables silently and leaves the
  unmatched ones random. Here that is an error.

  Args:
    model: built model.
    checkpoint: prefix of a checkpoint.
    path: where the model is in the checkpoint, such as 'model' or 'model/student'.

  Raises:
    ValueError: variables are missing or have other shapes; lists both sides.
  """
  checkpoint = run_dir.checkpoint(checkpoint)
  # Reading assigns whatever matches before it fails, so check first.
  check(model, checkpoint, path)
  try:
    with run_dir.reading(checkpoint):
      # Optimizer state and the step are not read.
      status = _at(model, path).read(checkpoint).expect_partial()
    status.assert_existing_objects_matched()
  except AssertionError as error:
    raise ValueError(_difference(model, checkpoint, path)) from error


def check(model: tf_keras.layers.Layer, checkpoint: str, path: str = 'model'):
  """Raises a ValueError unless model and checkpoint have the same shapes."""
  if sorted(_variables(checkpoint, path).values()) != sorted(
    variable.shape.as_list() for variable in model.variables
  ):
    raise ValueError(_difference(model, checkpoint, path))


def check_config(model: model_config.VideoModel, checkpoint: str):
  """Raises a ValueError if a run was configured with a different model.

  This also finds differences that no variable shows, such as chunks and frames.
  Without a params.yaml next to the checkpoint nothing is compared.

  Args:
    model: the present `task.model`.
    checkpoint: prefix of a checkpoint.
  """
  before = _model_before(model, checkpoint)
  if before:
    _raise_if(_config_differences(before, model.as_dict()), checkpoint)


def check_start(model: model_config.VideoModel, checkpoint: str):
  """Raises a ValueError if a model cannot start from all networks of another run.

  Other frames, and chunks of them, are allowed and logged. Without a params.yaml next
  to the checkpoint nothing is compared.

  Args:
    model: configuration of the model.
    checkpoint: prefix of a checkpoint.
  """
  before, now = _model_before(model, checkpoint), model.as_dict()
  if before:
    networks = {name: _on_frames_of(now, before, name) for name in model.networks()}
    _check_start(before, now, checkpoint, max_frames=now['max_frames'], **networks)


def _on_frames_of(
  now: dict[str, Any], before: dict[str, Any], name: str
) -> dict[str, Any]:
  """Returns network `name` of the model `before`, on the frames that it sees now.

  Where these differ, so may the number of chunks, which must divide them.
  """
  network = {**before[name], 'frames': now[name]['frames']}
  seen = [(model['max_frames'], model[name]['frames']) for model in (before, now)]
  kind = 'hierarchical_lstm'
  backbones = [model[name]['backbone'] for model in (before, now)]
  if seen[0] != seen[1] and all(kind in backbone for backbone in backbones):
    chunks = backbones[1][kind]['chunks']
    lstm = {**backbones[0][kind], 'chunks': chunks}
    network['backbone'] = {**backbones[0], kind: lstm}
  return network


def _model_before(
  model: model_config.VideoModel, checkpoint: str
) -> dict[str, Any] | None:
  """Returns the model of a run, which must have the same networks; None if unknown."""
  path = run_dir.params_path(checkpoint)
  if not path:
    return None
  before = run_dir.read_params(path)
  if before.task.model.networks().keys() != model.networks().keys():
    raise ValueError(
      f'{os.path.dirname(path)} is a run of the experiment {before.experiment!r}, '
      'which has other networks. Set --experiment to it, or name another folder.'
    )
  return before.task.model.as_dict()


def start_network(
  network: video_classifier.VideoClassifier,
  model: model_config.ClassifierModel,
  source: str,
  name: str = 'student',
):
  """Initializes a single network from a trained one.

  If the number of classes differs from the source's, the head keeps its initial
  values. Other frames, and chunks of them, are allowed and logged. So is, for each
  variable, whether it was restored.

  Args:
    network: built network.
    model: its configuration.
    source: folder of a run or prefix of a checkpoint.
    name: which network of a distillation run to take, 'student' or 'teacher'.

  Raises:
    ValueError: there is no checkpoint, or its architecture differs.
  """
  checkpoint = run_dir.checkpoint(source)
  path = path_of(checkpoint, name)
  new_head = False
  before = _network_before(checkpoint, name)
  if before:
    now = model.as_dict()
    new_head = before['num_classes'] != now['num_classes']
    network_before = _on_frames_of(now, before, 'network')
    if new_head:
      network_before['head'] = now['network']['head']
    _check_start(
      before,
      now,
      checkpoint,
      max_frames=now['max_frames'],
      num_classes=now['num_classes'],
      network=network_before,
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

  A different selection of frames is allowed and logged.

  Args:
    model: configuration of the model that the teacher becomes a part of.
    source: folder of a run or prefix of a checkpoint. From a distillation run, the
      teacher is taken.

  Returns:
    Prefix of the checkpoint, and the path of the teacher in it.

  Raises:
    ValueError: there is no checkpoint, or its architecture differs.
  """
  checkpoint = run_dir.checkpoint(source)
  before = _network_before(checkpoint, 'teacher')
  if before:
    now = model.as_dict()
    teacher = before.pop('network')
    # `model` with the source as its teacher, so that messages say `teacher`.
    _check_start(
      {**now, **before, 'teacher': teacher},
      now,
      checkpoint,
      teacher={**teacher, 'frames': now['teacher']['frames']},
    )
  return checkpoint, path_of(checkpoint, 'teacher')


def path_of(checkpoint: str, name: str) -> str:
  """Returns a network's path in a checkpoint.

  Args:
    checkpoint: prefix of the checkpoint.
    name: 'student' or 'teacher' of a distillation run.

  Returns:
    'model/NAME'; for a run of one network 'model', or 'model/network' if the network
    has a projection beside it.
  """
  for path in (f'model/{name}', 'model/network'):
    if _variables(checkpoint, path):
      return path
  return 'model'


def _network_before(checkpoint: str, name: str) -> dict[str, Any] | None:
  """Returns the ClassifierModel, as a dict, of a trained network; None if unknown."""
  params = run_dir.params_path(checkpoint)
  if not params:
    return None
  model = run_dir.read_params(params).task.model
  is_single = hasattr(model, 'network')
  return model_config.single_network(model, 'network' if is_single else name).as_dict()


def _check_start(
  before: dict[str, Any], now: dict[str, Any], checkpoint: str, **allowed
):
  """Raises if models differ in other than the allowed fields; logs those."""
  _raise_if(_config_differences({**before, **allowed}, now), checkpoint)
  for line in _config_differences(before, now):
    logging.warning('Differs from %s: %s.', checkpoint, line)


def check_trainable(checkpoint: str):
  """Raises a ValueError if training cannot resume from a checkpoint."""
  if not any(
    name.startswith('optimizer/') for name, _ in tf.train.list_variables(checkpoint)
  ):
    raise ValueError(
      f'Checkpoint {checkpoint} holds no optimizer state: training cannot resume '
      'in its folder. Set task.init_checkpoint to it, and --model_dir to a new '
      'folder.'
    )


def _at(trackable, path: str) -> tf.train.Checkpoint:
  """Returns a checkpoint that holds a trackable under a path."""
  for name in reversed(path.split('/')):
    holder = tf.Module()
    setattr(holder, name, trackable)
    trackable = holder
  return tf.train.Checkpoint(root=trackable)


def _variables(checkpoint: str, path: str) -> dict[str, list[int]]:
  """Returns the shapes of the variables below a path, by the shortest path to each.

  Paths follow the attributes of the saved objects. A variable that two of them
  share has a single key in the checkpoint, but is found through both.

  Raises:
    ValueError: the checkpoint is damaged.
  """
  with run_dir.reading(checkpoint):
    return _read_variables(checkpoint, path)


def _read_variables(checkpoint: str, path: str) -> dict[str, list[int]]:
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
  """Describes in which variables a checkpoint and a model differ."""
  # Saving the model tells the names of its variables in a checkpoint.
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


def _config_differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
  found, wanted = _flat(before), _flat(now)
  return [
    f'task.model{name} is {found.get(name, "absent")} in its params.yaml, '
    f'{wanted.get(name, "absent")} in this configuration'
    for name in {**found, **wanted}
    if found.get(name) != wanted.get(name)
    and name.rpartition('.')[2] not in _IGNORED_FIELDS
  ]


def _flat(values: dict[str, Any], path: str = '') -> dict[str, Any]:
  """Returns fields by their path; of a one-of config only the chosen one."""
  if values.get('type') in values:
    chosen = values['type']
    values = {'type': chosen, chosen: values[chosen]}
  flat = {}
  if 'features' in values:  # Their names and formats belong to the records.
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


def _other_architecture(differences: list[str], checkpoint: str) -> str:
  return (
    f'Checkpoint {checkpoint} has a different architecture. '
    f'{cli.some_of(differences)}. Configure the model as it was trained, for example '
    f'with --config_file={run_dir.params_path(checkpoint) or "RUN/params.yaml"}, or '
    'choose another folder.'
  )
