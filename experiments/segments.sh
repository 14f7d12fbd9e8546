#!/usr/bin/env bash
# YouTube-8M Segments from end to end, on simulated videos: trains teacher and student
# on the labels of videos, fine-tunes the student on rated windows of 5 frames, distills
# in time, predicts where in videos each class holds, and prints a table.
#
#   bash experiments/segments.sh [RUN [flags]]
#
# RUN (default runs/segments) gets a folder per training, the table (before/report.md),
# predictions and a page of them. The same command again skips complete stages and
# resumes a stopped one. Flags go to all stages that train or evaluate, such as
# --gin_params=yt8m_distill.seed=1.
set -euo pipefail
out=$(realpath -m "${1:-runs/segments}")
[ $# -eq 0 ] || shift
flags=("$@")
cd "$(dirname "$0")/.."
. experiments/environment.sh
. experiments/stage.sh
"$python" -m experiments.scripts.claim "$out" "flags=${flags[*]}"
data=$out/data
context=2  # frames that the teacher sees before and after a window

simulate() {
  local split name videos segments
  for split in "train 1600" "tune 1600 sparse" "evaluate 100 dense"; do
    read -r name videos segments <<<"$split"
    "$python" -m yt8m_distill.simulation.write_shards --output_dir="$data" \
      --split="$name" --num_videos="$videos" ${segments:+--segments="$segments"} \
      --videos_per_shard=100 --num_classes=50 --cutaways=0.25 --seed=1
  done
}
run() {  # EXPERIMENT MODE GIN_FILE FOLDER [setting=value...]
  local experiment=$1 mode=$2 gin_file=$3 folder=$4
  shift 4
  "$python" -m yt8m_distill.train --experiment="$experiment" --mode="$mode" \
    --gin_file="$gin_file" --gin_file=quickstart.gin \
    --config_file=experiments/quickstart.yaml --model_dir="$out/$folder" \
    "${@/#/--gin_params=yt8m_distill.}" "${flags[@]}"
}
windows() {  # EXPERIMENT MODE GIN_FILE FOLDER: run() on windows; 2 frames for the student
  run "$@" k=2 train_path="'$out/windows/tune*.tfrecord'" \
    validation_path="'$out/windows/evaluate*.tfrecord'" \
    init_checkpoint="'$out/videos'" max_frames=$((5 + 2 * context)) \
    teacher_chunks=1 student_chunks=1 train_steps=320 learning_rate=1e-3
}
report() {
  "$python" -m yt8m_distill.evaluation.report "$out"/{before,student,distilled} \
    >/dev/null
}

stage simulate "1/9 Simulating videos" simulate
stage videos "2/9 Training teacher and student on labels of videos" \
  run yt8m_distill train_and_eval train.gin videos \
  train_path="'$data/train*.tfrecord'" validation_path="'$data/evaluate*.tfrecord'"
stage split "3/9 Splitting videos into rated windows" \
  "$python" -m yt8m_distill.dataloaders.split_segments --output_dir="$out/windows" \
  --input_path="$data/tune*.tfrecord,$data/evaluate*.tfrecord" --context=$context
stage before "4/9 Evaluating both on windows" \
  windows yt8m_distill eval segments_distill.gin before
stage student "5/9 Fine-tuning the student on windows" \
  windows yt8m_distill_segments train_and_eval segments.gin student
stage distilled "6/9 Distilling in time" \
  windows yt8m_distill train_and_eval segments_distill.gin distilled
stage report "7/9 Reporting" report
stage predict "8/9 Predicting where each class holds" \
  "$python" -m yt8m_distill.serving.predict --model="$out/distilled" --segments=5 \
  --input_path="$data/evaluate*.tfrecord" --output_dir="$out/predictions"
stage page "9/9 Writing a page of labels in time" \
  "$python" -m yt8m_distill.serving.predict --model="$out/distilled" --format=html \
  --context=$context --input_path="$data/evaluate*.tfrecord" --output_dir="$out/page"
cat "$out/before/report.md"
