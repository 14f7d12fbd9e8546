"""A folder over the part of S3 that tensorflow-io reads with, unsigned.

Source: the requests that tensorflow-io 0.37.1 sends, all with the bucket in
the path: HeadObject, GetObject with a Range, ListObjectsV2.
"""

import io
from urllib import parse
from xml.etree import ElementTree

import http_files


class Handler(http_files.Handler):
  """Takes the folders in a Server's folder for buckets."""

  do_HEAD = http_files.Handler.do_GET

  def open_file(self):
    url = parse.urlsplit(self.path)
    query = dict(parse.parse_qsl(url.query))
    if 'list-type' not in query:
      return super().open_file()
    return io.BytesIO(_listing(self.server.folder / url.path.strip('/'), query))


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


def environment(url):
  """Returns the variables that tensorflow-io takes a server from."""
  return {
    'S3_ENDPOINT': url,
    'AWS_REGION': 'us-east-1',
    'AWS_ACCESS_KEY_ID': 'key',
    'AWS_SECRET_ACCESS_KEY': 'secret',
  }
