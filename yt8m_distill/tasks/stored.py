"""Trains a student on a teacher's answers that its records hold.

The losses are those of serial training, but no teacher runs: `yt8m-distill teach` ran
it once. Everything else about a run is that of a single network.

Of the teacher's predictions, records hold the K best; all other classes share the rest
of the probability evenly, so that their sum is the teacher's. With K = V and float32,
training computes what serial training does.

B videos, V classes, K stored classes, R representation.
"""

import os
from typing import Any

from official.core import task_factory
import tensorflow as tf

from yt8m_distill.configs import distillation as config
from yt8m_distill.dataloaders import shards
from yt8m_distill.dataloaders import taught_records
from yt8m_distill.modeling import distiller
from yt8m_distill.tasks import distillation
from yt8m_distill.utils import files
from yt8m_distill.utils import workers

_RECORD = 'teacher.json'  # in a run's folder: whose answers it learns from


def predictions_of(answers: dict[str, tf.Tensor], num_classes: int) -> tf.Tensor:
  """Returns the predictions of all classes, float32 [B, V].

  Args:
    answers: as returned by `taught_records.Answers.decode`.
    num_classes: V.
  """
  classes = answers['classes']
  count, top_k = tf.shape(classes)[0], classes.shape[1]
  share = answers['rest'] / max(num_classes - top_k, 1)
  rows = tf.broadcast_to(tf.range(count)[:, tf.newaxis], [count, top_k])
  return tf.tensor_scatter_nd_update(
    tf.repeat(share[:, tf.newaxis], num_classes, axis=1),
    tf.stack([rows, classes], 2),
    tf.cast(answers['probabilities'], tf.float32),
  )


@task_factory.register_task_cls(config.StoredTask)
class StoredTask(distillation.StudentTask):
  """A student that learns from stored answers."""

  def __init__(self, params, logging_dir=None, name=None):
    super().__init__(params, logging_dir=logging_dir, name=name)
    self._answers: taught_records.Answers | None = None
    self._reads_answers = False

  def create_model(self):
    """Returns the student, beside a projection if there is one."""
    network = super().create_model()
    size = self.task_config.model.projected_size
    return distiller.ProjectedNetwork(network, size) if size else network

  def networks(self, model_or_outputs):
    """Returns the network, or its outputs, by prefix; see ClassificationTask."""
    if isinstance(model_or_outputs, distiller.ProjectedNetwork):
      return {'': model_or_outputs.network}
    return super().networks(model_or_outputs)

  def check_start(self):
    """Checks that training can start or resume; see ClassificationTask.check_start().

    Raises:
      ValueError: also if the records hold no answers, or those of another teacher than
        the run's.
    """
    super().check_start()
    task = self.task_config
    paths = shards.find(task.train_data.input_path)
    record = shards.first_record(paths, shards.sizes(paths))
    if not record:
      return  # The pipeline says why none can be read.
    self.build_reader().check(*record)
    self._answers = taught_records.answers_of(*record, task.model.num_classes)
    before = self._run_checkpoint() and files.read_json(
      self._record_path(), teacher=str
    )
    teacher = self._answers.teacher.decode()
    if before and before['teacher'] != teacher:
      raise ValueError(
        f'{record[0]} was taught by {teacher}, but the run in {self.logging_dir} '
        f'learns from {before["teacher"]} ({_RECORD}). Set task.train_data.input_path '
        'to records of that teacher, or choose another --model_dir.'
      )

  def build_inputs(self, params, input_context=None):
    """Builds a dataset, in training with answers; see ClassificationTask."""
    self._reads_answers = params.is_training  # Other records need not hold any.
    dataset = super().build_inputs(params, input_context)
    if self._reads_answers and self._answers:
      self._check_width(self._answers.representation_size)
      if self.logging_dir and not self._run_checkpoint() and workers.is_chief():
        teacher = self._answers.teacher.decode()
        files.write_json(self._record_path(), {'teacher': teacher})
    return dataset

  def _record_path(self) -> str:
    return os.path.join(self.logging_dir, _RECORD)

  def _check_width(self, stored: int):
    """Raises a ValueError if L_REP has a weight but cannot be computed.

    Args:
      stored: width of the teacher's representation; 0 if the records hold none.
    """
    task = self.task_config
    # The trainer builds the model first; without it, the first step raises.
    if not task.losses.representation_weight or self._model is None:
      return
    if not stored:
      raise ValueError(
        f'task.losses.representation_weight is {task.losses.representation_weight}, '
        'but the records hold no representation, since several teachers have none. Set '
        'it to 0, or train on records of one teacher.'
      )
    [network] = self.networks(self._model).values()
    width = network.backbone.representation_size
    size = task.model.projected_size or width
    if stored != size:
      remedy = 0 if stored == width else stored
      raise ValueError(
        f"task.model.projected_size is {task.model.projected_size}, but the student's "
        f"representation has {width} values and the teacher's {stored}. Set it to "
        f'{remedy}, or task.losses.representation_weight to 0.'
      )

  def labels_read(self) -> dict[str, Any]:
    """Returns the arguments of a FrameReader that say what it reads beside frames."""
    answers = self._answers if self._reads_answers else None
    return {**super().labels_read(), 'answers': answers}

  def forward(self, features, model):
    """Returns the outputs in training, with those of the teacher."""
    features = dict(features)
    answers = features.pop('teacher')
    predictions = predictions_of(answers, self.task_config.model.num_classes)
    return {
      **super().forward(features, model),
      'teacher': {**answers, 'predictions': predictions},
    }

  def student_and_teacher(self, outputs):
    """Returns the student's outputs, projected, and the teacher's if there are any."""
    return {**outputs, **outputs.get('projected', {})}, outputs.get('teacher', {})
