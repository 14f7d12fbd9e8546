"""A folder over HTTP, by a server that can be told to fail."""

import contextlib
import http.server
import re
import threading


class Server(http.server.ThreadingHTTPServer):
  """Serves files to requests with and without a Range.

  Attributes:
    folder: what it serves.
    url: where, without a slash at the end.
    requests: (path, Range or None) of all that came.
    failures: how many requests to fail from now on.
    failure: what a failing request gets: a status, or 'cut' for half of what
      it asked for.
    honours_range: if not, every request gets the whole file.
  """
  daemon_threads = True

  def __init__(self, folder):
    super().__init__(('127.0.0.1', 0), _Handler)
    self.folder = folder
    self.url = f'http://127.0.0.1:{self.server_port}'
    self.requests = []
    self.failures = 0
    self.failure = 503
    self.honours_range = True

  def handle_error(self, request, client_address):
    """Says nothing where a client has what it wanted, and hangs up."""


class _Handler(http.server.BaseHTTPRequestHandler):

  def do_GET(self):  # pylint: disable=invalid-name
    server, wanted = self.server, self.headers.get('Range')
    server.requests.append((self.path, wanted))
    failure = server.failure if server.failures > 0 else None
    server.failures -= bool(failure)
    path = server.folder / self.path.lstrip('/')
    if isinstance(failure, int) or not path.is_file():
      self._begin(failure or 404, 0)
      return
    content = path.read_bytes()
    span = re.fullmatch(r'bytes=(\d+)-(\d+)', wanted or '')
    if span and server.honours_range:
      first, last = int(span[1]), min(int(span[2]), len(content) - 1)
      size, content = len(content), content[first:last + 1]
      if not content:
        self._begin(416, 0, f'bytes */{size}')
        return
      self._begin(206, len(content), f'bytes {first}-{last}/{size}')
    else:
      self._begin(200, len(content))
    self.wfile.write(content[:len(content) // (2 if failure else 1)])

  def _begin(self, status, length, span=''):
    self.send_response(status)
    self.send_header('Content-Length', str(length))
    if span:
      self.send_header('Content-Range', span)
    self.end_headers()

  def log_message(self, *_):  # pylint: disable=arguments-differ
    """Says nothing."""


@contextlib.contextmanager
def serving(folder):
  """Serves a folder on the loopback device; yields the Server."""
  with Server(folder) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
      yield server
    finally:
      server.shutdown()
      thread.join()
