"""Finds the gin and YAML files that come with the package.

In a checkout they are in gin/ and experiments/, in a wheel inside the package.
"""

import logging
import pathlib

import tensorflow as tf

import gin

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


def _folder(in_wheel: str, in_checkout: str) -> pathlib.Path:
  folder = _PACKAGE / in_wheel
  return folder if folder.is_dir() else _PACKAGE.parent / in_checkout


def register_gin_files():
  """Lets gin find the gin files by name, also those that a file includes."""
  gin.add_config_file_search_path(str(_gin_folder()))
  # gin logs an error for each place that lacks a file, also if another one has it. If
  # none has it, gin raises an error.
  logging.getLogger().addFilter(
    lambda record: not record.pathname.endswith('gin/resource_reader.py')
  )


def gin_files() -> list[str]:
  """Returns the names of the gin files."""
  return sorted(path.name for path in _gin_folder().glob('*.gin'))


def _gin_folder() -> pathlib.Path:
  return _folder('gin_files', 'gin')


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
  if path not in yaml_files():
    raise ValueError(
      f'--config_file is {path}: no such file. Give the path of a YAML file, or one '
      f'of {", ".join(yaml_files())}.'
    )
  return str(_yaml_folder() / path)


def yaml_files() -> list[str]:
  """Returns the names of the YAML files, without those that configure a study."""
  return sorted(
    file.relative_to(_yaml_folder()).as_posix()
    for pattern in ('*.yaml', 'cluster/*.yaml')
    for file in _yaml_folder().glob(pattern)
  )


def _yaml_folder() -> pathlib.Path:
  return _folder('yaml_files', 'experiments')
