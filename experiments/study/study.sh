#!/usr/bin/env bash
# The paper's comparisons on simulated frames of real videos: table and plots.
#
#   DATA=yt8m/2/video bash experiments/study.sh [OUT]
#
# DATA holds video-level shards validate*.tfrecord, or a folder validate of
# them. Frames are simulated once from shards 0000-0029 (6,000 videos to train
# on) and 0032-0039 (1,500 to validate on), 1.9 GB, into OUT/data (default of
# OUT: runs/study). STUDY names another YAML file (experiments/study/smoke.yaml
# takes minutes), WORKERS how many runs at once (2). A folder of OUT called as
# the file, OUT/paper say, gets a folder per run and report.md. What is finished
# is not done again, a run that was stopped goes on.
set -euo pipefail
out=$(realpath -m "${1:-runs/study}")
data=$(realpath "${DATA:?names the folder of video-level shards}")
study=$(realpath "${STUDY:-$(dirname "$0")/study/paper.yaml}")
cd "$(dirname "$0")/.."
. experiments/environment.sh
[ ! -d "$data/validate" ] || data=$data/validate
mkdir -p "$out/data"
settings="DATA=$data"
. experiments/claim.sh

echo "1/2 Simulating frames"
simulate() {  # SPLIT SHARDS VIDEOS: once.
  [ ! -e "$out/data/$1.complete" ] || return 0
  rm -f "$out/data/$1"*
  "$python" -m yt8m_distill.simulation.write_shards --output_dir="$out/data" \
    --split="$1" --num_videos="$3" --video_level="$data/validate00$2.tfrecord"
  touch "$out/data/$1.complete"
}
simulate train '{0..2}?' 6000
simulate validate '3{2..9}' 1500

echo "2/2 Running $study"
"$python" -m experiments.study --config="$study" \
  --output_dir="$out/$(basename "$study" .yaml)" --workers="${WORKERS:-2}" \
  --gin_params="TRAIN_PATH='$out/data/train*.tfrecord'" \
  --gin_params="VALIDATION_PATH='$out/data/validate*.tfrecord'"
