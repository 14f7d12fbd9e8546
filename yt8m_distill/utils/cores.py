"""How many cores this process may use, and how many workers that makes."""

import os


def count() -> int:
  """Returns how many cores this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


# Workers that share networks: each parses on one core; several keep a GPU busy.
THREADS = min(8, count())
