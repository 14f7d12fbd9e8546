"""Claims the output folder of a script; fails if another job's results are in it.

  python -m experiments.scripts.claim OUT [NAME=VALUE ...]

OUT/settings.json records the values. A later call must repeat them.
"""

from collections.abc import Sequence
import os

from yt8m_distill.utils import cli
from yt8m_distill.utils import files


def main(argv: Sequence[str]):
  """Runs the command."""
  folder, *settings = argv
  files.claim_folder(
    os.path.join(folder, 'settings.json'),
    dict(setting.split('=', 1) for setting in settings),
  )


if __name__ == '__main__':
  cli.run(main, 'OUT', 'NAME=VALUE...')
