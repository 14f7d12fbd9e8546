"""Teacher and student side by side, and a student alone with its projection.

B videos, T frames, D features, R representation, K frames of the student.
"""

from collections.abc import Sequence

import tensorflow as tf
import tf_keras

from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import frame_selection
from yt8m_distill.modeling import video_classifier


@tf_keras.utils.register_keras_serializable(package='yt8m_distill')
class Distiller(tf_keras.Model):
  """Runs both networks on the same videos, each on its own selection of frames.

  Takes {'frames': uint8 [B, T, D], all frames, 'num_frames': int32 [B]; 'seed':
  int32 [B], for frames drawn at random and for dropout in training; 'window_start':
  int32 [B], for frames of a window}.
  Returns {'teacher': ..., 'student': ...}, each the outputs of a VideoClassifier.
  If states are compared, both also have 'moment_states', [B, K, R], the states of
  the lower LSTM at the frames that the student sees, and the student has
  'num_moments', int32 [B], how many of the K are real. States start from zero in
  each chunk, so at the same frame the two networks may have read differently many
  frames.
  If there are projections, the student also has 'projected': its outputs by name,
  [..., R], as wide as the teacher's.
  Called with `answers`, the student also has 'answers': see VideoClassifier. Each has
  its projections.

  A network that is not `trainable` runs as in evaluation, also in training. A
  network rebuilt from its configuration is trainable.
  """

  def __init__(
    self,
    teacher: video_classifier.VideoClassifier,
    student: video_classifier.VideoClassifier,
    teacher_frames: model_config.FrameSelection,
    student_frames: model_config.FrameSelection,
    share_head: bool = False,
    compare_states: bool = False,
    projections: dict[str, tf_keras.layers.Layer] | None = None,
    **kwargs,
  ):
    """Initializes the pair.

    Args:
      teacher: the network that sees more.
      student: the network that sees less.
      teacher_frames: which frames the teacher sees.
      student_frames: which frames the student sees.
      share_head: whether the student uses the teacher's head.
      compare_states: whether to return the states at the student's frames.
      projections: built layers, by the student's output that each projects.
      **kwargs: arguments of a Keras model.
    """
    super().__init__(autocast=False, **kwargs)
    if share_head:
      student.head = teacher.head
    self.teacher = teacher
    self.student = student
    self.projections = projections or {}
    self._frames = {'teacher': teacher_frames, 'student': student_frames}
    self._compare_states = compare_states
    self.built = True

  def call(self, inputs, training=False, answers=False):
    """Returns the outputs of both networks; see the class."""
    seen = {name: self._select(inputs, frames) for name, frames in self._frames.items()}
    if self._compare_states:
      moments, count = self._choose(inputs, self._frames['student'])
      seen['teacher'] = {**seen['teacher'], 'moments': moments}
      seen['student'] = {
        **seen['student'],
        'moments': tf.broadcast_to(tf.range(moments.shape[1]), tf.shape(moments)),
      }
    teacher, student = (
      network(seen[name], training=training and network.trainable, answers=each)
      for name, network, each in (
        ('teacher', self.teacher, False),
        ('student', self.student, answers),
      )
    )
    if self._compare_states:
      student['num_moments'] = count
    return {'teacher': teacher, 'student': _projected(student, self.projections)}

  def _select(self, inputs, frames):
    if frames.type == 'all':
      return inputs
    indices, count = self._choose(inputs, frames)
    return {
      **inputs,
      'frames': tf.gather(inputs['frames'], indices, batch_dims=1),
      'num_frames': count,
    }

  def _choose(self, inputs, frames):
    """Returns the frames [B, K] that a network sees, and how many are real [B]."""
    max_frames = inputs['frames'].shape[1]
    indices, count = frame_selection.frame_indices(
      inputs['num_frames'],
      frames,
      max_frames,
      inputs.get('seed'),
      inputs.get('window_start'),
    )
    return tf.ensure_shape(indices, [None, frames.max_selected(max_frames)]), count

  def get_config(self):
    """Returns what from_config() rebuilds both networks from."""
    return {
      'name': self.name,
      'teacher': tf_keras.layers.serialize(self.teacher),
      'student': tf_keras.layers.serialize(self.student),
      'teacher_frames': self._frames['teacher'].as_dict(),
      'student_frames': self._frames['student'].as_dict(),
      'share_head': self.student.head is self.teacher.head,
      'compare_states': self._compare_states,
      'projections': {
        name: tf_keras.layers.serialize(projection)
        for name, projection in self.projections.items()
      },
    }

  @classmethod
  def from_config(cls, config, custom_objects=None):
    """Rebuilds the pair, with new variables, from its get_config()."""
    config = dict(config)
    for name in ('teacher', 'student'):
      config[name] = tf_keras.layers.deserialize(config[name], custom_objects)
      config[f'{name}_frames'] = model_config.FrameSelection(config[f'{name}_frames'])
    config['projections'] = {
      name: _built(
        tf_keras.layers.deserialize(projection, custom_objects),
        getattr(config['student'].backbone, f'{name}_size'),
      )
      for name, projection in config['projections'].items()
    }
    return cls(**config)


def build(
  config: model_config.DistillerModel, compared: Sequence[str] = ()
) -> Distiller:
  """Builds both networks from their configuration.

  Args:
    config: configuration of the model.
    compared: names of the student's outputs that a loss compares with the
      teacher's. A backbone's property NAME_size is the width of NAME.

  Returns:
    The pair, with its variables.

  Raises:
    ValueError: the networks cannot share a head, or cannot be compared.
  """
  teacher = video_classifier.build(config, config.teacher, 'teacher')
  student = video_classifier.build(config, config.student, 'student')
  if config.share_head:
    _check_heads(config, teacher, student)
  compare_states = 'moment_states' in compared
  if compare_states:
    _check_states(config, teacher, student)
  projections = {}
  for name in compared:
    width, wanted = (
      getattr(network.backbone, f'{name}_size') for network in (student, teacher)
    )
    if width != wanted:
      if not config.projection:
        raise ValueError(
          f"task.model.projection is False, but the student's {name} has {width} "
          f"values and the teacher's {wanted}: they cannot be compared. Set it to "
          'True to learn a map from one to the other, or the weight of their loss '
          'to 0.'
        )
      projections[name] = _projection(name, width, wanted)
  return Distiller(
    teacher,
    student,
    config.teacher.frames,
    config.student.frames,
    config.share_head,
    compare_states,
    projections,
    name='distiller',
  )


class ProjectedNetwork(tf_keras.Model):
  """A network, and a learned linear map of its representation.

  Takes what a VideoClassifier takes, and returns what it returns and 'projected':
  {'representation': [B, size]}, also in each of its answers.
  """

  def __init__(self, network: video_classifier.VideoClassifier, size: int):
    """Initializes the pair; `size` is the width of the projected representation."""
    super().__init__(autocast=False, name='projected')
    self.network = network
    self.projection = _projection(
      'representation', network.backbone.representation_size, size
    )
    self.built = True

  def call(self, inputs, training=False, answers=False):
    """Returns the outputs; see the class."""
    outputs = self.network(inputs, training=training, answers=answers)
    return _projected(outputs, {'representation': self.projection})


def _projected(outputs, projections) -> dict:
  """Returns a student's outputs, and each of its answers, with the projected ones."""
  if not projections:
    return outputs

  values = {name: layer(outputs[name]) for name, layer in projections.items()}
  outputs = {**outputs, 'projected': values}
  if 'answers' in outputs:
    outputs['answers'] = [_projected(a, projections) for a in outputs['answers']]
  return outputs


def _projection(name: str, width: int, wanted: int) -> tf_keras.layers.Layer:
  """Returns a built linear map of an output from its width to the teacher's."""
  layer = tf_keras.layers.Dense(wanted, use_bias=False, name=f'{name}_projection')
  return _built(layer, width)


def _built(projection, width):
  with tf.name_scope(projection.name):
    projection.build([None, width])
  return projection


def _check_states(config, teacher, student):
  """Raises a ValueError if the networks have no states to compare."""
  for network in (teacher, student):
    if not hasattr(network.backbone, 'moment_states_size'):
      kind = getattr(config, network.name).backbone.type
      raise ValueError(
        f'task.model.{network.name}.backbone.type is {kind!r}, but '
        'task.losses.intermediate_weight is above 0: L_INT needs hierarchical_lstm. '
        'Set the weight to 0.'
      )


def _check_heads(config, teacher, student):
  """Raises a ValueError if one head cannot serve both networks."""
  widths = [network.backbone.representation_size for network in (teacher, student)]
  if widths[0] != widths[1]:
    raise ValueError(
      f"task.model.share_head is True, but the teacher's representation has "
      f"{widths[0]} values and the student's {widths[1]}: both must have the same "
      'width. Make them equal, or set share_head to False.'
    )
