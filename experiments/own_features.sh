#!/usr/bin/env bash
# Trains a teacher and a student on frame features of your own, here random ones.
#
#   bash experiments/own_features.sh [RUN]
#
# Writes records and a vocabulary to RUN/data, trains both networks in parallel,
# evaluates them, writes a table and a plot to RUN (default runs/own_features), and
# predicts the validation videos with the names of the classes. The same command
# again resumes a stopped run.
set -euo pipefail
run=$(realpath -m "${1:-runs/own_features}")
cd "$(dirname "$0")/.."
. experiments/environment.sh
data=$run/data

echo "1/4 Writing records and vocabulary"
[ -e "$data/vocabulary.csv" ] || "$python" -m experiments.scripts.own_features "$data"

echo "2/4 Training teacher and student"
# The teacher's chunks divide max_frames, the student's its max_frames / every_n.
"$python" -m yt8m_distill.train --experiment=yt8m_distill \
  --mode=train_and_eval --gin_file=train.gin --model_dir="$run" \
  --config_file=experiments/own_features.yaml \
  --params_override="task.evaluation.vocabulary=$data/vocabulary.csv" \
  --gin_params="yt8m_distill.train_path='$data/train*.tfrecord'" \
  --gin_params="yt8m_distill.validation_path='$data/validate*.tfrecord'" \
  --gin_params=yt8m_distill.num_classes=20 \
  --gin_params=yt8m_distill.max_frames=60 --gin_params=yt8m_distill.every_n=10 \
  --gin_params=yt8m_distill.teacher_chunks=6 --gin_params=yt8m_distill.student_chunks=2 \
  --gin_params=yt8m_distill.num_cells=64 --gin_params=yt8m_distill.batch_size=50 \
  --gin_params=yt8m_distill.learning_rate=5e-3 --gin_params=yt8m_distill.train_steps=200

echo "3/4 Reporting"
"$python" -m yt8m_distill.evaluation.report "$run"

echo "4/4 Predicting"
"$python" -m yt8m_distill.serving.predict --model="$run/best_ckpt" --format=parquet \
  --top_k=3 --input_path="$data/validate*.tfrecord" --output_dir="$run/predictions"
"$python" -c 'import sys, pandas
rows = pandas.read_parquet(sys.argv[1], columns=["id", "class_names", "probabilities"])
print(rows.head().to_string(index=False))' \
  "$run/predictions/validate0000.parquet"
