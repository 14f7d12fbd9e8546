r"""Calibrates when a nested network stops looking at a video, and shows what it saves.

  yt8m-distill adapt --model=RUN --calibration_path='calibrate*.tfrecord' \
    --evaluation_path='validate*.tfrecord' --output_dir=adaptive --mean_frames=12

A nested network answers at several numbers of frames. Adaptive inference goes on to the
next one only where the answer is not sure yet. The command chooses where to start and
end and how sure is enough: the counts, the measure and the threshold with the highest
GAP at the given mean frames, or with the fewest frames at the given --gap_loss. It
chooses on the calibration records only, and then scores the evaluation records; without
these, the calibration records.

Writes stopping.json (the choice), curve.csv, lengths.csv, classes.csv, adaptive.png and
report.md, and prints the report's table. adapt.json records the settings.
"""

import inspect
import os
from typing import Any

from absl import flags
import pandas as pd
import tensorflow as tf

from yt8m_distill.checkpoints import trained_network
from yt8m_distill.configs import data
from yt8m_distill.dataloaders import pipeline
from yt8m_distill.dataloaders import reader
from yt8m_distill.dataloaders import remote
from yt8m_distill.dataloaders import shards
from yt8m_distill.dataloaders import skip_flags
from yt8m_distill.evaluation import adaptive
from yt8m_distill.evaluation import adaptive_report
from yt8m_distill.evaluation import report
from yt8m_distill.evaluation import results
from yt8m_distill.evaluation import video_metrics
from yt8m_distill.modeling import adaptive as inference
from yt8m_distill.serving import stopping
from yt8m_distill.utils import cli
from yt8m_distill.utils import files
from yt8m_distill.utils import progress_bar

FLAGS = flags.FLAGS
_OUTPUTS = (
  'stopping.json',
  'curve.csv',
  'lengths.csv',
  'classes.csv',
  'adaptive.png',
  'report.md',
)


def adapt(
  model: str,
  calibration_path: str,
  output_dir: str,
  evaluation_path: str = '',
  mean_frames: float | None = None,
  gap_loss: float | None = None,
  measure: str | None = None,
  batch_size: int = 64,
  skip_corrupt_records: bool = False,
  skip_malformed_records: bool = False,
) -> dict[str, Any]:
  """Calibrates and evaluates; writes the files and prints a table.

  Args: the values of the flags of the same names, which `--help` describes.

  Returns:
    The counts, measure and threshold that are chosen, and what they give on the records
    that are evaluated: mean frames and FLOPs of a video, and the scores.

  Raises:
    ValueError: an argument or a record is invalid, the network is not nested, the two
      sets share a file, the target cannot be reached, or the folder belongs to another
      job.
  """
  adaptive.check_target(mean_frames, gap_loss)
  cli.check_least(batch_size=batch_size)
  _check_apart(calibration_path, evaluation_path)
  if tf.saved_model.contains_saved_model(model):
    raise ValueError(f'model is {model}, an export: name the run that it comes from.')
  run = trained_network.Network(model)
  _check_network(model, run)
  target = {'mean_frames': mean_frames, 'gap_loss': gap_loss, 'measure': measure}
  paths = {name: os.path.join(output_dir, name) for name in _OUTPUTS}
  skips = skip_flags.given(
    skip_corrupt_records=skip_corrupt_records,
    skip_malformed_records=skip_malformed_records,
  )
  files.claim_folder(
    os.path.join(output_dir, 'adapt.json'),
    {
      'model': run.checkpoint,
      'network': stopping.fingerprint_of(run),
      'calibration_path': calibration_path,
      'evaluation_path': evaluation_path,
      **target,
      'batch_size': batch_size,
      **skips,
    },
    list(paths.values()),
  )

  measures = [measure] if measure else list(inference.MEASURES)
  with cli.naming_flag('calibration_path'):
    answers = answers_of(run, calibration_path, batch_size, **skips)
  counts = adaptive.fixed(answers)
  adaptive.check_reachable(counts, mean_frames)  # Scoring the rules takes long.
  calibrated = adaptive.calibrate(
    adaptive.rules(answers, measures), counts, mean_frames, gap_loss
  )
  rule = inference.Rule(*(calibrated.pop(key) for key in inference.Rule._fields))
  stopping.write(
    paths['stopping.json'],
    rule,
    run,
    target=target,
    calibration={
      'input_path': calibration_path,
      'videos': len(answers.num_frames),
      'expected': calibrated,
    },
  )
  lines = [
    f'Network: {run.checkpoint}, step {run.step:,}.',
    f'Calibrated on {len(answers.num_frames):,} videos of {calibration_path}: '
    f'{calibrated["frames"]:.2f} frames, GAP {calibrated["gap"]:.4f} '
    f'({counts["gap"].iloc[-1]:.4f} at {answers.counts[-1]} frames).',
  ]
  if evaluation_path:
    with cli.naming_flag('evaluation_path'):
      answers = answers_of(run, evaluation_path, batch_size, **skips)
    counts = adaptive.fixed(answers)
    lines.append(
      f'Evaluated on {len(answers.num_frames):,} videos of {evaluation_path}.'
    )
  else:
    lines.append('Evaluated on the same videos, which favors the chosen threshold.')
  points = adaptive.curve(answers, measures)
  part = answers.of(rule.counts)
  stopped = part.stops(rule.measure, rule.threshold)
  chosen = {**rule._asdict(), **part.adaptive(rule.measure, rule.threshold)}
  if mean_frames and chosen['frames'] > mean_frames:
    lines.append(
      f'These videos see more than {mean_frames:g} frames: calibrate on more videos, '
      'or on videos more like them, if that matters.'
    )
  lengths, classes = adaptive.by_length(part, stopped), adaptive.by_class(part, stopped)
  vocabulary = run.params.task.evaluation.vocabulary
  if vocabulary and tf.io.gfile.exists(vocabulary):
    names = results.read_vocabulary(vocabulary, answers.num_classes)
    classes.insert(1, 'name', names)
  lines.append(
    results.map_classes(
      {
        'num_classes': answers.num_classes,
        'classes_with_positives': int((classes['positives'] > 0).sum()),
        'empty_classes': answers.empty_classes,
      }
    )
    + '.'
  )
  for name, table in (
    ('curve.csv', _joined(counts, points)),
    ('lengths.csv', lengths),
    ('classes.csv', classes),
  ):
    files.write_text(paths[name], table.to_csv(index=False))
  report.save(adaptive_report.plot(points, counts, chosen), paths['adaptive.png'])
  text = '\n'.join([*lines, '', adaptive_report.summary(counts, chosen)])
  files.write_text(
    paths['report.md'],
    f'# Adaptive numbers of frames\n\n{text}\n![GAP and mAP by cost](adaptive.png)\n\n'
    f'{adaptive_report.savings(lengths, classes)}',
  )
  print(text)
  return chosen


def _check_apart(calibration_path: str, evaluation_path: str):
  """Raises a ValueError if the two sets share a file, or one has none."""
  found: list[dict[str, str]] = []
  for name, path in (
    ('calibration_path', calibration_path),
    ('evaluation_path', evaluation_path),
  ):
    if path or not found:
      with cli.naming_flag(name):
        found.append({_resolved(file): file for file in shards.find(path)})
  for shared in set.intersection(*map(set, found)) if len(found) == 2 else ():
    raise ValueError(
      f'--evaluation_path names {found[1][shared]}, which is a file of '
      '--calibration_path too: a threshold cannot be evaluated on the videos that it '
      'was chosen on. Name other files in one of them.'
    )


def _resolved(path: str) -> str:
  """Returns a path that is equal for equal files."""
  if remote.scheme(path) not in ('', 'file'):
    return path
  return os.path.realpath(path.removeprefix('file://'))


def _check_network(model: str, run: trained_network.Network):
  """Raises a ValueError if a network has no answers to videos at several counts."""
  frames = run.model.network.frames
  if not frames.counts():
    raise ValueError(
      f'{model} sees frames of type {frames.type!r}: only a network with nested frames '
      "answers at several numbers of them. Name a run with frames of type 'nested'."
    )


def answers_of(
  run: trained_network.Network, input_path: str, batch_size: int = 64, **fields: Any
) -> adaptive.Answers:
  """Returns the answers of a nested network to all records.

  Args:
    run: the network.
    input_path: the records.
    batch_size: videos that the network sees at once.
    **fields: further ones of `configs.data.VideoData`.
  """
  model, evaluation = run.model, run.params.task.evaluation
  counts = model.network.frames.counts()
  collector = adaptive.Collector(
    counts=counts,
    num_classes=model.num_classes,
    empty_classes=evaluation.empty_classes,
    flops=inference.flops_of(run.network, counts),
    fixed_flops=[inference.flops_of(run.network, [count])[0] for count in counts],
  )
  dataset = pipeline.build(
    data.VideoData(
      input_path=input_path,
      global_batch_size=batch_size,
      drop_remainder=False,
      **fields,
    ),
    reader.FrameReader(
      model.features,
      model.max_frames,
      model.num_classes,
      model.network.frames,
      with_lengths=True,
    ),
  )

  def answer(inputs, labels) -> list[dict[str, tf.Tensor]]:
    outputs = run.network(inputs, training=False, answers=True)
    answers: list[dict[str, tf.Tensor]] = []
    before = None
    for one in outputs['answers']:
      predictions = tf.cast(one['predictions'], tf.float32)
      answers.append(
        {
          **video_metrics.compute(predictions, labels, evaluation.top_k),
          **{
            name: confidence(predictions, before)
            for name, confidence in inference.MEASURES.items()
          },
        }
      )
      before = predictions
    return answers

  answer = tf.function(
    answer, dataset.element_spec, autograph=False
  ).get_concrete_function()
  with progress_bar.start('Answering', None, ' videos') as bar:
    for inputs, labels in dataset:
      answers = tf.nest.map_structure(lambda v: v.numpy(), answer(inputs, labels))
      collector.update(answers, inputs['length'].numpy(), labels.numpy())
      bar.update(len(labels))
  return collector.result()


def _joined(counts: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
  """Returns fixed counts and thresholds as one table, with their gains."""
  rows = pd.concat([counts.assign(measure='fixed'), points], ignore_index=True)
  rows['count'] = rows['count'].astype('Int64')
  rows = rows[['measure', 'count', *points.columns.drop(['counts', 'measure'])]]
  return rows.join(adaptive.gains(rows, counts))


def _define_flags():
  flags.DEFINE_string(
    'model', None, 'Run of a nested network, or its checkpoint.', required=True
  )
  flags.DEFINE_string(
    'calibration_path',
    None,
    'TFRecord files with labels to choose the threshold on, which the network was not '
    'trained on.',
    required=True,
  )
  flags.DEFINE_string(
    'evaluation_path', '', 'Other such files, to score. Default: those of calibration.'
  )
  flags.DEFINE_string('output_dir', None, 'Folder of the files.', required=True)
  flags.DEFINE_float(
    'mean_frames',
    None,
    'Target: the highest GAP with at most this number of frames per video, on average.',
  )
  flags.DEFINE_float(
    'gap_loss',
    None,
    'Target: the fewest frames with a GAP at most this below that of all frames.',
  )
  flags.DEFINE_enum(
    'measure',
    None,
    list(inference.MEASURES),
    'Measure of confidence. Default: the one that reaches the target best.',
  )
  flags.DEFINE_integer('batch_size', 64, 'Videos that the network sees at once.')
  skip_flags.define_flags()


def main(_):
  """Runs the command."""
  adapt(**{name: FLAGS[name].value for name in inspect.signature(adapt).parameters})


if __name__ == '__main__':
  _define_flags()
  cli.run(main)
