"""Finds the packages; setup.cfg holds everything else."""

import setuptools

setuptools.setup(
  packages=[
    *setuptools.find_packages(include=['yt8m_distill*']),
    # gin/ and experiments/ of a checkout: see `package_dir` in setup.cfg.
    'yt8m_distill.gin_files',
    'yt8m_distill.yaml_files',
  ]
)
