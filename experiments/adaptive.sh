#!/usr/bin/env bash
# Compares students with a fixed number of frames, a nested one, and adaptive inference:
# GAP against mean frames and FLOPs, with 3 seeds.
#
#   DATA=yt8m/2/video bash experiments/adaptive.sh [OUT]
#   AUDIOSET=audioset_v1_embeddings bash experiments/adaptive.sh [OUT]
#
# DATA holds video-level shards validate*.tfrecord, or a folder validate with them.
# Frames are simulated from shards 0000-0029 to train on, 0030-0033 to calibrate the
# thresholds on, and 0034-0039 to evaluate on. AUDIOSET holds what DATA does in
# audioset.sh; thresholds are calibrated on the files that it holds out.
#
# OUT (runs/adaptive) gets the data and a folder for each study, with a folder per run,
# report.md and adaptive.md, adaptive.csv and adaptive.png. WORKERS (2) runs go in
# parallel. The same command again skips what is finished.
set -euo pipefail
out=$(realpath -m "${1:-runs/adaptive}")
data=${DATA:+$(realpath "$DATA")}
audioset=${AUDIOSET:+$(realpath "$AUDIOSET")}
[ -n "$data$audioset" ] || {
  echo "DATA and AUDIOSET are not set: name a folder of records with one of them." >&2
  exit 2
}
cd "$(dirname "$0")/.."
. experiments/environment.sh

compare() {  # STUDY FOLDER TRAIN CALIBRATE EVALUATE
  "$python" -m experiments.study.adaptive --config="$1" --output_dir="$2" \
    --calibration_path="$4" --evaluation_path="$5" \
    --gin_params="yt8m_distill.train_path='$3'" \
    --gin_params="yt8m_distill.validation_path='$5'"
}

if [ -n "$data" ]; then
  . experiments/simulated_frames.sh
  "$python" -m experiments.scripts.claim "$out/simulated" "DATA=$data"
  frames=$out/simulated/data
  echo "1/3 Simulating frames"
  simulate "$frames" train '{0..2}?' 6000
  simulate "$frames" calibrate '3{0..3}' 800
  simulate "$frames" validate '3{4..9}' 1200
  study=experiments/study/adaptive.yaml
  echo "2/3 Running $study"
  "$python" -m experiments.study --config="$study" --output_dir="$out/simulated/adaptive" \
    --workers="${WORKERS:-2}" \
    --gin_params="yt8m_distill.train_path='$frames/train*.tfrecord'" \
    --gin_params="yt8m_distill.validation_path='$frames/validate*.tfrecord'"
  echo "3/3 Calibrating"
  compare "$study" "$out/simulated/adaptive" "$frames/train*.tfrecord" \
    "$frames/calibrate*.tfrecord" "$frames/validate*.tfrecord"
fi
if [ -n "$audioset" ]; then
  study=experiments/study/adaptive_audioset.yaml
  echo "1/2 Running $study"
  DATA=$audioset STUDY=$study VALIDATE=eval bash experiments/audioset.sh "$out/audioset"
  echo "2/2 Calibrating"
  compare "$study" "$out/audioset/adaptive_audioset" "@$out/audioset/training.txt" \
    "@$out/audioset/held_out.txt" "@$out/audioset/eval.txt"
fi
