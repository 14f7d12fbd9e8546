"""Trains with several workers on this machine, one process each.

  python -m experiments.cluster.loopback --workers=2 --logs=runs/many/logs \
    --experiment=yt8m_distill --mode=train_and_eval --model_dir=runs/many ...

Flags other than these two go to `yt8m_distill.train`. Worker 0 is the chief; its
output is shown. Workers compute on the CPU. If one fails, the others are stopped
and the last line of its log is printed. Ctrl-C stops all.
"""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

_CONFIG = pathlib.Path(__file__).with_name('multi_worker.yaml')
_PROGRAM = ('-m', 'yt8m_distill.train')
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE = 5  # seconds that a worker has to end before it is killed


def _reserve(count, stack):
  """Returns loopback addresses that only this user's processes can listen on.

  A worker takes seconds to start; meanwhile another process could take a port that
  is only free. The sockets in `stack` keep the ports reserved.
  """
  sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
  for one in sockets:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind(('127.0.0.1', 0))
  return [f'127.0.0.1:{one.getsockname()[1]}' for one in sockets]


def _start(index, addresses, log, flags):
  environment = {
    **os.environ,
    'CUDA_VISIBLE_DEVICES': '-1',
    'TF_GRPC_REUSE_PORT': '1',
    'TF_CONFIG': json.dumps(
      {'cluster': {'worker': addresses}, 'task': {'type': 'worker', 'index': index}}
    ),
  }
  with log.open('w') as file:
    return subprocess.Popen(
      [sys.executable, *_PROGRAM, f'--config_file={_CONFIG}', *flags],
      env=environment,
      stdout=file if index else None,
      stderr=file,
    )


def _wait(workers):
  """Waits until all workers end or one fails; returns that one, otherwise None."""
  while True:
    statuses = [worker.poll() for worker in workers]
    failed = [worker for worker in workers if worker.returncode]
    if failed or None not in statuses:
      # If a signal ended one, the others fail for lack of it, perhaps at once.
      return min(failed, key=lambda worker: worker.returncode, default=None)
    time.sleep(0.2)


def _stop(workers):
  for number in _SIGNALS:  # Ignores further signals while it stops the workers.
    signal.signal(number, signal.SIG_IGN)
  for worker in workers:
    worker.terminate()
  deadline = time.monotonic() + _GRACE
  for worker in workers:
    try:
      worker.wait(max(0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
      worker.kill()
      worker.wait()


def _interrupt(number, _):
  sys.exit(128 + number)


def main():
  """Runs all workers; returns the exit status of the one that failed, or 0."""
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawTextHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--workers', type=int, required=True, help='number of processes')
  parser.add_argument(
    '--logs', type=pathlib.Path, required=True, help='folder for logs'
  )
  args, flags = parser.parse_known_args()
  if args.workers < 1:
    parser.error(f'--workers is {args.workers}: it must be at least 1. Increase it.')
  args.logs.mkdir(parents=True, exist_ok=True)
  logs = [args.logs / f'worker-{i}.log' for i in range(args.workers)]
  for number in _SIGNALS:
    signal.signal(number, _interrupt)
  workers: list[subprocess.Popen] = []
  with contextlib.ExitStack() as stack:
    addresses = _reserve(args.workers, stack)
    stack.callback(_stop, workers)
    for index, log in enumerate(logs):
      workers.append(_start(index, addresses, log, flags))
      print(f'Worker {index}: process {workers[-1].pid}, log {log}', flush=True)
    failed = _wait(workers)
  if not failed:
    return 0
  log, status = logs[workers.index(failed)], failed.returncode
  how = f'status {status}' if status > 0 else signal.Signals(-status).name
  lines = log.read_text(errors='replace').splitlines() or ['']
  print(
    f'Worker {workers.index(failed)} ended with {how}; the others were '
    f'stopped. The last line of {log}: {lines[-1]}',
    file=sys.stderr,
  )
  return status if status > 0 else 128 - status


if __name__ == '__main__':
  sys.exit(main())
