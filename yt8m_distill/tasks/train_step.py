"""A training step: averages over replicas, gradients, and a check of the loss.

B videos.
"""

from collections.abc import Callable
from collections.abc import Sequence

import tensorflow as tf
import tf_keras


def averages(labels: tf.Tensor) -> tuple[Callable, Callable]:
  """Returns functions that reduce values per video over the global batch.

  Args:
    labels: labels of this replica, [B, ...].

  Returns:
    `mean` and `total`, each from [B] to a scalar. The average of that scalar over
    the replicas is the global batch's mean or sum.
  """
  replica = tf.distribute.get_replica_context()
  # Replicas may have different numbers of videos.
  batch = tf.cast(
    replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.shape(labels)[0]), tf.float32
  )

  def total(values):
    return tf.reduce_sum(values) * replica.num_replicas_in_sync

  return lambda values: total(values) / batch, total


def per_pair(weights: tf.Tensor, mean: Callable) -> tf.Tensor:
  """Returns the factor that makes a mean over videos one over weighted pairs.

  Args:
    weights: of the pairs of video and class of this replica, float32 [B, V].
    mean: as returned by averages().

  Returns:
    float32 scalar: videos per unit of weight in the global batch. Times the sum over a
    video's weighted pairs, `mean` is sum(loss * weight) / sum(weight).
  """
  replica = tf.distribute.get_replica_context()
  return 1.0 / replica.all_reduce(
    tf.distribute.ReduceOp.MEAN, mean(tf.reduce_sum(weights, axis=1))
  )


def minimize(
  forward: Callable, variables: Sequence[tf.Variable], optimizer, mean: Callable
) -> tuple:
  """Updates the variables once, unless the loss is not finite.

  Only what gradients of `variables` need is kept in memory.

  Args:
    forward: a function of the number of steps before this one. It returns a tuple
      of the loss (a scalar), its terms ({name: [B]}) and further results.
    variables: the variables to train.
    optimizer: an optimizer of the Garden.
    mean: as returned by averages().

  Returns:
    What `forward` returned.

  Raises:
    InvalidArgumentError: the loss is not finite. The message gives step and terms.
  """
  # With several replicas, the graph cannot create the variable.
  with tf.init_scope():
    iterations = optimizer.iterations
  loss_scale = isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)
  with tf.GradientTape(watch_accessed_variables=False) as tape:
    tape.watch(variables)
    returned = forward(iterations)
    loss, terms, *_ = returned
    # Replicas' gradients are summed.
    replica = tf.distribute.get_replica_context()
    scaled = loss / replica.num_replicas_in_sync
    if loss_scale:
      scaled = optimizer.get_scaled_loss(scaled)
  # The optimizer must see all variables, also those without a gradient.
  gradients = tape.gradient(
    scaled, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
  )
  if loss_scale:
    gradients = optimizer.get_unscaled_gradients(gradients)
  check = tf.debugging.Assert(
    tf.math.is_finite(loss),
    [
      'The loss is not finite at step',
      iterations + 1,
      '. Lower the learning rate, or resume from an earlier checkpoint. Losses:',
      *(
        v
        for item in sorted({k: mean(v) for k, v in terms.items()}.items())
        for v in item
      ),
    ],
  )
  with tf.control_dependencies([check]):  # No NaN reaches a weight.
    gradients = [tf.identity(gradient) for gradient in gradients]
  optimizer.apply_gradients(zip(gradients, variables))
  return returned
