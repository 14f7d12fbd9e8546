# Sourced after environment.sh: writes simulated videos to $data, 1,600 to train
# on and 400 to validate on (480 MB). Skips a split that is complete.
for split in train:1600 validate:400; do
  [ -e "$data/${split%:*}.complete" ] && continue
  rm -f "$data/${split%:*}"*
  "$python" -m yt8m_distill.simulation.write_shards --output_dir="$data" \
    --split="${split%:*}" --num_videos="${split#*:}" --videos_per_shard=200 \
    --num_classes=50 --seed=1
  touch "$data/${split%:*}.complete"
done
