# Sourced by the scripts after environment.sh: simulates frames of real videos, of the
# video-level shards validate*.tfrecord in $data or its folder validate.
[ ! -d "$data/validate" ] || data=$data/validate
simulate() {  # FOLDER SPLIT SHARDS VIDEOS
  "$python" -m yt8m_distill.simulation.write_shards --output_dir="$1" \
    --split="$2" --num_videos="$4" --video_level="$data/validate00$3.tfrecord"
}
