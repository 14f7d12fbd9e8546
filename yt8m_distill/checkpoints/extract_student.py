"""Takes the student out of a distillation run.

  python -m yt8m_distill.checkpoints.extract_student RUN OUT

RUN is the folder of a run, its best_ckpt, or the prefix of a checkpoint. OUT
becomes a run of one network: its weights, without teacher and optimizer, its
own params.yaml, and its share of evaluation.json where the checkpoint was
evaluated. It can be evaluated, fine-tuned from, exported and predicted with.
"""

from collections.abc import Sequence

from official.core import config_definitions as cfg
from official.core import exp_factory

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.utils import cli
from yt8m_distill.utils import files


def params_of(network: trained_network.Network) -> cfg.ExperimentConfig:
  """Configuration of a network that was taken out of its run."""
  params = exp_factory.get_exp_config('yt8m_distill_finetune')
  task, before = params.task, network.params.task
  task.model = network.model
  task.evaluation = before.evaluation
  task.train_data, task.validation_data = (before.train_data, before.validation_data)
  task.losses.override(
    {name: getattr(before.losses, name) for name in task.losses.as_dict()}
  )
  return params


def extract(run: str, out: str):
  """Writes the student of `run` as a run of its own into `out`.

  Raises:
    ValueError: `run` holds no trained student, or `out` holds something.
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
  extract(*argv)


if __name__ == '__main__':
  cli.run(main, 'RUN', 'OUT')
