"""Folders and files of the repository that tests read."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
GOLDEN = ROOT / 'tests' / 'golden'
REAL = ROOT / 'tests' / 'real'

# Real records of YouTube-8M, 2018: one with frames, and two video-level shards.
FRAME_LEVEL = REAL / 'food_SjJ3.tfrecord'
VIDEO_LEVEL = [REAL / f'validate000{shard}.tfrecord' for shard in (0, 1)]

# Real frames of AudioSet: 500 clips of its training set, 200 of its evaluation set.
AUDIOSET_TRAIN = REAL / 'audioset_train.tfrecord'
AUDIOSET_EVAL = REAL / 'audioset_eval.tfrecord'
