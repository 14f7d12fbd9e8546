"""Teacher and student side by side.

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
  """Runs both networks on the same videos, each on the frames it sees.

  Takes {'frames': uint8 [B, T, D], all frames, 'num_frames': int32 [B]; 'seed':
  int32 [B], for frames drawn at random and for dropout in training}.
  Returns {'teacher': ..., 'student': ...}, each what a VideoClassifier returns.
  Where states are compared both have 'moment_states', [B, K, R], those of the
  lower LSTM at the frames that the student sees, and the student's has
  'num_moments', int32 [B], how many of the K are real. A network's states start
  anew with each of its chunks: at one moment the two do not look back equally
  far.
  Where there are projections the student's has 'projected' too: its outputs of
  those names, [..., R], as wide as the teacher's.

  A network that is not `trainable` runs as in evaluation, also in training; one
  that is rebuilt from its configuration is.
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
      share_head: the teacher's head becomes the student's too.
      compare_states: return the states at the frames that the student sees.
      projections: built layers, each for the student's output of that name.
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

  def call(self, inputs, training=False):
    seen = {name: self._select(inputs, frames) for name, frames in self._frames.items()}
    if self._compare_states:
      moments, count = self._choose(inputs, self._frames['student'])
      seen['teacher'] = {**seen['teacher'], 'moments': moments}
      seen['student'] = {
        **seen['student'],
        'moments': tf.broadcast_to(tf.range(moments.shape[1]), tf.shape(moments)),
      }
    outputs = {
      name: network(seen[name], training=training and network.trainable)
      for name, network in (('teacher', self.teacher), ('student', self.student))
    }
    student = outputs['student']
    if self._compare_states:
      student['num_moments'] = count
    if self.projections:
      student['projected'] = {
        name: projection(student[name]) for name, projection in self.projections.items()
      }
    return outputs

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
    """Frames [B, K] that a network sees, and how many of them are real."""
    max_frames = inputs['frames'].shape[1]
    indices, count = frame_selection.frame_indices(
      inputs['num_frames'], frames, max_frames, inputs.get('seed')
    )
    return tf.ensure_shape(
      indices, [None, frame_selection.max_selected(frames, max_frames)]
    ), count

  def get_config(self):
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
    config: of the model.
    compared: outputs of the student that a loss compares with the teacher's.
      Their widths are a backbone's NAME_size.

  Raises:
    ValueError: the configuration does not fit together.
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
          f"The student's {name} has {width} values, the teacher's "
          f'{wanted}: they cannot be compared. Set task.model.projection to '
          'true to learn a map from one to the other, or the weight of '
          'their loss to 0.'
        )
      projections[name] = _built(
        tf_keras.layers.Dense(wanted, use_bias=False, name=f'{name}_projection'), width
      )
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


def _built(projection, width):
  with tf.name_scope(projection.name):
    projection.build([None, width])
  return projection


def _check_states(config, teacher, student):
  """Raises a ValueError where the networks have no states to compare."""
  for network in (teacher, student):
    if not hasattr(network.backbone, 'moment_states_size'):
      kind = getattr(config, network.name).backbone.type
      raise ValueError(
        'losses.intermediate_weight is above 0, but L_INT needs '
        f'hierarchical_lstm, and task.model.{network.name}.backbone.type is '
        f'{kind!r}: set the weight to 0.'
      )
  kind = config.teacher.frames.type
  if kind != 'all':
    raise ValueError(
      'losses.intermediate_weight is above 0, but L_INT needs a teacher that '
      f'sees all frames, and task.model.teacher.frames.type is {kind!r}: '
      'choose all, or set the weight to 0.'
    )


def _check_heads(config, teacher, student):
  """Raises a ValueError where one head cannot serve both networks."""
  widths = [network.backbone.representation_size for network in (teacher, student)]
  if widths[0] != widths[1]:
    raise ValueError(
      f"task.model.share_head is true, but the teacher's representation has "
      f"{widths[0]} values and the student's {widths[1]}: one head takes "
      'one width. Make them equal, or set share_head to false.'
    )
  heads = [
    {'type': head.type, **head.get().as_dict()}
    for head in (config.teacher.head, config.student.head)
  ]
  if heads[0] != heads[1]:
    raise ValueError(
      'task.model.share_head is true, but the heads are configured '
      f'differently: {heads[0]} of the teacher, {heads[1]} of the student. '
      'Make them equal, or set share_head to false.'
    )
