# Sourced by the scripts after environment.sh: simulates videos in $data.
# Writes 1,600 + 400 of them (480 MB); keeps what an earlier call has written.
for split in train:1600 validate:400; do
  "$python" -m yt8m_distill.simulation.write_shards --output_dir="$data" \
    --split="${split%:*}" --num_videos="${split#*:}" --videos_per_shard=200 \
    --num_classes=50 --seed=1
done
