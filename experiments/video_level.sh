#!/usr/bin/env bash
# Trains a mixture of experts and a logistic regression on the mean features in
# video-level records of the 2018 release. Prints one table.
#
#   DATA=yt8m/2/video/validate bash experiments/video_level.sh [OUT [flags]]
#
# DATA is a folder of labeled shards: the last fifth is for validation, the rest
# for training. OUT (default runs/video_level) gets a folder for each network.
# The same command again resumes a stopped training. Flags go to both
# trainings, such as --gin_params=yt8m_distill.seed=1.
set -euo pipefail
out=$(realpath -m "${1:-runs/video_level}")
[ $# -eq 0 ] || shift
data=$(realpath "${DATA:?is not set: name a folder of video-level shards}")
cd "$(dirname "$0")/.."
shards=("$data"/*.tfrecord)
held_out=$((${#shards[@]} / 5))
[ "$held_out" -gt 0 ] || {
  echo "DATA=$data holds fewer than 5 shards: give at least 5." >&2; exit 2; }
. experiments/environment.sh
"$python" -m experiments.scripts.claim "$out" "DATA=$data" "flags=$*"

# Lists, because the paths of all files of a release are too long for one argument.
printf '%s\n' "${shards[@]:0:${#shards[@]} - held_out}" >"$out/train.txt"
printf '%s\n' "${shards[@]: -held_out}" >"$out/validate.txt"

for head in moe logistic; do
  echo "Training $head"
  "$python" -m yt8m_distill.train --experiment=yt8m_distill_single \
    --mode=train_and_eval --gin_file=train.gin --gin_file=average.gin \
    --config_file=experiments/video_2018.yaml --model_dir="$out/$head" \
    --gin_params="yt8m_distill.train_path='@$out/train.txt'" \
    --gin_params="yt8m_distill.validation_path='@$out/validate.txt'" \
    --gin_params="yt8m_distill.head='$head'" --gin_params=yt8m_distill.batch_size=128 \
    --gin_params=yt8m_distill.learning_rate=0.01 --gin_params=yt8m_distill.train_steps=1500 \
    "$@"
done
"$python" -m yt8m_distill.evaluation.report "$out/moe" "$out/logistic"
