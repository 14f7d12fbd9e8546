#!/usr/bin/env bash
# Runs the paper's comparisons on simulated frames of real videos.
#
#   DATA=yt8m/2/video bash experiments/study/study.sh [OUT]
#
# DATA holds video-level shards validate*.tfrecord, or a folder validate with
# them. The script simulates frames once from shards 0000-0029 (6,000 videos to
# train on) and 0032-0039 (1,500 to validate on) into OUT/data, 1.9 GB. Then it
# runs the study in a folder of OUT named after its file, such as OUT/paper,
# which gets a folder per run and report.md. The same command again skips what
# is finished and resumes what was stopped.
#
# OUT defaults to runs/study. STUDY names another YAML file:
# experiments/study/smoke.yaml takes minutes. WORKERS (2) runs go in parallel.
set -euo pipefail
out=$(realpath -m "${1:-runs/study}")
data=$(realpath "${DATA:?is not set: name a folder of video-level shards}")
study=$(realpath "${STUDY:-$(dirname "$0")/paper.yaml}")
cd "$(dirname "$0")/../.."
. experiments/environment.sh
. experiments/simulated_frames.sh
"$python" -m experiments.scripts.claim "$out" "DATA=$data"

echo "1/2 Simulating frames"
simulate "$out/data" train '{0..2}?' 6000
simulate "$out/data" validate '3{2..9}' 1500

echo "2/2 Running $study"
"$python" -m experiments.study --config="$study" \
  --output_dir="$out/$(basename "$study" .yaml)" --workers="${WORKERS:-2}" \
  --gin_params="yt8m_distill.train_path='$out/data/train*.tfrecord'" \
  --gin_params="yt8m_distill.validation_path='$out/data/validate*.tfrecord'"
