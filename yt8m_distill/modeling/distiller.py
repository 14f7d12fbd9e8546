"""Teacher and student side by side.

B videos, T frames, D features.
"""

import tensorflow as tf
import tf_keras

from yt8m_distill import selection
from yt8m_distill.configs import model as model_config
from yt8m_distill.modeling import video_classifier


@tf_keras.utils.register_keras_serializable(package='yt8m_distill')
class Distiller(tf_keras.Model):
  """Runs both networks on the same videos, each on the frames it sees.

  Takes {'frames': uint8 [B, T, D], all frames, 'num_frames': int32 [B]; 'seed':
  int32 [B], for frames drawn at random and for dropout in training}.
  Returns {'teacher': ..., 'student': ...}, each what a VideoClassifier returns.
  """

  def __init__(self,
               teacher: video_classifier.VideoClassifier,
               student: video_classifier.VideoClassifier,
               teacher_frames: model_config.FrameSelection,
               student_frames: model_config.FrameSelection,
               **kwargs):
    """Initialises the pair.

    Args:
      teacher: the network that sees more.
      student: the network that sees less.
      teacher_frames: which frames the teacher sees.
      student_frames: which frames the student sees.
      **kwargs: of a Keras model.
    """
    super().__init__(**kwargs)
    self.teacher = teacher
    self.student = student
    self._frames = {'teacher': teacher_frames, 'student': student_frames}
    self.built = True

  def call(self, inputs, training=False):
    return {
        name: network(self._select(inputs, self._frames[name]),
                      training=training)
        for name, network in (('teacher', self.teacher),
                              ('student', self.student))
    }

  def _select(self, inputs, frames):
    if frames.type == 'all':
      return inputs
    max_frames = inputs['frames'].shape[1]
    indices, count = selection.frame_indices(
        inputs['num_frames'], frames, max_frames, inputs.get('seed'))
    return {
        **inputs,
        'frames': tf.ensure_shape(
            tf.gather(inputs['frames'], indices, batch_dims=1),
            [None, selection.max_selected(frames, max_frames), None]),
        'num_frames': count,
    }

  def get_config(self):
    return {
        'name': self.name,
        'teacher': tf_keras.layers.serialize(self.teacher),
        'student': tf_keras.layers.serialize(self.student),
        'teacher_frames': self._frames['teacher'].as_dict(),
        'student_frames': self._frames['student'].as_dict(),
    }

  @classmethod
  def from_config(cls, config, custom_objects=None):
    config = dict(config)
    for name in ('teacher', 'student'):
      config[name] = tf_keras.layers.deserialize(config[name], custom_objects)
      config[f'{name}_frames'] = model_config.FrameSelection(
          config[f'{name}_frames'])
    return cls(**config)


def build(config: model_config.DistillerModel) -> Distiller:
  """Builds both networks from their configuration.

  Raises:
    ValueError: the configuration does not fit together.
  """
  return Distiller(
      video_classifier.build(config, config.teacher, 'teacher'),
      video_classifier.build(config, config.student, 'student'),
      config.teacher.frames, config.student.frames, name='distiller')
