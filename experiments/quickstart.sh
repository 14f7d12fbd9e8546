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

echo "2/3 Training teacher and student, log in $run/train.log"
"$python" -m yt8m_distill.train --experiment=yt8m_distill \
  --mode=train_and_eval --gin_file=train.gin --gin_file=quickstart.gin \
  --model_dir="$run" \
  --gin_params="yt8m_distill.train_path='$data/train*.tfrecord'" \
  --gin_params="yt8m_distill.validation_path='$data/validate*.tfrecord'" \
  --config_file=experiments/quickstart.yaml 2>>"$run/train.log" |
  sed -un -e '/^step /p' -e '/^ eval .*running/p' || {
    tail -n 20 "$run/train.log" >&2; exit 1; }

echo "3/3 Reporting"
"$python" -m yt8m_distill.evaluation.report "$run" 2>>"$run/train.log" || {
  tail -n 20 "$run/train.log" >&2; exit 1; }
