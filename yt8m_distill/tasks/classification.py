"""Training and evaluation of one video classifier.

B videos, V classes, K top predictions of a video.
"""

import contextlib
import random
from typing import Any

from official.core import base_task
from official.core import task_factory
from official.core import train_utils
import orbit
import tensorflow as tf
import tf_keras

from yt8m_distill.checkpoints import restore
from yt8m_distill.configs import classification as config
from yt8m_distill.configs import model as model_config
from yt8m_distill.configs import validation
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import reader
from yt8m_distill.evaluation import results as results_lib
from yt8m_distill.evaluation import video_metrics
from yt8m_distill.modeling import losses
from yt8m_distill.modeling import video_classifier
from yt8m_distill.tasks import class_weights
from yt8m_distill.tasks import costs
from yt8m_distill.tasks import loss_terms
from yt8m_distill.tasks import train_step
from yt8m_distill.utils import workers

# Metrics of a batch, shown for each network during training.
_BATCH_METRICS = ('hit_at_one', 'perr', 'gap')


@contextlib.contextmanager
def _seeded(seed: int):
  """Seeds only the generator from which Keras' initializers take their seeds.

  TensorFlow's global seed would also change the order of the data.
  """
  state = random.getstate()
  random.seed(seed)
  try:
    yield
  finally:
    random.setstate(state)


@task_factory.register_task_cls(config.ClassificationTask)
class ClassificationTask(base_task.Task):
  """One network, trained on its label loss.

  The loss is L_CE, the layers' L2 terms, and the registered `loss_terms` that have a
  weight in `task.losses`. If the last network sees nested frames, L_CE and these terms
  are their means over its answers at each number of frames, and an evaluation scores
  each answer.

  A subclass with several networks overrides `prefixes`, `networks`, `start_from`,
  `student_and_teacher`, `factors` and `total_loss`. One whose teacher's outputs are
  in the batch overrides `forward`.

  Attributes:
    prefixes: for each network, the prefix of its losses' and metrics' names; '' for
      a single network. The weights in `task.losses` are those of the last one.
    earlier: likewise for the last network's answers at fewer frames, if it has any.
    costs: by network, what `tasks.costs` counts once the model is built.
  """

  prefixes: tuple[str, ...] = ('',)

  def __init__(
    self,
    params: config.VideoTask,
    logging_dir: str | None = None,
    name: str | None = None,
  ):
    super().__init__(params, logging_dir=logging_dir, name=name)
    validation.validate(params, 'task')
    if params.train_epochs or params.decay_epochs or params.warmup_epochs:
      raise ValueError(
        'task.train_epochs, decay_epochs and warmup_epochs are '
        f'{params.train_epochs}, {params.decay_epochs} and '
        f'{params.warmup_epochs}: this driver counts in steps. Set '
        'trainer.train_steps and the steps of the learning rate, or run '
        'yt8m-distill train.'
      )
    self.earlier = tuple(
      f'{self.prefixes[-1]}{name}/' for name in params.model.earlier_answers()
    )
    # Reads the vocabulary now, so that an error does not wait for the first evaluation.
    self._new_evaluation()
    self._class_weights = class_weights.read(
      params.losses.class_weights, params.model.num_classes
    )
    if type(self).loss_terms is ClassificationTask.loss_terms:
      loss_terms.check(params.losses)
    self._segments = params.labels == 'segments'
    self._skipped = results_lib.SkippedRecords()
    self._model: tf_keras.Model | None = None
    self.costs: dict[str, dict[str, int]] = {}
    self._trains = False
    self._restored = True

  def _new_evaluation(self) -> results_lib.Evaluation:
    return results_lib.Evaluation((*self.prefixes, *self.earlier), self.task_config)

  def build_model(self) -> tf_keras.Model:
    """Builds the model; the trainer calls it once, before training or evaluation.

    The initial weights follow from `seed`, unless tf_keras.utils.set_random_seed
    was called.

    Returns:
      The model, restored if the run has a checkpoint.

    Raises:
      ValueError: the run's checkpoint does not fit the configuration.
    """
    checkpoint = self._run_checkpoint()
    if checkpoint:
      restore.check_config(self.task_config.model, checkpoint)
    with _seeded(self.task_config.seed):
      model = self._model = self.create_model()
    self.costs = costs.count(self.networks(model).values(), self.task_config.model)
    if checkpoint:
      restore.restore_model(model, checkpoint)
    return model

  def _run_checkpoint(self) -> str | None:
    """Returns the latest checkpoint of this run, None before the first."""
    return tf.train.latest_checkpoint(self.logging_dir) if self.logging_dir else None

  def create_model(self) -> tf_keras.Model:
    """Returns the model of this task's configuration.

    A network must follow from `task.model`, from which other commands build it again.
    """
    model = self.task_config.model
    return video_classifier.build(model, model.network, 'network')

  def networks(self, model_or_outputs) -> dict[str, Any]:
    """Splits a model, or its outputs, into networks by prefix."""
    return {'': model_or_outputs}

  def _by_prefix(self, outputs) -> dict[str, Any]:
    """Splits outputs by prefix into those of networks and of earlier answers."""
    networks = self.networks(outputs)
    earlier = networks[self.prefixes[-1]].get('answers', ())
    return {**networks, **dict(zip(self.earlier, earlier))}

  def initialize(self, model: tf_keras.Model):
    """Initializes a new run; the trainer calls it if there is no checkpoint.

    Restores `init_checkpoint`, if given.
    """
    path = self.task_config.init_checkpoint
    if path:
      self.start_from(model, path)
    self._restored = bool(path) or self._trains

  def start_from(self, model: tf_keras.Model, source: str):
    """Initializes a model from a run or a checkpoint; initialize() calls it."""
    task = self.task_config
    [network] = self.networks(model).values()
    single = model_config.single_network(task.model, 'network')
    restore.start_network(network, single, source, task.init_network)

  def build_inputs(self, params, input_context=None) -> tf.data.Dataset:
    """Builds a dataset; the trainer calls it for training and for evaluation.

    Training resumes after the records that the run's latest checkpoint has seen.

    Args:
      params: a VideoData.
      input_context: the part of the input that belongs to this pipeline.

    Returns:
      Batches ({'frames', 'num_frames', ...}, labels); see dataloaders.pipeline.
    """
    start_step = 0
    if params.is_training:
      self._trains = True
      self.check_start()
      checkpoint = self._run_checkpoint()
      if checkpoint:
        start_step = train_utils.read_global_step_from_checkpoint(checkpoint)
    return pipeline.build(
      params, self.build_reader(), input_context, start_step=int(start_step)
    )

  def check_start(self):
    """Checks that training can start or resume; this package's driver calls it first.

    Raises:
      ValueError: the run's checkpoint cannot be trained further.
    """
    checkpoint = self._run_checkpoint()
    if checkpoint:
      restore.check_config(self.task_config.model, checkpoint)
      restore.check_trainable(checkpoint)

  def build_reader(self):
    """Returns the parser of records, which also selects frames."""
    model = self.task_config.model
    return reader.FrameReader(
      model.features,
      model.max_frames,
      model.num_classes,
      model.network.frames,
      with_seeds=model.network.draws(),
      **self.labels_read(),
    )

  def labels_read(self) -> dict[str, Any]:
    """Returns the arguments of a FrameReader that say which labels to read."""
    if not self._segments:
      return {}
    weak = self.task_config.losses.weak_negatives > 0
    return {'rated': True, 'with_labels': weak}

  def pair_weights(self, features) -> dict[str, tf.Tensor]:
    """Returns arguments of loss_terms(): the `weights` of pairs, if they are rated.

    Args:
      features: inputs of a batch.

    Returns:
      {'weights': float32 [B, V]}: 1 for pairs of a window and a class that were rated,
      `weak_negatives` for those that are neither rated nor among the video's
      labels, otherwise 0. {} if labels are those of videos.
    """
    if not self._segments:
      return {}
    weights = tf.cast(features['rated'], tf.float32)
    weak = self.task_config.losses.weak_negatives
    if weak:
      is_weak = ~(features['rated'] | features['video_labels'])
      weights += weak * tf.cast(is_weak, tf.float32)
    return {'weights': weights}

  def loss_terms(self, labels, outputs, weights=None) -> dict[str, tf.Tensor]:
    """Returns losses per video, before weights.

    Args:
      labels: bool [B, V].
      outputs: outputs of the model.
      weights: as returned by pair_weights(), for the label loss; None for 1.

    Returns:
      {name: float32 [B]}: the label loss of each network, and of the last network
      the loss_terms that have a weight and a value. Those that compare with a teacher
      need its outputs.

    Raises:
      ValueError: a term has a weight, but no value.
    """
    params = self.task_config.losses
    terms = {
      f'{prefix}label_loss': losses.label_loss(
        labels,
        network['predictions'],
        params.label_kind,
        params.label_epsilon,
        self._class_weights,
        weights,
      )
      for prefix, network in self._by_prefix(outputs).items()
    }
    student, teacher = self.student_and_teacher(outputs)
    students = {self.prefixes[-1]: student}
    for prefix, answer in zip(self.earlier, student.get('answers', ())):
      students[prefix] = {**answer, **answer.get('projected', {})}
    for name, weight, term in loss_terms.weighted(params):
      if term.compares and not teacher:
        continue
      for prefix, answer in students.items():
        value = term.compute(labels, answer, teacher, params)
        if value is not None:
          terms[f'{prefix}{name}_loss'] = value
        elif weight:
          raise ValueError(
            f'task.losses.{name}_weight is {weight}, but these networks have no '
            f'{name} loss. Set it to 0.'
          )
    return terms

  def student_and_teacher(self, outputs) -> tuple[dict, dict]:
    """Returns the outputs that loss_terms compares; a single network has no teacher."""
    return outputs, {}

  def regularization_terms(self, model) -> dict[str, tf.Tensor]:
    """Returns each network's L2 terms times the penalty: {name: float32 scalar}."""
    return {
      f'{prefix}regularization_loss': self._regularization(network)
      for prefix, network in self.networks(model).items()
    }

  def _regularization(self, layer):
    return self.task_config.losses.regularization_penalty * tf.cast(
      tf.add_n(layer.losses or [0.0]), tf.float32
    )

  def factors(self, step: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns arguments of total_loss() that change over training.

    Args:
      step: int, number of updates so far.

    Returns:
      {argument: float32 scalar}.
    """
    del step
    return {}

  def total_loss(
    self, terms, regularization, mean, total, distillation_factor=1.0
  ) -> tf.Tensor:
    """Returns the loss to minimize.

    Args:
      terms: as returned by loss_terms().
      regularization: as returned by regularization_terms().
      mean: averages values per video over the batch.
      total: sums values per video over the batch.
      distillation_factor: factor of the terms that compare with a teacher.

    Returns:
      float32: a scalar in training; [B] in evaluation, where `mean` and `total`
      do not reduce.
    """
    params, answers = self.task_config.losses, (self.prefixes[-1], *self.earlier)
    label_weight = getattr(params, 'label_weight', 1.0) / len(answers)
    loss = regularization[f'{self.prefixes[-1]}regularization_loss']
    for prefix in answers:
      if label_weight:  # Otherwise no gradient is computed.
        loss += label_weight * mean(terms[f'{prefix}label_loss'])
      for name, weight, term in loss_terms.weighted(params):
        if weight and f'{prefix}{name}_loss' in terms:
          factor = distillation_factor if term.compares else 1.0
          added = getattr(params, f'{name}_reduction', 'mean') == 'sum'
          reduce = total if added else mean
          share = weight / len(answers)
          loss += factor * share * reduce(terms[f'{prefix}{name}_loss'])
    return loss

  def forward(self, features, model) -> dict[str, Any]:
    """Returns the model's outputs in training, with all answers.

    Args:
      features: inputs of a batch.
      model: the model.
    """
    return model(features, training=True, **self._asked())

  def inference_step(self, inputs, model) -> dict[str, Any]:
    """Returns the model's outputs in evaluation, with all answers."""
    return model(inputs, training=False, **self._asked())

  def _asked(self) -> dict[str, bool]:
    # The model of another project may not know the argument.
    return {'answers': True} if self.earlier else {}

  def build_metrics(self, training: bool = True) -> list[tf_keras.metrics.Metric]:
    """Returns metrics; the trainer calls it once for training, once for evaluation.

    Args:
      training: whether to return the metrics of training.

    Returns:
      For training, means over the steps between two logs. For evaluation, only the
      count of skipped records: reduce_aggregated_logs() computes the metrics.
    """
    if not training:
      return [self._skipped]
    return [
      tf_keras.metrics.Mean(name, dtype=tf.float32)
      for name in self._train_metric_names()
    ]

  def _train_metric_names(self) -> list[str]:
    """Returns the names of metrics; losses without weight are left out."""
    metrics = () if self._segments else _BATCH_METRICS
    return (
      [
        f'{prefix}{name}'
        for prefix in self.prefixes
        for name in ('label_loss', 'regularization_loss', *metrics)
      ]
      + [f'{prefix}label_loss' for prefix in self.earlier]
      + [
        f'{self.prefixes[-1]}{name}_loss'
        for name, weight, _ in loss_terms.weighted(self.task_config.losses)
        if weight
      ]
    )

  @tf.autograph.experimental.do_not_convert  # 3 times faster to trace
  def train_step(self, inputs, model, optimizer, metrics=None):
    """Updates the model once; the trainer calls it on each replica for each batch.

    Args:
      inputs: a batch of build_inputs().
      model: the model.
      optimizer: as returned by create_optimizer().
      metrics: as returned by build_metrics().

    Returns:
      {name: float32}: the loss, a scalar whose average over the replicas is the
      loss of the global batch; its terms, [B] or scalar; and metrics of the batch.
    """
    features, labels = inputs
    mean, total = train_step.averages(labels)
    pairs = self.pair_weights(features)
    scale = train_step.per_pair(pairs['weights'], mean) if pairs else None

    def forward(step):
      outputs = self.forward(features, model)
      terms = self.loss_terms(labels, outputs, **pairs)
      if pairs:
        for prefix in self.prefixes:
          terms[f'{prefix}label_loss'] *= scale
      regularization = self.regularization_terms(model)
      factors = self.factors(step)
      loss = self.total_loss(terms, regularization, mean, total, **factors)
      return loss, terms, {**regularization, **factors}, outputs

    loss, terms, others, outputs = train_step.minimize(
      forward, model.trainable_variables, optimizer, mean
    )
    values = {**terms, **others}
    if not self._segments:
      values.update(self._batch_metrics(labels, outputs))
    for metric in metrics or []:
      metric.update_state(values[metric.name])
    return {self.loss: loss, **values}

  def _batch_metrics(self, labels, outputs):
    values = {}
    for prefix, network in self.networks(outputs).items():
      video = self._video_metrics(network['predictions'], labels)
      video['gap'] = video_metrics.batch_gap(
        video['scores'], video['hits'], tf.math.count_nonzero(labels, dtype=tf.int32)
      )
      values.update({f'{prefix}{k}': video[k] for k in _BATCH_METRICS})
    return values

  def _video_metrics(self, predictions, labels):
    return video_metrics.compute(predictions, labels, self.task_config.evaluation.top_k)

  @tf.autograph.experimental.do_not_convert  # 3 times faster to trace
  def validation_step(self, inputs, model, metrics=None):
    """Scores a batch; the trainer calls it on each replica for each batch.

    Args:
      inputs: a batch of build_inputs().
      model: the model.
      metrics: not used.

    Returns:
      {name: tensor}: the loss and its terms, float32 [B]; the outputs of
      video_metrics.compute() for each network; and 'positives', int32 [V], the
      number of labels of each class. If labels are ratings, these replace the loss and
      the metrics: each network's 'predictions' float32 [B, V]; 'rated' and 'holds',
      bool [B, V]; and 'pair_weights' float32 [B], the sums of the weights of the label
      loss.
    """
    features, labels = inputs
    outputs = self.inference_step(features, model)
    pairs = self.pair_weights(features)
    terms = self.loss_terms(labels, outputs, **pairs)
    logs = {
      'positives': tf.math.count_nonzero(labels, axis=0, dtype=tf.int32),
      **terms,
    }
    if pairs:
      logs['pair_weights'] = tf.reduce_sum(pairs['weights'], axis=1)
      logs.update(rated=features['rated'], holds=labels)
      for prefix, network in self.networks(outputs).items():
        logs[f'{prefix}predictions'] = tf.cast(network['predictions'], tf.float32)
      return logs

    def same(values):
      return values

    logs[self.loss] = self.total_loss(
      terms, self.regularization_terms(model), same, same
    )
    for prefix, network in self._by_prefix(outputs).items():
      video = self._video_metrics(network['predictions'], labels)
      logs.update({f'{prefix}{k}': v for k, v in video.items()})
    return logs

  def aggregate_logs(self, state=None, step_outputs=None):
    """Collects a batch on the host; the trainer calls it after validation_step().

    Args:
      state: returned for the previous batch; None for the first.
      step_outputs: outputs of validation_step(): for each name, a tuple of the
        replicas' values.

    Returns:
      The state of the evaluation.

    Raises:
      ValueError: the run has no checkpoint, or one that does not fit the model.
    """
    if state is None:
      if not self._restored:
        checkpoint = self._run_checkpoint()
        if not checkpoint:
          raise ValueError(
            f'There is no checkpoint in {self.logging_dir} to evaluate. '
            'Train first, or set --model_dir to a trained run.'
          )
        # In continuous evaluation the checkpoint is newer than the model.
        restore.check(self._model, checkpoint)
        self._restored = True
      state = self._new_evaluation()
    state.update(step_outputs)
    return state

  def reduce_aggregated_logs(self, aggregated_logs, global_step=None):
    """Returns exact metrics; the trainer calls it at the end of an evaluation.

    The chief also writes them to the run's folder.

    Args:
      aggregated_logs: the last state of aggregate_logs().
      global_step: step of the evaluated checkpoint.

    Returns:
      {name: value}: metrics of the whole set, the same on every worker.
    """
    # Workers exchange states only here. All of them need the metrics, since all take
    # part in saving the best checkpoint.
    aggregated_logs.skipped = self._skipped.value()
    aggregated_logs.prune(workers.gather_objects, workers.index())
    whole, *others = workers.gather_objects(aggregated_logs)
    for share in others:
      whole.merge(share)
    results = whole.result()
    if self.logging_dir and workers.is_chief():
      # TensorFlow wraps the dicts of a task; json takes only plain ones (Python 3.13).
      plain = {name: dict(cost) for name, cost in self.costs.items()}
      whole.write(
        self.logging_dir, results, int(orbit.utils.get_value(global_step)), plain
      )
    return {**results, self._skipped.name: whole.skipped.total}
