"""Training, evaluation, thinning and prediction from a server."""

import json
import pathlib

import http_files
import pytest
import tiny

from yt8m_distill.dataloaders import thin
from yt8m_distill.serving import predict

pytestmark = [pytest.mark.end_to_end, pytest.mark.long]


def _results(run):
  results = json.loads((run / 'evaluation.json').read_text())
  return results.pop('input_path'), results


@http_files.needs_http
def test_a_server_is_as_good_as_a_disk(tmp_path):
  folder = tmp_path / 'records'
  folder.mkdir()
  for shard in range(3):
    tiny.write_records(folder / f'{shard}.tfrecord', 4, shard)
  runs = [tmp_path / name / 'run' for name in ('disk', 'server')]
  with http_files.serving(folder) as server:
    places = [folder, server.url]
    for run, place in zip(runs, places):
      # The quotes are for YAML, which would take the braces for its own.
      tiny.drive(
        'train_and_eval', run, f"'{place}/{{0..2}}.tfrecord'", 'yt8m_distill_single'
      )
    (path, results), (url, from_server) = map(_results, runs)
    assert results == from_server and results['videos'] == 12
    assert (path, url) == tuple(f'{place}/{{0..2}}.tfrecord' for place in places)

    for run, place in zip(runs, places):
      predict.predict(
        [str(runs[0])], f'{place}/{{0..2}}.tfrecord', str(run / 'predictions')
      )
    one, other = ((run / 'predictions' / 'predictions.csv').read_text() for run in runs)
    assert one == other

    thinned = [
      thin.thin(f'{place}/{{0..2}}.tfrecord', str(run / 'thinned'), 5, 20, workers=2)
      for run, place in zip(runs, places)
    ]
    for one, other in zip(*thinned):
      assert pathlib.Path(one).read_bytes() == pathlib.Path(other).read_bytes()
