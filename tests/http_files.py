"""A folder over HTTP or HTTPS, by a server that can be told to fail."""

import contextlib
import http.server
import re
import ssl
import subprocess
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

  def __init__(self, folder, handler):
    super().__init__(('127.0.0.1', 0), handler)
    self.folder = folder
    self.url = f'http://127.0.0.1:{self.server_port}'
    self.requests = []
    self.failures = 0
    self.failure = 503
    self.honours_range = True

  def encrypt(self, certificate):
    """Speaks TLS from now on, with a file as of certify()."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    self.socket = context.wrap_socket(self.socket, server_side=True)
    self.url = self.url.replace('http:', 'https:')

  def handle_error(self, request, client_address):
    """Says nothing where a client has what it wanted, and hangs up."""


class Handler(http.server.BaseHTTPRequestHandler):
  """Answers a Server's requests."""

  def content(self):
    """Returns what self.path names, bytes, or None if there is no such file."""
    path = self.server.folder / self.path.lstrip('/')
    return path.read_bytes() if path.is_file() else None

  def do_GET(self):
    server, wanted = self.server, self.headers.get('Range')
    server.requests.append((self.path, wanted))
    failure = server.failure if server.failures > 0 else None
    server.failures -= bool(failure)
    content = self.content()
    if isinstance(failure, int) or content is None:
      self._begin(failure if isinstance(failure, int) else 404, 0)
      return
    span = re.fullmatch(r'bytes=(\d+)-(\d+)', wanted or '')
    if span and server.honours_range:
      first, last = int(span[1]), min(int(span[2]), len(content) - 1)
      size, content = len(content), content[first : last + 1]
      if not content:
        self._begin(416, 0, f'bytes */{size}')
        return
      self._begin(206, len(content), f'bytes {first}-{last}/{size}')
    else:
      self._begin(200, len(content))
    if self.command != 'HEAD':
      self.wfile.write(content[: len(content) // (2 if failure else 1)])

  def _begin(self, status, length, span=''):
    self.send_response(status)
    self.send_header('Content-Length', str(length))
    if span:
      self.send_header('Content-Range', span)
    self.end_headers()

  def log_message(self, *_):
    """Says nothing."""


@contextlib.contextmanager
def serving(folder, handler=Handler):
  """Serves a folder on the loopback device; yields the Server."""
  with Server(folder, handler) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
      yield server
    finally:
      server.shutdown()
      thread.join()


def certify(certificate):
  """Writes a key and a certificate, signed by itself, for this device."""
  subprocess.run(
    [
      'openssl',
      'req',
      '-x509',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-days',
      '2',
      '-subj',
      '/CN=localhost',
      '-addext',
      'subjectAltName=IP:127.0.0.1',
      '-keyout',
      certificate,
      '-out',
      f'{certificate}.public',
    ],
    check=True,
    capture_output=True,
  )
  with (
    open(certificate, 'a', encoding='ascii') as file,
    open(f'{certificate}.public', encoding='ascii') as public,
  ):
    file.write(public.read())
