"""Finds the gin and YAML files that come with the package.

In a checkout they are in gin/ and experiments/, in a wheel inside the package.
"""

import pathlib

import tensorflow as tf

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


def _folder(in_wheel: str, in_checkout: str) -> pathlib.Path:
  folder = _PACKAGE / in_wheel
  return folder if folder.is_dir() else _PACKAGE.parent / in_checkout


def gin_folder() -> str:
  """Returns the folder of the gin files."""
  return str(_folder('gin_files', 'gin'))


def yaml_file(path: str) -> str:
  """Finds a YAML file for --config_file.

  Args:
    path: path of a file, or the name of one that comes with the package, such as
      video_2018.yaml or cluster/tpu.yaml.

  Returns:
    The path where it exists; otherwise that of the file with this name.

  Raises:
    ValueError: neither exists.
  """
  if tf.io.gfile.exists(path):
    return path
  folder = _folder('yaml_files', 'experiments')
  # Not those of experiments/study/: they configure a study.
  known = sorted(
    file.relative_to(folder).as_posix()
    for pattern in ('*.yaml', 'cluster/*.yaml')
    for file in folder.glob(pattern)
  )
  if path not in known:
    raise ValueError(
      f'--config_file is {path}: no such file. Give the path of a YAML file, or one '
      f'of {", ".join(known)}.'
    )
  return str(folder / path)
