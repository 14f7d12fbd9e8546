"""The official records of YouTube-8M Segments: videos with ratings of their windows.

They are frame-level records whose context also has parallel lists, one entry a rating:
`segment_start_times` and `segment_end_times` (int64, seconds), `segment_labels` (int64,
classes) and `segment_scores` (float32, 0 or 1).
"""

from yt8m_distill.configs import model as model_config
from yt8m_distill.dataloaders import record_errors
from yt8m_distill.dataloaders import window_records

_STARTS, _ENDS = 'segment_start_times', 'segment_end_times'
# The lists, and how their values are stored.
LISTS = {
  _STARTS: 'int64_list',
  _ENDS: 'int64_list',
  window_records.LABELS: 'int64_list',
  window_records.SCORES: 'float_list',
}
_WRONG = 'Correct or remove the record.'
# Scores by class, by start of the window.
Ratings = dict[int, dict[int, float]]


def ratings(features, name: str) -> Ratings:
  """Checks and returns the ratings of a video's windows.

  Args:
    features: of the record's context, by key.
    name: of the record, in messages.

  Raises:
    RecordError: there are none, or they are invalid, or the record is of a window.
  """
  if window_records.START in features:
    raise record_errors.RecordError(
      f'{name}: its context has {window_records.START}, so it was split before. Set '
      'input_path to the official records.'
    )
  missing = [key for key in LISTS if key not in features]
  if missing:
    raise record_errors.RecordError(
      f'{name}: no {", ".join(missing)}, so it has no rated segments. Set input_path '
      'to the rated records of YouTube-8M Segments, 3/frame/validate.'
    )
  lists = {
    key: record_errors.values(name, features, key, kind) for key, kind in LISTS.items()
  }
  lengths = {key: len(values) for key, values in lists.items()}
  if len(set(lengths.values())) > 1:
    raise record_errors.RecordError(
      f'{name}: its lists have {lengths} values, but must have one of each per '
      f'rating. {_WRONG}'
    )
  found: Ratings = {}
  for start, end, label, score in zip(*lists.values()):
    problem = _problem(start, end, label, score)
    if not problem and found.setdefault(start, {}).setdefault(label, score) != score:
      problem = 'it is rated both 0 and 1'
    if problem:
      raise record_errors.RecordError(
        f'{name}: segment {start}, class {label}: {problem}. {_WRONG}'
      )
  return found


def _problem(start: int, end: int, label: int, score: float) -> str:
  """Says what is wrong with a rating; '' if nothing is."""
  longest = model_config.WINDOW
  if start < 0:
    return 'it must start at a whole second of 0 or more, not always a multiple of 5'
  if not start < end <= start + longest:
    return f'its end is {end}, but must be from {start + 1} to {start + longest}'
  if label < 0:
    return 'a class must be 0 or more'
  if score not in (0, 1):
    return f'its score is {score:g}, but must be 0 or 1, without fractions'
  return ''
