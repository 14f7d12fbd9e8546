"""Serves a folder over HTTP on loopback, as a process of its own.

  python -m experiments.benchmarks.range_server FOLDER [--latency=0.05]

Honours Range, and has the kernel send the bytes. Prints its URL.
"""

import argparse
import http.server
import os
import re
import time

_RANGE = re.compile(r'bytes=(\d+)-(\d*)')


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True
  request_queue_size = 128

  def __init__(self, folder, latency):
    super().__init__(('127.0.0.1', 0), _Handler)
    self.folder = folder
    self.latency = latency

  def handle_error(self, request, client_address):
    """Says nothing where a client hangs up."""


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'  # Connections are kept.

  def do_GET(self):
    time.sleep(self.server.latency)
    path = os.path.join(self.server.folder, os.path.basename(self.path))
    if not os.path.isfile(path):
      self._begin(404, 0)
      return
    with open(path, 'rb') as file:
      size = os.fstat(file.fileno()).st_size
      span = _RANGE.fullmatch(self.headers.get('Range', ''))
      if not span:
        first, length = 0, size
        self._begin(200, size)
      else:
        first = int(span[1])
        length = min(int(span[2] or size), size - 1) + 1 - first
        if length < 1:
          self._begin(416, 0, f'bytes */{size}')
          return
        self._begin(206, length, f'bytes {first}-{first + length - 1}/{size}')
      self.connection.sendfile(file, first, length)

  def _begin(self, status, length, span=''):
    self.send_response(status)
    self.send_header('Content-Length', str(length))
    if span:
      self.send_header('Content-Range', span)
    self.end_headers()
    self.wfile.flush()

  def log_message(self, *_):
    """Says nothing."""


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('folder')
  parser.add_argument(
    '--latency',
    type=float,
    default=0.0,
    help='seconds before an answer, as over a network',
  )
  args = parser.parse_args()
  with _Server(args.folder, args.latency) as server:
    print(f'http://127.0.0.1:{server.server_port}', flush=True)
    server.serve_forever()


if __name__ == '__main__':
  main()
