"""Runs a process of a tf.data service, which reads and parses for training.

  python -m experiments.cluster.data_service --port=5050        # the dispatcher
  python -m experiments.cluster.data_service --dispatcher=HOST:5050   # a worker

Start one dispatcher, and a worker on each machine with idle cores. All need the
records under the same paths. A run uses the service with
--tf_data_service=grpc://HOST:5050 and task.train_data.enable_tf_data_service.
"""

import argparse
import re
import socket

import tensorflow as tf

_service = tf.data.experimental.service


def start(port: int, dispatcher: str):
  """Starts a dispatcher or a worker.

  Args:
    port: port to listen on; 0 for a free one.
    dispatcher: HOST:PORT of the worker's dispatcher; '' to start a dispatcher.

  Returns:
    The server.
  """
  if not dispatcher:
    return _service.DispatchServer(_service.DispatcherConfig(port=port))
  # Clients reach a worker at the address from which it reaches the dispatcher.
  host, dispatcher_port = dispatcher.rsplit(':', 1)
  with socket.socket(type=socket.SOCK_DGRAM) as probe:
    probe.connect((host, int(dispatcher_port)))  # Sends nothing.
    own = probe.getsockname()[0]
  return _service.WorkerServer(
    _service.WorkerConfig(
      dispatcher_address=dispatcher, port=port, worker_address=f'{own}:%port%'
    )
  )


def main():
  """Serves until it is stopped."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument(
    '--port', type=int, default=0, help='port to listen on; default: a free one'
  )
  parser.add_argument(
    '--dispatcher',
    default='',
    help='HOST:PORT of the dispatcher; makes this process a worker',
  )
  args = parser.parse_args()
  if args.dispatcher and not re.fullmatch(r'[^:/]+:\d+', args.dispatcher):
    parser.error(
      f'--dispatcher is {args.dispatcher}: it must be HOST:PORT. Correct it.'
    )
  server = start(args.port, args.dispatcher)
  print(
    f'Worker of {args.dispatcher}'
    if args.dispatcher
    else f'Dispatcher at {server.target}',
    flush=True,
  )
  server.join()


if __name__ == '__main__':
  main()
