"""From TFRecord files to batches of frames and labels."""
