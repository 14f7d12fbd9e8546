#!/usr/bin/env bash
# Trains a teacher and a student on simulated videos, from a fresh checkout.
#
#   bash experiments/quickstart.sh [RUN]
#
# Installs the package, simulates 2,000 videos (480 MB), trains both networks in
# parallel, evaluates them, and writes a table and a plot to RUN (default
# runs/quickstart). The same command again resumes a stopped run.
set -euo pipefail
run=$(realpath -m "${1:-runs/quickstart}")
cd "$(dirname "$0")/.."
. experiments/environment.sh
data=$run/data

echo "1/3 Simulating videos"
. experiments/simulated_data.sh

echo "2/3 Training teacher and student"
"$python" -m yt8m_distill.train --experiment=yt8m_distill \
  --mode=train_and_eval --gin_file=train.gin --gin_file=quickstart.gin \
  --model_dir="$run" \
  --gin_params="yt8m_distill.train_path='$data/train*.tfrecord'" \
  --gin_params="yt8m_distill.validation_path='$data/validate*.tfrecord'" \
  --config_file=experiments/quickstart.yaml

echo "3/3 Reporting"
"$python" -m yt8m_distill.evaluation.report "$run"
