#!/usr/bin/env bash
# Runs the five stages of the authors' scripts: train, validate, convert,
# fine-tune, evaluate. Also trains the student's network without a teacher, for
# comparison. Prints one table.
#
#   bash experiments/reproduce.sh [OUT]   on the quickstart's simulated data
#   DATA=yt8m/2/frame bash experiments/reproduce.sh OUT [flags]   on YouTube-8M
#
# OUT (default runs/reproduce) gets a folder per network. The same command again
# skips complete stages and resumes a stopped one. DATA holds train*.tfrecord
# and validate*.tfrecord, or folders train and validate with them.
# Flags go to all stages that train or evaluate, such as
# --gin_params=yt8m_distill.batch_size=128.
set -euo pipefail
out=$(realpath -m "${1:-runs/reproduce}")
[ $# -eq 0 ] || shift
flags=("$@")
[ -z "${DATA:-}" ] || data=$(realpath "$DATA")
cd "$(dirname "$0")/.."
. experiments/environment.sh
"$python" -m experiments.scripts.claim "$out" "DATA=${DATA:+$data}" "flags=${flags[*]}"

quick=()
finetune_steps=()
if [ -z "${DATA:-}" ]; then
  data=$out/data
  echo "Simulating videos"
  . experiments/simulated_data.sh
  quick=(--gin_file=quickstart.gin --config_file=experiments/quickstart.yaml)
  finetune_steps=(--gin_params=yt8m_distill.train_steps=120 --gin_params=yt8m_distill.learning_rate=1e-3)
fi
records() {  # SPLIT: prints the pattern of its records.
  local pattern
  for pattern in "$data/$1*.tfrecord" "$data/$1/*.tfrecord"; do
    ! compgen -G "$pattern" >/dev/null || { echo "$pattern"; return; }
  done
  echo "DATA=$data holds neither $1*.tfrecord nor $1/*.tfrecord." >&2
  exit 2
}
train_path=$(records train)
validation_path=$(records validate)

. experiments/stage.sh
run() {  # EXPERIMENT MODE GIN_FILE FOLDER [flags]
  local experiment=$1 mode=$2 gin_file=$3 folder=$4
  shift 4
  "$python" -m yt8m_distill.train --experiment="$experiment" --mode="$mode" \
    --gin_file="$gin_file" "${quick[@]}" --model_dir="$out/$folder" \
    --gin_params="yt8m_distill.validation_path='$validation_path'" "$@" "${flags[@]}"
}
train_data="--gin_params=yt8m_distill.train_path='$train_path'"

stage train "1/5 Training teacher and student" \
  run yt8m_distill train train.gin distilled "$train_data"
stage validate "2/5 Validating both" \
  run yt8m_distill eval evaluate.gin distilled
# Left by a stage that was killed after it had written its output.
[ -e "$out/convert.complete" ] || rm -rf "$out/student"
stage convert "3/5 Extracting the student" \
  "$python" -m yt8m_distill.checkpoints.extract_student "$out/distilled" "$out/student"
stage finetune "4/5 Fine-tuning the student" \
  run yt8m_distill_finetune train finetune.gin finetuned "$train_data" \
  --gin_params="yt8m_distill.init_checkpoint='$out/student'" "${finetune_steps[@]}"
stage evaluate "5/5 Evaluating the fine-tuned student" \
  run yt8m_distill_finetune eval evaluate.gin finetuned
stage alone "For comparison: training the student's network without a teacher" \
  run yt8m_distill_single train_and_eval train.gin alone "$train_data"

"$python" -m yt8m_distill.evaluation.report "$out/distilled" "$out/finetuned" \
  "$out/alone"
