r"""Stores a teacher's answers in the records, so that training needs no teacher.

  yt8m-distill teach --model=RUN \
    --input_path='train*.tfrecord' --output_dir=taught/train --every_n=10

Runs a teacher, or the mean of several, once over the records, and writes them thinned
to the frames that the student sees, with the teacher's best classes and representation;
`dataloaders.taught_records` describes what is added. The experiment
`yt8m_distill_stored` trains on them.

--model takes runs, checkpoints and exports, separated by commas; --model_weights
weights several. Of a run that has two networks, the teacher is used. Output files keep
their names and appear only when complete. After an interruption, the same command
writes the files that are missing; teach.json in the output folder records its settings.
"""

from collections.abc import Sequence
import functools
import inspect

from absl import flags

from yt8m_distill.configs import data
from yt8m_distill.dataloaders import rewrite
from yt8m_distill.dataloaders import shard_batches
from yt8m_distill.dataloaders import shards
from yt8m_distill.dataloaders import taught_records
from yt8m_distill.dataloaders import thin
from yt8m_distill.serving import ensemble
from yt8m_distill.serving import model_sources
from yt8m_distill.utils import cli
from yt8m_distill.utils import cores
from yt8m_distill.utils import parallel

FLAGS = flags.FLAGS
DTYPES = ('float16', 'float32')


def teach(
  model: Sequence[str],
  input_path: str,
  output_dir: str,
  every_n: int = 10,
  max_frames: int = 300,
  top_k: int = 100,
  dtype: str = 'float16',
  batch_size: int = 64,
  workers: int = cores.THREADS,
  skip_corrupt_records: bool = False,
  skip_malformed_records: bool = False,
  features: Sequence[str] = (),
  model_weights: Sequence[str] = (),
  ray_address: str | None = None,
) -> list[str]:
  """Teaches the shards that are not taught yet; prints the result.

  Args: the values of the flags of the same names, which `--help` describes; sequences
    where a flag takes a list.

  Returns:
    The paths of all shards, in the order of their sources.

  Raises:
    ValueError: an argument or a record is invalid, or the folder belongs to another
      job.
  """
  thin.check(every_n, max_frames, least=1)
  cli.check_least(top_k=top_k, batch_size=batch_size, workers=workers)
  shards.find(input_path)  # Reading the networks takes longer.
  # All classes, to know how much the stored ones leave.
  networks = ensemble.Ensemble(
    model,
    model_sources.TEACHERS,
    top_k=None,
    features=data.parse_features(features),
    model_weights=model_weights,
  )
  teacher = networks.fingerprint()
  job = {
    'model': list(model),
    'teacher': teacher,
    'every_n': every_n,
    'max_frames': max_frames,
    'top_k': top_k,
    'dtype': dtype,
  }
  # Only where given, so that jobs of earlier versions resume.
  if features:
    job['features'] = list(features)
  if networks.model_weights:
    job['model_weights'] = networks.model_weights
  outputs, written = rewrite.rewrite(
    functools.partial(
      _change,
      networks=networks,
      every_n=every_n,
      max_frames=max_frames,
      answer=functools.partial(
        taught_records.add, teacher=teacher, top_k=top_k, dtype=dtype
      ),
    ),
    input_path,
    output_dir,
    'teach.json',
    job,
    'Teaching',
    skip_corrupt_records,
    skip_malformed_records,
    workers,
    threads=True,  # They share the networks.
    batch_size=batch_size,
    ray_address=ray_address,
  )
  videos = sum(shard.returned for shard in written)
  print(parallel.summary(output_dir, len(outputs), len(written), videos, 'video'))
  if videos:
    before = sum(shard.size for shard in written)
    after = sum(shards.sizes([shard.output for shard in written]))
    print(
      f'Bytes per video: {after / videos:,.0f}, {after / before:.1%} of '
      f'{before / videos:,.0f} before.'
    )
  return outputs


def _change(records, networks, every_n, max_frames, answer):
  """Teaches records; see `rewrite.Change`."""
  parsed = [rewrite.parse(record.serialized, str(record)) for record in records]
  predicted = networks(*shard_batches.batch_of(records))
  predicted = {key: value.numpy() for key, value in predicted.items()}
  is_single = 'representation' in predicted
  for row, (video, num_frames) in enumerate(parsed):
    if every_n > 1:
      thin.thin_video(video, num_frames, every_n, max_frames)
    answer(
      video,
      classes=predicted['class_indices'][row],
      probabilities=predicted['probabilities'][row],
      representation=predicted['representation'][row] if is_single else None,
      name=str(records[row]),
    )
    yield [rewrite.serialize(video)], 1


def _define_flags():
  thin.define_flags(
    'Keep frames 0, N, 2N, ...; 1 keeps all, for students that see other frames.'
  )
  ensemble.define_flags()
  flags.DEFINE_integer(
    'top_k', 100, 'Number of best classes to store; at most all of them.'
  )
  flags.DEFINE_enum(
    'dtype', 'float16', DTYPES, 'Type of stored probabilities and representations.'
  )
  flags.DEFINE_integer('batch_size', 64, 'Videos that the teacher sees at once.')
  flags.DEFINE_integer(
    'workers',
    cores.THREADS,
    'Number of shards taught at the same time, with --ray_address on each node.',
  )


def main(_):
  """Runs the command."""
  teach(**{name: FLAGS[name].value for name in inspect.signature(teach).parameters})


if __name__ == '__main__':
  _define_flags()
  cli.run(main)
