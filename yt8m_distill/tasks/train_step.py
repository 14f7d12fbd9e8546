"""A step of training: averages over replicas, gradients, finite or nothing.

B videos.
"""

from collections.abc import Callable
from collections.abc import Sequence

import tensorflow as tf
import tf_keras


def averages(labels: tf.Tensor) -> tuple[Callable, Callable]:
  """Returns how values per video become one of the global batch.

  Args:
    labels: [B, ...] of this replica.

  Returns:
    `mean` and `total`, each from [B] to a scalar whose average over the
    replicas is the global batch's mean, or sum.
  """
  replica = tf.distribute.get_replica_context()
  # The shares of the replicas may differ: an average needs the whole count.
  batch = tf.cast(
    replica.all_reduce(tf.distribute.ReduceOp.SUM, tf.shape(labels)[0]), tf.float32
  )

  def total(values):
    return tf.reduce_sum(values) * replica.num_replicas_in_sync

  return lambda values: total(values) / batch, total


def minimize(
  forward: Callable, variables: Sequence[tf.Variable], optimizer, mean: Callable
) -> tuple:
  """Takes a step; a loss that is not finite reaches no weight.

  Nothing is recorded, or kept in memory, for gradients of other variables.

  Args:
    forward: from the number of steps before this one to a tuple of the loss,
      a scalar, its terms, {name: [B]}, and what else is wanted.
    variables: that learn.
    optimizer: of the Garden.
    mean: of averages().

  Returns:
    What `forward` returned.

  Raises:
    InvalidArgumentError: the loss is not finite; names step and terms.
  """
  with tf.init_scope():  # Created in the graph it breaks several replicas.
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
  # Zero where terms of weight 0 leave none: the optimizer sees all variables.
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
