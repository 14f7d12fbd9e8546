"""A folder over HTTP or HTTPS, by a server that can be told to fail."""

import contextlib
import ssl
import subprocess
import threading

import pytest

from experiments.benchmarks import range_server
from yt8m_distill.dataloaders import remote


def _has_http() -> bool:
  try:
    remote.ensure_file_system('http://host/path')
  except ValueError:
    return False
  return True


HAS_HTTP = _has_http()
needs_http = pytest.mark.skipif(
  not HAS_HTTP, reason='tensorflow-io has no http for this TensorFlow'
)


class Server(range_server.Server):
  """Serves files to requests with and without a Range.

  Attributes:
    requests: (path, Range or None) of all requests so far.
    failures: number of requests to fail from now on.
    failure: what a failing request gets: a status, or 'cut' for half of what
      it asked for.
    honours_range: if False, every request gets the whole file.
  """

  def __init__(self, folder, handler):
    super().__init__(folder, handler)
    self.requests = []
    self.failures = 0
    self.failure = 503
    self.honours_range = True

  def encrypt(self, certificate):
    """Speaks TLS from now on, with a file of certify()."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    self.socket = context.wrap_socket(self.socket, server_side=True)
    self.url = self.url.replace('http:', 'https:')


class Handler(range_server.Handler):
  """Answers a Server's requests."""

  protocol_version = 'HTTP/1.0'  # A connection ends with its answer, cut or not.

  def do_GET(self):
    server = self.server
    server.requests.append((self.path, self.headers.get('Range')))
    failure = server.failure if server.failures > 0 else None
    server.failures -= bool(failure)
    if isinstance(failure, int):
      self.begin(failure)
      return
    if not server.honours_range:
      del self.headers['Range']
    self._cut = failure == 'cut'
    super().do_GET()

  def send(self, file, first, length):
    if self.command != 'HEAD':
      super().send(file, first, length // (2 if self._cut else 1))


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
