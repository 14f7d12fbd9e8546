#!/usr/bin/env bash
# Runs the paper's comparisons on real frames: the audio features of AudioSet.
#
#   DATA=audioset_v1_embeddings bash experiments/audioset.sh [OUT]
#
# DATA holds folders of frame-level shards: bal_train (or train) and eval. Every
# fifth file of the training set is held out. The script trains on the others and
# evaluates on eval; VALIDATE=held_out evaluates on the files that are held out,
# from which audioset_tuning.yaml chose rates and lengths.
#
# STUDY (experiments/study/audioset.yaml) runs in a folder of OUT
# (runs/audioset) named after the file, which gets a folder per run and report.md.
# WORKERS (2) runs go in parallel. The same command again skips what is finished
# and resumes what was stopped.
set -euo pipefail
out=$(realpath -m "${1:-runs/audioset}")
data=$(realpath "${DATA:?is not set: name a folder with bal_train and eval}")
study=$(realpath "${STUDY:-$(dirname "$0")/study/audioset.yaml}")
validate=${VALIDATE:-eval}
cd "$(dirname "$0")/.."
case $validate in
  eval | held_out) ;;
  *) echo "VALIDATE is $validate: choose eval or held_out." >&2; exit 2 ;;
esac
train=$data/bal_train
[ -d "$train" ] || train=$data/train
shopt -s nullglob
training=() held_out=() shards=("$train"/*.tfrecord) eval=("$data/eval"/*.tfrecord)
for index in "${!shards[@]}"; do
  if ((index % 5 == 4)); then held_out+=("${shards[index]}")
  else training+=("${shards[index]}"); fi
done
[ ${#held_out[@]} -gt 0 ] && [ ${#eval[@]} -gt 0 ] || {
  echo "DATA=$data: bal_train (or train) holds ${#shards[@]} files *.tfrecord and" \
    "eval ${#eval[@]}: give at least 5 and 1." >&2
  exit 2
}
. experiments/environment.sh
"$python" -m experiments.scripts.claim "$out" "DATA=$data"
# Lists, because the paths of all files of a release are too long for one argument.
for split in training held_out eval; do
  declare -n files=$split
  printf '%s\n' "${files[@]}" >"$out/$split.txt"
done

"$python" -m experiments.study --config="$study" \
  --output_dir="$out/$(basename "$study" .yaml)" --workers="${WORKERS:-2}" \
  --gin_params="yt8m_distill.train_path='@$out/training.txt'" \
  --gin_params="yt8m_distill.validation_path='@$out/$validate.txt'"
