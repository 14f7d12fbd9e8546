"""Serves a folder over HTTP on the loopback device, with Range requests.

  python -m experiments.benchmarks.range_server FOLDER [--latency=0.05]

Prints its URL. The kernel sends the bytes, so that serving costs little CPU time.
"""

import argparse
import http.server
import os
import pathlib
import re
import time
from typing import BinaryIO

_RANGE = re.compile(r'bytes=(\d+)-(\d*)')


class Handler(http.server.BaseHTTPRequestHandler):
  """Answers GET with a file of the server's folder, or with a range of it."""

  server: 'Server'
  protocol_version = 'HTTP/1.1'  # Keeps connections open.

  def open_file(self) -> BinaryIO | None:
    """Opens what `self.path` names; returns None if it does not exist."""
    path = self.server.folder / self.path.lstrip('/')
    return path.open('rb') if path.is_file() else None

  def do_GET(self):
    """Called by the server for each GET request."""
    time.sleep(self.server.latency)
    file = self.open_file()
    if file is None:
      self.begin(404)
      return
    with file:
      size = file.seek(0, os.SEEK_END)
      span = _RANGE.fullmatch(self.headers.get('Range', ''))
      if not span:
        self.begin(200, size)
        self.send(file, 0, size)
        return
      first = int(span[1])
      last = min(int(span[2] or size), size - 1)
      if last < first:
        self.begin(416, span=f'bytes */{size}')
        return
      length = last + 1 - first
      self.begin(206, length, f'bytes {first}-{last}/{size}')
      self.send(file, first, length)

  def begin(self, status: int, length: int = 0, span: str = ''):
    """Sends the headers; `span` is the Content-Range."""
    self.send_response(status)
    self.send_header('Content-Length', str(length))
    if span:
      self.send_header('Content-Range', span)
    self.end_headers()

  def send(self, file: BinaryIO, first: int, length: int):
    """Sends `length` bytes, starting at byte `first`."""
    file.seek(first)  # In case sendfile() falls back to send().
    if length:
      self.connection.sendfile(file, first, length)

  def log_message(self, *_):
    """Called for each answer: logs nothing."""


class Server(http.server.ThreadingHTTPServer):
  """Serves a folder on a free port.

  Attributes:
    folder: the folder.
    latency: seconds to wait before each answer.
    url: address of the folder, without a slash at the end.
  """

  daemon_threads = True
  request_queue_size = 128

  def __init__(self, folder: pathlib.Path, handler=Handler, latency: float = 0.0):
    super().__init__(('127.0.0.1', 0), handler)
    self.folder = folder
    self.latency = latency
    self.url = f'http://127.0.0.1:{self.server_port}'

  def handle_error(self, request, client_address):
    """Called when a handler raises: clients may hang up at any time."""


def main():
  """Serves until it is stopped."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument(
    '--latency',
    type=float,
    default=0.0,
    help='seconds before each answer, as over a network',
  )
  args = parser.parse_args()
  with Server(args.folder, latency=args.latency) as server:
    print(server.url, flush=True)
    server.serve_forever()


if __name__ == '__main__':
  main()
