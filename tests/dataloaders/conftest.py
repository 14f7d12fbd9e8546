"""What tests of the input pipeline share."""

import pytest
import tensorflow as tf


@pytest.fixture
def data_service():
  """Address of a tf.data service with one worker, both in this process."""
  service = tf.data.experimental.service
  dispatcher = service.DispatchServer()
  address = dispatcher.target.split('://')[1]
  worker = service.WorkerServer(service.WorkerConfig(dispatcher_address=address))
  yield dispatcher.target
  del worker
