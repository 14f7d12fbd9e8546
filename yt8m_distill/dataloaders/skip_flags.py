"""Flags of the commands that can skip invalid records, and what they report of it."""

from absl import flags


def define_flags():
  """Defines the flags."""
  flags.DEFINE_bool(
    'skip_corrupt_records', False, 'Skip corrupt records instead of stopping.'
  )
  flags.DEFINE_bool(
    'skip_malformed_records',
    False,
    'Skip records that are invalid though their checksum is right.',
  )


def given(**values: bool) -> dict[str, bool]:
  """Returns the flags that are set, for the settings of a job.

  The others are left out, so that jobs resume that a version without them began.

  Args:
    **values: the flags, by name.
  """
  return {name: True for name, is_set in values.items() if is_set}


def report(malformed: int):
  """Prints how many malformed records a command has skipped, if any."""
  if malformed:
    print(f'Skipped {malformed:,} malformed records, which the log names.')
