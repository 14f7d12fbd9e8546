"""Extracts the student of a distillation run.

  yt8m-distill extract-student RUN OUT

RUN is the folder of a run, its best_ckpt, or the prefix of a checkpoint. OUT
becomes a run of one network: the student's weights without teacher and optimizer,
its params.yaml, and its part of evaluation.json if this checkpoint was evaluated.
OUT can be evaluated, fine-tuned, exported and used for prediction.
"""

from collections.abc import Sequence
from typing import Any

from official.core import config_definitions as cfg
from official.modeling import hyperparams

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.configs import registry
from yt8m_distill.utils import cli
from yt8m_distill.utils import files


def params_of(network: trained_network.Network) -> cfg.ExperimentConfig:
  """Returns the configuration of a network as a run of its own.

  Its experiment is that of the network's run, and for a run with several networks
  `task.student_experiment`.

  Raises:
    ValueError: the experiment is not registered, or cannot hold the network.
  """
  before = network.params.task
  name = getattr(before, 'student_experiment', network.params.experiment)
  try:
    params = registry.defaults(name)
    task = params.task
    values = _common(before, task)
    del values['init_checkpoint']  # The network is trained.
    values['model'] = network.model.as_dict()
    values['losses'] = _common(before.losses, task.losses)
    params.override({'task': values})
  except (LookupError, ValueError) as error:
    raise ValueError(
      f'The network cannot become a run of the experiment {name!r}: {error} In the '
      'params.yaml of its run, set task.student_experiment to an experiment of one '
      'network with the same classes.'
    ) from error
  return params


def _common(config: hyperparams.Config, other: hyperparams.Config) -> dict[str, Any]:
  """Returns the fields of a configuration that another one has too."""
  names = other.as_dict()
  return {name: value for name, value in config.as_dict().items() if name in names}


def extract(run: str, out: str):
  """Writes the student of a run as a run of its own.

  Args:
    run: folder of a run, its best_ckpt, or prefix of a checkpoint.
    out: folder to write; must not exist, or be empty.

  Raises:
    ValueError: `run` holds no trained student, or `out` is not empty.
  """
  files.check_empty(out)
  student = trained_network.Network(run)
  trained_network.write(
    out, student.network, params_of(student), student.step, student.evaluation
  )
  print(
    f'{student.checkpoint} -> {out}: '
    f'{student.network.count_params():,} parameters at step {student.step}'
  )


def main(argv: Sequence[str]):
  """Runs the command."""
  extract(*argv)


if __name__ == '__main__':
  cli.run(main, 'RUN', 'OUT')
