"""Training and evaluation of a student that answers at several numbers of frames."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tiny

from yt8m_distill.checkpoints import extract_student
from yt8m_distill.configs import model as model_config
from yt8m_distill.configs import validation
from yt8m_distill.modeling import frame_selection
from yt8m_distill.tasks import distillation

_COUNTS = [2, 4, 8]
_STUDENT = {
  'frames': {'type': 'nested', 'nested': {'counts': _COUNTS}},
  'backbone': {'hierarchical_lstm': {'chunks': 4}},
}
_LOSSES = ('label', 'representation', 'prediction')


def _pair(student, **task):
  """A distillation task, and its model of random weights."""
  params = tiny.experiment({'task': {'model': {'student': student}, **task}})
  task = distillation.DistillationTask(params.task)
  model = task.create_model()
  tiny.scatter_weights(model)
  return task, model


def _selected(inputs):
  """The student's inputs."""
  frames = model_config.FrameSelection(_STUDENT['frames'])
  indices, count = frame_selection.frame_indices(
    inputs['num_frames'], frames, tiny.MAX_FRAMES
  )
  return {
    'frames': tf.gather(inputs['frames'], indices, batch_dims=1),
    'num_frames': count,
  }


@pytest.mark.parametrize('narrow', [False, True])
def test_losses_are_means_over_the_answers(narrow):
  student = dict(_STUDENT)
  if narrow:
    student['backbone'] = {'hierarchical_lstm': {'chunks': 4, 'num_cells': 3}}
  task, model = _pair(
    student,
    model={'student': student, 'projection': narrow},
    losses={'representation_weight': 0.3, 'prediction_weight': 0.7},
  )
  inputs, labels = tiny.batch(6)
  teacher = model(inputs)['teacher']
  wanted = {}
  answers = model.student(_selected(inputs), answers=True)['answers']
  for answer, prefix in zip(answers, (*task.earlier, 'student/'), strict=True):
    answer = dict(answer)
    if narrow:
      kernel = model.projections['representation'].kernel
      answer['representation'] = answer['representation'] @ kernel
    plain = distillation.DistillationTask(tiny.experiment().task)
    terms = plain.loss_terms(labels, {'teacher': teacher, 'student': answer})
    wanted.update(
      {f'{prefix}{name}_loss': terms[f'student/{name}_loss'] for name in _LOSSES}
    )
  optimizer = tiny.Recorder()
  found = task.train_step((inputs, labels), model, optimizer)
  for name, value in wanted.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
  weights = {'label': 1.0, 'representation': 0.3, 'prediction': 0.7}
  total = sum(
    weights[name] * np.mean(value)
    for key, value in wanted.items()
    for name in _LOSSES
    if key.endswith(f'{name}_loss')
  ) / len(_COUNTS)
  others = ('teacher/label', 'teacher/regularization', 'student/regularization')
  total += sum(np.mean(found[f'{name}_loss']) for name in others)
  np.testing.assert_allclose(found['loss'], total, rtol=1e-5)
  for variable in model.student.trainable_variables:
    assert np.any(optimizer.gradients[variable.ref()]), variable.name


@pytest.mark.parametrize('backbone', ['hierarchical_lstm', 'yt8m_average'])
def test_one_number_is_the_uniform_student(backbone):
  """Frames, losses and gradients, bit for bit."""
  inputs, labels = tiny.batch(6)
  results = []
  for frames in (
    {'type': 'nested', 'nested': {'counts': [8]}},
    {'type': 'uniform', 'uniform': {'k': 8, 'every_n': 0}},
  ):
    student = {**_STUDENT, 'frames': frames}
    student['backbone'] = {**_STUDENT['backbone'], 'type': backbone}
    task, model = _pair(student, losses={'representation_weight': 0.0})
    optimizer = tiny.Recorder()
    logs = task.train_step((inputs, labels), model, optimizer)
    results.append([*tf.nest.flatten(logs), *optimizer.gradients.values()])
  for one, other in zip(*results, strict=True):
    np.testing.assert_array_equal(one, other)


def _networks(results):
  return {name: cost['frames'] for name, cost in results['networks'].items()}


@pytest.mark.end_to_end
def test_run_scores_every_answer(tmp_path):
  tiny.write_records(tmp_path / 'train.tfrecord', 12)
  values = {
    'task__model__student__frames__type': 'nested',
    'task__model__student__frames__nested__counts': '[2,4,8]',
    'task__model__student__backbone__hierarchical_lstm__chunks': 4,
  }
  tiny.drive('train_and_eval', tmp_path / 'run', tmp_path / 'train.tfrecord', **values)
  results = json.loads((tmp_path / 'run/evaluation.json').read_text())
  assert _networks(results) == {
    'teacher': 20,
    'student': 8,
    'student/at_2': 2,
    'student/at_4': 4,
  }
  flops = [
    results['networks'][name]['flops']
    for name in ('student/at_2', 'student/at_4', 'student')
  ]
  head = 2 * flops[0] - flops[1]
  assert [2 * (f - head) // (flops[0] - head) for f in flops] == [2, 4, 8]
  header = (tmp_path / 'run/per_class.csv').read_text().splitlines()[0]
  assert 'student/at_2/average_precision' in header
  # The extracted student has the scores of its answers, and gets them again.
  student = tmp_path / 'student'
  extract_student.extract(str(tmp_path / 'run'), str(student))
  kept = json.loads((student / 'evaluation.json').read_text())
  assert _networks(kept) == {'network': 8, 'at_2': 2, 'at_4': 4}
  tiny.drive(
    'eval',
    student,
    tmp_path / 'train.tfrecord',
    'yt8m_distill_finetune',
    **{name.replace('student', 'network'): value for name, value in values.items()},
  )
  again = json.loads((student / 'evaluation.json').read_text())
  for name in ('gap', 'at_2/gap', 'at_4/map', 'at_2/label_loss'):
    whole = results['metrics'][f'student/{name}']
    assert kept['metrics'][name] == whole
    np.testing.assert_allclose(again['metrics'][name], whole, rtol=1e-6)
  assert len({results['metrics'][f'student/{k}gap'] for k in ('', 'at_2/')}) == 2


@pytest.mark.parametrize(
  'experiment',
  ['yt8m_distill', 'yt8m_distill_single', 'yt8m_distill_stored'],
)
def test_metric_names_are_those_of_an_evaluation(experiment):
  name = 'student' if experiment == 'yt8m_distill' else 'network'
  params = tiny.experiment({'task': {'model': {name: _STUDENT}}}, experiment=experiment)
  found = [key for key in params.task.metric_names() if 'at_4/' in key]
  prefix = 'student/' if name == 'student' else ''
  wanted = ['gap', 'map', 'hit_at_one', 'perr', 'label_loss']
  if experiment == 'yt8m_distill':
    wanted += ['prediction_loss', 'representation_loss']
  assert sorted(found) == sorted(f'{prefix}at_4/{key}' for key in wanted)


@pytest.mark.parametrize(
  'change, message',
  [
    ({'student': {'frames': {'nested': {'counts': []}}}}, r'nested.counts is \[\]'),
    (
      {'student': {'frames': {'nested': {'counts': [4, 2, 8]}}}},
      r'nested.counts is \[4, 2, 8\]: it must list numbers of frames, 1 or more, each',
    ),
    ({'student': {'frames': {'nested': {'counts': [0, 8]}}}}, r'is \[0, 8\]'),
    (
      {'student': {'frames': {'nested': {'counts': [4, 40]}}}},
      r'nested.counts is \[4, 40\]: the last one must be at most .*max_frames, 20',
    ),
    (
      {'student': {'frames': {'nested': {'counts': [3, 8]}}}},
      r'hierarchical_lstm.chunks is 4: chunks of 2 frames do not end at each of '
      r'\[3, 8\] frames. Set it to 8.',
    ),
    (
      {'teacher': {'frames': {'type': 'nested', 'nested': {'counts': [5, 20]}}}},
      "model.teacher.frames.type is 'nested': a teacher answers at one",
    ),
  ],
)
def test_invalid_numbers(change, message):
  params = tiny.experiment(
    {'task': {'model': {'student': _STUDENT}}}, {'task': {'model': change}}
  )
  with pytest.raises(ValueError, match=message):
    validation.validate(params.task, 'task')


@pytest.mark.parametrize(
  'task, message',
  [
    ({'labels': 'segments'}, "labels is 'segments', but frames.type is 'nested'"),
    ({'losses': {'intermediate_weight': 1.0}}, 'intermediate_weight is above 0'),
  ],
)
def test_tasks_without_nested_frames(task, message):
  params = tiny.experiment({'task': {'model': {'student': _STUDENT}, **task}})
  with pytest.raises(ValueError, match=message):
    validation.validate(params.task, 'task')
