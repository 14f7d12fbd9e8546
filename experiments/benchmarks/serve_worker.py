"""Serves one exported model to `serve`, in a process of its own.

Reads commands from its input, one a line, and answers each with a line of JSON:

  time BATCH REQUESTS  seconds and CPU seconds of each request
  peak                 MiB of memory, at most so far
  predict FILE         writes the predictions of all videos to FILE; answers null

LiteRT models take one video a call, so a batch is as many calls.
"""

from collections.abc import Callable
import json
import os
import sys
import time

import numpy as np

_Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _saved_model(path: str) -> _Predict:
  import tensorflow as tf  # A LiteRT model is measured without it.

  model = tf.saved_model.load(path)
  name = 'frames' if 'frames' in model.signatures else 'features'

  def predict(frames, num_frames):
    videos = {name: tf.constant(frames), 'num_frames': tf.constant(num_frames)}
    return model.signatures[name](**videos)['predictions'].numpy()

  return predict


def _litert(path: str) -> _Predict:
  from ai_edge_litert import interpreter

  run = interpreter.Interpreter(
    model_path=path, num_threads=os.cpu_count()
  ).get_signature_runner()

  def predict(frames, num_frames):
    return np.concatenate(
      [
        run(frames=frames[i : i + 1], num_frames=num_frames[i : i + 1])['predictions']
        for i in range(len(frames))
      ]
    )

  return predict


def _timed(predict: _Predict, videos, batch: int, requests: int) -> list:
  """Returns seconds and CPU seconds of each request."""
  first = [array[np.arange(batch) % len(array)] for array in videos]
  times = []
  for _ in range(requests):
    wall, cpu = time.perf_counter(), time.process_time()
    predict(*first)
    times.append((time.perf_counter() - wall, time.process_time() - cpu))
  return times


def _peak() -> float:
  with open('/proc/self/status', encoding='utf-8') as status:
    return next(int(row.split()[1]) for row in status if 'VmHWM' in row) / 1024


def main(path: str, videos_path: str):
  """Answers commands until the input ends."""
  predict = (_litert if path.endswith('.tflite') else _saved_model)(path)
  with np.load(videos_path) as file:
    videos = file['frames'], file['num_frames']
  for line in sys.stdin:
    command, *arguments = line.split()
    answer: object = None
    if command == 'time':
      answer = _timed(predict, videos, *map(int, arguments))
    elif command == 'peak':
      answer = _peak()
    else:
      predictions = [
        predict(*(array[i : i + 64] for array in videos))
        for i in range(0, len(videos[0]), 64)
      ]
      np.save(arguments[0], np.concatenate(predictions))
    print(json.dumps(answer), flush=True)


if __name__ == '__main__':
  main(*sys.argv[1:])
