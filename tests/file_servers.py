"""Serves a folder over HTTP, HTTPS or S3, and fails requests when told to.

S3 is the part that tensorflow-io 0.37.1 reads with, unsigned and with the bucket
in the path: HeadObject, GetObject with a Range, ListObjectsV2.
"""

import contextlib
import http.server
import re
import ssl
import subprocess
import threading
from urllib import parse
from xml.etree import ElementTree


class Server(http.server.ThreadingHTTPServer):
  """Serves files to requests with and without a Range.

  Attributes:
    folder: what it serves.
    url: its address, without a slash at the end.
    requests: (path, Range or None) of every request so far.
    failures: how many of the next requests fail.
    failure: what a failing request gets: a status, or 'cut' for half of what
      it asked for.
    honours_range: False answers every request with the whole file.
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
    """Speaks TLS from now on, with a certificate written by certify()."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    self.socket = context.wrap_socket(self.socket, server_side=True)
    self.url = self.url.replace('http:', 'https:')

  def handle_error(self, request, client_address):
    """Stays silent: a client that has what it wanted hangs up."""


class Handler(http.server.BaseHTTPRequestHandler):
  """Answers the requests to a Server."""

  def content(self):
    """Returns the bytes of the file that self.path names, or None without one."""
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
    """Logs nothing."""


class S3Handler(Handler):
  """Serves each folder in the Server's folder as a bucket."""

  do_HEAD = Handler.do_GET

  def content(self):
    url = parse.urlsplit(self.path)
    query = dict(parse.parse_qsl(url.query))
    if 'list-type' not in query:
      return super().content()
    return _listing(self.server.folder / url.path.strip('/'), query)


def _listing(bucket, query):
  """The XML of one page of a bucket's keys."""
  prefix, size = query['prefix'], int(query['max-keys'])
  keys = [
    path.relative_to(bucket).as_posix() for path in bucket.rglob('*') if path.is_file()
  ]
  keys = sorted(key for key in keys if key.startswith(prefix))
  if 'delimiter' in query:  # Folders stand for what is in them.
    keys = sorted(
      {prefix + ''.join(key[len(prefix) :].partition('/')[:2]) for key in keys}
    )
  start = int(query.get('continuation-token', 0))
  result = ElementTree.Element('ListBucketResult')

  def add(parent, tag, text):
    ElementTree.SubElement(parent, tag).text = str(text)

  for key in keys[start : start + size]:
    if key.endswith('/'):
      add(ElementTree.SubElement(result, 'CommonPrefixes'), 'Prefix', key)
    else:
      contents = ElementTree.SubElement(result, 'Contents')
      add(contents, 'Key', key)
      add(contents, 'Size', (bucket / key).stat().st_size)
  more = start + size < len(keys)
  add(result, 'IsTruncated', str(more).lower())
  if more:
    add(result, 'NextContinuationToken', start + size)
  return ElementTree.tostring(result)


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
  """Writes a key and a self-signed certificate for the loopback device."""
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


def s3_environment(url):
  """Returns the environment variables that point tensorflow-io to a server."""
  return {
    'S3_ENDPOINT': url,
    'AWS_REGION': 'us-east-1',
    'AWS_ACCESS_KEY_ID': 'key',
    'AWS_SECRET_ACCESS_KEY': 'secret',
  }
