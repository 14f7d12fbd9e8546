"""From video files to the features of YouTube-8M."""
