#!/usr/bin/env bash
# From nothing to a trained teacher and student, on simulated videos.
#
#   bash experiments/quickstart.sh [RUN]
#
# Installs, simulates 2,000 videos (480 MB), trains both networks in parallel,
# evaluates them, and ends with a table and a plot in RUN (default
# runs/quickstart). A run that was stopped goes on where it was.
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
