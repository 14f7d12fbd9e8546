"""What tests of single Keras layers share."""

import numpy as np
import tf_keras


def assert_round_trip(layer, inputs):
  """Rebuilds a layer from its configuration: same class, outputs and losses."""
  again = tf_keras.layers.deserialize(tf_keras.layers.serialize(layer))
  assert type(again) is type(layer)
  assert again.get_config() == layer.get_config()
  if not again.built:
    again.build([None, *inputs.shape[1:]])
  again.set_weights(layer.get_weights())
  np.testing.assert_array_equal(again(inputs), layer(inputs))
  np.testing.assert_array_equal(again.losses, layer.losses)
